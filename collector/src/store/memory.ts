// The store of one collector: producer positions in memory and, with a folder, a log on disk.
//
// Recovery reads the newest snapshot that is whole, then the log after it. The log before it is only
// read for the batches that are still kept. Nothing on disk can keep the collector from starting.

import type { Loss, Step } from '../ingest/producers.js';
import type { ProducerState } from '../ingest/report.js';
import type { RollbackEntry } from '../rollback/store-entries.js';
import { Claims } from './claims.js';
import { encodeBatch, encodeJson, RECORD, type Frame } from './frames.js';
import { Journal, type JournalFile } from './journal.js';
import { lockFolder } from './lock.js';
import { announceRecord, Positions, type FinishRecord } from './positions.js';
import { capture, flowOf, replayFrame, restoreFrame, type Deciders } from './replay.js';
import type {
  PutResult,
  PutRollback,
  Recovery,
  SnapshotSource,
  Store,
  StoreLog,
  StoreStats,
  StoredBatch,
  StoredLife,
  Taken,
} from './store.js';

export interface MemoryStoreOptions {
  /** Folder of the log; absent: nothing outlives the process. */
  readonly dataDir?: string;
  /** Log files without a use for recovery are kept for their batches for this long, ms. */
  readonly retainMs: number;
  /** Bytes of log files kept for their batches, at most; oldest go first. */
  readonly logBytesMax: number;
  /** Producers remembered, at most; those unheard for longest go first. */
  readonly positionsMax: number;
  readonly log: StoreLog;
}

/** A new snapshot is due when the log since the last has this many bytes, or is this old and not empty. */
const SNAPSHOT_BYTES = 32 * 1024 * 1024;
const SNAPSHOT_MS = 5 * 60_000;

/** How often that is looked at, ms. */
const CHECK_MS = 1000;

/** Snapshots kept: the newest, and one more in case it cannot be read. */
const SNAPSHOTS_KEPT = 2;

export class MemoryStore implements Store {
  private readonly deciders: Deciders;
  private journal: Journal | undefined;
  private source: SnapshotSource | undefined;
  private unlock: (() => void) | undefined;
  private timer: NodeJS.Timeout | undefined;
  private lastSnapshotMs = 0;
  private writeErrors = 0;
  private quarantined = 0;
  private closing: Promise<void> | undefined;
  /** Puts not yet settled, and the snapshot that new ones wait for: see `snapshot`. */
  private unsettled = new Set<Promise<unknown>>();
  private gate: Promise<void> | undefined;

  constructor(private readonly options: MemoryStoreOptions) {
    this.deciders = { positions: new Positions(options.positionsMax), claims: new Claims() };
  }

  async open(recovery: Recovery, source: SnapshotSource): Promise<void> {
    this.source = source;
    const { dataDir, log } = this.options;
    if (dataDir === undefined) return;
    this.unlock = await lockFolder(dataDir);
    try {
      this.journal = await Journal.open(dataDir, {
        writeFailed: error => this.onWriteFailed(error),
        quarantined: (path, offset, bytes) => {
          this.quarantined += 1;
          log.error({ path, offset, bytes }, 'records that cannot be read were put aside; start goes on without them');
        },
      });
      await this.recover(this.journal, recovery);
    } catch (error) {
      this.onWriteFailed(error as Error);
      log.error(
        { dataDir, err: error },
        'the data folder cannot be used; what is stored now will not outlive the process',
      );
    }
    await this.snapshot();
    this.timer = setInterval(() => void this.maintain(), CHECK_MS);
    this.timer.unref();
  }

  async putLife(life: StoredLife): Promise<void> {
    await this.write(() => this.append(() => encodeJson(RECORD.LIFE, life)));
  }

  async putBatches(
    batches: readonly StoredBatch[],
    taken?: (batch: StoredBatch, result: Taken) => void,
  ): Promise<PutResult[]> {
    const { value, durable } = await this.write(() =>
      batches.map(batch => {
        const { fresh, position, loss } = this.takeBatch(batch);
        const result = { fresh, seq: position.seq, loss };
        taken?.(batch, result);
        return result;
      }),
    );
    return value.map(result => ({ ...result, durable }));
  }

  async putRollback(entries: readonly RollbackEntry[]): Promise<PutRollback> {
    const { value, durable } = await this.write(() =>
      entries.map(entry => {
        const stands = this.deciders.claims.take(entry);
        if (stands) this.append(() => encodeJson(RECORD.ROLLBACK, entry));
        return stands;
      }),
    );
    return { durable, stands: value };
  }

  async announce(cuid: string, proxyId: string, producers: readonly ProducerState[]): Promise<Loss> {
    const { value } = await this.write(() => {
      const record = announceRecord(cuid, proxyId, producers);
      this.append(() => encodeJson(RECORD.ANNOUNCE, record));
      return this.deciders.positions.announce(record);
    });
    return value;
  }

  async finish(cuid: string, proxyId: string, producers: readonly string[]): Promise<Loss> {
    const { value } = await this.write(() => {
      const record: FinishRecord = { cuid, proxyId, producers };
      this.append(() => encodeJson(RECORD.FINISH, record));
      return this.deciders.positions.finish(record);
    });
    return value;
  }

  stats(): StoreStats {
    return {
      durable: this.journal?.healthy ?? false,
      positions: this.deciders.positions.size,
      positionsEvicted: this.deciders.positions.evicted,
      bytes: this.journal?.bytes ?? 0,
      writeErrors: this.writeErrors,
      quarantined: this.quarantined,
    };
  }

  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  /** Runs one change, and settles when what it appended is on disk. */
  private async write<T>(change: () => T): Promise<{ value: T; durable: boolean }> {
    while (this.gate !== undefined) await this.gate;
    if (this.closing !== undefined) throw new Error('the store is closed');
    const value = change();
    if (this.journal === undefined) return { value, durable: false };
    const commit = this.journal.commit();
    this.unsettled.add(commit);
    const durable = await commit;
    this.unsettled.delete(commit);
    return { value, durable };
  }

  /** @param encode not called without a log */
  private append(encode: () => Buffer): void {
    this.journal?.append(encode());
  }

  private takeBatch(stored: StoredBatch): Step {
    const step = this.deciders.positions.batch(stored);
    const { cuid, proxyId, receivedUs } = stored;
    if (step.fresh) this.append(() => encodeBatch({ cuid, proxyId, receivedUs }, stored.batch.bytes));
    return step;
  }

  private async recover(journal: Journal, recovery: Recovery): Promise<void> {
    const { from, flow } = await this.readSnapshot(journal, recovery);
    const files = await journal.files('journal');
    for (const file of files.filter(file => file.number < from)) {
      await journal.read(file, frame => replayFrame(frame, this.deciders, recovery, true));
    }
    if (flow !== undefined) recovery.flow(flow);
    for (const file of files.filter(file => file.number >= from)) {
      await journal.read(file, frame => replayFrame(frame, this.deciders, recovery, false));
    }
  }

  /** From which number the log has to be replayed (0 when there is no whole snapshot), and the flow. */
  private async readSnapshot(journal: Journal, recovery: Recovery): Promise<{ from: number; flow?: unknown }> {
    const newestFirst = (await journal.files('snapshot')).reverse();
    for (const file of newestFirst) {
      const frames: Frame[] = [];
      const whole = await journal.read(file, frame => frames.push(frame));
      if (!whole || frames.at(-1)?.type !== RECORD.END) continue;
      for (const frame of frames) restoreFrame(frame, this.deciders, recovery);
      return { from: file.number, flow: flowOf(frames) };
    }
    return { from: 0 };
  }

  /**
   * Starts the log afresh from what the owners hold now. Owners apply losses when an announcement
   * settles, so new puts wait while those under way settle and are applied: otherwise one could be in
   * the log before the snapshot and yet not in the snapshot's counts.
   */
  private async snapshot(): Promise<void> {
    const { journal, source } = this;
    if (journal === undefined || source === undefined) return;
    let release = (): void => undefined;
    this.gate = new Promise(resolve => (release = resolve));
    try {
      await Promise.all(this.unsettled);
      await new Promise(resolve => setImmediate(resolve));
      const frames = capture(source, this.deciders);
      const moved = journal.moveOn();
      this.gate = undefined;
      release();
      const number = await moved;
      await journal.writeSnapshot(number, frames);
      await this.prune(journal);
    } catch (error) {
      this.onWriteFailed(error as Error);
    } finally {
      this.gate = undefined;
      release();
      this.lastSnapshotMs = performance.now();
    }
  }

  private async prune(journal: Journal): Promise<void> {
    const snapshots = await journal.files('snapshot');
    const kept = snapshots.slice(-SNAPSHOTS_KEPT);
    for (const file of snapshots.slice(0, -SNAPSHOTS_KEPT)) await journal.remove(file);
    const needed = kept[0]?.number ?? 0;
    const oldest = Date.now() - this.options.retainMs;
    const spare = (await journal.files('journal')).filter(file => file.number < needed);
    for (const file of surplus(spare, oldest, this.options.logBytesMax)) await journal.remove(file);
  }

  private async maintain(): Promise<void> {
    const { journal } = this;
    if (journal === undefined || this.gate !== undefined || journal.bytes === 0) return;
    const due = journal.bytes >= SNAPSHOT_BYTES || performance.now() - this.lastSnapshotMs >= SNAPSHOT_MS;
    if (due) await this.snapshot();
  }

  private async shutDown(): Promise<void> {
    clearInterval(this.timer);
    while (this.gate !== undefined) await this.gate;
    await this.snapshot();
    await this.journal?.close();
    this.unlock?.();
  }

  private onWriteFailed(error: Error): void {
    this.writeErrors += 1;
    this.options.log.error({ err: error }, 'the log cannot be written; what is acknowledged now is not durable');
  }
}

/** Files to give up: those too old, then the oldest until the rest is within `bytesMax`. */
function surplus(files: readonly JournalFile[], oldestMs: number, bytesMax: number): JournalFile[] {
  let bytes = 0;
  return [...files].reverse().filter(file => {
    bytes += file.bytes;
    return file.modifiedMs < oldestMs || bytes > bytesMax;
  });
}
