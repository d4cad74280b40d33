// The policy in force: read from its file, read again when the file changes, and kept when it is wrong.

import { readFileSync, statSync } from 'node:fs';
import { ConfigError } from '../errors.js';
import type { Logger } from '../log.js';
import type { Policy } from './policy.js';
import { DEFAULT_POLICY, parsePolicy, PolicyError } from './policy-file.js';

/** How often the file is looked at, ms. */
const LOOK_MS = 1000;

export interface PolicySource {
  readonly policy: Policy;
  /** The text in force; '' = the defaults. */
  readonly text: string;
  readonly path: string;
  readonly loadedUs: number;
  /** Why the file as it is now was refused; '' = it is in force. */
  readonly refused: string;
  /** Looks whether the file changed; true when another policy is in force. */
  look(nowUs: number, nowMs: number): boolean;
}

/** The defaults, without a file. */
export const defaultPolicy = (nowUs: number): PolicySource => ({
  policy: DEFAULT_POLICY,
  text: '',
  path: '',
  loadedUs: nowUs,
  refused: '',
  look: () => false,
});

export class PolicyFile implements PolicySource {
  policy: Policy;
  text: string;
  refused = '';
  private seen: string;
  private lookMs = Number.NEGATIVE_INFINITY;

  /** @throws ConfigError when the file cannot be read or is wrong: at start there is none to keep */
  constructor(
    readonly path: string,
    public loadedUs: number,
    private readonly log: Logger,
  ) {
    try {
      this.seen = stamp(path);
      this.text = readFileSync(path, 'utf8');
      this.policy = parsePolicy(this.text);
    } catch (error) {
      throw new ConfigError(`--rollback-policy ${path}: ${(error as Error).message}`);
    }
  }

  look(nowUs: number, nowMs: number): boolean {
    if (nowMs - this.lookMs < LOOK_MS) return false;
    this.lookMs = nowMs;
    try {
      const seen = stamp(this.path);
      if (seen === this.seen) return false;
      this.seen = seen;
      const text = readFileSync(this.path, 'utf8');
      this.policy = parsePolicy(text);
      this.text = text;
      this.loadedUs = nowUs;
      this.refused = '';
      this.log.info({ path: this.path }, 'another rollback policy is in force');
      return true;
    } catch (error) {
      this.refuse(error as Error);
      return false;
    }
  }

  private refuse(error: Error): void {
    const why = error.message;
    if (why === this.refused) return;
    this.refused = why;
    if (!(error instanceof PolicyError)) this.seen = '';
    this.log.warn({ path: this.path, why }, 'the rollback policy was refused; the one before stays in force');
  }
}

/** A rename onto the path changes the inode even when size and time are the same. */
function stamp(path: string): string {
  const { mtimeMs, size, ino } = statSync(path);
  return `${mtimeMs} ${size} ${ino}`;
}
