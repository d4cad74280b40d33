// An append-only log in a folder: records are gathered, written and made durable together.
//
//     journal-00000007.log     records since snapshot 7 was taken
//     snapshot-00000007.log    everything the records before journal 7 amount to
//
// To start over from a snapshot, the log first moves on to the next number, so that each record lies
// on one side of it. Journals older than the snapshot stay for as long as their batches are kept.
//
// A disk that fails is survived: what cannot be written is acknowledged as not durable, and the log
// takes back what was half written, because such a record would hide all that follow it.

import { mkdir, open, readFile, readdir, rename, stat, unlink, writeFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { readFrames, type Frame } from './frames.js';

/** Records are made durable together: at the latest after this long, or at this size. */
const COMMIT_MS = 20;
const COMMIT_BYTES = 1024 * 1024;

/** After a write failed, the next try waits this long. */
const RETRY_MS = 1000;

/** A file of ours has a tenth of it; one that is larger is not read, because it would take as much memory. */
const FILE_BYTES_MAX = 2 ** 30;

/** A snapshot until it is complete. There is one at a time, so what a crash leaves is overwritten. */
const DRAFT = 'snapshot.tmp';

/** Records of a snapshot are written together up to this size. */
const CHUNK_BYTES = 1024 * 1024;

const NAME = /^(journal|snapshot)-(\d{8})\.log$/;

export interface JournalFile {
  readonly path: string;
  readonly number: number;
  readonly bytes: number;
  readonly modifiedMs: number;
}

/** What happens to the log that someone should know. */
export interface JournalEvents {
  writeFailed(error: Error): void;
  quarantined(path: string, offset: number, bytes: number): void;
}

export class Journal {
  private pending: Buffer[] = [];
  private pendingBytes = 0;
  private waiters: ((durable: boolean) => void)[] = [];
  private timer: NodeJS.Timeout | undefined;
  private flushing: Promise<void> = Promise.resolve();
  private file: FileHandle | undefined;
  private retryAtMs = 0;
  private closed = false;
  /** Bytes written to the current file. */
  bytes = 0;
  healthy = true;

  private constructor(
    private readonly folder: string,
    private number: number,
    private readonly events: JournalEvents,
  ) {}

  /** Opens the folder, making it if it is missing. Nothing is written yet. */
  static async open(folder: string, events: JournalEvents): Promise<Journal> {
    await mkdir(folder, { recursive: true });
    const all = [...(await list(folder, 'journal')), ...(await list(folder, 'snapshot'))];
    return new Journal(folder, Math.max(0, ...all.map(file => file.number)) + 1, events);
  }

  files(kind: 'journal' | 'snapshot'): Promise<JournalFile[]> {
    return list(this.folder, kind);
  }

  /** Reads one file; a bad record and all behind it are put aside under another name. */
  async read(file: JournalFile, visit: (frame: Frame) => void): Promise<boolean> {
    const bytes = await this.contentOf(file);
    if (bytes === undefined) return false;
    const good = readFrames(bytes, visit);
    if (good === bytes.length) return true;
    await this.quarantine(file, bytes.subarray(good), good);
    return false;
  }

  /** Undefined for a file that cannot be read at all: it is put aside whole, and the others are read. */
  private async contentOf(file: JournalFile): Promise<Buffer | undefined> {
    try {
      if (file.bytes <= FILE_BYTES_MAX) return await readFile(file.path);
    } catch (error) {
      this.events.writeFailed(error as Error);
    }
    this.events.quarantined(file.path, 0, file.bytes);
    await rename(file.path, `${file.path}.corrupt-0`).catch((error: unknown) =>
      this.events.writeFailed(error as Error),
    );
    return undefined;
  }

  /** Adds a record. It is durable once a `commit` called afterwards says so. */
  append(frame: Buffer): void {
    this.pending.push(frame);
    this.pendingBytes += frame.length;
    if (this.pendingBytes >= COMMIT_BYTES) this.flushNow();
    else this.timer ??= setTimeout(() => this.flushNow(), COMMIT_MS);
  }

  /** Settles when all records so far are on disk (true) or could not be put there (false). */
  commit(): Promise<boolean> {
    if (this.pending.length === 0) return this.flushing.then(() => this.healthy);
    return new Promise(resolve => this.waiters.push(resolve));
  }

  /** Goes on in a file of the next number, and returns that number. */
  async moveOn(): Promise<number> {
    this.flushNow();
    this.flushing = this.flushing.then(() => this.closeFile());
    await this.flushing;
    return this.number;
  }

  /** Writes a snapshot of the given number: complete under its name, or not there at all. */
  async writeSnapshot(number: number, frames: readonly Buffer[]): Promise<void> {
    const path = join(this.folder, fileName('snapshot', number));
    const draft = join(this.folder, DRAFT);
    const file = await open(draft, 'w');
    try {
      for (const bytes of chunks(frames)) await file.writeFile(bytes);
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
    await this.syncFolder();
  }

  async remove(file: JournalFile): Promise<void> {
    await unlink(file.path);
  }

  /** Puts what is pending on disk and closes the file. */
  async close(): Promise<void> {
    if (this.closed) return this.flushing;
    this.closed = true;
    this.retryAtMs = 0;
    await this.moveOn();
  }

  private flushNow(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.pending.length === 0) return;
    const { pending, waiters } = this;
    this.pending = [];
    this.pendingBytes = 0;
    this.waiters = [];
    this.flushing = this.flushing.then(async () => {
      this.healthy = await this.write(pending);
      for (const settle of waiters) settle(this.healthy);
    });
  }

  private async write(frames: Buffer[]): Promise<boolean> {
    if (performance.now() < this.retryAtMs) return false;
    try {
      const bytes = Buffer.concat(frames);
      const file = (this.file ??= await this.openFile());
      let written = 0;
      while (written < bytes.length) written += (await file.write(bytes, written)).bytesWritten;
      await file.datasync();
      this.bytes += bytes.length;
      return true;
    } catch (error) {
      this.events.writeFailed(error as Error);
      this.retryAtMs = performance.now() + RETRY_MS;
      await this.cutBack();
      return false;
    }
  }

  /** Takes back what was half written; if even that fails, goes on in another file. */
  private async cutBack(): Promise<void> {
    try {
      await this.file?.truncate(this.bytes);
    } catch {
      await this.closeFile();
    }
  }

  private async openFile(): Promise<FileHandle> {
    const file = await open(join(this.folder, fileName('journal', this.number)), 'a');
    await this.syncFolder();
    return file;
  }

  private async closeFile(): Promise<void> {
    const file = this.file;
    this.file = undefined;
    this.bytes = 0;
    this.number += 1;
    // A file that cannot even be closed has already been reported as not written.
    await file?.close().catch((error: unknown) => this.events.writeFailed(error as Error));
  }

  private async syncFolder(): Promise<void> {
    const folder = await open(this.folder, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }

  private async quarantine(file: JournalFile, tail: Buffer, offset: number): Promise<void> {
    this.events.quarantined(file.path, offset, tail.length);
    try {
      await writeFile(`${file.path}.corrupt-${offset}`, tail);
      const whole = await open(file.path, 'r+');
      await whole.truncate(offset);
      await whole.close();
    } catch (error) {
      this.events.writeFailed(error as Error);
    }
  }
}

function* chunks(frames: readonly Buffer[]): Iterable<Buffer> {
  let from = 0;
  let bytes = 0;
  for (let i = 0; i < frames.length; i++) {
    bytes += frames[i]!.length;
    if (bytes < CHUNK_BYTES && i < frames.length - 1) continue;
    yield Buffer.concat(frames.slice(from, i + 1));
    from = i + 1;
    bytes = 0;
  }
}

const fileName = (kind: string, number: number): string => `${kind}-${String(number).padStart(8, '0')}.log`;

/** Files of one kind, oldest first. */
async function list(folder: string, kind: 'journal' | 'snapshot'): Promise<JournalFile[]> {
  const files: JournalFile[] = [];
  for (const name of await readdir(folder)) {
    const match = NAME.exec(name);
    if (match?.[1] !== kind) continue;
    const path = join(folder, name);
    const { size, mtimeMs } = await stat(path);
    files.push({ path, number: Number(match[2]), bytes: size, modifiedMs: mtimeMs });
  }
  return files.sort((a, b) => a.number - b.number);
}
