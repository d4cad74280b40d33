/** What the collector may wish of a filter, for a while: fewer reports, fewer rows, a pause. */
import assert from 'node:assert/strict';
import type { Pair } from '../support/proxy-wasm-host.js';
import { Random } from './random.js';
import { COLLECTOR_CLUSTER, Sidecar } from './sidecar.js';
import { sidecars } from './suite.js';
import { encodeReply, Outcome, type ReportReply } from './wire.js';

type Hints = NonNullable<ReportReply['hints']>;

/** A wish is forgotten after so long, ms. */
const WISH_MS = 60_000;
const RATIO = 0.25;
/** One request in so many fails. */
const FAILS = 10;

describe('a wish of the collector', function () {
  this.timeout(120_000);
  const start = sidecars(true);

  const say = (sidecar: Sidecar, hints: Hints): void => {
    sidecar.collector.openStreams[0]?.send(encodeReply({ hints }));
    sidecar.advance(400); // all VMs have looked into the table they share
  };

  /** Requests of different transactions, on all workers, with all the same keys each time. */
  function load(sidecar: Sidecar, count: number, seed = 12): void {
    const random = new Random(seed);
    const { workers } = sidecar.proxy;
    for (let i = 0; i < count; i++) {
      const trace = Array.from({ length: 32 }, () => random.below(16).toString(16)).join('');
      const headers: Pair[] = [['traceparent', `00-${trace}-00f067aa0ba902b7-01`]];
      sidecar.serve({ headers, worker: i % workers.length }, { status: i % FAILS === 0 ? 500 : 200 });
      if (i % 100 === 99) sidecar.advance(300);
    }
    sidecar.advance(3000);
  }

  const keys = (sidecar: Sidecar, outcome: number): Set<string> =>
    new Set(
      sidecar.collector
        .rows()
        .filter(row => row.outcome === outcome)
        .map(row => row.key),
    );
  const weightOf = (sidecar: Sidecar, outcome: number): number =>
    sidecar.collector.rows().reduce((sum, row) => sum + (row.outcome === outcome ? row.weight : 0), 0);
  const batches = (sidecar: Sidecar): { rows: number; counts: number; counted: number }[] =>
    sidecar.collector.requests.flatMap(({ request }) =>
      request.batches.map(({ events, counts }) => ({
        rows: events?.rows ?? 0,
        counts: counts.length,
        counted: counts.reduce((sum, { count }) => sum + Number(count), 0),
      })),
    );

  describe('for fewer rows', () => {
    it('keeps those of a configured sample, and every failure; counts stay exact', () => {
      const sidecar = start({ workers: 3 });
      say(sidecar, { sampleRatio: RATIO });
      load(sidecar, 4000);
      const twin = start({ workers: 3, config: { report: { events: 'sample', ratio: RATIO } } });
      load(twin, 4000);
      assert.deepEqual(keys(sidecar, Outcome.Ok), keys(twin, Outcome.Ok), 'the same choice everywhere');
      assert.equal(keys(sidecar, Outcome.Failed).size, 4000 / FAILS);
      assert.deepEqual([sidecar.collector.counted(), sidecar.collector.lost()], [4000, 0]);
      assert.equal(weightOf(sidecar, Outcome.Failed), 4000 / FAILS);
      const ok = 4000 - 4000 / FAILS;
      assert.ok(Math.abs(weightOf(sidecar, Outcome.Ok) - ok) < 0.1 * ok, String(weightOf(sidecar, Outcome.Ok)));
    });

    it('for none at all leaves the failures', () => {
      const sidecar = start();
      say(sidecar, { sampleRatio: 0 });
      load(sidecar, 500);
      assert.deepEqual([sidecar.collector.rows().length, sidecar.collector.counted()], [50, 500]);
    });

    it('is forgotten after a minute, unless it is said again', () => {
      const sidecar = start();
      say(sidecar, { sampleRatio: 0 });
      sidecar.advance(WISH_MS - 10_000);
      load(sidecar, 100);
      assert.equal(sidecar.collector.rows().length, 10);
      say(sidecar, { sampleRatio: 0 });
      sidecar.advance(WISH_MS - 10_000);
      load(sidecar, 100);
      assert.equal(sidecar.collector.rows().length, 20);
      sidecar.advance(10_000);
      sidecar.collector.clear();
      load(sidecar, 100);
      assert.equal(sidecar.collector.rows().length, 100);
      assert.ok(batches(sidecar).every(batch => batch.counts === 0));
    });

    it('is taken back by 1', () => {
      const sidecar = start();
      say(sidecar, { sampleRatio: 0 });
      say(sidecar, { sampleRatio: 1 });
      load(sidecar, 100);
      assert.equal(sidecar.collector.rows().length, 100);
      assert.ok(batches(sidecar).every(batch => batch.counts === 0));
    });

    for (const sampleRatio of [Number.NaN, -0.1, 1.1, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
      it(`of ${String(sampleRatio)} is none`, () => {
        const sidecar = start();
        say(sidecar, { sampleRatio });
        load(sidecar, 100);
        assert.equal(sidecar.collector.rows().length, 100);
      });

    it('and the settings: the smaller share holds, and settings alone leave out failures', () => {
      const report = (ratio: number): Record<string, unknown> => ({ report: { events: 'sample', ratio } });
      const [half, less, tenth] = [
        start({ config: report(0.5) }),
        start({ config: report(0.5) }),
        start({ config: report(0.1) }),
      ];
      say(less, { sampleRatio: 0.2 });
      say(tenth, { sampleRatio: 0.2 });
      for (const sidecar of [half, less, tenth]) load(sidecar, 2000);
      const plain = start();
      say(plain, { sampleRatio: 0.2 });
      load(plain, 2000);
      assert.deepEqual(keys(less, Outcome.Ok), keys(plain, Outcome.Ok));
      assert.deepEqual(keys(less, Outcome.Failed), keys(half, Outcome.Failed));
      assert.equal(weightOf(less, Outcome.Failed), 2 * keys(half, Outcome.Failed).size);
      const configured = start({ config: report(0.1) });
      load(configured, 2000);
      assert.deepEqual(keys(tenth, Outcome.Ok), keys(configured, Outcome.Ok));
      for (const sidecar of [half, less, tenth, plain]) assert.equal(sidecar.collector.counted(), 2000);
    });

    it('that comes and goes in mid-load: no batch mixes rows that are complete with rows that are not', () => {
      const sidecar = start({ workers: 3, config: { report: { intervalMs: 5000 } } });
      let sent = 0;
      for (let round = 0; round < 30; round++) {
        say(sidecar, { sampleRatio: [0.5, 1, 0][round % 3]! });
        for (let i = 0; i < 40; i++) sidecar.serve({ worker: i % 3 }, { status: i % 7 === 0 ? 500 : 200 });
        sent += 40;
      }
      sidecar.advance(10_000);
      assert.equal(sidecar.collector.counted(), sent);
      assert.equal(sidecar.collector.lost(), 0);
      for (const { rows, counts, counted } of batches(sidecar)) assert.ok(counts === 0 || rows <= counted);
      assert.ok(new Set(batches(sidecar).map(({ counts }) => counts === 0)).size === 2, 'both kinds');
    });

    it('leaves out no end of what was told to have begun, and meanwhile tells none', () => {
      const sidecar = start();
      const entry = (): ReturnType<Sidecar['receive']> => {
        const exchange = sidecar.receive({
          properties: { connection: { mtls: false, uri_san_peer_certificate: '' } },
        });
        exchange.requestHeaders();
        sidecar.advance(100);
        return exchange;
      };
      const began = (): number => sidecar.collector.requests.flatMap(({ request }) => request.began).length;
      const before = entry();
      sidecar.advance(500);
      assert.equal(began(), 1, 'told to have begun');
      say(sidecar, { sampleRatio: 0 });
      const after = entry();
      sidecar.advance(1000);
      assert.equal(began(), 1);
      sidecar.answer(before);
      sidecar.answer(after);
      sidecar.advance(3000);
      const events = sidecar.collector.rows().map(row => row.weight);
      assert.deepEqual([events, sidecar.collector.counted()], [[1], 2]);
    });

    it('is not believed from anybody but the own stream', () => {
      const sidecar = start();
      const root = sidecar.proxy.main.root(sidecar.inbound);
      assert.ok(root !== undefined);
      const message = encodeReply({ hints: { sampleRatio: 0, intervalMs: 60_000, drainMs: 1 } });
      for (let token = 0; token < 400; token++) {
        if (token === OWN_TOKEN) continue;
        root.grpc.receiveBuffer = message;
        root.vm.upcall(root, 'proxy_on_grpc_receive', [root.id, token, message.length], () => undefined);
      }
      sidecar.advance(400);
      load(sidecar, 100);
      assert.equal(sidecar.collector.rows().length, 100);
      assert.equal(sidecar.collector.streams.length, 1);
      // The same message where it belongs: the numbers above were not all wrong.
      root.grpc.receiveBuffer = message;
      root.vm.upcall(root, 'proxy_on_grpc_receive', [root.id, OWN_TOKEN, message.length], () => undefined);
      sidecar.advance(400);
      load(sidecar, 100, 13);
      assert.equal(sidecar.collector.rows().length, 110);
    });

    it('may come with the answer to a call', () => {
      const sidecar = new Sidecar();
      sidecar.collector.mode = 'refuse';
      sidecar.collector.hints = { sampleRatio: 0 };
      sidecar.advance(20_000);
      sidecar.collector.clear();
      load(sidecar, 100);
      sidecar.advance(20_000);
      assert.deepEqual([sidecar.collector.rows().length, sidecar.collector.counted()], [10, 100]);
    });
  });

  it('thins by settings of one direction only: the other’s rows stand for one each', () => {
    const sidecar = new Sidecar();
    const { properties } = sidecar.outbound;
    const configuration = JSON.stringify({
      collector: { cluster: COLLECTOR_CLUSTER },
      report: { events: 'sample', ratio: 0.25 },
    });
    sidecar.proxy.removePlugin(sidecar.outbound);
    sidecar.outbound = sidecar.proxy.addPlugin({ name: 'thin', rootId: 'meshpulse', configuration, properties });
    sidecar.connect();
    const random = new Random(5);
    for (let i = 0; i < 300; i++) {
      const trace = Array.from({ length: 32 }, () => random.below(16).toString(16)).join('');
      const headers: Pair[] = [['traceparent', `00-${trace}-00f067aa0ba902b7-01`]];
      sidecar.serve({ headers });
      sidecar.callOut({ headers });
      if (i % 50 === 0) sidecar.advance(100);
    }
    sidecar.advance(5000);
    const rows = sidecar.collector.rows();
    const inbound = rows.filter(row => row.weight === 1).length;
    assert.equal(inbound, 300);
    assert.ok(rows.length - inbound > 40 && rows.length - inbound < 120, String(rows.length));
    assert.equal(sidecar.collector.counted(), 600);
    assert.ok(batches(sidecar).length < 60, 'batches are no smaller for it');
  });

  describe('for fewer reports', () => {
    /** Batches in 30 s of one request each 100 ms. */
    function made(sidecar: Sidecar): number {
      sidecar.collector.clear();
      for (let i = 0; i < 300; i++) {
        sidecar.serve();
        sidecar.advance(100);
      }
      return batches(sidecar).length;
    }

    it('is followed within 100..60000 ms, and forgotten after a minute', () => {
      const sidecar = start();
      say(sidecar, { intervalMs: 10_000 });
      assert.ok(made(sidecar) <= 4);
      sidecar.advance(WISH_MS);
      assert.ok(made(sidecar) >= 25);
      for (const intervalMs of [99, 60_001, 4_294_967_295]) {
        say(sidecar, { intervalMs });
        assert.ok(made(sidecar) >= 25, `after a wish for ${String(intervalMs)} ms`);
      }
    });

    it('goes on when the stream moves to another replica', () => {
      const sidecar = start();
      say(sidecar, { intervalMs: 10_000 });
      sidecar.collector.openStreams[0]?.close(14, 'gone');
      sidecar.advance(3000);
      assert.equal(sidecar.collector.openStreams.length, 1);
      assert.ok(made(sidecar) <= 4);
    });
  });

  it('to stay away is bounded by 10 min', () => {
    const sidecar = start();
    const [stream] = sidecar.collector.openStreams;
    stream?.send(encodeReply({ hints: { retryAfterMs: 4_294_967_295 } }));
    stream?.close(8, 'too many');
    sidecar.advance(599_000);
    assert.equal(sidecar.collector.streams.length, 1);
    sidecar.advance(160_000);
    assert.equal(sidecar.collector.streams.length, 2);
  });
});

/** Of the first stream that a VM opens. */
const OWN_TOKEN = 2;
