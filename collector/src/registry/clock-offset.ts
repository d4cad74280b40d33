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
  private samples: Sample[] = [];
  private estimate: ClockOffset = { offsetUs: 0, errorUs: FIRST_ERROR_US };

  /** One message: sent at `sentUs` by their clock, received at `receivedUs` by ours; `nowMs` monotonic. */
  add(sentUs: number, receivedUs: number, nowMs: number): void {
    this.samples.push({ differenceUs: sentUs - receivedUs, atMs: nowMs });
    const tooMany = this.samples.length > SAMPLES_MAX;
    if (tooMany || nowMs - this.samples[0]!.atMs > AGE_MS_MAX) this.samples.shift();
    if (this.stepped()) this.samples = this.samples.slice(-STEPPED_SAMPLES);
    this.estimate = estimateOf(this.samples);
  }

  get current(): ClockOffset {
    return this.estimate;
  }

  private stepped(): boolean {
    if (this.samples.length <= STEPPED_SAMPLES) return false;
    const recent = this.samples.slice(-STEPPED_SAMPLES);
    return recent.every(sample => Math.abs(sample.differenceUs - this.estimate.offsetUs) > STEPPED_US);
  }
}

function estimateOf(samples: readonly Sample[]): ClockOffset {
  const differences = samples.map(sample => sample.differenceUs).sort((a, b) => a - b);
  const offsetUs = differences.at(-1)!;
  if (differences.length === 1) return { offsetUs, errorUs: FIRST_ERROR_US };
  const median = differences[differences.length >> 1]!;
  return { offsetUs, errorUs: Math.max(ERROR_US_MIN, offsetUs - median) };
}
