/** The collector as the filter sees it: keeps what arrives, answers as told, and checks the numbering. */
import assert from 'node:assert/strict';
import type { GrpcRemote, GrpcServerCall, GrpcServerStream } from '../support/proxy-wasm-host.js';
import {
  decodeRequest,
  encodeReply,
  rowsOf,
  type Batch,
  type Directive,
  type Hello,
  type ReportReply,
  type ReportRequest,
  type Row,
} from './wire.js';

/** How the collector behaves towards streams. Unary calls follow `unary`. */
export type Mode = 'ack' | 'silent' | 'garbage' | 'close' | 'refuse';

const GRPC_UNAVAILABLE = 14;
const GRPC_INVALID_ARGUMENT = 3;
/** A REST-less text that is no protobuf: field 0 does not exist. */
const GARBAGE = Buffer.from([0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);

export class FakeCollector implements GrpcRemote {
  mode: Mode = 'ack';
  unary: Mode = 'ack';
  /** Goes with the next answer to a unary call. */
  readonly waiting: Directive[] = [];
  /** Contents that are refused, on streams and as calls: nothing of such a message is taken. */
  refuses: (request: ReportRequest) => boolean = () => false;
  /** Messages so refused. */
  refusals = 0;
  /** Sent along with every acknowledgement. */
  hints: ReportReply['hints'] = undefined;
  readonly streams: GrpcServerStream[] = [];
  readonly calls: GrpcServerCall[] = [];
  /** Everything decoded, in order of arrival; `stream` is an index into `streams`, -1 for unary. */
  readonly requests: { stream: number; request: ReportRequest; bytes: number }[] = [];
  /** producer -> seq -> batch; the first copy of each. */
  readonly batches = new Map<string, Map<number, Batch>>();
  replays = 0;
  /** Largest message, bytes. */
  largest = 0;

  readonly onStream = (stream: GrpcServerStream): void => {
    const index = this.streams.push(stream) - 1;
    if (this.mode === 'refuse') {
      stream.close(GRPC_UNAVAILABLE, 'refused');
      return;
    }
    stream.onMessage = message => {
      stream.received.length = 0;
      if (this.isRefused(message)) return stream.close(GRPC_INVALID_ARGUMENT, 'batches[0].x: is 1, must be 2');
      const reply = this.take(index, message);
      if (this.mode === 'close') stream.close(GRPC_UNAVAILABLE, 'closing');
      else if (this.mode === 'garbage') stream.send(GARBAGE);
      else if (this.mode === 'ack') stream.send(encodeReply(reply));
    };
  };

  readonly onCall = (call: GrpcServerCall): void => {
    this.calls.push(call);
    if (this.unary === 'refuse' || this.unary === 'close') {
      call.fail(GRPC_UNAVAILABLE, 'refused');
      return;
    }
    if (this.isRefused(call.request)) {
      call.fail(GRPC_INVALID_ARGUMENT, 'batches[0].x: is 1, must be 2');
      return;
    }
    const reply = { ...this.take(-1, call.request), directives: this.waiting.splice(0) };
    if (this.unary === 'garbage') call.reply(GARBAGE);
    else if (this.unary === 'ack') call.reply(encodeReply(reply));
  };

  /** Sends directives on the open stream. */
  direct(...directives: Directive[]): void {
    const stream = this.openStreams.at(-1);
    assert.ok(stream, 'no open stream');
    stream.send(encodeReply({ directives }));
  }

  /** Streams that neither side ended. */
  get openStreams(): GrpcServerStream[] {
    return this.streams.filter(stream => stream.open);
  }

  get hellos(): Hello[] {
    return this.requests.flatMap(({ request }) => (request.hello === null ? [] : [request.hello]));
  }

  get lastStatus(): NonNullable<ReportRequest['status']> | undefined {
    return this.requests.findLast(({ request }) => request.status !== null)?.request.status ?? undefined;
  }

  /** All rows of all batches, each once. */
  rows(): Row[] {
    return [...this.batches.values()].flatMap(batches =>
      [...batches.values()].flatMap(batch => (batch.events === null ? [] : rowsOf(batch.events))),
    );
  }

  /** Rows, with the exact counts of batches whose rows were thinned. */
  counted(): number {
    let total = 0;
    for (const batches of this.batches.values()) {
      for (const batch of batches.values()) {
        const exact = batch.counts.reduce((sum, count) => sum + Number(count.count), 0);
        total += batch.counts.length > 0 ? exact : (batch.events?.rows ?? 0);
      }
    }
    return total;
  }

  /** Forgets what arrived, not who is connected. */
  clear(): void {
    this.requests.length = 0;
    this.batches.clear();
    this.replays = 0;
  }

  /**
   * Rows that are missing, as the numbering tells: those of batches that never came, up to the last batch that
   * did or that a hello announced, and those dropped before batching.
   */
  lost(): number {
    let lost = 0;
    for (const [producer, batches] of this.batches) {
      let batched = 0;
      let arrived = 0;
      let dropped = 0;
      for (const batch of batches.values()) {
        const rows = batch.events?.rows ?? 0;
        arrived += rows;
        batched = Math.max(batched, Number(batch.firstEvent) + rows);
        dropped = Math.max(dropped, Number(batch.droppedEvents));
      }
      for (const hello of this.hellos) {
        const told = hello.producers.find(candidate => candidate.id === producer);
        batched = Math.max(batched, Number(told?.batchedEvents ?? 0));
        dropped = Math.max(dropped, Number(told?.droppedEvents ?? 0));
      }
      lost += batched - arrived + dropped;
    }
    return lost;
  }

  /** Missing batches: (highest number or what hello promised) minus those that arrived. */
  gaps(): number {
    let missing = 0;
    for (const batches of this.batches.values()) missing += Math.max(0, ...batches.keys()) - batches.size;
    return missing;
  }

  private isRefused(message: Buffer): boolean {
    const refused = this.refuses(decodeRequest(message));
    if (refused) this.refusals++;
    return refused;
  }

  private take(stream: number, message: Buffer): ReportReply {
    const request = decodeRequest(message);
    this.requests.push({ stream, request, bytes: message.length });
    this.largest = Math.max(this.largest, message.length);
    assert.ok(request.batches.length <= 256, `${String(request.batches.length)} batches in one message`);
    const acks = new Map<string, number>();
    for (const batch of request.batches) {
      this.store(batch);
      acks.set(batch.producer, this.contiguous(batch.producer));
    }
    return {
      acks: [...acks].map(([producer, seq]) => ({ producer, seq: String(seq), durable: true })),
      receivedUnixUs: request.sentUnixUs,
      echoSentUnixUs: request.sentUnixUs,
      ...(this.hints === undefined ? {} : { hints: this.hints }),
    };
  }

  private store(batch: Batch): void {
    assert.notEqual(batch.producer, '0', 'a batch without producer');
    assert.ok(Number(batch.seq) >= 1, `batch number ${batch.seq}`);
    if (batch.events !== null) {
      const rows = rowsOf(batch.events);
      assert.ok(
        rows.every(row => row.weight >= 1),
        `a row of batch ${batch.seq} stands for nothing`,
      );
    }
    let batches = this.batches.get(batch.producer);
    if (batches === undefined) this.batches.set(batch.producer, (batches = new Map<number, Batch>()));
    const seq = Number(batch.seq);
    const known = batches.get(seq);
    if (known !== undefined) {
      this.replays++;
      assert.deepEqual(batch, known, `batch ${batch.seq} was replayed with other content`);
      return;
    }
    batches.set(seq, batch);
    const before = batches.get(seq - 1);
    if (before !== undefined) {
      const expected = Number(before.firstEvent) + (before.events?.rows ?? 0);
      assert.equal(Number(batch.firstEvent), expected, `first_event of batch ${batch.seq}`);
    }
  }

  /** Highest number stored without a gap behind it; gaps that can never be filled count as acknowledged. */
  private contiguous(producer: string): number {
    return Math.max(0, ...(this.batches.get(producer)?.keys() ?? []));
  }
}
