/** What reaches the collector: who speaks, rows, operations, status. */
import assert from 'node:assert/strict';
import type { Pair } from '../support/proxy-wasm-host.js';
import { Random } from './random.js';
import { COLLECTOR_CLUSTER, PEER_CUID, Sidecar, TRACE_ID, TRACEPARENT } from './sidecar.js';
import { sidecars } from './suite.js';
import { Outcome } from './wire.js';

const TICK_MS = 200;

describe('reports', function () {
  this.timeout(120_000);
  const start = sidecars(true);

  it('begin with hello: who, where, which life, which VMs', () => {
    const sidecar = start({ workers: 3 });
    const [hello] = sidecar.collector.hellos;
    assert.deepEqual(
      {
        proxyId: hello?.proxyId,
        cluster: hello?.cluster,
        network: hello?.network,
        service: hello?.service,
        slot: hello?.slot,
        workload: hello?.workload,
        ip: hello?.ip,
        scope: hello?.scope,
        edge: hello?.edge,
      },
      {
        proxyId: 'sidecar~10.0.0.7~shop-7c9d-abcde.shop~shop.svc.cluster.local',
        cluster: 'east',
        network: 'net1',
        service: 'shop.shop',
        slot: 'shop-7c9d-abcde',
        workload: 'shop',
        ip: '10.0.0.7',
        scope: 'CUID_SCOPE_PROXY',
        edge: false,
      },
    );
    assert.match(hello?.cuid ?? '', /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.notEqual(hello?.bootEpoch, '0');
    assert.match(hello?.version ?? '', /^\d+\.\d+\.\d+/);
    for (let worker = 0; worker < 3; worker++) sidecar.serve({ worker });
    sidecar.advance(3000);
    assert.equal(sidecar.collector.batches.size, 3, 'one producer a working VM');
  });

  it('name the ports that the instance listens on', () => {
    const sidecar = start();
    sidecar.serve();
    sidecar.serve({ properties: { destination: { port: 9090, address: '10.0.0.7:9090' } } });
    sidecar.advance(5000);
    assert.deepEqual(new Set(sidecar.collector.hellos.at(-1)?.ports), new Set([8080, 9090]));
  });

  it('go to the collector by an authority that Envoy accepts', () => {
    const sidecar = start();
    assert.equal(sidecar.collector.streams[0]?.method.authority, 'collector.mesh.svc.cluster.local');
    assert.equal(sidecar.collector.streams[0].method.path, '/meshpulse.v1.Ingest/Report');
    const other = new Sidecar({ config: { collector: { cluster: COLLECTOR_CLUSTER, authority: 'other.name:1' } } });
    other.connect();
    assert.equal(other.collector.streams[0]?.method.authority, 'other.name:1');
  });

  it('make exactly one row of every request, with the same event id at both ends', () => {
    const sidecar = start({ workers: 2 });
    const random = new Random(6);
    const sent = 3000;
    for (let i = 0; i < sent; i++) {
      const worker = random.below(2);
      if (i % 2 === 0) sidecar.serve({ worker }, { status: random.pick([200, 404, 503]) });
      else sidecar.callOut({ worker }, { status: random.pick([200, 404, 503]) });
      if (random.chance(0.05)) sidecar.advance(random.below(400));
    }
    sidecar.advance(5000);
    const rows = sidecar.collector.rows();
    assert.equal(rows.length, sent);
    assert.equal(new Set(rows.map(row => row.event)).size, sent);
    assert.equal(sidecar.collector.gaps(), 0);
    assert.equal(sidecar.collector.replays, 0);
  });

  it('carry times, key, span, operation and peer of an event', () => {
    const sidecar = start();
    const before = sidecar.proxy.clock.realtimeNs() / 1000n;
    const headers: Pair[] = [
      ['traceparent', TRACEPARENT],
      ['x-cuid', PEER_CUID],
    ];
    sidecar.serve({ headers, properties: { upstream: { cx_pool_ready_duration: 1_500_000n } } }, { afterMs: 25 });
    sidecar.advance(2000);
    const [row] = sidecar.collector.rows();
    assert.equal((row?.endUnixUs ?? 0n) - before, 25_000n);
    assert.deepEqual(
      [row?.durationUs, row?.key, row?.spanIn, row?.operation, row?.peerCuid, row?.waitUs],
      [25_000, TRACE_ID, '00f067aa0ba902b7', 'GET /orders/*', PEER_CUID, 1500],
    );
  });

  it('know operations as templates, at most 200 a service', () => {
    const sidecar = start();
    const rows: readonly (readonly [string, string])[] = [
      ['/', 'GET /'],
      ['/a/b', 'GET /a/b'],
      ['/orders/17', 'GET /orders/*'],
      ['/orders/3f0d8a1e-6c1b-4d5e-8f90-123456789abc/items', 'GET /orders/*/items'],
      ['/v1/users/bob%40x.org', 'GET /v1/users/*'],
      ['/search?q=secret', 'GET /search'],
      ['/a/a1b2c3d4e5f60718', 'GET /a/*'],
    ];
    for (const [path] of rows)
      sidecar.serve({
        rawHeaders: [
          [':method', 'GET'],
          [':path', path],
          [':authority', 'a'],
        ],
      });
    for (let i = 0; i < 400; i++) {
      const word = String.fromCharCode(97 + (i % 26), 97 + (Math.floor(i / 26) % 26), 120);
      sidecar.serve({
        rawHeaders: [
          [':method', 'GET'],
          [':path', `/w/${word}`],
          [':authority', 'a'],
        ],
      });
    }
    sidecar.advance(5000);
    const seen = sidecar.collector.rows().map(row => row.operation);
    assert.deepEqual(
      seen.slice(0, rows.length),
      rows.map(([, operation]) => operation),
    );
    assert.ok(new Set(seen).size <= 201, String(new Set(seen).size));
    assert.ok(seen.includes('other'));
  });

  it('hold no bytes that are not UTF-8, whatever clients send', () => {
    const sidecar = start();
    const weird = '\xff\xfe\x80';
    sidecar.serve({
      rawHeaders: [
        [':method', `G${weird}`],
        [':path', `/${weird}/x`],
        [':authority', weird],
        ['content-type', 'application/grpc'],
      ],
    });
    sidecar.serve({
      rawHeaders: [
        [':method', weird],
        [':path', weird],
        [':authority', weird],
      ],
    });
    sidecar.callOut(
      { properties: { xds: { cluster_name: `outbound|80||${weird}` } } },
      { status: 503, details: weird },
    );
    sidecar.advance(3000);
    const rows = sidecar.collector.rows();
    assert.equal(rows.length, 3);
    for (const row of rows) assert.doesNotMatch(`${row.operation} ${row.peerService} ${row.details}`, /\ufffd/);
  });

  it('flush failures at once, the rest by interval', () => {
    const sidecar = start({ config: { report: { intervalMs: 10_000 } } });
    sidecar.serve();
    sidecar.advance(500);
    assert.equal(sidecar.collector.rows().length, 0);
    sidecar.serve({}, { status: 503 });
    sidecar.proxy.settle();
    assert.deepEqual(
      sidecar.collector
        .rows()
        .map(row => row.outcome)
        .toSorted(),
      [Outcome.Ok, Outcome.Failed],
    );
    sidecar.serve();
    sidecar.advance(10_000 + TICK_MS);
    assert.equal(sidecar.collector.rows().length, 3);
  });

  it('say how busy the instance is, in every interval with traffic', () => {
    const sidecar = start();
    for (let second = 0; second < 5; second++) {
      for (let i = 0; i < 10; i++) sidecar.serve({}, { status: i < 3 ? 500 : 200, afterMs: 20 });
      sidecar.advance(800);
    }
    const statuses = sidecar.collector.requests.flatMap(({ request }) =>
      request.status === null ? [] : [request.status],
    );
    assert.ok(statuses.length >= 5, `${String(statuses.length)} statuses in 5 s`);
    const busy = statuses.filter(status => status.requests > 0);
    assert.ok(busy.length >= 4, `${String(busy.length)} with requests`);
    for (const status of busy) {
      assert.ok(status.failures > 0 && status.failures < status.requests);
      assert.ok(Math.abs((status.durationUsP50 ?? 0) - 20_000) <= 5000, String(status.durationUsP50));
    }
  });

  it('show the application’s queue within 2 s, wherever it was said', () => {
    const sidecar = start({ workers: 3 });
    sidecar.serve({ worker: 2 }, { headers: [['endpoint-load-metrics', 'TEXT named_metrics.queue=17']] });
    sidecar.advance(2000);
    assert.deepEqual(
      [sidecar.collector.lastStatus?.queue, sidecar.collector.lastStatus?.queueSource],
      [17, 'QUEUE_SOURCE_APP'],
    );
  });

  it('do nothing without a collector: stamps and order only', () => {
    const sidecar = start({ config: null });
    const exchange = sidecar.callOut({
      headers: [
        ['x-a', '1'],
        ['traceparent', TRACEPARENT],
      ],
    });
    assert.notEqual(exchange.request.get('x-cuid'), undefined);
    sidecar.advance(120_000);
    assert.equal(sidecar.collector.streams.length + sidecar.collector.calls.length, 0);
    assert.equal(sidecar.proxy.queues.depth('meshpulse.queue'), 0);
  });

  it('do not touch the network in on_configure: the canary leaves no trace', () => {
    const sidecar = new Sidecar();
    assert.equal(sidecar.collector.streams.length + sidecar.collector.calls.length, 0);
    assert.deepEqual(
      sidecar.proxy.metrics.names().filter(name => (sidecar.proxy.metrics.value(name) ?? 0) !== 0),
      [],
    );
  });
});
