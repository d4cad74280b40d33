// What waits to be appended to one shard, and how it becomes numbered blobs.

import type { Sent } from './recent.js';

/** A record on its way into the log. */
export interface Pending {
  readonly frame: Buffer;
  /** It has its place: everything before it in the log has been applied. Must not throw. */
  place(): void;
  settle(durable: boolean): void;
  fail(error: Error): void;
}

/** Records that are appended at once. */
export interface Blob extends Sent {
  readonly records: readonly Pending[];
  /** It is in the log, further on than this replica has read. */
  appended: boolean;
  /** It is looked for in the whole log. */
  sought: boolean;
}

/** A blob takes no more records from this size on; one record may be longer. */
export const BLOB_BYTES_MAX = 256 * 1024;

export class Outbox {
  private waiting: Pending[] = [];
  private lastNumber = 0;

  get empty(): boolean {
    return this.waiting.length === 0;
  }

  put(record: Pending): void {
    this.waiting.push(record);
  }

  /** The next blob, of what has waited longest. There must be something. */
  next(): Blob {
    const { waiting } = this;
    let bytes = 0;
    let count = 0;
    while (count < waiting.length && (count === 0 || bytes + waiting[count]!.frame.length <= BLOB_BYTES_MAX)) {
      bytes += waiting[count]!.frame.length;
      count += 1;
    }
    const records = waiting.splice(0, count);
    const frames = records.map(({ frame }) => frame);
    this.lastNumber += 1;
    return {
      number: this.lastNumber,
      bytes: frames.length === 1 ? frames[0]! : Buffer.concat(frames, bytes),
      records,
      appended: false,
      sought: false,
    };
  }

  /** Takes out all that waits. */
  drain(): Pending[] {
    return this.waiting.splice(0);
  }
}
