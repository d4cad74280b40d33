// The thread of the exports. Reading batches again, writing them in other forms, compressing and signing take more time
// than taking them in; here that time is nobody else's. A thread that dies is started again by exports.ts.

import { parentPort, workerData } from 'node:worker_threads';
import { readChunk } from './batches.js';
import type { ExportPlan, FromThread, ToThread } from './messages.js';
import { Resolver } from './resolver.js';
import { openSink } from './running-sinks.js';

/** How often it is told what became of what, ms. */
const REPORT_MS = 250;

const port = parentPort!;
const plan = workerData as ExportPlan;
const say = (message: FromThread): void => port.postMessage(message);

const parts = {
  plan,
  resolver: new Resolver(plan.denyPrivate),
  log: (level: 'info' | 'warn', fields: object, text: string) => say({ kind: 'log', level, fields, text }),
};
const sinks = await Promise.all(plan.sinks.map(async spec => openSink(spec, parts)));
let chunkBytes = 0;
const report = (): void => say({ kind: 'report', chunkBytes, sinks: sinks.map(sink => sink.report()) });
const timer = setInterval(report, REPORT_MS);

async function close(ms: number): Promise<void> {
  await Promise.all(sinks.map(sink => sink.close(ms)));
  clearInterval(timer);
  report();
  say({ kind: 'closed' });
  port.close();
}

port.on('message', (message: ToThread) => {
  if (message.kind === 'chunk') {
    chunkBytes += message.bytes.byteLength;
    for (const frame of readChunk(Buffer.from(message.bytes))) for (const sink of sinks) sink.rows?.(frame);
    // Credit for more is given at once: what is taken is bounded by the queues.
    report();
  } else if (message.kind === 'signals') {
    for (const item of message.items) for (const sink of sinks) sink.signal?.(item);
  } else if (message.kind === 'time') {
    for (const sink of sinks) sink.time?.(message.nowUs);
  } else {
    void close(message.ms);
  }
});
say({ kind: 'ready' });
