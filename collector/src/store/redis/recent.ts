// Our own blobs of the last half minute: a failover may take them back out of the log. Pure.

/** A numbered blob of ours. */
export interface Sent {
  readonly number: number;
  readonly bytes: Buffer;
  /** Numbers before it are gone for good. */
  force?: boolean;
}

/** How long a blob is kept after it was appended, ms. */
export const RECENT_MS = 30_000;

/** Bytes of blobs kept for one shard, at most; oldest go first. */
export const RECENT_BYTES_MAX = 4 * 1024 * 1024;

export class Recent {
  private sent: (Sent & { readonly atMs: number })[] = [];
  private bytes = 0;

  constructor(private readonly bytesMax: number = RECENT_BYTES_MAX) {}

  add({ number, bytes }: Sent, nowMs: number): void {
    this.sent.push({ number, bytes, atMs: nowMs });
    this.bytes += bytes.length;
    this.forget(nowMs);
  }

  /** Those after a number, oldest first. */
  after(number: number, nowMs: number): Sent[] {
    this.forget(nowMs);
    return this.sent.filter(sent => sent.number > number).map(({ number, bytes }) => ({ number, bytes }));
  }

  private forget(nowMs: number): void {
    let gone = 0;
    while (gone < this.sent.length && (this.bytes > this.bytesMax || this.sent[gone]!.atMs < nowMs - RECENT_MS)) {
      this.bytes -= this.sent[gone]!.bytes.length;
      gone += 1;
    }
    if (gone > 0) this.sent = this.sent.slice(gone);
  }
}
