// How far a sender's clock is from ours. Pure.
//
// Each message says when it was sent (by their clock), and we know when it came (by ours):
//
//     sent - received  =  offset - delay,   delay >= 0
//
// The delay varies, the offset hardly does. So the largest difference of the recent messages, the
// one with the least delay, is nearest to the offset, and how much the others differ from it says
// how well it is known. A constant part of the delay cannot be seen from one side and stays in it.

/** Messages looked back at, and for how long: clocks drift by some ms in this time. */
const SAMPLES_MAX = 64;
const AGE_MS_MAX = 10 * 60_000;

/** When this many messages in a row lie this far off, the sender's clock was set, not delayed. */
const STEPPED_SAMPLES = 3;
const STEPPED_US = 1_000_000;

/** Error stated after a single message: nothing is known of its delay. */
const FIRST_ERROR_US = 1_000_000;

/** Resolution of the clocks and of our own scheduling, us. */
const ERROR_US_MIN = 200;

interface Sample {
  readonly differenceUs: number;
  readonly atMs: number;
}

export interface ClockOffset {
  /** Sender's clock minus ours, us. */
  readonly offsetUs: number;
  readonly errorUs: number;
}

export class OffsetEstimator {
  /** Oldest first; and their differences, least first. */
  private samples: Sample[] = [];
  private sorted: number[] = [];
  private estimate: ClockOffset = { offsetUs: 0, errorUs: FIRST_ERROR_US };

  /** One message: sent at `sentUs` by their clock, received at `receivedUs` by ours; `nowMs` monotonic. */
  add(sentUs: number, receivedUs: number, nowMs: number): void {
    const differenceUs = sentUs - receivedUs;
    this.samples.push({ differenceUs, atMs: nowMs });
    this.sorted.splice(placeOf(this.sorted, differenceUs), 0, differenceUs);
    const tooMany = this.samples.length > SAMPLES_MAX;
    if (tooMany || nowMs - this.samples[0]!.atMs > AGE_MS_MAX) {
      const gone = this.samples.shift()!;
      this.sorted.splice(placeOf(this.sorted, gone.differenceUs), 1);
    }
    if (this.stepped()) {
      this.samples = this.samples.slice(-STEPPED_SAMPLES);
      this.sorted = this.samples.map(sample => sample.differenceUs).sort((a, b) => a - b);
    }
    this.estimate = estimateOf(this.sorted);
  }

  /** Another collector hears this sender, and found this. */
  told(found: ClockOffset): void {
    this.samples = [];
    this.estimate = found;
  }

  get current(): ClockOffset {
    return this.estimate;
  }

  private stepped(): boolean {
    const { samples, estimate } = this;
    if (samples.length <= STEPPED_SAMPLES) return false;
    for (let i = samples.length - STEPPED_SAMPLES; i < samples.length; i++) {
      if (Math.abs(samples[i]!.differenceUs - estimate.offsetUs) <= STEPPED_US) return false;
    }
    return true;
  }
}

/** @param differences least first */
function estimateOf(differences: readonly number[]): ClockOffset {
  const offsetUs = differences.at(-1)!;
  if (differences.length === 1) return { offsetUs, errorUs: FIRST_ERROR_US };
  const median = differences[differences.length >> 1]!;
  return { offsetUs, errorUs: Math.max(ERROR_US_MIN, offsetUs - median) };
}

/** Where a value stands in an ascending list, or would stand. */
function placeOf(sorted: readonly number[], value: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
