/** A log that several stores of one process share: what Redis is for collectors, without Redis. */
import { randomBytes } from 'node:crypto';
import type { Loss } from '../../../collector/src/ingest/producers.js';
import type { ProducerState } from '../../../collector/src/ingest/report.js';
import type { RollbackEntry } from '../../../collector/src/rollback/store-entries.js';
import { Claims } from '../../../collector/src/store/claims.js';
import { encodeBatch, encodeJson, readFrames, RECORD } from '../../../collector/src/store/frames.js';
import { announceRecord, Positions } from '../../../collector/src/store/positions.js';
import { replayFrame } from '../../../collector/src/store/replay.js';
import type { Bus, Shared } from '../../../collector/src/store/shared.js';
import type {
  PutResult,
  PutRollback,
  Recovery,
  Store,
  StoredBatch,
  StoredLife,
  StoreStats,
  Taken,
} from '../../../collector/src/store/store.js';

interface LogRecord {
  readonly from: LogStore;
  readonly frame: Buffer;
  /** What its own store does when it is read. */
  readonly own: () => void;
}

export class SharedLog {
  readonly records: LogRecord[] = [];
  readonly stores = new Set<LogStore>();
  turn = 0;

  open(): LogStore {
    const store = new LogStore(this);
    this.stores.add(store);
    return store;
  }

  append(record: LogRecord): void {
    this.records.push(record);
    for (const store of this.stores) store.wake();
  }
}

export class LogStore implements Store, Shared, Bus {
  readonly replicaId = randomBytes(8).toString('hex');
  readonly deciders = { positions: new Positions(1000), claims: new Claims() };
  private at = 0;
  private awake = false;
  private cutAtMs: number | undefined;
  private waiting: LogRecord[] = [];
  private handler: (from: string, bytes: Buffer) => void = () => undefined;
  private recovery: Recovery | undefined;

  constructor(private readonly log: SharedLog) {}

  get shared(): Shared {
    return this;
  }

  get bus(): Bus {
    return this;
  }

  /** Reads nothing until it is let go on: what is put meanwhile has its place. */
  held = false;

  /** Cut off from the log and from the others, until healed. */
  cut(): void {
    this.cutAtMs = performance.now();
  }

  heal(): void {
    this.cutAtMs = undefined;
    for (const record of this.waiting.splice(0)) this.log.append(record);
    this.wake();
  }

  staleMs(): number {
    return this.cutAtMs === undefined ? 0 : performance.now() - this.cutAtMs;
  }

  lease(): Promise<boolean> {
    return Promise.resolve(true);
  }

  release(): Promise<void> {
    return Promise.resolve();
  }

  publish(bytes: Buffer): void {
    if (this.cutAtMs !== undefined) return;
    const copy = Buffer.from(bytes);
    for (const other of this.log.stores) {
      if (other !== this && other.cutAtMs === undefined) setImmediate(() => other.handler(this.replicaId, copy));
    }
  }

  subscribe(handler: (from: string, bytes: Buffer) => void): void {
    this.handler = handler;
  }

  open(recovery: Recovery): Promise<void> {
    this.recovery = recovery;
    this.read();
    return Promise.resolve();
  }

  putLife(life: StoredLife): Promise<void> {
    return this.put(encodeJson(RECORD.LIFE, life), () => undefined);
  }

  putBatches(
    batches: readonly StoredBatch[],
    taken?: (batch: StoredBatch, result: Taken) => void,
  ): Promise<PutResult[]> {
    const puts = batches.map(batch => {
      const { cuid, proxyId, receivedUs } = batch;
      return this.put(encodeBatch({ cuid, proxyId, receivedUs }, batch.batch.bytes), () => {
        const { fresh, position, loss } = this.deciders.positions.batch(batch);
        const result = { fresh, seq: position.seq, loss };
        taken?.(batch, result);
        return { ...result, durable: true };
      });
    });
    return Promise.all(puts);
  }

  async putRollback(entries: readonly RollbackEntry[]): Promise<PutRollback> {
    const puts = entries.map(entry =>
      this.put(encodeJson(RECORD.ROLLBACK, entry), () => {
        const stands = this.deciders.claims.take(entry);
        if (stands && (entry.type === 'override' || entry.type === 'kill')) this.recovery!.rollback(entry, false);
        return stands;
      }),
    );
    return { durable: true, stands: await Promise.all(puts) };
  }

  announce(cuid: string, proxyId: string, producers: readonly ProducerState[]): Promise<Loss> {
    const record = announceRecord(cuid, proxyId, producers);
    return this.put(encodeJson(RECORD.ANNOUNCE, record), () => this.deciders.positions.announce(record));
  }

  finish(cuid: string, proxyId: string, producers: readonly string[]): Promise<Loss> {
    const record = { cuid, proxyId, producers };
    return this.put(encodeJson(RECORD.FINISH, record), () => this.deciders.positions.finish(record));
  }

  stats(): StoreStats {
    const { size, evicted } = this.deciders.positions;
    return { durable: true, positions: size, positionsEvicted: evicted, bytes: 0, writeErrors: 0, quarantined: 0 };
  }

  close(): Promise<void> {
    this.log.stores.delete(this);
    return Promise.resolve();
  }

  wake(): void {
    if (this.awake) return;
    this.awake = true;
    this.log.turn += 1;
    const read = (hops: number): unknown =>
      hops > 0 ? setImmediate(read, hops - 1) : ((this.awake = false), this.read());
    // No two stores read at the same time, and none is always the first.
    setImmediate(read, (this.log.turn * 7) % 4);
  }

  private put<T>(frame: Buffer, take: () => T): Promise<T> {
    return new Promise(resolve => {
      const record = { from: this, frame, own: () => resolve(take()) };
      if (this.cutAtMs === undefined) this.log.append(record);
      else this.waiting.push(record);
    });
  }

  private replay(bytes: Buffer, recovery: Recovery): void {
    readFrames(bytes, frame => replayFrame(frame, this.deciders, recovery, false));
  }

  private read(): void {
    if (this.cutAtMs !== undefined || this.held || this.recovery === undefined) return;
    while (this.at < this.log.records.length) {
      const { from, frame, own } = this.log.records[this.at++]!;
      if (from === this) own();
      else this.replay(frame, this.recovery);
    }
  }
}
