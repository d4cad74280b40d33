// The plain way: grpc-js and protobufjs, one message for each event, an acknowledgement for every 200.
// A process of its own; prints its address.

import { Server, ServerCredentials, type ServerDuplexStream, type ServiceDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { fileURLToPath } from 'node:url';

const PROTO = fileURLToPath(new URL('../../../../bench/collector/plain.proto', import.meta.url));

export const plainService = (): ServiceDefinition =>
  loadSync(PROTO, { longs: String, enums: String })['bench.v1.Plain'] as ServiceDefinition;

/** Events between two acknowledgements. */
export const ACK_EVERY = 200;

interface Event {
  readonly durationUs: number;
}

function report(call: ServerDuplexStream<Event, { events: number }>): void {
  let events = 0;
  call.on('data', () => {
    events += 1;
    if (events % ACK_EVERY === 0) call.write({ events });
  });
  call.on('end', () => call.end());
  call.on('error', () => undefined);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const server = new Server({ 'grpc-node.flow_control_window': 1024 * 1024 });
  server.addService(plainService(), { Report: report });
  server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
    if (error !== null) throw error;
    console.log(`127.0.0.1:${port}`);
  });
  process.on('disconnect', () => process.exit(0));
}
