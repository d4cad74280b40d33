// Records from a call into the lanes of their shards, and what they amounted to back to the caller.

import { Exhausted } from '../../errors.js';
import type { Lane } from './lane.js';

/** A record, and what it amounts to at its place. */
export interface Put<T> {
  readonly shard: number;
  readonly frame: Buffer;
  readonly place: () => T;
}

/** Bytes of records that wait for a Redis that is away, at most. */
export const WAITING_BYTES_MAX = 64 * 1024 * 1024;

/** What is not a batch may take this share more: it is small, and would not be sent again. */
export const HEADROOM = 1.25;

/** When to come back after being refused for want of room, ms. */
const RETRY_MS = 2000;

export class Puts {
  waitingBytes = 0;
  private closed = false;

  constructor(
    private readonly lanes: readonly Lane[],
    private readonly bytesMax: number = WAITING_BYTES_MAX,
  ) {}

  /**
   * Settles when all have their place, with what each amounted to there.
   *
   * @param share of the bytes that may wait, above 1 for what must not be refused early
   * @throws Exhausted when more would wait than may
   */
  put<T>(puts: readonly Put<T>[], share = 1): Promise<{ values: T[]; durable: boolean }> {
    if (this.closed) return Promise.reject(new Error('the store is closed'));
    const bytes = puts.reduce((sum, { frame }) => sum + frame.length, 0);
    if (this.waitingBytes + bytes > this.bytesMax * share) {
      return Promise.reject(new Exhausted(`${this.waitingBytes} bytes wait for the store, more than it may`, RETRY_MS));
    }
    this.waitingBytes += bytes;
    return new Promise((resolve, reject) => {
      const values: T[] = [];
      let left = puts.length;
      let allDurable = true;
      if (left === 0) resolve({ values, durable: false });
      puts.forEach(({ shard, frame, place }, i) =>
        this.lanes[shard]!.put({
          frame,
          place: () => {
            try {
              values[i] = place();
            } catch (error) {
              // Of who applies it; the lane and all that waits there go on.
              reject(error instanceof Error ? error : new Error(String(error)));
            }
          },
          settle: durable => {
            allDurable &&= durable;
            left -= 1;
            if (left === 0) resolve({ values, durable: allDurable });
          },
          fail: reject,
        }),
      );
    });
  }

  /** Records of so many bytes have their place. */
  done(bytes: number): void {
    this.waitingBytes -= bytes;
  }

  close(): void {
    this.closed = true;
  }
}
