/** Reports over the life of a proxy: silence, long requests, thinned rows, goodbye. */
import assert from 'node:assert/strict';
import type { Pair } from '../support/proxy-wasm-host.js';
import { Random } from './random.js';
import type { Sidecar } from './sidecar.js';
import { COLLECTOR_CLUSTER, TRACE_ID, TRACEPARENT } from './sidecar.js';
import { sidecars } from './suite.js';
import { Outcome, RowFlag } from './wire.js';

describe('reports over time', function () {
  this.timeout(120_000);
  const start = sidecars(true);

  /** Times of requests with a certain content, seconds since `since`. */
  const times = (
    sidecar: Sidecar,
    has: (request: Sidecar['collector']['requests'][number]['request']) => boolean,
  ): number[] =>
    sidecar.collector.requests
      .filter(({ request }) => has(request))
      .map(({ request }) => Number(BigInt(request.sentUnixUs) / 1000n) / 1000);

  describe('of an idle proxy', () => {
    it('come at least every idleMs, with a heartbeat every 10 s', () => {
      const sidecar = start({ config: { report: { idleMs: 30_000 } } });
      sidecar.collector.clear();
      sidecar.advance(300_000);
      const all = times(sidecar, () => true);
      const gaps = all.slice(1).map((time, i) => time - (all[i] ?? 0));
      assert.ok(Math.max(...gaps) <= 10.5, `longest silence ${String(Math.max(...gaps))} s`);
      const status = times(sidecar, request => request.status !== null);
      const statusGaps = status.slice(1).map((time, i) => time - (status[i] ?? 0));
      assert.ok(status.length >= 9 && Math.max(...statusGaps) <= 30.5, JSON.stringify(statusGaps));
      assert.ok(all.length <= 60, `${String(all.length)} messages in 5 min`);
    });

    it('cost one stream, not one for each VM', () => {
      const sidecar = start({ workers: 8 });
      sidecar.advance(60_000);
      assert.equal(sidecar.collector.streams.length, 1);
    });
  });

  describe('of long requests', () => {
    it('list them once they are older than inFlightMs, again each period, and unlist them at the end', () => {
      const sidecar = start({ workers: 2 });
      const exchange = sidecar.receive({ headers: [['traceparent', TRACEPARENT]], worker: 1 });
      exchange.requestHeaders();
      sidecar.advance(4000);
      const lists = () => sidecar.collector.requests.flatMap(({ request }) => request.inFlight);
      assert.deepEqual(
        lists().flatMap(list => list.items),
        [],
      );
      sidecar.advance(3000);
      const [item] = lists().flatMap(list => list.items);
      assert.ok(item !== undefined, 'listed within 7 s of its start');
      assert.ok(item.ageMs >= 5000 && item.ageMs <= 7000, String(item.ageMs));
      assert.equal(item.operation, 'GET /orders/*');
      assert.equal((BigInt(item.keyHi) << 64n) | BigInt(item.keyLo), BigInt(`0x${TRACE_ID}`));
      sidecar.advance(20_000);
      assert.ok(lists().filter(list => list.items.length > 0).length >= 4, 'again each period');
      sidecar.answer(exchange);
      sidecar.advance(2500);
      assert.deepEqual(lists().at(-1)?.items, []);
      assert.equal(sidecar.collector.rows()[0]?.event, BigInt(item.eventId).toString(16).padStart(16, '0'));
    });

    it('list at most 256, oldest first, and say how many more', () => {
      const sidecar = start();
      for (let i = 0; i < 400; i++) {
        sidecar.receive().requestHeaders();
        sidecar.proxy.clock.pass(1);
      }
      sidecar.advance(7000);
      const list = sidecar.collector.requests
        .flatMap(({ request }) => request.inFlight)
        .findLast(candidate => candidate.items.length > 0);
      assert.deepEqual([list?.items.length, list?.omitted], [256, 144]);
      const ages = list?.items.map(item => item.ageMs) ?? [];
      assert.deepEqual(
        ages,
        ages.toSorted((a, b) => b - a),
      );
    });

    it('name calls by their callee', () => {
      const sidecar = start();
      sidecar.call().requestHeaders();
      sidecar.advance(7000);
      const [item] = sidecar.collector.requests.flatMap(({ request }) => request.inFlight.flatMap(list => list.items));
      assert.equal((item?.flags ?? 0) & RowFlag.Call, RowFlag.Call);
    });
  });

  describe('that are thinned', () => {
    const load = (sidecar: Sidecar, count: number): void => {
      const random = new Random(12);
      for (let i = 0; i < count; i++) {
        const trace = Array.from({ length: 32 }, () => random.below(16).toString(16)).join('');
        const headers: Pair[] = [['traceparent', `00-${trace}-00f067aa0ba902b7-01`]];
        sidecar.serve({ headers }, { status: i % 10 === 0 ? 500 : 200 });
        if (i % 100 === 99) sidecar.advance(300);
      }
      sidecar.advance(5000);
    };

    it('keep failures only with events: failures, and counts exact', () => {
      const sidecar = start({ config: { report: { events: 'failures' } } });
      load(sidecar, 1000);
      const rows = sidecar.collector.rows();
      assert.equal(rows.length, 100);
      assert.ok(rows.every(row => row.outcome === Outcome.Failed));
      assert.equal(sidecar.collector.counted(), 1000);
    });

    it('keep a share by hash of the key with events: sample, with weights, and counts exact', () => {
      const sidecar = start({ config: { report: { events: 'sample', ratio: 0.25 } } });
      load(sidecar, 4000);
      const rows = sidecar.collector.rows();
      assert.ok(rows.length > 850 && rows.length < 1150, String(rows.length));
      assert.ok(rows.every(row => row.weight === 4));
      assert.equal(sidecar.collector.counted(), 4000);
      const twin = start({ config: { report: { events: 'sample', ratio: 0.25 } } });
      load(twin, 4000);
      assert.deepEqual(
        new Set(twin.collector.rows().map(row => row.key)),
        new Set(rows.map(row => row.key)),
        'the same choice everywhere',
      );
    });

    for (const ratio of [0.4, 0.7, 0.15])
      it(`weigh rows so that their sum is right for a ratio of ${String(ratio)}, whatever the group`, () => {
        const sidecar = start({ config: { report: { events: 'sample', ratio } } });
        const sent = 8000;
        load(sidecar, sent);
        const rows = sidecar.collector.rows();
        const exact = 1 / ratio;
        assert.ok(rows.every(row => row.weight === Math.floor(exact) || row.weight === Math.ceil(exact)));
        // Of the rows there are: how many rows are sampled is chance, what each stands for is not.
        for (const group of [rows, rows.filter(row => row.outcome === Outcome.Ok)]) {
          const mean = group.reduce((sum, row) => sum + row.weight, 0) / group.length;
          assert.ok(Math.abs(mean - exact) < 0.04 * exact, `${String(mean)} for ${String(exact)}`);
        }
        const total = rows.reduce((sum, row) => sum + row.weight, 0);
        assert.ok(Math.abs(total - sent) < 0.1 * sent, `${String(total)} for ${String(sent)}`);
      });
  });

  describe('at the end', () => {
    const remove = (sidecar: Sidecar, order: 'main first' | 'workers first'): void => {
      sidecar.proxy.removePlugin(sidecar.inbound, order);
      sidecar.proxy.removePlugin(sidecar.outbound, order);
      sidecar.advance(5000);
    };
    const goodbyes = (sidecar: Sidecar): number =>
      sidecar.collector.requests.filter(({ request }) => request.goodbye !== null).length;

    for (const order of ['main first', 'workers first'] as const) {
      it(`say goodbye once, as the last word, when the proxy was quiet for an interval (${order})`, () => {
        const sidecar = start({ workers: 2 });
        for (let i = 0; i < 100; i++) sidecar.serve({ worker: i % 2 });
        sidecar.advance(1500);
        remove(sidecar, order);
        assert.equal(sidecar.collector.rows().length, 100);
        assert.equal(goodbyes(sidecar), 1);
        assert.notEqual(sidecar.collector.requests.at(-1)?.request.goodbye, null);
        assert.equal(sidecar.collector.openStreams.length, 0);
      });
    }

    it('lose nothing that the workers hold when they end before the main thread does', () => {
      const sidecar = start({ workers: 2 });
      for (let i = 0; i < 100; i++) sidecar.serve({ worker: i % 2 });
      remove(sidecar, 'workers first');
      assert.equal(sidecar.collector.rows().length, 100);
      assert.equal(goodbyes(sidecar), 1);
    });

    it('wait for streams that still run: a request that ends after its configuration is counted', () => {
      const sidecar = start();
      const exchange = sidecar.receive();
      exchange.requestHeaders();
      sidecar.proxy.removePlugin(sidecar.inbound);
      sidecar.advance(2000);
      sidecar.answer(exchange);
      sidecar.advance(3000);
      assert.equal(sidecar.collector.rows().length, 1);
    });

    it('go on when only one of two configurations ends', () => {
      const sidecar = start();
      sidecar.serve();
      sidecar.proxy.removePlugin(sidecar.inbound);
      sidecar.callOut();
      sidecar.advance(8000);
      assert.equal(sidecar.collector.rows().length, 2);
      assert.ok(sidecar.collector.requests.every(({ request }) => request.goodbye === null));
    });

    it('survive a new configuration with the same CUID and nothing lost', () => {
      const sidecar = start();
      sidecar.serve();
      const configuration = JSON.stringify({ collector: { cluster: COLLECTOR_CLUSTER }, report: { intervalMs: 500 } });
      const next = sidecar.proxy.addPlugin({
        name: 'next',
        rootId: 'meshpulse',
        configuration,
        properties: sidecar.inbound.properties,
      });
      sidecar.proxy.removePlugin(sidecar.inbound);
      sidecar.proxy.removePlugin(sidecar.outbound);
      sidecar.advance(5000);
      const exchange = sidecar.proxy.exchange(0, next, {
        headers: [
          [':method', 'GET'],
          [':path', '/'],
          [':authority', 'a'],
        ],
      });
      sidecar.finish(exchange);
      sidecar.advance(5000);
      assert.equal(sidecar.collector.rows().length, 2);
      assert.equal(new Set(sidecar.collector.hellos.map(hello => hello.cuid)).size, 1);
      assert.equal(sidecar.collector.hellos.at(-1)?.reportIntervalMs, 500);
    });
  });
});
