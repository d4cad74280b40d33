// A request that arrives without trace context gets one from the first proxy: all hops, the first included,
// must report it under that one key, sampled or not.
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { App } from '../../demo/src/mesh/app.js';
import { until } from '../../demo/src/mesh/child.js';
import { FILTER_WASM } from '../../demo/src/mesh/envoy.js';
import { Load, total } from '../../demo/src/mesh/load.js';
import { Mesh } from '../../demo/src/mesh/mesh.js';
import { TraceSink } from '../../demo/src/mesh/trace-sink.js';
import { KeySource, RowFlag, type Row } from '../filter/wire.js';
import { tally } from './support/ledger.js';
import { Recorder } from './support/recorder.js';

const REQUESTS = 300;
const SETTLED_MS = 600;
const ROWS_MS = 10_000;
/** gateway: event and call; front: event and call; back: event. */
const ROWS_PER_REQUEST = 5;

describe('the first hop, with 1 % of traces sampled', function () {
  this.timeout(60_000);

  for (const [provider, source] of [
    ['opentelemetry', KeySource.Traceparent],
    ['zipkin', KeySource.XB3],
  ] as const) {
    it(`${provider}: one key from the gateway to the last hop`, async () => {
      const sink = await TraceSink.start();
      const recorder = await Recorder.start();
      const mesh = await Mesh.create({
        services: [{ name: 'gate', gatewayTo: 'front' }, { name: 'front' }, { name: 'back' }],
        collector: recorder.address,
        proxy: {
          wasm: { file: FILTER_WASM },
          concurrency: 2,
          tracing: { provider, sink: sink.address, samplingPercent: 1 },
          settings: { report: { intervalMs: 200 } },
        },
      });
      const front = mesh.proxy('front');
      const apps = [
        await App.start(front.app, front.outbound, async request => {
          const { status } = await request.call('back', 'GET', '/inner');
          return { status };
        }),
        await App.start(mesh.proxy('back').app, undefined, () => ({ status: 200 })),
      ];
      try {
        await mesh.start();
        await recorder.greeted('gate', 'front', 'back');
        const report = await Load.start({
          targets: [mesh.proxy('gate').inbound],
          host: 'shop.example',
          rate: 200,
          count: REQUESTS,
          next: () => ({ operation: 'GET /outer', method: 'GET', path: '/outer' }),
        }).ended();
        assert.equal(
          total(report, status => status === 200),
          REQUESTS,
        );
        const all = () => ['gate', 'front', 'back'].flatMap(service => recorder.rows(service));
        await until('all rows', ROWS_MS, () => (all().length >= ROWS_PER_REQUEST * REQUESTS ? true : undefined));
        await sleep(SETTLED_MS);
        const byKey = tally(all().map(row => row.key));
        assert.equal(all().length, ROWS_PER_REQUEST * REQUESTS);
        assert.equal(Object.keys(byKey).length, REQUESTS, 'one key per request');
        assert.deepEqual(new Set(Object.values(byKey)), new Set([ROWS_PER_REQUEST]));
        const keySources = (service: string) => new Set(recorder.rows(service).map(row => row.keySource));
        for (const service of ['gate', 'front', 'back'])
          assert.deepEqual(keySources(service), new Set([source]), service);
        assert.ok(recorder.rows('gate').every(row => has(row, RowFlag.Injected)));
        assert.ok(!['front', 'back'].some(service => recorder.rows(service).some(row => has(row, RowFlag.Injected))));
        const entries = all().filter(row => has(row, RowFlag.Entry));
        assert.equal(entries.length, REQUESTS);
        assert.ok(
          recorder.rows('gate').filter(row => has(row, RowFlag.Entry)).length === REQUESTS,
          'all at the gateway',
        );
      } finally {
        await mesh.stop('kill');
        for (const app of apps) await app.stop();
        await sink.stop();
        recorder.stop();
      }
    });
  }
});

const has = (row: Row, bit: number) => (row.flags & bit) !== 0;
