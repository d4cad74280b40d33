import assert from 'node:assert/strict';
import type { Worker } from 'node:worker_threads';
import { ManualClock } from '../../../collector/src/clock.js';
import { Exports } from '../../../collector/src/export/exports.js';
import { decodeReport } from '../../../collector/src/ingest/decode-report.js';
import type { Batch } from '../../../collector/src/ingest/report.js';
import { openLog } from '../../../collector/src/log.js';
import { newLife, type Life } from '../../../collector/src/registry/life.js';
import { batch, encodeReport, hello } from '../ingest-support.js';
import { until } from '../rpc-support.js';
import { decodeOtlp, Sink } from './support.js';

const ROWS = 50;

const lifeOf = (): Life => newLife(decodeReport(encodeReport({ hello: hello() })).hello!, 'stream', 1, 1);

const batchOf = (seq: number, rows = ROWS): Batch =>
  decodeReport(
    encodeReport({
      batches: [
        batch(
          seq,
          Array.from({ length: rows }, () => ({})),
        ),
      ],
    }),
  ).batches[0]!;

describe('the thread of the exports', () => {
  const sinks: Sink[] = [];
  let exports: Exports | undefined;
  afterEach(async () => {
    for (const sink of sinks.splice(0)) sink.close();
    await exports?.close();
  });

  async function open(
    answer: ConstructorParameters<typeof Sink>[0],
    queueBytesMax = 1024 * 1024,
  ): Promise<{ sink: Sink; exports: Exports }> {
    const sink = new Sink(answer);
    sinks.push(sink);
    const target = `${await sink.listen()}/v1/logs`;
    const settings = {
      sinks: [{ kind: 'otlp' as const, name: 'otlp', target }],
      denyPrivate: false,
      queueBytesMax,
      filesBytesMax: 1e9,
      headers: {},
      keys: [],
    };
    exports = await Exports.open({ settings, clock: new ManualClock(), log: openLog('silent') });
    return { sink, exports: exports! };
  }

  const totals = (
    { delivered, dropped, refused, queueRecords, inWork } = [...exports!.totals()][0]!.report,
  ): object => ({
    delivered,
    dropped,
    refused,
    waiting: queueRecords + inWork,
  });
  const sumIs = (records: number): boolean =>
    Object.values(totals()).reduce((sum: number, value) => sum + (value as number), 0) === records;

  it('is started again when it dies, and what it had is counted', async () => {
    const { exports, sink } = await open((response, _, count) => (count <= 1 ? void response.end() : undefined));
    exports.rows(lifeOf(), batchOf(1), 1);
    await until('delivered', () => (sumIs(ROWS) && sink.got.length === 1 ? true : undefined));
    exports.rows(lifeOf(), batchOf(2), 1);
    await until('asked, and not answered', () => (sink.got.length === 2 ? true : undefined));
    await (exports as unknown as { thread: Worker }).thread.terminate();
    await until('counted', () => (exports.deaths === 1 ? true : undefined));
    assert.deepEqual(totals(), { delivered: ROWS, dropped: ROWS, refused: 0, waiting: 0 });
    await until('asked again', () => {
      exports.rows(lifeOf(), batchOf(3), 1);
      return sink.got.length > 2 ? true : undefined;
    });
  });

  it('rows say who they are from, also when the life says something else later', async () => {
    const { exports, sink } = await open(response => void response.end());
    const life = lifeOf();
    exports.rows(life, batchOf(1), 1);
    life.workload = 'payment-v2';
    exports.rows(life, batchOf(2), 1);
    await until('delivered', () => (sumIs(2 * ROWS) && sink.got.length > 0 ? true : undefined));
    const workloads = sink.got
      .flatMap(({ body }) => decodeOtlp(body))
      .map(({ resource }) => resource['meshpulse.workload']);
    assert.deepEqual(workloads, ['payment', 'payment-v2']);
  });

  it('a sink that never answers costs its queue and no more; every row is in one of the sums', async () => {
    const { exports } = await open(() => undefined);
    const one = batchOf(1, 4096);
    let sent = 0;
    for (let i = 0; i < 100; i++) {
      exports.rows(lifeOf(), one, 1);
      sent += 4096;
      if (i % 10 === 0) await new Promise(resolve => setTimeout(resolve, 20));
    }
    const { dropped, waiting } = (await until('all counted', () => (sumIs(sent) ? totals() : undefined))) as {
      dropped: number;
      waiting: number;
    };
    assert.ok(dropped > 0 && waiting > 0);
    const { report } = [...exports.totals()][0]!;
    assert.ok(report.queueBytes <= 3 * 1024 * 1024, `${report.queueBytes} bytes`);
  });

  it('what is not taken in time is dropped here: nothing waits for the thread', async () => {
    const { exports } = await open(response => void response.end(), 64 * 1024 * 1024);
    const one = batchOf(1, 4096);
    const beganMs = performance.now();
    // In one turn of the event loop: the thread cannot say that it has taken anything.
    let sent = 0;
    for (let i = 0; i < 200; i++, sent += 4096) exports.rows(lifeOf(), one, 1);
    const tookMs = performance.now() - beganMs;
    const { dropped } = totals() as { dropped: number };
    const bytes = one.bytes.length;
    assert.equal(sent - dropped, Math.floor((8 * 1024 * 1024) / (bytes + 26 + 200)) * 4096, `${bytes} bytes a batch`);
    assert.ok(tookMs < 1000, `${tookMs} ms`);
  });
});
