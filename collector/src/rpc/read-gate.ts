// Reads take turns, and never keep reports waiting.
//
// All answers are made on the one thread that also takes reports. So reads that are under way go round
// in slices, with everyone else's turn in between; a few at a time, because each holds what it has found
// so far; the others wait in line, and past the end of the line a reader is told when to come back.

import { Exhausted } from '../errors.js';
import { isPieces, othersFirst, resting, slice, SLICE_MS, type Pieces } from '../slices.js';

/** Reads that go round at once. */
const UNDER_WAY_MAX = 8;

/** How long a refused reader should wait, ms. */
const RETRY_MS = 1000;

interface Read {
  readonly start: () => unknown;
  readonly over: () => boolean;
  readonly done: (value: unknown) => void;
  readonly failed: (error: unknown) => void;
  pieces?: Pieces<unknown>;
}

export class ReadGate {
  private readonly waiting: Read[] = [];
  private underWay: Read[] = [];
  private turning = false;
  answered = 0;
  refused = 0;

  /** @param readsMax reads in line or under way, at most */
  constructor(private readonly readsMax: number) {}

  /** Reads in line or under way. */
  get size(): number {
    return this.waiting.length + this.underWay.length;
  }

  /**
   * Does a read when its turn comes, in slices if it comes in pieces. `over`: whether nobody waits for
   * the answer any more; it is then left, and the promise never settles.
   *
   * @throws Exhausted when the line is full; whatever the read throws
   */
  async run<T>(start: () => T | Pieces<T>, over: () => boolean = () => false): Promise<T> {
    if (this.size >= this.readsMax) {
      this.refused += 1;
      throw new Exhausted(`${this.readsMax} reads at once are all that reads-max allows`, RETRY_MS);
    }
    return new Promise<T>((resolve, reject) => {
      this.waiting.push({ start, over, done: resolve as (value: unknown) => void, failed: reject });
      void this.turn();
    });
  }

  private async turn(): Promise<void> {
    if (this.turning) return;
    this.turning = true;
    await othersFirst();
    while (this.size > 0) {
      const beganMs = performance.now();
      const endMs = beganMs + SLICE_MS;
      for (let leftMs = SLICE_MS; leftMs > 0 && this.size > 0; leftMs = endMs - performance.now()) this.next(leftMs);
      // A report passes through many turns of the loop, and in each it would wait for a slice of reads.
      await resting(performance.now() - beganMs);
    }
    this.turning = false;
  }

  /** One slice of whose turn it is. */
  private next(sliceMs: number): void {
    while (this.underWay.length < UNDER_WAY_MAX && this.waiting.length > 0) this.underWay.push(this.waiting.shift()!);
    const read = this.underWay.shift()!;
    if (read.over()) return;
    try {
      if (this.goOn(read, sliceMs)) this.answered += 1;
      else this.underWay.push(read);
    } catch (error) {
      this.answered += 1;
      read.failed(error);
    }
  }

  /** Whether it is done. */
  private goOn(read: Read, sliceMs: number): boolean {
    if (read.pieces === undefined) {
      const answer = read.start();
      if (isPieces(answer)) read.pieces = answer;
      else read.done(answer);
      return !isPieces(answer);
    }
    const step = slice(read.pieces, sliceMs);
    if (step.done === true) read.done(step.value);
    return step.done === true;
  }
}
