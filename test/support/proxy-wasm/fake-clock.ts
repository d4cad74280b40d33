/**
 * Time that tests turn. Nothing waits: `advance` runs what falls due, in order of its time.
 */

const NS_PER_MS = 1_000_000n;
/** 2026-01-01T00:00:00Z, so that times in failed assertions look like times. */
const EPOCH_MS = 1_767_225_600_000n;

export interface Timer {
  readonly dueNs: bigint;
  cancelled: boolean;
}

interface Scheduled extends Timer {
  readonly order: number;
  readonly run: () => void;
}

export class FakeClock {
  private nowNs = 1_000_000_000n;
  private offsetNs = EPOCH_MS * NS_PER_MS;
  private timers: Scheduled[] = [];
  private order = 0;
  /** Runs after every timer, and once at the end of `advance`: what other threads do meanwhile. */
  afterEach: () => void = () => undefined;

  /** Nanoseconds since an arbitrary start; only grows. */
  monotonicNs(): bigint {
    return this.nowNs;
  }

  /** Nanoseconds since 1970. */
  realtimeNs(): bigint {
    return this.nowNs + this.offsetNs;
  }

  /** Milliseconds since 1970. */
  realtimeMs(): number {
    return Number(this.realtimeNs() / NS_PER_MS);
  }

  /** Steps the wall clock alone, as an NTP correction does; may be negative. */
  stepRealtime(ms: number): void {
    this.offsetNs += BigInt(ms) * NS_PER_MS;
  }

  schedule(ms: number, run: () => void): Timer {
    const timer = { dueNs: this.nowNs + this.ns(ms), order: this.order++, run, cancelled: false };
    this.timers.push(timer);
    return timer;
  }

  /** Moves time on by `ms` (fractions allowed) and runs every timer that falls due on the way. */
  advance(ms: number): void {
    const until = this.nowNs + this.ns(ms);
    this.afterEach();
    for (;;) {
      const next = this.takeDue(until);
      if (next === undefined) break;
      if (next.dueNs > this.nowNs) this.nowNs = next.dueNs;
      next.run();
      this.afterEach();
    }
    this.nowNs = until;
    this.afterEach();
  }

  /** Moves time on without running anything: time that passes inside one callback or between two. */
  pass(ms: number): void {
    this.nowNs += this.ns(ms);
  }

  private ns(ms: number): bigint {
    return BigInt(Math.round(ms * 1e6));
  }

  private takeDue(until: bigint): Scheduled | undefined {
    this.timers = this.timers.filter(timer => !timer.cancelled);
    let best: Scheduled | undefined;
    for (const timer of this.timers) {
      if (timer.dueNs > until) continue;
      if (best === undefined || timer.dueNs < best.dueNs || (timer.dueNs === best.dueNs && timer.order < best.order)) {
        best = timer;
      }
    }
    if (best !== undefined) this.timers.splice(this.timers.indexOf(best), 1);
    return best;
  }
}
