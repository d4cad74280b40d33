// From the queue to the sink: a few lanes, each with one load under way, tried again until it is delivered, refused, or
// too old.

import { waitMs } from './backoff.js';
import type { Outcome } from './post.js';
import type { BoundedQueue, Item } from './queue.js';

/** What became of records, and of tries. */
export interface SinkStats {
  delivered: number;
  /** Gone for want of room, or of time. */
  dropped: number;
  /** The sink, or our own rules, did not want them. */
  refused: number;
  /** Bytes that were delivered, as sent or written. */
  bytes: number;
  /** Tries that went well, are tried again, were refused. */
  ok: number;
  retried: number;
  rejected: number;
  /** Sentences about what went wrong last; '' = nothing since the last success. */
  why: string;
}

export const newStats = (): SinkStats => ({
  delivered: 0,
  dropped: 0,
  refused: 0,
  bytes: 0,
  ok: 0,
  retried: 0,
  rejected: 0,
  why: '',
});

/** A load, ready to be sent as often as it takes. */
export interface Load {
  readonly bytes: number;
  /** Never rejects. `refused`: records of a delivered load that the sink did not want. */
  send(): Promise<Outcome & { readonly refusedRecords?: number }>;
}

export interface LanesOptions<T extends Item> {
  readonly queue: BoundedQueue<T>;
  readonly stats: SinkStats;
  readonly lanes: number;
  /** Of one load, at most. */
  readonly bytesMax: number;
  readonly recordsMax: number;
  /** Waits so long for a load to fill, ms. */
  readonly lingerMs: number;
  /** A load older than this is given up, ms. */
  readonly keptMs: number;
  readonly load: (items: readonly T[]) => Load;
}

export class Lanes<T extends Item> {
  private closing = false;
  private cut = false;
  private readonly sleepers = new Set<() => void>();
  private readonly running: Promise<void>[];
  /** Records and bytes that are under way. */
  inWork = { records: 0, bytes: 0 };

  constructor(private readonly options: LanesOptions<T>) {
    this.running = Array.from({ length: options.lanes }, () => this.run());
  }

  /** Delivers what waits, for at most `ms`; what is left is dropped. */
  async close(ms: number): Promise<void> {
    this.closing = true;
    this.wake();
    const timer = setTimeout(() => {
      this.cut = true;
      this.wake();
    }, ms);
    await Promise.race([Promise.all(this.running), new Promise(resolve => setTimeout(resolve, ms + 100))]);
    clearTimeout(timer);
    const { queue, stats } = this.options;
    for (const item of queue.take(Infinity, Infinity)) stats.dropped += item.records;
  }

  private async run(): Promise<void> {
    const { queue, bytesMax, recordsMax, lingerMs } = this.options;
    while (!this.cut) {
      if (!this.closing) {
        await queue.arrival();
        if (lingerMs > 0 && queue.bytes < bytesMax) await this.sleep(lingerMs);
      }
      const items = queue.take(bytesMax, recordsMax);
      if (items.length > 0) await this.deliver(items);
      else if (this.closing) return;
    }
  }

  private async deliver(items: readonly T[]): Promise<void> {
    const { stats, keptMs, load } = this.options;
    const records = items.reduce((sum, item) => sum + item.records, 0);
    const ready = load(items);
    this.inWork.records += records;
    this.inWork.bytes += ready.bytes;
    const untilMs = performance.now() + keptMs;
    for (let failures = 0; ;) {
      const outcome = await ready.send();
      if (outcome.kind === 'delivered') {
        // What a sink says of itself: more than it was sent would take back what is counted.
        const refusedRecords = Math.min(records, outcome.refusedRecords ?? 0);
        stats.ok += 1;
        stats.delivered += records - refusedRecords;
        stats.refused += refusedRecords;
        stats.bytes += ready.bytes;
        stats.why = '';
        break;
      }
      stats.why = outcome.why;
      if (outcome.kind === 'refused') {
        stats.rejected += 1;
        stats.refused += records;
        break;
      }
      stats.retried += 1;
      failures += 1;
      const wait = waitMs(failures, Math.random(), outcome.wishMs);
      if (this.cut || performance.now() + wait > untilMs) {
        stats.dropped += records;
        break;
      }
      await this.sleep(wait);
    }
    this.inWork.records -= records;
    this.inWork.bytes -= ready.bytes;
  }

  private sleep(ms: number): Promise<void> {
    if (this.cut) return Promise.resolve();
    return new Promise(resolve => {
      const wake = (): void => {
        clearTimeout(timer);
        this.sleepers.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      this.sleepers.add(wake);
    });
  }

  private wake(): void {
    this.options.queue.wake();
    for (const wake of [...this.sleepers]) wake();
  }
}
