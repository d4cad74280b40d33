// Hourly files of JSON lines in a folder.
//
//     events-2026-11-21T19-HOST-1795287600123.jsonl.gz        finished: nothing is written to it any more
//     events-2026-11-21T20-HOST-1795291200042.jsonl.gz.part   the hour that runs
//
// A file gets its name when it is complete. After a crash the part that is left is cut back to its last whole member and
// finished; the hour goes on in the next file. The number is when the file was begun, ms since 1970: files that were taken
// away leave no name to be used again. Hours are those in which rows were received, by UTC. Several collectors
// may share a folder when their hosts have different names.

import { mkdir, open, readdir, rename, stat, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { HEADER_BYTES, isWhole, lengthOf } from './members.js';

/** A file goes on in the next one at this size. */
export const FILE_BYTES_MAX = 256 * 1024 * 1024;

const PART = '.part';

const HOUR_US = 3600 * 1e6;

export interface FilesOptions {
  readonly folder: string;
  /** Part of every name. */
  readonly host: string;
  /** Bytes of finished files, at most; the oldest go first. */
  readonly bytesMax: number;
}

export interface FilesEvents {
  /** A part was cut by `bytes` that were no whole member. */
  recovered(path: string, bytes: number): void;
  /** A finished file went for want of room. */
  removed(path: string, bytes: number): void;
}

interface Finished {
  readonly name: string;
  readonly bytes: number;
}

export class HourlyFiles {
  private file: FileHandle | undefined;
  private path = '';
  private hour = '';
  private bytes = 0;
  private finished: Finished[] = [];
  private lastMs = 0;
  private readonly pattern: RegExp;

  private constructor(
    private readonly options: FilesOptions,
    private readonly events: FilesEvents,
  ) {
    const host = options.host.replace(/[.]/g, '\\.');
    this.pattern = new RegExp(`^events-(\\d{4}-\\d{2}-\\d{2}T\\d{2})-${host}-(\\d{13,})\\.jsonl\\.gz(\\.part)?$`);
  }

  /** Makes the folder if it is missing, and finishes what a crash left. */
  static async open(options: FilesOptions, events: FilesEvents): Promise<HourlyFiles> {
    const files = new HourlyFiles(options, events);
    await mkdir(options.folder, { recursive: true });
    for (const name of (await readdir(options.folder)).sort()) {
      const match = files.pattern.exec(name);
      if (match === null) continue;
      if (match[3] === PART) await files.recover(name);
      else files.finished.push({ name, bytes: (await stat(join(options.folder, name))).size });
    }
    files.finished.sort((a, b) => (a.name < b.name ? -1 : 1));
    await files.makeRoom();
    return files;
  }

  /** Bytes of all files of this host. */
  get size(): number {
    return this.finished.reduce((sum, file) => sum + file.bytes, this.bytes);
  }

  /**
   * Appends one member; settles when it is on disk. A member that could not be written whole is taken back.
   *
   * @param receivedUs of the newest row in it: it decides the hour
   * @throws what the file system says
   */
  async append(member: Buffer, receivedUs: number): Promise<void> {
    await this.turn(receivedUs);
    if (this.bytes + member.length > FILE_BYTES_MAX) await this.finish();
    const file = (this.file ??= await this.begin(receivedUs));
    try {
      let written = 0;
      while (written < member.length) {
        written += (await file.write(member, written, member.length - written, this.bytes + written)).bytesWritten;
      }
      await file.datasync();
      this.bytes += member.length;
    } catch (error) {
      // What lies behind `bytes` is written over by the next try; without the room for even that, a restart cuts it.
      await file.truncate(this.bytes).catch(() => undefined);
      throw error;
    }
  }

  /** Finishes the file when its hour is over. */
  async turn(nowUs: number): Promise<void> {
    if (this.file !== undefined && hourOf(nowUs) !== this.hour) await this.finish();
  }

  /** Gives the running file its name. */
  async finish(): Promise<void> {
    const { file, path, bytes } = this;
    if (file === undefined) return;
    this.file = undefined;
    this.bytes = 0;
    await file.close();
    await this.name(path, bytes);
    await this.makeRoom();
  }

  private async begin(receivedUs: number): Promise<FileHandle> {
    this.hour = hourOf(receivedUs);
    this.path = join(this.options.folder, `${this.nameOf(this.hour)}${PART}`);
    const file = await open(this.path, 'wx');
    await this.syncFolder();
    return file;
  }

  private nameOf(hour: string): string {
    this.lastMs = Math.max(this.lastMs + 1, Date.now());
    return `events-${hour}-${this.options.host}-${this.lastMs}.jsonl.gz`;
  }

  private async name(part: string, bytes: number): Promise<void> {
    const path = part.slice(0, -PART.length);
    await rename(part, path);
    await this.syncFolder();
    this.finished.push({ name: path.slice(this.options.folder.length).replace(/^\/+/, ''), bytes });
  }

  private async recover(name: string): Promise<void> {
    const path = join(this.options.folder, name);
    const file = await open(path, 'r+');
    let good: number;
    try {
      const { size } = await file.stat();
      good = await wholeBytes(file, size);
      if (good < size) await file.truncate(good);
      await file.datasync();
      this.events.recovered(path, size - good);
    } finally {
      await file.close();
    }
    if (good === 0) await unlink(path);
    else await this.name(path, good);
  }

  private async makeRoom(): Promise<void> {
    let bytes = this.finished.reduce((sum, file) => sum + file.bytes, 0);
    while (bytes > this.options.bytesMax) {
      const oldest = this.finished.shift()!;
      bytes -= oldest.bytes;
      const path = join(this.options.folder, oldest.name);
      try {
        await unlink(path);
        this.events.removed(path, oldest.bytes);
      } catch (error) {
        // Whoever collects the files may take them away.
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      }
    }
  }

  private async syncFolder(): Promise<void> {
    const folder = await open(this.options.folder, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }
}

/** `2026-11-21T19`, by UTC. */
export const hourOf = (us: number): string => new Date(Math.floor(us / HOUR_US) * 3_600_000).toISOString().slice(0, 13);

/**
 * Bytes up to the end of the last whole member. Only the last is unpacked: each one before it was on disk before the
 * next was begun.
 */
async function wholeBytes(file: FileHandle, size: number): Promise<number> {
  const header = Buffer.alloc(HEADER_BYTES);
  const ends = [0];
  for (;;) {
    const at = ends.at(-1)!;
    const { bytesRead } = await file.read(header, 0, HEADER_BYTES, at);
    const length = lengthOf(header.subarray(0, bytesRead));
    if (length === undefined || at + length > size) break;
    ends.push(at + length);
  }
  while (ends.length > 1) {
    const end = ends.pop()!;
    const start = ends.at(-1)!;
    const member = Buffer.alloc(end - start);
    await file.read(member, 0, member.length, start);
    if (isWhole(member)) return end;
  }
  return 0;
}
