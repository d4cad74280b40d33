/** pluginConfig: what is read, what is refused key by key, and that nothing in it ever stops traffic. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Pair } from '../support/proxy-wasm-host.js';
import { RUNS } from './counts.js';
import { ordered } from './headers.js';
import { assertAlive, COLLECTOR_CLUSTER, Sidecar, TRACEPARENT } from './sidecar.js';
import type { Hello } from './wire.js';

const ERRORS_MAX = 16;
const METRIC = 'meshpulse_filter_config_errors_total';

const HEADERS: readonly Pair[] = [
  [':method', 'GET'],
  [':path', '/'],
  [':authority', 'a'],
  ['x-app', '1'],
  ['traceparent', TRACEPARENT],
];

/** Installs `configuration` in a running sidecar and passes a request. */
function passes(sidecar: Sidecar, configuration: string | Uint8Array): Pair[] {
  const plugin = sidecar.proxy.addPlugin({
    name: 'fuzzed',
    rootId: 'meshpulse',
    configuration,
    properties: sidecar.outbound.properties,
  });
  const exchange = sidecar.proxy.exchange(0, plugin, { headers: HEADERS });
  assert.equal(exchange.requestHeaders(), 'continue');
  exchange.responseHeaders([[':status', '200']]);
  exchange.finish();
  sidecar.proxy.removePlugin(plugin);
  sidecar.advance(500);
  return exchange.request.pairs();
}

describe('pluginConfig', function () {
  this.timeout(600_000);

  function told(config: Record<string, unknown>): { hello: Hello | undefined; warnings: string[]; errors: number } {
    const sidecar = new Sidecar({ config });
    sidecar.advance(3000);
    assertAlive(sidecar);
    return {
      hello: sidecar.collector.hellos.at(-1),
      warnings: sidecar.proxy.logs.filter(line => line.level === 3).map(line => line.text),
      errors: sidecar.proxy.metrics.value(METRIC) ?? 0,
    };
  }

  it('has nothing to say about a good one', () => {
    const config = {
      role: 'full',
      service: 'shop.prod',
      direction: 'inbound',
      edge: false,
      trust: 'mtls',
      mesh: { clusters: ['pay', 'stock-*'] },
      trace: { headers: ['traceparent'] },
      status: { request: true, response: false, orca: true, adminCluster: 'prometheus_stats' },
      report: { intervalMs: 200, idleMs: 5000, inFlightMs: 100, events: 'sample', ratio: 0.5, plainIds: true },
      transaction: { header: 'x-order' },
      rollback: {
        mode: 'enforce',
        httpStatus: 409,
        grpcStatus: 10,
        callback: { cluster: 'app', path: '/undo', secretFile: '/run/secret' },
      },
    };
    const { hello, warnings, errors } = told(config);
    assert.deepEqual({ warnings, errors, told: hello?.configErrors }, { warnings: [], errors: 0, told: [] });
    assert.deepEqual(
      [hello?.service, hello?.reportIntervalMs, hello?.reportIdleMs, hello?.reportInFlightMs],
      ['shop.prod', 200, 5000, 100],
    );
  });

  const BAD: readonly (readonly [string, Record<string, unknown>])[] = [
    ['role', { role: 'both' }],
    ['service', { service: 7 }],
    ['direction', { direction: 'sideways' }],
    ['edge', { edge: 'yes' }],
    ['trust', { trust: true }],
    ['mesh.clusters', { mesh: { clusters: 'pay' } }],
    ['mesh.clusters', { mesh: { clusters: [1] } }],
    ['trace.headers', { trace: { headers: {} } }],
    ['status.request', { status: { request: 1 } }],
    ['status.orca', { status: { orca: 'true' } }],
    ['report.intervalMs', { report: { intervalMs: 99 } }],
    ['report.intervalMs', { report: { intervalMs: 60001 } }],
    ['report.intervalMs', { report: { intervalMs: 1000.5 } }],
    ['report.intervalMs', { report: { intervalMs: '1000' } }],
    ['report.idleMs', { report: { idleMs: -1 } }],
    ['report.inFlightMs', { report: { inFlightMs: 1e300 } }],
    ['report.events', { report: { events: 'some' } }],
    ['report.ratio', { report: { ratio: 1.01 } }],
    ['rollback.mode', { rollback: { mode: 'on' } }],
    ['rollback.httpStatus', { rollback: { httpStatus: 200 } }],
    ['rollback.grpcStatus', { rollback: { grpcStatus: 0 } }],
    ['transaction.header', { transaction: { header: 'x order' } }],
    ['colector', { colector: { cluster: 'x' } }],
    ['report.interval', { report: { interval: 1000 } }],
    ['collector.port', { collector: { cluster: COLLECTOR_CLUSTER, port: 50051 } }],
    ['rollback', { rollback: 'off' }],
  ];
  for (const [key, config] of BAD) {
    it(`names the key of ${JSON.stringify(config)}, once, everywhere`, () => {
      const { hello, warnings, errors } = told(config);
      assert.ok(hello !== undefined, 'reports all the same');
      assert.ok(
        hello.configErrors.length >= 1 && hello.configErrors.every(text => text.startsWith(key)),
        hello.configErrors.join('; '),
      );
      assert.ok(errors >= 1);
      assert.ok(
        warnings.some(text => text.includes(key)),
        warnings.join('; '),
      );
      assert.deepEqual([hello.reportIntervalMs, hello.reportIdleMs, hello.reportInFlightMs], [1000, 60000, 5000]);
    });
  }

  it('tells and logs each sentence once, though every VM and direction reads the same text', () => {
    const { hello, warnings } = told({ nonsense: 1 });
    assert.equal(hello?.configErrors.length, 1, hello?.configErrors.join('; '));
    assert.equal(warnings.length, 1, warnings.join('; '));
  });

  it('counts each fault once for the process, not once for each VM and direction', () => {
    const sidecar = new Sidecar({ workers: 4, config: { nonsense: 1 } });
    sidecar.advance(3000);
    const errors = sidecar.proxy.metrics.value(METRIC) ?? 0;
    const plugins = 2;
    assert.ok(errors >= 1 && errors <= plugins, `${String(errors)} for ${String(plugins)} plugins`);
  });

  it('remembers no more than a few faulty ones: the proxy’s shared data does not grow with each', () => {
    const sidecar = new Sidecar({ canary: false });
    passes(sidecar, JSON.stringify({ nonsense: 'first' }));
    const keys = (): number => sidecar.proxy.sharedData.keys('').length;
    const before = keys();
    for (let i = 0; i < 100; i++) passes(sidecar, JSON.stringify({ nonsense: i }));
    assert.equal(keys(), before);
    const marks = sidecar.proxy.sharedData.get('', 'meshpulse.config.faults');
    assert.ok(marks !== undefined && marks.value.length <= 512, `${String(marks?.value.length)} bytes`);
    const warnings = sidecar.proxy.logs.filter(line => line.text.includes('nonsense')).length;
    assert.equal(warnings, 101);
    assertAlive(sidecar);
  });

  it('moves nothing with an empty trace.headers, and falls back to the list with a wrong one', () => {
    const headers = (config: unknown): string[] => {
      const sidecar = new Sidecar();
      const pairs = passes(sidecar, JSON.stringify(config));
      assertAlive(sidecar);
      return pairs.map(([name]) => name).filter(name => name === 'x-app' || name === 'traceparent');
    };
    assert.deepEqual(headers({ trace: { headers: [] } }), ['x-app', 'traceparent']);
    assert.deepEqual(headers({ 'trace.headers': [] }), ['x-app', 'traceparent']);
    for (const wrong of [null, 'x', [1], ['*'], {}, [''], [null]])
      assert.deepEqual(headers({ trace: { headers: wrong } }), ['traceparent', 'x-app'], JSON.stringify(wrong));
    assert.equal(told({ trace: { headers: [] } }).errors, 0);
  });

  it('takes the name of the service from the newest, also when that no longer says one', () => {
    const sidecar = new Sidecar({ config: { service: 'old.shop' } });
    sidecar.advance(3000);
    const services = (): (string | undefined)[] => sidecar.collector.hellos.map(hello => hello.service);
    assert.equal(services().at(-1), 'old.shop');
    for (const service of ['new.shop', undefined]) {
      const old = [sidecar.inbound, sidecar.outbound];
      sidecar.replace({ service });
      for (const plugin of old) sidecar.proxy.removePlugin(plugin);
      sidecar.advance(5000);
      assert.equal(services().at(-1), service ?? 'shop.shop');
    }
    assertAlive(sidecar);
  });

  it('passes traffic through when it is no JSON object, and says so', () => {
    for (const text of [
      '',
      '{',
      'null',
      '[]',
      '7',
      '"x"',
      '{"a":1}}',
      '{"a":1,}',
      "{'a':1}",
      '{"a"}',
      'true',
      '\xff\xfe',
      '\0',
    ]) {
      const sidecar = new Sidecar();
      const pairs = passes(sidecar, Buffer.from(text, 'latin1'));
      assertAlive(sidecar);
      if (text === '') assert.deepEqual(pairs, ordered(HEADERS), 'no configuration = stamp and order only');
      else assert.deepEqual(pairs, HEADERS, JSON.stringify(text));
    }
  });

  it('takes the last of duplicate keys or reports it, and never mixes', () => {
    const sidecar = new Sidecar();
    passes(sidecar, '{"report":{"intervalMs":200},"report":{"intervalMs":300},"trust":"all","trust":"none"}');
    assertAlive(sidecar);
  });

  const leaf = fc.oneof(
    fc.constantFrom<unknown>(
      null,
      true,
      false,
      0,
      -1,
      1,
      99,
      100,
      60000,
      60001,
      1.5,
      1e308,
      -0,
      '',
      'all',
      'full',
      'order',
      'x',
      [],
      {},
      [[]],
      ['*'],
      [''],
    ),
    fc.double(),
    fc.string({ unit: 'binary', maxLength: 300 }),
  );
  const tree = fc.letrec<{ value: unknown }>(tie => ({
    value: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      leaf,
      fc.array(tie('value'), { maxLength: 4 }),
      fc.dictionary(
        fc.oneof(
          fc.constantFrom('cluster', 'header', 'headers', 'clusters', 'intervalMs', 'mode', 'a.b', '', '__proto__'),
          fc.string({ maxLength: 8 }),
        ),
        tie('value'),
        { maxKeys: 4 },
      ),
    ),
  })).value;
  const TOP = [
    'collector',
    'role',
    'service',
    'direction',
    'edge',
    'trust',
    'mesh',
    'trace',
    'status',
    'report',
    'transaction',
    'rollback',
  ];
  const config = fc.dictionary(
    fc.oneof(fc.constantFrom(...TOP, 'report.intervalMs'), fc.string({ maxLength: 12 })),
    tree,
    { maxKeys: 8 },
  );

  const mutated = fc
    .tuple(config, fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { maxLength: 4 }), fc.nat({ max: 4 }))
    .map(([object, changes, cut]) => {
      const bytes = Buffer.from(JSON.stringify(object), 'utf8');
      for (const [at, byte] of changes) if (bytes.length > 0) bytes[at % bytes.length] = byte;
      return bytes.subarray(0, bytes.length - (cut % (bytes.length + 1)));
    });
  const repeated = (open: string, close: string, middle: string) =>
    fc.nat({ max: 10_000 }).map(n => Buffer.from(open.repeat(n) + middle + close.repeat(n)));
  const huge = fc
    .tuple(
      fc.integer({ min: 1000, max: 1024 * 1024 }),
      fc.constantFrom('a', '"', '[', '\\', '\0', '\xff', ' ', '9', '{"a":'),
    )
    .map(([size, unit]) => Buffer.from(`{"service":"${unit.repeat(Math.ceil(size / unit.length))}"}`, 'latin1'));
  const any = fc.oneof(
    { weight: 30, arbitrary: config.map(object => Buffer.from(JSON.stringify(object), 'utf8')) },
    { weight: 30, arbitrary: mutated },
    { weight: 10, arbitrary: fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.from(bytes)) },
    { weight: 2, arbitrary: repeated('[', ']', '1') },
    { weight: 2, arbitrary: repeated('{"report":', '}', '1') },
    { weight: 1, arbitrary: repeated('{"a":[', ']}', '"x"') },
    { weight: 1, arbitrary: huge },
    {
      weight: 1,
      arbitrary: fc
        .array(fc.constantFrom('"trust":"all"', '"trust":1', '"report":{}', '"x":1'), { maxLength: 2000 })
        .map(items => Buffer.from(`{${items.join()}}`)),
    },
  );

  it(`never traps and is never refused (${String(RUNS.configs)} malformed ones)`, () => {
    const CANARY_EVERY = 50;
    let sidecar = new Sidecar();
    let used = 0;
    fc.assert(
      fc.property(any, bytes => {
        if (++used % 500 === 0) sidecar = new Sidecar({ canary: false });
        if (used % CANARY_EVERY === 0) passes(new Sidecar(), bytes);
        const pairs = passes(sidecar, bytes);
        assertAlive(sidecar);
        const app = pairs.filter(
          ([name]) => name !== 'traceparent' && !name.startsWith('x-cuid') && !name.startsWith('x-mp-'),
        );
        assert.deepEqual(app, HEADERS.slice(0, 4));
      }),
      { numRuns: RUNS.configs },
    );
  });

  it('falls back key by key, as a model of the contract says', () => {
    const within = (min: number, max: number, fallback: number) => (value: unknown) =>
      typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max ? value : fallback;
    const MODEL = {
      intervalMs: within(100, 60000, 1000),
      idleMs: within(100, 60000, 60000),
      inFlightMs: within(100, 60000, 5000),
    };
    const any = fc.oneof(fc.integer({ min: -10, max: 70000 }), leaf);
    const reports = fc.record({ intervalMs: any, idleMs: any, inFlightMs: any }, { requiredKeys: [] });
    fc.assert(
      fc.property(reports, report => {
        const { hello } = told({ report });
        const text = JSON.parse(JSON.stringify(report)) as Record<string, unknown>;
        for (const key of ['intervalMs', 'idleMs', 'inFlightMs'] as const) {
          const wire = {
            intervalMs: hello?.reportIntervalMs,
            idleMs: hello?.reportIdleMs,
            inFlightMs: hello?.reportInFlightMs,
          }[key];
          assert.equal(wire, MODEL[key](text[key]), `${key} of ${JSON.stringify(report)}`);
          const absent = text[key] === undefined || text[key] === null;
          const faulty = !absent && MODEL[key](text[key]) !== text[key];
          // An object or list there is named by its inner keys, an empty one by nothing.
          if (typeof text[key] === 'object') continue;
          assert.equal(
            hello?.configErrors.some(error => error.startsWith(`report.${key}:`)),
            faulty,
            `${key} of ${JSON.stringify(report)}`,
          );
        }
        assert.ok((hello?.configErrors.length ?? 0) <= ERRORS_MAX);
      }),
      { numRuns: 300 },
    );
  });
});
