/** Trace context directly behind the pseudo headers, everything else where and as it was. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Pair } from '../support/proxy-wasm-host.js';
import { RUNS } from './counts.js';
import { application, ordered, own, ownBytes, sizes, trace } from './headers.js';
import { assertAlive, Sidecar, TRACEPARENT } from './sidecar.js';

const FIELDS_MAX = 100;
const LIMITS = [8192, 16384, 32768, 61440];
const OWN_BYTES_MAX = 255;

const PSEUDO: readonly Pair[] = [
  [':authority', 'shop.shop'],
  [':path', '/orders/17'],
  [':method', 'GET'],
  [':scheme', 'http'],
];

const traceHeader: fc.Arbitrary<Pair> = fc.oneof(
  fc.constant<Pair>(['traceparent', TRACEPARENT]),
  fc.tuple(
    fc.constantFrom('traceparent', 'tracestate', 'b3', 'x-b3-traceid', 'x-b3-spanid', 'x-b3-sampled', 'uber-trace-id'),
    fc.string({ maxLength: 60 }),
  ),
  fc.tuple(
    fc.constantFrom('sw8', 'x-cloud-trace-context', 'x-datadog-trace-id', 'x-datadog-origin'),
    fc.string({ maxLength: 60 }),
  ),
);
const nearly: fc.Arbitrary<Pair> = fc.tuple(
  fc.constantFrom(
    'traceparen',
    'traceparents',
    'x-b3',
    'b33',
    'sw',
    'sw88',
    'xb3-x',
    'x-datadog',
    'tracestat',
    'uber-trace-i',
  ),
  fc.string({ maxLength: 20 }),
);
const plain: fc.Arbitrary<Pair> = fc.tuple(
  fc.oneof(
    fc.constantFrom(
      'user-agent',
      'accept',
      'cookie',
      'x-request-id',
      'x-forwarded-for',
      'content-type',
      'authorization',
    ),
    fc.stringMatching(/^[a-z][a-z0-9-]{0,20}$/),
  ),
  fc.oneof(fc.string({ maxLength: 80 }), fc.string({ unit: 'binary-ascii', maxLength: 200 })),
);
/** Names that the proxy itself joins are given once, as they reach a filter. */
const JOINED = new Set([
  'user-agent',
  'x-request-id',
  'x-forwarded-for',
  'content-type',
  'host',
  'te',
  'via',
  'upgrade',
  'connection',
]);
const headerSet: fc.Arbitrary<Pair[]> = fc
  .array(
    fc.oneof({ weight: 3, arbitrary: plain }, { weight: 2, arbitrary: traceHeader }, { weight: 1, arbitrary: nearly }),
    {
      maxLength: 24,
    },
  )
  .map(pairs => {
    const seen = new Set<string>();
    return pairs.filter(([name]) => !JOINED.has(name) || (!seen.has(name) && seen.add(name)));
  });

describe('header order', function () {
  this.timeout(900_000);

  it(`inbound: exactly the contract's order, whatever the headers (${String(RUNS.orders)} sets)`, () => {
    const sidecar = new Sidecar({ config: null });
    fc.assert(
      fc.property(headerSet, headers => {
        const exchange = sidecar.receive({ headers });
        const before = exchange.request.pairs();
        exchange.requestHeaders();
        exchange.finish();
        assert.deepEqual(exchange.request.pairs(), ordered(before));
      }),
      { numRuns: RUNS.orders },
    );
    assertAlive(sidecar);
    assert.equal(sidecar.proxy.malformedPairs, 0);
  });

  it(`outbound: the same, and own headers behind everything (${String(RUNS.orders)} sets)`, () => {
    const sidecar = new Sidecar({ config: null });
    fc.assert(
      fc.property(headerSet, headers => {
        const exchange = sidecar.call({ headers });
        const before = exchange.request.pairs();
        exchange.requestHeaders();
        exchange.finish();
        const after = exchange.request.pairs();
        const stamps = own(after);
        assert.deepEqual(after, [...ordered(before), ...stamps]);
        assert.deepEqual(
          stamps.map(([name]) => name),
          ['x-cuid', 'x-mp-status', 'x-mp-progress'],
        );
        assert.ok(ownBytes(after) <= OWN_BYTES_MAX);
      }),
      { numRuns: RUNS.orders },
    );
    assertAlive(sidecar);
  });

  it('makes at most one change of the request, by one rebuild, and none when the order is good', () => {
    const sidecar = new Sidecar({ config: null });
    const good: Pair[] = [
      ['traceparent', TRACEPARENT],
      ['user-agent', 'x'],
    ];
    const bad = good.toReversed();
    assert.equal(sidecar.serve({ headers: good }).routeCacheCleared, 0);
    assert.equal(sidecar.serve({ headers: [['user-agent', 'x']] }).routeCacheCleared, 0);
    assert.equal(sidecar.serve({ headers: bad }).routeCacheCleared, 1);
    assert.equal(sidecar.callOut({ headers: bad }).routeCacheCleared, 1);
    const calls = sidecar.proxy.worker(0).vm(sidecar.inbound)?.hostCalls;
    assert.equal(calls?.get('proxy_replace_header_map_value') ?? 0, 0);
  });

  it('keeps repeats of a trace header together, in their own order', () => {
    const sidecar = new Sidecar({ config: null });
    const headers: Pair[] = [
      ['tracestate', 'a=1'],
      ['x-a', '1'],
      ['tracestate', 'b=2'],
      ['traceparent', TRACEPARENT],
    ];
    assert.deepEqual(
      sidecar.serve({ headers }).request.pairs(),
      ordered([...PSEUDO.map((p, i) => (i === 1 ? ([':path', '/orders/17?debug=1'] as const) : p)), ...headers]),
    );
  });

  it('follows trace.headers when it is configured', () => {
    const list = ['x-b3-*', 'my-trace', 'traceparent'];
    const sidecar = new Sidecar({ config: { trace: { headers: list } } });
    const headers: Pair[] = [
      ['b3', '0'],
      ['traceparent', TRACEPARENT],
      ['My-Trace', '1'],
      ['x-b3-sampled', '1'],
    ];
    const exchange = sidecar.receive({ headers });
    const before = exchange.request.pairs();
    exchange.requestHeaders();
    assert.deepEqual(exchange.request.pairs(), ordered(before, list));
  });

  describe('size limits', () => {
    const filler = (count: number, bytes: number): Pair[] => {
      const each = Math.floor(bytes / count);
      return Array.from({ length: count }, (_, i) => {
        const name = `x-filler-${String(i).padStart(4, '0')}`;
        const size = i === count - 1 ? bytes - each * (count - 1) : each;
        return [name, 'v'.repeat(Math.max(0, size - name.length))] as const;
      });
    };
    const unstamped = (sidecar: Sidecar): number => {
      sidecar.advance(2500);
      return sidecar.proxy.metrics.value('meshpulse_filter_unstamped_total') ?? 0;
    };

    it('stamps as long as the router’s own fields fit too, never past 100, and counts what it leaves out', () => {
      const sidecar = new Sidecar();
      const stamped: number[] = [];
      let left = 0;
      for (let fields = FIELDS_MAX - 20; fields <= FIELDS_MAX + 4; fields++) {
        const rawHeaders = [...PSEUDO, ...filler(fields - PSEUDO.length, 2000)];
        const after = sidecar.callOut({ rawHeaders }).request.pairs();
        assert.ok([0, 3].includes(own(after).length), 'all or nothing');
        if (own(after).length > 0) stamped.push(fields);
        else left++;
        assert.deepEqual(application(after), rawHeaders);
      }
      const most = Math.max(...stamped);
      assert.ok(most <= FIELDS_MAX - 3 && most >= FIELDS_MAX - 15, String(most));
      assert.equal(stamped.length, most - (FIELDS_MAX - 20) + 1, 'one boundary');
      assert.equal(unstamped(sidecar), left);
    });

    it('moves nothing past 100 fields', () => {
      const sidecar = new Sidecar();
      const tail: Pair = ['traceparent', TRACEPARENT];
      const rawHeaders = [...PSEUDO, ...filler(FIELDS_MAX - PSEUDO.length, 2000), tail];
      assert.deepEqual(sidecar.serve({ rawHeaders }).request.pairs(), rawHeaders);
    });

    for (const limit of LIMITS) {
      it(`never carries a request across ${String(limit)} bytes, however bytes are counted`, () => {
        const sidecar = new Sidecar();
        let stamped = 0;
        let left = 0;
        for (let below = -200; below <= 900; below += 10) {
          const rawHeaders = [...PSEUDO, ...filler(20, limit - below - sizes(PSEUDO).bytes)];
          const before = sizes(rawHeaders);
          const after = sidecar.callOut({ rawHeaders }).request.pairs();
          const now = sizes(after);
          for (const how of ['bytes', 'lines'] as const) {
            assert.ok(
              !(before[how] <= limit && now[how] > limit),
              `${how}: ${String(before[how])} -> ${String(now[how])}`,
            );
          }
          assert.deepEqual(application(after), rawHeaders);
          if (own(after).length > 0) stamped++;
          else left++;
        }
        assert.ok(stamped > 0 && left > 0, `${String(stamped)} stamped, ${String(left)} not`);
        assert.equal(unstamped(sidecar), left);
      });
    }

    it('holds for responses too', () => {
      const sidecar = new Sidecar();
      const status: Pair = [':status', '200'];
      const full = filler(FIELDS_MAX - 2, 2000);
      const exchange = sidecar.receive();
      exchange.requestHeaders();
      exchange.responseHeaders([status, ...full]);
      assert.deepEqual(exchange.response?.pairs(), [status, ...full]);
    });

    it('keeps trace context in front at every size up to 60 KiB', () => {
      const sidecar = new Sidecar();
      for (const bytes of [100, 4000, 8000, 16000, 30000, 60000]) {
        const rawHeaders: Pair[] = [...PSEUDO, ...filler(30, bytes), ['traceparent', TRACEPARENT]];
        const after = sidecar.serve({ rawHeaders }).request.pairs();
        assert.deepEqual(after, ordered(rawHeaders), `${String(bytes)} bytes`);
        assert.deepEqual(trace(after), [['traceparent', TRACEPARENT]]);
      }
    });
  });
});
