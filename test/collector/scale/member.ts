// One sidecar of the fleet: its batches, what is not acknowledged, and its part of a Report stream.

import { message } from '../../../collector/src/rpc/protos.js';
import { batch, encodeReport, hello, type Plain } from '../ingest-support.js';

/** Rows of a batch: two requests answered, and one call to the next service. */
export const ROWS = 3;
export const EVENTS = 2;

/** Batches kept for a replay; a sidecar that has so many makes no more. */
const WINDOW = 16;

const replies = message('ReportReply');

/** Bytes with the five that gRPC puts in front: not compressed, length. */
function framed(bytes: Buffer): Buffer {
  const frame = Buffer.allocUnsafe(bytes.length + 5);
  frame.writeUInt8(0, 0);
  frame.writeUInt32BE(bytes.length, 1);
  bytes.copy(frame, 5);
  return frame;
}

export class Member {
  made = 0;
  acked = 0;
  /** A reply came on the stream that is open now. */
  connected = false;
  /** The collector has no room: not before this much time, ms. */
  waitMs = 0;
  /** The collector is leaving within this time, ms. */
  drainMs = 0;
  private received: Buffer = Buffer.alloc(0);

  constructor(
    readonly index: number,
    private readonly services: number,
  ) {}

  get service(): string {
    return `s${this.index % this.services}.shop`;
  }

  get unacknowledged(): number {
    return this.made - this.acked;
  }

  /** What a new stream begins with: who this is, and all that is not acknowledged. */
  greeting(): Buffer {
    this.connected = false;
    this.drainMs = 0;
    this.received = Buffer.alloc(0);
    const { index, made, acked } = this;
    const producer = {
      id: '11',
      nextSeq: String(made + 1),
      batchedEvents: String(made * ROWS),
      ackedSeq: String(acked),
      ackedEvents: String(acked * ROWS),
    };
    const who = {
      cuid: `${index.toString(16).padStart(8, '0')}-d9cb-469f-a165-70867728950e`,
      proxyId: `sidecar~p${index}`,
      ip: `10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`,
      service: this.service,
      slot: `s${index % this.services}-${Math.floor(index / this.services)}`,
      producers: [producer],
    };
    const batches = Array.from({ length: made - acked }, (_, i) => this.batch(acked + i + 1));
    return this.message({ hello: hello(who), batches });
  }

  /** A heartbeat with a batch, or without one when too many wait. */
  report(more: boolean): Buffer {
    if (!more || this.unacknowledged >= WINDOW) return this.message({ heartbeat: {} });
    this.made += 1;
    return this.message({ batches: [this.batch(this.made)], status: { inFlight: this.index % 7 } });
  }

  /** Bytes of the stream, as they come. */
  take(bytes: Buffer): void {
    this.received = this.received.length === 0 ? bytes : Buffer.concat([this.received, bytes]);
    while (this.received.length >= 5) {
      const end = 5 + this.received.readUInt32BE(1);
      if (this.received.length < end) return;
      this.reply(replies.deserialize(this.received.subarray(5, end)) as Plain);
      this.received = this.received.subarray(end);
    }
  }

  private reply({ acks, hints }: Plain): void {
    this.connected = true;
    const { drainMs = 0, retryAfterMs = 0 } = (hints ?? {}) as { drainMs?: number; retryAfterMs?: number };
    this.waitMs = retryAfterMs;
    this.drainMs = drainMs;
    for (const ack of (acks ?? []) as Plain[]) this.acked = Math.max(this.acked, Number(ack['seq']));
  }

  private message(report: Plain): Buffer {
    return framed(encodeReport({ ...report, sentUnixUs: String(Date.now() * 1000) }));
  }

  /** Always the same for the same number: a replay is a replay. */
  private batch(seq: number): Plain {
    const id = (row: number): string => String((BigInt(this.index + 1) << 32n) + BigInt(seq * ROWS + row));
    const next = `s${(this.index + 1) % this.services}.shop`;
    const made = batch(seq, [{}, { operation: 'GET /b', status: 503, outcome: 2 }, { flags: 1, peerService: next }]);
    const ids = Array.from({ length: ROWS }, (_, row) => id(row));
    return { ...made, events: { ...(made['events'] as Plain), keyHi: ids, keyLo: ids, eventId: ids } };
  }
}
