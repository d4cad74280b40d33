// What the collector keeps, and what a store promises about it. Memory meets this contract now; a
// shared store has to meet the same one, and the same test body.
//
// Kept: lives with their addresses, event batches, exact counts, producer positions, learned flow, and of
// early rollback verdicts with their signals, overrides, kills, audit and ledger.
// Not kept: status, progress, in-flight lists. They are older than their worth after a restart.
//
// The store owns the producer positions, because whether a batch is new must be decided where it is
// stored, in one step: two collectors, or one before and after a restart, must not both count it.
// Everything else it holds for those who own it (registry, flow) and gives back at `open`.

import type { Loss } from '../ingest/producers.js';
import type { Batch, Counter, ProducerState } from '../ingest/report.js';
import type { RollbackEntry } from '../rollback/store-entries.js';
import type { Shared } from './shared.js';

/** One life, as it was last put. Times are us since 1970 by the collector's clock. */
export interface StoredLife {
  readonly cuid: string;
  readonly cuidAliases: readonly string[];
  readonly scope: number;
  readonly service: string;
  readonly slot: string;
  readonly workload: string;
  readonly node: string;
  readonly cluster: string;
  readonly network: string;
  /** Oldest first; the last is the one it has, or had when it ended. */
  readonly addresses: readonly StoredAddress[];
  readonly proxyId: string;
  /** Sender's clock. */
  readonly bootEpochUs: number;
  readonly version: string;
  readonly edge: boolean;
  readonly transport: 'stream' | 'unary';
  readonly reportIntervalMs: number;
  readonly reportIdleMs: number;
  readonly reportInFlightMs: number;
  readonly configErrors: readonly string[];
  /** Absent in what older versions stored. */
  readonly counters?: readonly Counter[];
  readonly firstSeenUs: number;
  readonly lastSeenUs: number;
  /** When it ended, or when another life took its address; absent while it lives. */
  readonly endedUs?: number;
  readonly clean: boolean;
  readonly eventsLostMax: number;
  readonly events: number;
  readonly calls: number;
  readonly reportsLost: number;
  readonly eventsLost: number;
  /** Ids of its producers, 16 hex. */
  readonly producers: readonly string[];
}

/** One address of a life. */
export interface StoredAddress {
  readonly ip: string;
  readonly ports: readonly number[];
  /** Its start, or when it was first heard there. */
  readonly fromUs: number;
  readonly toUs?: number;
}

/** A batch on its way into the store. */
export interface StoredBatch {
  /** The life it tells of. */
  readonly cuid: string;
  /** Producer ids are only unique within a proxy. */
  readonly proxyId: string;
  readonly receivedUs: number;
  readonly batch: Batch;
}

/** A batch that found its place in the log. */
export interface Taken {
  /** False: a replay; it was stored before and must not be applied again. */
  readonly fresh: boolean;
  /** Highest number of this producer that is stored or counted as lost: what to acknowledge. */
  readonly seq: number;
  /** What was found missing on the way to this batch; below 0: it was late, and taken for lost before. */
  readonly loss: Loss;
}

export interface PutResult extends Taken {
  /** A restart keeps it. */
  readonly durable: boolean;
}

/** One exact count; its meaning is the registry's. */
export interface StoredCount {
  readonly service: string;
  readonly cluster: string;
  readonly external: boolean;
  readonly operation: string;
  readonly status: number;
  readonly responseFlags: number;
  readonly flags: number;
  readonly count: number;
  readonly durationUsSum: number;
}

/** What became of entries of rollback. */
export interface PutRollback {
  /** A restart keeps them. */
  readonly durable: boolean;
  /** One an entry, in order. False: an entry before it in the log has claimed one of its ids; it is void. */
  readonly stands: readonly boolean[];
}

/**
 * Where what was kept is given back at `open`. A store that several collectors share goes on calling it
 * while it runs: for the lives, batches (not counted), losses and entries that the others put.
 */
export interface Recovery {
  life(life: StoredLife): void;
  count(count: StoredCount): void;
  /** Since when the counts count. */
  countingSince(us: number): void;
  /** Sums by service, after the lives: they stand for what lives told up to then. */
  totals(state: unknown): void;
  /** Comes after the batches that are counted already, so that it replaces what they taught. */
  flow(state: unknown): void;
  /**
   * A batch that is still kept. `counted`: the counts and lives given before hold it already, so it
   * only rebuilds what is not stored itself (transactions).
   */
  batch(batch: StoredBatch, counted: boolean): void;
  /** Each replaces the one before of its type and id. `counted`: what it adds to sums is in them already. */
  rollback(entry: RollbackEntry, counted: boolean): void;
  /** Loss that was found while the batches after the last counts were stored. */
  loss(cuid: string, loss: Loss): void;
}

export interface StoreLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** What the owners hold now: asked for when the store wants to start its log afresh. */
export interface SnapshotSource {
  lives(): Iterable<StoredLife>;
  counts(): Iterable<StoredCount>;
  countingSinceUs(): number;
  totals(): unknown;
  flow(): unknown;
  rollback(): Iterable<RollbackEntry>;
}

export interface StoreStats {
  readonly durable: boolean;
  readonly positions: number;
  /** Positions dropped to keep the bound; a batch of such a producer is taken as its first. */
  readonly positionsEvicted: number;
  readonly bytes: number;
  /** Writes that failed, and files that could not be read and were put aside. */
  readonly writeErrors: number;
  readonly quarantined: number;
  /** Of a store that several collectors use. */
  readonly shared?: SharedStats;
}

/** How a replica takes part in the log. A blob is what it appends at once: one or more records. */
export interface SharedStats {
  readonly staleMs: number;
  /** Bytes of records that are not in the log yet. */
  readonly waitingBytes: number;
  /** Own blobs in the log, and the records in them. */
  readonly blobs: number;
  readonly records: number;
  readonly blobsOfOthers: number;
  /** Own blobs appended once more, because the log had lost them. */
  readonly blobsAgain: number;
  /** Own blobs that the log has lost, too long ago to be appended again. */
  readonly blobsLost: number;
  readonly snapshots: number;
}

/**
 * Calls take effect in the order they are made, and promises settle in that order: all of them in a
 * store of one collector, those of one proxy (and those of rollback) in a shared one. After `close` every
 * call rejects. A store never throws for what a batch holds: batches are checked before they come.
 */
export interface Store {
  /** Absent when no other collector can use what this one stores. */
  readonly shared?: Shared;
  /** Once, before anything else. Gives back what was kept. */
  open(recovery: Recovery, source: SnapshotSource): Promise<void>;
  /** The latest put of a CUID wins. */
  putLife(life: StoredLife): Promise<void>;
  /**
   * Settles when all of them are stored as well as this store can. One result a batch, in order.
   *
   * @param taken told of each batch as soon as it has its place, before anything is on disk: what must be
   *              known within milliseconds does not wait for a disk, only acknowledgements do. The caller
   *              applies fresh batches in it: what it holds afterwards may become the state that a
   *              restart begins with
   * @throws Exhausted when too much waits for a store that is away
   */
  putBatches(
    batches: readonly StoredBatch[],
    taken?: (batch: StoredBatch, result: Taken) => void,
  ): Promise<PutResult[]>;
  /**
   * Settles when they are stored. Entries of one call and of calls one after the other keep their order.
   * What stands was not there before, and what others put before it has been given to `Recovery`. So are, in a
   * shared store, overrides and kills of one's own: the last in the log holds, whoever said it.
   */
  putRollback(entries: readonly RollbackEntry[]): Promise<PutRollback>;
  /** A proxy says where its producers are; returns what they dropped since they last said so. */
  announce(cuid: string, proxyId: string, producers: readonly ProducerState[]): Promise<Loss>;
  /** Producers that will not come back; returns what they announced and never sent. */
  finish(cuid: string, proxyId: string, producers: readonly string[]): Promise<Loss>;
  stats(): StoreStats;
  /** Makes what was put durable if it can be, and lets go of everything. A second call does nothing. */
  close(): Promise<void>;
}
