/** `role: order`, in the router's upstream chain: what tracers append comes to the front, and both filters know one request. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Exchange, HeaderMap, Pair } from '../support/proxy-wasm-host.js';
import { application, ordered, own, ownBytes } from './headers.js';
import { Random } from './random.js';
import { assertAlive, PEER_CUID, REQUEST_ID, Sidecar, TRACE_ID, TRACEPARENT } from './sidecar.js';
import { KeySource, RowFlag } from './wire.js';

const INJECTED_TRACE = 'aaaabbbbccccddddeeeeffff00001111';

/** What the proxy's own tracer does before the upstream chain runs: remove and append. */
const otel =
  (trace: string, span = '1234567890abcdef') =>
  (request: HeaderMap): void => {
    request.set('traceparent', `00-${trace}-${span}-01`);
    request.set('tracestate', '');
  };
const zipkin = (request: HeaderMap): void => {
  request.set('x-b3-traceid', INJECTED_TRACE);
  request.set('x-b3-spanid', '1234567890abcdef');
  request.set('x-b3-parentspanid', '00f067aa0ba902b7');
  request.set('x-b3-sampled', '1');
};

describe('role: order', () => {
  const start = (config = {}): Sidecar => {
    const sidecar = new Sidecar({ order: true, config });
    sidecar.connect();
    // The first request tells the downstream filter that its other half is there.
    through(sidecar, sidecar.call({ headers: [['x-request-id', 'first']] }));
    sidecar.advance(3000);
    sidecar.collector.clear();
    return sidecar;
  };

  function through(sidecar: Sidecar, exchange: Exchange, inject = otel(TRACE_ID), attempts = 1): Exchange {
    assert.equal(exchange.requestHeaders(), 'continue');
    for (let i = 0; i < attempts; i++) {
      if (sidecar.order !== undefined) exchange.attempt(sidecar.order, inject);
    }
    return sidecar.answer(exchange);
  }

  for (const [tracer, inject] of [
    ['OpenTelemetry', otel(TRACE_ID)],
    ['Zipkin', zipkin],
  ] as const) {
    it(`moves what ${tracer} appended directly behind the pseudo headers`, () => {
      const sidecar = start();
      for (const exchange of [
        sidecar.call({ headers: [['x-a', '1']] }),
        sidecar.receive({ headers: [['x-a', '1']] }),
      ]) {
        through(sidecar, exchange, inject);
        const after = exchange.request.pairs();
        const stamps = own(after);
        const rest = after.filter(pair => !stamps.includes(pair));
        assert.deepEqual(rest, ordered(rest));
        assert.match(after[4]?.[0] ?? '', /^(traceparent|x-b3-)/);
      }
      assertAlive(sidecar);
    });
  }

  it('stamps once, there, so that the downstream filter need not touch the request', () => {
    const sidecar = start();
    const exchange = through(sidecar, sidecar.call({ headers: [['x-request-id', REQUEST_ID]] }));
    assert.equal(exchange.routeCacheCleared, 0);
    assert.deepEqual(
      own(exchange.request.pairs()).map(([name]) => name),
      ['x-cuid', 'x-mp-status', 'x-mp-progress'],
    );
    assert.ok(ownBytes(exchange.request.pairs()) < 256);
  });

  it('puts every attempt in order, keeps one event id, and stamps no second time', () => {
    const sidecar = start();
    const exchange = sidecar.call({ headers: [['x-request-id', REQUEST_ID]] });
    exchange.requestHeaders();
    const ids = [1, 2, 3].map(attempt => {
      if (sidecar.order !== undefined)
        exchange.attempt(sidecar.order, otel(TRACE_ID, `000000000000000${String(attempt)}`));
      const after = exchange.request.pairs();
      assert.equal(after[4]?.[1], `00-${TRACE_ID}-000000000000000${String(attempt)}-01`);
      assert.equal(own(after).length, 3);
      return exchange.request.get('x-mp-progress');
    });
    assert.equal(new Set(ids).size, 1);
    sidecar.answer(exchange);
    sidecar.advance(3000);
    assert.match(ids[0] ?? '', new RegExp(`event="${sidecar.collector.rows()[0]?.event ?? '?'}"`));
  });

  it('hands the injected id to the first hop: it had no context, and knows its transaction', () => {
    const sidecar = start();
    through(sidecar, sidecar.receive({ headers: [['x-request-id', REQUEST_ID]] }), otel(INJECTED_TRACE));
    sidecar.advance(3000);
    const [row] = sidecar.collector.rows();
    assert.deepEqual(
      [row?.key, row?.keySource, row?.spanOut],
      [INJECTED_TRACE, KeySource.Traceparent, '1234567890abcdef'],
    );
    assert.equal((row?.flags ?? 0) & RowFlag.Injected, RowFlag.Injected);
    assert.equal(row?.requestId, REQUEST_ID.replaceAll('-', ''));
  });

  it('keeps the incoming id where there was one, and notes the span that goes out', () => {
    const sidecar = start();
    through(
      sidecar,
      sidecar.receive({
        headers: [
          ['traceparent', TRACEPARENT],
          ['x-request-id', REQUEST_ID],
        ],
      }),
      otel(TRACE_ID, 'fedcba0987654321'),
    );
    sidecar.advance(3000);
    const [row] = sidecar.collector.rows();
    assert.deepEqual([row?.key, row?.spanIn, row?.spanOut], [TRACE_ID, '00f067aa0ba902b7', 'fedcba0987654321']);
    assert.equal((row?.flags ?? 0) & RowFlag.Injected, 0);
  });

  for (const count of [6, 40]) {
    it(`does not mix up ${String(2 * count)} requests that wait between the two chains, as an injected delay makes them`, () => {
      const sidecar = start();
      const random = new Random(count);
      const id = (i: number): string => REQUEST_ID.replace(/.{2}$/, String(i).padStart(2, '0'));
      const trace = (i: number): string => i.toString(16).padStart(32, 'a');
      const inbound = Array.from({ length: count }, (_, i) => sidecar.receive({ headers: [['x-request-id', id(i)]] }));
      const outbound = Array.from({ length: count }, (_, i) =>
        sidecar.call({ headers: [['x-request-id', id(count + i)]] }),
      );
      const all = [...inbound, ...outbound];
      for (const exchange of all) exchange.requestHeaders();
      const order = all.map((_, i) => i).toSorted(() => random.below(3) - 1);
      for (const i of order) if (sidecar.order !== undefined) all[i]?.attempt(sidecar.order, otel(trace(i)));
      for (const exchange of all) sidecar.answer(exchange);
      sidecar.advance(3000);
      const rows = sidecar.collector.rows();
      assert.equal(rows.length, 2 * count);
      for (const row of rows) assert.equal(row.key, trace(Number(row.requestId.slice(-2))), row.requestId);
      const unstamped = outbound.filter(exchange => own(exchange.request.pairs()).length === 0).length;
      assert.equal(unstamped, 0);
    });
  }

  it('is not missed when it is taken away: the downstream filter writes again', () => {
    const sidecar = start();
    if (sidecar.order !== undefined) sidecar.proxy.removePlugin(sidecar.order);
    for (let i = 0; i < 3; i++)
      sidecar.callOut({
        headers: [
          ['x-a', '1'],
          ['traceparent', TRACEPARENT],
        ],
      });
    const exchange = sidecar.callOut({
      headers: [
        ['x-a', '1'],
        ['traceparent', TRACEPARENT],
      ],
    });
    assert.equal(exchange.request.pairs()[4]?.[0], 'traceparent');
    assert.equal(own(exchange.request.pairs()).length, 3);
  });

  it('leaves no own header of an application or a stranger to the wire', () => {
    const sidecar = start();
    const spoofed: Pair[] = [
      ['x-cuid', PEER_CUID],
      ['x-mp-progress', 'event="00000000000000aa"'],
      ['x_cuid', PEER_CUID],
    ];
    const outbound = through(sidecar, sidecar.call({ headers: spoofed }));
    assert.notEqual(outbound.request.get('x-cuid'), PEER_CUID);
    assert.deepEqual(
      own(outbound.request.pairs())
        .map(([name]) => name)
        .toSorted(),
      ['x-cuid', 'x-mp-progress', 'x-mp-status'],
    );
    const external = through(
      sidecar,
      sidecar.call({ headers: spoofed, properties: { xds: { cluster_name: 'PassthroughCluster' } } }),
    );
    assert.deepEqual(own(external.request.pairs()), []);
    const inbound = through(
      sidecar,
      sidecar.receive({ headers: spoofed, properties: { connection: { mtls: false } } }),
    );
    assert.deepEqual(own(inbound.request.pairs()), []);
  });

  it('changes nothing but the place of trace headers and its own, whatever the headers', () => {
    const sidecar = start();
    const name = fc.oneof(
      fc.constantFrom('b3', 'x-b3-sampled', 'tracestate', 'cookie', 'accept'),
      fc.stringMatching(/^x-[a-z]{1,6}$/),
    );
    const headers = fc.array(fc.tuple(name, fc.string({ maxLength: 40 })), { maxLength: 20 });
    fc.assert(
      fc.property(headers, fc.boolean(), fc.nat({ max: 2 }), (pairs, inbound, retries) => {
        const exchange = inbound ? sidecar.receive({ headers: pairs }) : sidecar.call({ headers: pairs });
        const before = exchange.request.pairs();
        through(sidecar, exchange, otel(TRACE_ID), retries + 1);
        const after = exchange.request.pairs();
        assert.deepEqual(application(after), application(before));
        const rest = after.filter(([key]) => !own(after).some(([mine]) => mine === key));
        assert.deepEqual(rest, ordered(rest));
      }),
      { numRuns: 3000 },
    );
    assertAlive(sidecar);
  });
});
