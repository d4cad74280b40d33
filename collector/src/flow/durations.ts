// Quantiles of durations in bounded space: a histogram whose buckets grow by a factor.
//
// Bucket n holds durations in [GROWTH^n, GROWTH^(n+1)) us, so a quantile is wrong by at most half a
// bucket, 5 %. Past HALVE_AT values all counts are halved: the recent past weighs more than the old.

const GROWTH = 1.1;
const LOG_GROWTH = Math.log(GROWTH);

/** Buckets, at most; the last one ends beyond 2^32 us, the longest duration that is told. */
const BUCKETS_MAX = 233;

const HALVE_AT = 10_000;

export class Durations {
  private readonly counts = new Map<number, number>();
  private total = 0;

  /** @param buckets as `snapshot` gave them */
  constructor(buckets: readonly (readonly [number, number])[] = []) {
    for (const [bucket, count] of buckets) {
      this.counts.set(bucket, count);
      this.total += count;
    }
  }

  add(us: number): void {
    const bucket = us < 1 ? 0 : Math.min(BUCKETS_MAX - 1, Math.floor(Math.log(us) / LOG_GROWTH));
    this.counts.set(bucket, (this.counts.get(bucket) ?? 0) + 1);
    this.total += 1;
    if (this.total > HALVE_AT) this.halve();
  }

  /** The duration, us, that a share `q` of the values is not above; 0 when there are none. */
  quantile(q: number): number {
    let rest = Math.max(1, Math.ceil(q * this.total));
    for (const [bucket, count] of this.snapshot()) {
      rest -= count;
      if (rest <= 0) return GROWTH ** (bucket + 0.5);
    }
    return 0;
  }

  snapshot(): [number, number][] {
    return [...this.counts].sort(([a], [b]) => a - b);
  }

  private halve(): void {
    this.total = 0;
    for (const [bucket, count] of this.counts) {
      const half = Math.floor(count / 2);
      if (half === 0) this.counts.delete(bucket);
      else this.counts.set(bucket, half);
      this.total += half;
    }
  }
}
