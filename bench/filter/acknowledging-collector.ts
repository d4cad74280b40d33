// A collector that stores nothing and acknowledges everything: the least that keeps a filter reporting.
// A process of its own, told its port by the parent, so that its pauses are not the load generator's.
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { LENGTH, Reader } from '../../collector/src/ingest/wire.js';

const BATCHES = 2;
const EVENTS = 5;
const FIXED64_TAG = (1 << 3) | 1;
const VARINT_TAG = 2 << 3;

/** Rows of batches acknowledged so far. */
let rows = 0;

const bytes = (value: Buffer) => value;
const method = (path: string, streams: boolean) => ({
  path,
  requestStream: streams,
  responseStream: streams,
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes,
});

/** A ReportReply with one ack per batch of the request. */
export function acknowledge(request: Buffer): Buffer {
  const acks: Buffer[] = [];
  const message = new Reader(request, 0, request.length, '');
  while (message.next()) {
    if (message.field === BATCHES && message.wire === LENGTH) acks.push(ackOf(message.message('batches')));
    else message.skip();
  }
  return Buffer.concat(acks.flatMap(ack => [Buffer.from([(1 << 3) | LENGTH, ack.length]), ack]));
}

function ackOf(batch: Reader): Buffer {
  const producer = Buffer.alloc(8);
  let seq = 0;
  while (batch.next()) {
    if (batch.field === 1) producer.writeBigUInt64LE(batch.id64('producer'));
    else if (batch.field === 2) seq = batch.uint64('seq');
    else if (batch.field === EVENTS) rows += rowsOf(batch.message('events'));
    else batch.skip();
  }
  return Buffer.concat([Buffer.from([FIXED64_TAG]), producer, Buffer.from([VARINT_TAG, ...varint(seq)])]);
}

function rowsOf(events: Reader): number {
  while (events.next()) {
    if (events.field === 1) return events.uint32('rows');
    events.skip();
  }
  return 0;
}

function varint(value: number): number[] {
  const result: number[] = [];
  for (; value >= 0x80; value = Math.floor(value / 0x80)) result.push((value % 0x80) | 0x80);
  return [...result, value];
}

function report(stream: ServerDuplexStream<Buffer, Buffer>): void {
  stream.on('data', (request: Buffer) => stream.write(acknowledge(request)));
  stream.on('end', () => stream.end());
  // Proxies are stopped without farewell.
  stream.on('error', () => stream.end());
}

function main(send: (message: object) => void): void {
  const server = new Server();
  server.addService(
    { report: method('/meshpulse.v1.Ingest/Report', true), once: method('/meshpulse.v1.Ingest/ReportOnce', false) },
    {
      report,
      once: (call: { request: Buffer }, done: (error: null, reply: Buffer) => void) =>
        done(null, acknowledge(call.request)),
    },
  );
  server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
    if (error) throw error;
    send({ port });
  });
  process.on('message', () => send({ rows }));
  process.on('disconnect', () => process.exit(0));
}

if (process.send) main(process.send.bind(process));
