// The store of several collectors: one log in Redis that all of them append to and read.
//
// What decides (positions of producers, claims) is moved on by each replica for itself, in the order of the
// log, with the code that recovers a single collector from its disk. See docs/decisions/0006.

import { randomBytes } from 'node:crypto';
import { ConfigError } from '../../errors.js';
import type { Loss } from '../../ingest/producers.js';
import type { ProducerState } from '../../ingest/report.js';
import type { RollbackEntry } from '../../rollback/store-entries.js';
import { Claims } from '../claims.js';
import { encodeBatch, encodeJson, RECORD } from '../frames.js';
import { announceRecord, Positions, type FinishRecord } from '../positions.js';
import { capture, replayBlob, type Deciders } from '../replay.js';
import type { Shared } from '../shared.js';
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
} from '../store.js';
import { RedisBus } from './bus.js';
import { connect, persistently, ready, START_MS, type RedisAccess } from './connect.js';
import { FaultLog } from './fault-log.js';
import { faultOf } from './faults.js';
import { Keeper } from './keeper.js';
import { CONTROL_SHARD, Keys, shardOf, SHARDS } from './keys.js';
import { Lane, POLL_MS, type LaneOwner } from './lane.js';
import { Leases } from './leases.js';
import { loadAll } from './load.js';
import { HEADROOM, Puts } from './puts.js';
import type { Scripted } from './scripts.js';
import { ShardLog } from './shard-log.js';
import { sleep, turn } from './signal.js';
import { encodePlace, Snapshots } from './snapshots.js';

export interface RedisStoreOptions {
  readonly access: RedisAccess;
  /** In front of every key. */
  readonly prefix: string;
  /** Copies that have to confirm before something counts as durable; 0 = what is in the log of a Redis with AOF. */
  readonly waitFor: number;
  /** Blobs are kept for their batches for this long, ms. */
  readonly retainMs: number;
  /** Bytes of the log, at most, as far as snapshots cover it. */
  readonly logBytesMax: number;
  /** Producers remembered, at most. */
  readonly positionsMax: number;
  readonly log: StoreLog;
  /** This replica can no longer follow the log: it has to start over, as a new process. */
  readonly behind: (error: Error) => void;
  /** Bytes that wait for a Redis that is away, at most. */
  readonly waitingBytesMax?: number;
  /** How long `open` waits for a Redis that is away, ms. */
  readonly startMs?: number;
}

const EVICTS =
  'this Redis throws keys away when its memory is full, and the log with them; set maxmemory-policy noeviction';

/** Reading stands still when a log was not read for so long, ms: several polls. */
const STALE_MS = 4 * POLL_MS;

/** At the end, what waits has this long to get into the log, ms. */
const CLOSE_MS = 3000;

/** A start that Redis refused is for whoever wrote the settings. */
function startError(error: unknown, shown: string): unknown {
  const ours = error instanceof ConfigError || error instanceof TypeError || error instanceof RangeError;
  return ours ? error : new ConfigError(`--store ${shown}: ${faultOf(error).text}`);
}

export class RedisStore implements Store {
  readonly replicaId = randomBytes(8).toString('hex');
  readonly shared: Shared;
  readonly lanes: readonly Lane[];
  readonly keeper: Keeper;
  private readonly client: Scripted;
  private readonly keys: Keys;
  private readonly bus: RedisBus;
  private readonly leases: Leases;
  private readonly snapshots: Snapshots;
  private readonly faults: FaultLog;
  private readonly deciders: Deciders;
  private recovery: Recovery | undefined;
  private source: SnapshotSource | undefined;
  private gate: Promise<void> | undefined;
  private persists = false;
  private readonly puts: Puts;
  private quarantined = 0;
  private closing: Promise<void> | undefined;

  constructor(private readonly options: RedisStoreOptions) {
    const { access, log } = options;
    this.keys = new Keys(options.prefix);
    this.faults = new FaultLog(access.shown, log);
    this.client = connect(access);
    // Each command that fails is told of by its caller.
    this.client.on('error', () => undefined).on('node error', () => undefined);
    const { client, keys, replicaId } = this;
    this.deciders = { positions: new Positions(options.positionsMax), claims: new Claims() };
    this.lanes = Array.from({ length: SHARDS }, (_, i) => {
      const log = new ShardLog(client, replicaId, keys.log(i), keys.seen(i), options.waitFor);
      return new Lane(i, log, this.owner());
    });
    this.puts = new Puts(this.lanes, options.waitingBytesMax);
    this.bus = new RedisBus(client, access, keys, replicaId, log, shard => this.lanes[shard]!.notify());
    this.leases = new Leases(client, keys, replicaId);
    this.snapshots = new Snapshots(client, keys, replicaId, log);
    this.keeper = new Keeper({
      ...{ client, keys, leases: this.leases, snapshots: this.snapshots, lanes: this.lanes, log },
      ...{ retainMs: options.retainMs, logBytesMax: options.logBytesMax },
      capture: () => this.capture(),
      fault: error => this.faults.note(error),
    });
    this.shared = {
      replicaId,
      bus: this.bus,
      staleMs: () => this.staleMs(),
      lease: (name, ttlMs) => this.leases.take(name, ttlMs),
      release: name => this.leases.release(name),
    };
  }

  /** @throws ConfigError when the settings cannot be right, or nothing is there for half a minute */
  async open(recovery: Recovery, source: SnapshotSource): Promise<void> {
    const { access, startMs, log } = this.options;
    this.recovery = recovery;
    this.source = source;
    try {
      const { persists, evicts } = await ready(this.client, access, startMs);
      this.persists = persists;
      if (evicts !== '') log.warn({ store: access.shown, policy: evicts }, EVICTS);
      await this.bus.open();
      const endMs = performance.now() + (startMs ?? START_MS);
      const snapshot = await persistently(() => this.snapshots.read(), endMs);
      await loadAll(this.lanes, snapshot, this.deciders, recovery, blob => this.unreadable(blob));
    } catch (error) {
      await this.disconnect();
      throw startError(error, access.shown);
    }
    for (const lane of this.lanes) lane.start();
    this.keeper.start();
  }

  async putLife(life: StoredLife): Promise<void> {
    const frame = encodeJson(RECORD.LIFE, life);
    await this.puts.put([{ shard: shardOf(life.proxyId), frame, place: () => undefined }], HEADROOM);
  }

  async putBatches(
    batches: readonly StoredBatch[],
    taken?: (batch: StoredBatch, result: Taken) => void,
  ): Promise<PutResult[]> {
    const { values, durable } = await this.puts.put(
      batches.map(stored => {
        const { cuid, proxyId, receivedUs, batch } = stored;
        const frame = encodeBatch({ cuid, proxyId, receivedUs }, batch.bytes);
        return { shard: shardOf(proxyId), frame, place: () => this.takeBatch(stored, taken) };
      }),
    );
    return values.map(value => ({ ...value, durable }));
  }

  async putRollback(entries: readonly RollbackEntry[]): Promise<PutRollback> {
    const { values, durable } = await this.puts.put(
      entries.map(entry => ({
        shard: CONTROL_SHARD,
        frame: encodeJson(RECORD.ROLLBACK, entry),
        place: () => this.takeEntry(entry),
      })),
      HEADROOM,
    );
    return { durable, stands: values };
  }

  async announce(cuid: string, proxyId: string, producers: readonly ProducerState[]): Promise<Loss> {
    const record = announceRecord(cuid, proxyId, producers);
    const frame = encodeJson(RECORD.ANNOUNCE, record);
    const place = (): Loss => this.deciders.positions.announce(record);
    const { values } = await this.puts.put([{ shard: shardOf(proxyId), frame, place }], HEADROOM);
    return values[0]!;
  }

  async finish(cuid: string, proxyId: string, producers: readonly string[]): Promise<Loss> {
    const record: FinishRecord = { cuid, proxyId, producers };
    const frame = encodeJson(RECORD.FINISH, record);
    const place = (): Loss => this.deciders.positions.finish(record);
    const { values } = await this.puts.put([{ shard: shardOf(proxyId), frame, place }], HEADROOM);
    return values[0]!;
  }

  stats(): StoreStats {
    const { positions } = this.deciders;
    const sum = (of: (lane: Lane) => number): number => this.lanes.reduce((total, lane) => total + of(lane), 0);
    return {
      durable: (this.persists || this.options.waitFor > 0) && this.staleMs() === 0,
      positions: positions.size,
      positionsEvicted: positions.evicted,
      bytes: sum(({ sizes }) => sizes.bytes),
      writeErrors: this.faults.count,
      quarantined: this.quarantined,
      shared: {
        staleMs: this.staleMs(),
        waitingBytes: this.puts.waitingBytes,
        blobs: sum(({ counters }) => counters.blobs),
        records: sum(({ counters }) => counters.records),
        blobsOfOthers: sum(({ counters }) => counters.fromOthers),
        blobsAgain: sum(({ counters }) => counters.again),
        blobsLost: sum(({ counters }) => counters.lost),
        snapshots: this.keeper.counters.snapshots,
      },
    };
  }

  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  private takeBatch(stored: StoredBatch, taken?: (batch: StoredBatch, result: Taken) => void): Taken {
    const { fresh, position, loss } = this.deciders.positions.batch(stored);
    const result = { fresh, seq: position.seq, loss };
    taken?.(stored, result);
    return result;
  }

  private takeEntry(entry: RollbackEntry): boolean {
    const stands = this.deciders.claims.take(entry);
    // It took effect when it was said; what others said before it in the log may have come here since.
    if (stands && (entry.type === 'override' || entry.type === 'kill')) this.recovery!.rollback(entry, false);
    return stands;
  }

  private owner(): LaneOwner {
    // eslint-disable-next-line @typescript-eslint/no-this-alias -- what it holds changes while the lanes run
    const store = this;
    return {
      replicaId: this.replicaId,
      // Where copies are asked for, a disk is not enough.
      durable: copies => (this.options.waitFor > 0 ? copies >= this.options.waitFor : this.persists),
      get gate() {
        return store.gate;
      },
      apply: blob => this.apply(blob),
      done: bytes => this.puts.done(bytes),
      fault: error => this.faults.note(error),
      behind: (shard, place, trimmed) => this.onBehind(shard, place, trimmed),
    };
  }

  private apply(blob: Buffer): void {
    replayBlob(blob, this.deciders, this.recovery!, false, (bytes, error) => this.unreadable(bytes, error));
  }

  /** What one replica cannot read must not keep it from reading on. */
  private unreadable({ length: bytes }: Buffer, error?: unknown): void {
    this.quarantined += 1;
    this.options.log.error({ bytes, err: error }, 'records of another replica cannot be read');
  }

  /**
   * Owners apply losses when an announcement settles, so nothing is applied while those that have settled
   * get their turn: what is captured is then exactly what the records up to the places amount to.
   */
  private async capture(): Promise<{ frames: Buffer[]; places: string[] }> {
    let release = (): void => undefined;
    this.gate = new Promise(resolve => (release = resolve));
    try {
      await turn();
      const places = this.lanes.map(({ reached }) => reached);
      const shards = this.lanes.map(({ shard, reached: place, applied }) =>
        encodePlace({ shard, place, replicas: [...applied] }),
      );
      return { frames: [...shards, ...capture(this.source!, this.deciders)], places };
    } finally {
      this.gate = undefined;
      release();
    }
  }

  private staleMs(): number {
    const nowMs = performance.now();
    const oldest = Math.max(this.bus.silentMs(), ...this.lanes.map(({ freshMs }) => nowMs - freshMs));
    return oldest <= STALE_MS ? 0 : Math.round(oldest);
  }

  private onBehind(shard: number, place: string, trimmed: string): void {
    const error = new Error(
      `the log of shard ${shard} was cut off at ${trimmed}, and this replica has read it to ${place} only; ` +
        'it has to start over from the snapshot',
    );
    this.options.behind(error);
    void this.close();
  }

  private async shutDown(): Promise<void> {
    this.puts.close();
    const endMs = performance.now() + CLOSE_MS;
    while (this.lanes.some(lane => !lane.idle) && this.staleMs() === 0 && performance.now() < endMs) await sleep(5);
    await this.keeper.stop();
    const closed = new Error('the store is closed');
    await Promise.all(this.lanes.map(lane => lane.stop(closed)));
    await this.leases.releaseAll();
    await this.disconnect();
  }

  private disconnect(): Promise<void> {
    this.bus.close();
    this.client.disconnect();
    return turn();
  }
}
