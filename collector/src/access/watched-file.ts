// Files that are read again when they change. What is wrong is refused whole, said once, and what was before stays.

import { existsSync, statSync } from 'node:fs';
import type { Logger } from '../log.js';

/** How often files are looked at, ms. */
const LOOK_MS = 1000;

export class WatchedFiles<T> {
  /** What is in force. */
  value: T;
  /** Why the files as they are now were refused; '' = they are in force. */
  refused = '';
  private seen: string;
  private lookMs = Number.NEGATIVE_INFINITY;

  /**
   * @param what  what the log calls it
   * @param load  reads and checks all of them
   * @throws what `load` throws: at start there is nothing to keep
   */
  constructor(
    private readonly what: string,
    private readonly paths: readonly string[],
    private readonly load: () => T,
    private readonly log: Logger,
  ) {
    // Before they are read, so that what changes meanwhile is seen; a file that is not there is what `load` tells of.
    this.seen = paths.every(path => existsSync(path)) ? this.stamp() : '';
    this.value = load();
  }

  /** Looks whether they changed, at most once a second; true when something else is in force. */
  look(nowMs: number): boolean {
    if (nowMs - this.lookMs < LOOK_MS) return false;
    this.lookMs = nowMs;
    try {
      const seen = this.stamp();
      if (seen === this.seen) return false;
      this.seen = seen;
      this.value = this.load();
      this.refused = '';
      this.log.info({ paths: this.paths }, `another ${this.what} is in force`);
      return true;
    } catch (error) {
      this.refuse((error as Error).message);
      return false;
    }
  }

  private refuse(why: string): void {
    if (why === this.refused) return;
    this.refused = why;
    this.log.warn({ paths: this.paths, why }, `the ${this.what} was refused; what was before stays in force`);
  }

  /** A rename onto a path, or a link that leads elsewhere, changes the inode even when size and time are the same. */
  private stamp(): string {
    return this.paths
      .map(path => {
        const { mtimeMs, size, ino } = statSync(path);
        return `${mtimeMs} ${size} ${ino}`;
      })
      .join('\n');
  }
}
