/** Header sets of any bytes and sizes: no trap, and what belongs to the application comes through as it was. */
import assert from 'node:assert/strict';
import type { Exchange, Pair } from '../support/proxy-wasm-host.js';
import { RUNS } from './counts.js';
import { application, trace } from './headers.js';
import { Random } from './random.js';
import { assertAlive, PEER_CUID, Sidecar, TRACEPARENT } from './sidecar.js';

const PAIRS_MAX = 1024;
const VALUE_BYTES_MAX = 64 * 1024;

const KNOWN = [
  ...[
    'traceparent',
    'tracestate',
    'b3',
    'x-b3-traceid',
    'x-b3-spanid',
    'uber-trace-id',
    'sw8',
    'x-cloud-trace-context',
  ],
  ...['x-datadog-trace-id', 'x-datadog-parent-id', 'x-request-id', 'x-cuid', 'x_cuid', 'x-mp-status', 'x-mp-progress'],
  ...[
    'x-mp-rollback',
    'x-mp_progress',
    'content-type',
    'user-agent',
    'upgrade',
    'host',
    'cookie',
    'x-envoy-attempt-count',
  ],
  ...[':path', ':method', ':authority', ':scheme', ':protocol', ':status', ':unknown', ':', '', 'grpc-status'],
  'endpoint-load-metrics',
];
const VALUES = [
  ...[
    TRACEPARENT,
    PEER_CUID,
    'application/grpc',
    'CONNECT',
    'websocket',
    '/meshpulse.v1.Ingest/Report',
    '200',
    '503',
    '',
  ],
  ...[
    'job="a", done=1',
    'event="00000000000000aa"',
    'TEXT cpu_utilization=0.5',
    '/.well-known/meshpulse/progress',
    '1',
    'kube-probe/1',
  ],
  ...['/a/b/c?d', '/'.repeat(300), '/x'.repeat(300), `/${'9'.repeat(5000)}`, 'shop-shadow:80', 'POST', '\0', '\r\n'],
];

function name(random: Random): string {
  const kind = random.below(10);
  if (kind < 5) return random.pick(KNOWN);
  if (kind < 6) return random.pick(KNOWN).toUpperCase();
  if (kind < 9) return `x-app-${String(random.below(50))}`;
  return random.bytes(random.below(40));
}

function value(random: Random): string {
  const kind = random.below(20);
  if (kind < 8) return random.pick(VALUES);
  if (kind < 18) return random.bytes(random.below(120));
  if (kind < 19) return random.bytes(random.below(4096));
  return random.chance(0.1) ? random.bytes(random.below(VALUE_BYTES_MAX + 1)) : '';
}

/** Mostly a few, sometimes as many as can cross. */
function pairs(random: Random): Pair[] {
  const size = random.below(100);
  const count = size < 90 ? random.below(30) : size < 99 ? random.below(140) : random.below(PAIRS_MAX + 1);
  const set: Pair[] = Array.from({ length: count }, () => [name(random), value(random)]);
  if (random.chance(0.8)) set.unshift([':method', 'GET'], [':path', '/orders/1'], [':authority', 'a']);
  return set.slice(0, PAIRS_MAX);
}

/**
 * As the contract says "the same": value and order among the application's; trace context by value, but
 * for empty fields that hold a place for what Envoy was seen to inject.
 */
function assertSame(before: readonly Pair[], after: readonly Pair[], hint: () => string): void {
  assert.deepEqual(application(after), application(before), hint());
  const had = new Set(before.map(([name]) => name.toLowerCase()));
  const kept = trace(after).filter(([name, value]) => value !== '' || had.has(name));
  assert.deepEqual(kept.map(String).toSorted(), trace(before).map(String).toSorted(), hint());
}

describe('header sets of any bytes', function () {
  this.timeout(1_800_000);

  it(`never trap, and leave the application’s headers alone (${String(RUNS.headers)} sets)`, () => {
    const random = new Random(Number(process.env['MESHPULSE_SEED'] ?? 4));
    const make = [
      (): Sidecar => new Sidecar({ workers: 1, order: true }),
      (): Sidecar =>
        new Sidecar({
          config: {
            trust: 'all',
            status: { orca: true },
            transaction: { header: 'x-app-1' },
            report: { plainIds: true },
          },
        }),
      (): Sidecar => new Sidecar({ config: { edge: true, mesh: { clusters: ['*'] } } }),
    ];
    const PER_SIDECAR = 5000;
    for (let done = 0; done < RUNS.headers; done += PER_SIDECAR) {
      const sidecar = random.pick(make)();
      sidecar.connect();
      for (let i = done; i < Math.min(done + PER_SIDECAR, RUNS.headers); i++) {
        const hint = (): string => `set ${String(i)} of seed ${String(random.seed)}`;
        pass(sidecar, random, hint);
        if (i % 200 === 199) {
          sidecar.advance(random.below(2000));
          assertAlive(sidecar);
        }
      }
      assertAlive(sidecar);
      sidecar.advance(3000);
      assert.equal(sidecar.proxy.malformedPairs, 0);
      assert.equal(sidecar.collector.lastStatus?.inFlight ?? 0, 0);
    }
  });

  function pass(sidecar: Sidecar, random: Random, hint: () => string): void {
    const rawHeaders = pairs(random);
    const properties = {
      connection: { mtls: random.chance(0.5) },
      xds: { cluster_name: random.pick(['outbound|80||x.y', 'PassthroughCluster', '']) },
    };
    const exchange = random.chance(0.5)
      ? sidecar.receive({ rawHeaders, properties })
      : sidecar.call({ rawHeaders, properties });
    const before = exchange.request.pairs();
    const action = exchange.requestHeaders(random.chance(0.5));
    assertSame(before, exchange.request.pairs(), hint);
    if (action === 'continue') {
      if (sidecar.order !== undefined && random.chance(0.7)) attempt(sidecar.order, exchange, random, hint);
      if (random.chance(0.3))
        exchange.requestBody(Buffer.from(random.bytes(random.below(40)), 'latin1'), random.chance(0.5));
      respond(exchange, random, hint);
    }
    if (random.chance(0.2)) exchange.reset();
    else exchange.finish();
  }

  function attempt(order: NonNullable<Sidecar['order']>, exchange: Exchange, random: Random, hint: () => string): void {
    for (let i = 0; i <= random.below(2); i++) {
      const before = exchange.request.pairs();
      exchange.attempt(order, request => request.set('traceparent', TRACEPARENT));
      assert.deepEqual(application(exchange.request.pairs()), application(before), hint());
    }
  }

  function respond(exchange: Exchange, random: Random, hint: () => string): void {
    const reply = pairs(random).filter(([key]) => key !== ':status');
    if (random.chance(0.9)) reply.unshift([':status', random.pick(['200', '503', '404', 'x', '99999999999999999999'])]);
    exchange.responseHeaders(reply, random.chance(0.5));
    const after = exchange.response?.pairs() ?? [];
    const wanted = application(
      reply.map(([key, text]) => [key.replace(/[A-Z]+/g, upper => upper.toLowerCase()), text]),
    );
    // The proxy joins repeats of inline names and ORCA may be added: compare the rest, in order.
    const plain = (set: readonly Pair[]): string[] => set.filter(([key]) => /^x-app-/.test(key)).map(String);
    assert.deepEqual(plain(application(after)), plain(wanted), hint());
    if (random.chance(0.3))
      exchange.responseBody(Buffer.from(random.bytes(random.below(40)), 'latin1'), random.chance(0.5));
    if (random.chance(0.2)) exchange.responseTrailers([['grpc-status', random.pick(['0', '14', 'x'])]]);
  }
});
