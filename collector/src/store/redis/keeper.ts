// One replica at a time keeps the log short: it writes snapshots, and cuts the log off behind them.

import type { StoreLog } from '../store.js';
import type { Keys } from './keys.js';
import { SHARDS } from './keys.js';
import { REPLICAS_MAX, type Lane } from './lane.js';
import type { Leases } from './leases.js';
import { placeMs, START } from './place.js';
import type { Scripted } from './scripts.js';
import type { Pointer, Snapshots } from './snapshots.js';

export interface KeeperParts {
  readonly client: Scripted;
  readonly keys: Keys;
  readonly leases: Leases;
  readonly snapshots: Snapshots;
  readonly lanes: readonly Lane[];
  /** What everything so far amounts to, and the place in each shard where that is. */
  readonly capture: () => Promise<{ frames: Buffer[]; places: string[] }>;
  readonly fault: (error: unknown) => void;
  /** Blobs without a use for recovery are kept for their batches for this long, ms. */
  readonly retainMs: number;
  /** Bytes of the whole log, at most, as far as snapshots cover it; oldest blobs go first. */
  readonly logBytesMax: number;
  readonly log: StoreLog;
}

/** Name of the lease. */
export const KEEPER = 'keeper';

const LEASE_MS = 10_000;
const TICK_MS = 2000;
const TRIM_MS = 30_000;

/** A new snapshot is due when the log since the last has this many bytes, or is this old and not empty. */
const SNAPSHOT_BYTES = 64 * 1024 * 1024;
const SNAPSHOT_MS = 5 * 60_000;

export class Keeper {
  private timer: NodeJS.Timeout | undefined;
  private working: Promise<void> = Promise.resolve();
  private busy = false;
  private trimmedMs = performance.now();
  private snapshotMs = performance.now();
  private snapshotBytes = 0;
  private lastNumber = 0;
  counters = { snapshots: 0, trimmed: 0 };

  constructor(private readonly parts: KeeperParts) {}

  start(): void {
    this.timer = setInterval(() => this.tick(), TICK_MS);
    this.timer.unref();
  }

  async stop(): Promise<void> {
    clearInterval(this.timer);
    await this.working;
  }

  /** Does now what would be due later. False: another replica is the keeper, or the store is away. */
  async snapshotNow(): Promise<boolean> {
    if (!(await this.parts.leases.take(KEEPER, LEASE_MS))) return false;
    return (await this.write()) !== undefined;
  }

  /** Cuts the log off now. */
  async trimNow(): Promise<void> {
    const pointer = await this.parts.snapshots.pointer();
    if (pointer !== undefined) await this.trim(pointer);
  }

  private tick(): void {
    if (this.busy) return;
    this.busy = true;
    this.working = this.work()
      .catch((error: unknown) => this.parts.fault(error))
      .finally(() => (this.busy = false));
  }

  private async work(): Promise<void> {
    if (!(await this.parts.leases.take(KEEPER, LEASE_MS))) return;
    let pointer = await this.parts.snapshots.pointer();
    if (this.isDue(pointer)) pointer = await this.write();
    if (pointer === undefined || performance.now() - this.trimmedMs < TRIM_MS) return;
    this.trimmedMs = performance.now();
    await this.trim(pointer);
  }

  private isDue(pointer: Pointer | undefined): boolean {
    const bytes = this.total() - this.snapshotBytes;
    // Redis forgot: what we know is all that is left.
    if ((pointer?.number ?? 0) < this.lastNumber) return true;
    if (pointer !== undefined && pointer.number > this.lastNumber) {
      // Another replica wrote it while it was the keeper.
      this.lastNumber = pointer.number;
      this.noteSnapshot();
      return false;
    }
    return bytes >= SNAPSHOT_BYTES || (bytes > 0 && performance.now() - this.snapshotMs >= SNAPSHOT_MS);
  }

  private async write(): Promise<Pointer | undefined> {
    const { capture, snapshots, leases, log } = this.parts;
    const startedMs = performance.now();
    this.noteSnapshot();
    const { frames, places } = await capture();
    const pointer = await snapshots.write(frames, places, KEEPER, () => leases.take(KEEPER, LEASE_MS));
    if (pointer === undefined) return undefined;
    this.lastNumber = pointer.number;
    this.counters.snapshots += 1;
    const tookMs = Math.round(performance.now() - startedMs);
    log.info({ number: pointer.number, chunks: pointer.chunks, tookMs }, 'a snapshot was written');
    return pointer;
  }

  private noteSnapshot(): void {
    this.snapshotMs = performance.now();
    this.snapshotBytes = this.total();
  }

  private total(): number {
    return this.parts.lanes.reduce((sum, { sizes }) => sum + sizes.total, 0);
  }

  private async trim({ before }: Pointer): Promise<void> {
    const { lanes, retainMs, logBytesMax } = this.parts;
    if (before === undefined) return;
    // The log's own clock: that of the newest blob.
    const nowMs = Math.max(...lanes.map(({ reached }) => placeMs(reached)));
    for (const lane of lanes) {
      const bounds = {
        covered: before.places[lane.shard] ?? START,
        oldestMs: nowMs - retainMs,
        bytesMax: logBytesMax / SHARDS,
      };
      const firstKept = lane.sizes.trimPoint(bounds);
      if (firstKept !== undefined) await this.trimLane(lane, firstKept);
    }
  }

  private async trimLane(lane: Lane, firstKept: string): Promise<void> {
    const { client, keys } = this.parts;
    const seen = keys.seen(lane.shard);
    const replicas = (await client.hlen(seen)) > 2 * REPLICAS_MAX ? await client.hkeys(seen) : [];
    const gone = replicas.filter(replica => replica !== 'trimmed' && !lane.applied.has(replica));
    this.counters.trimmed += await client.mpTrim(keys.log(lane.shard), seen, firstKept, ...gone);
    lane.sizes.trimmed(firstKept);
  }
}
