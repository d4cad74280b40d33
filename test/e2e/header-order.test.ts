// What reaches the next hop, byte by byte: a raw upstream behind a real Envoy with the filter, and behind the
// same Envoy without it.
import { strict as assert } from 'node:assert';
import type { Address } from '../../demo/src/mesh/address.js';
import type { ProxyOptions } from '../../demo/src/mesh/bootstrap.js';
import { FILTER_WASM } from '../../demo/src/mesh/envoy.js';
import { any, type Json } from '../../demo/src/mesh/json.js';
import { luaFilter } from '../../demo/src/mesh/http-filters.js';
import { Mesh, type ServiceSpec } from '../../demo/src/mesh/mesh.js';
import { outboundCluster } from '../../demo/src/mesh/node.js';
import { TraceSink } from '../../demo/src/mesh/trace-sink.js';
import { headerCorpus, OWN_NAME, TRACE_NAME, traceRank } from './support/header-corpus.js';
import { get, RawClient, RawUpstream, valuesOf, type Field, type Head } from './support/raw-http.js';

const CORPUS = headerCorpus(process.env['TEST_LONG'] === '1' ? 2000 : 200);

interface Setup {
  name: string;
  proxy: (sink: Address) => ProxyOptions;
  /** Envoy puts a context of its own into every request. */
  injects: boolean;
}

const SETUPS: Setup[] = [
  { name: 'no tracing', proxy: () => ({}), injects: false },
  {
    name: 'OpenTelemetry, role order upstream',
    proxy: sink => ({ tracing: { provider: 'opentelemetry', sink } }),
    injects: true,
  },
  { name: 'Zipkin, role order upstream', proxy: sink => ({ tracing: { provider: 'zipkin', sink } }), injects: true },
  {
    name: 'OpenTelemetry, inline headers in the bootstrap',
    proxy: sink => ({ tracing: { provider: 'opentelemetry', sink }, orderRole: false, inlineTraceHeaders: true }),
    injects: true,
  },
  {
    name: 'OpenTelemetry without context propagation',
    proxy: sink => ({ tracing: { provider: 'opentelemetry', sink, noContextPropagation: true }, orderRole: false }),
    injects: false,
  },
];

const wasm = { file: FILTER_WASM };

/** One mesh: `front` with the filter, `plain` without, and a raw upstream as the service both call. */
class Bench {
  private constructor(
    readonly mesh: Mesh,
    readonly upstream: RawUpstream,
    readonly withFilter: RawClient,
    readonly without: RawClient,
    private readonly others: { stop(): Promise<void> }[],
  ) {}

  /** `inbound`: requests enter at the service's own proxy, not at the caller's. */
  static async start(options: ProxyOptions, inbound = false): Promise<Bench> {
    const services: ServiceSpec[] = [
      { name: 'front', proxy: { ...options, wasm } },
      { name: 'plain', proxy: options },
      { name: 'back', noSidecar: true },
    ];
    const mesh = await Mesh.create({ services });
    const back = await RawUpstream.start(mesh.proxy('back').app);
    const apps = inbound ? [await RawUpstream.start(mesh.proxy('front').app)] : [];
    const second = inbound ? [await RawUpstream.start(mesh.proxy('plain').app)] : [];
    await mesh.start();
    const open = (name: string) => {
      const proxy = mesh.proxy(name);
      return RawClient.open(inbound ? proxy.inbound : proxy.outbound);
    };
    // Both applications write into one list.
    const upstream = apps[0] ?? back;
    for (const other of second) other.heads.push = (...heads) => upstream.heads.push(...heads);
    return new Bench(mesh, upstream, open('front'), open('plain'), [back, ...apps, ...second]);
  }

  /** The head that arrives when `fields` are sent with and without the filter, and the two statuses. */
  async both(fields: Field[]): Promise<{ ours: Head; plain: Head; statuses: number[] }> {
    const request = get('back', '/corpus', fields);
    const plain = await this.without.send(request);
    const plainHead = this.upstream.last;
    const ours = await this.withFilter.send(request);
    return { ours: this.upstream.last, plain: plainHead, statuses: [plain.status, ours.status] };
  }

  async stop(): Promise<void> {
    this.withFilter.close();
    this.without.close();
    await this.mesh.stop('kill');
    for (const other of this.others) await other.stop();
  }
}

const foreign = (head: Head) => head.fields.filter(([name]) => !TRACE_NAME.test(name) && !OWN_NAME.test(name));
const trace = (head: Head) => head.fields.filter(([name]) => TRACE_NAME.test(name));
const names = (fields: Field[]) => fields.map(([name]) => name);

/** Values that no tracer rewrites must be untouched; for the rest, the names. */
function comparable(fields: Field[], injects: boolean): string[] {
  const written = /^(traceparent|tracestate|b3|x-b3-.*)$/;
  return fields.map(([name, value]) => (injects && written.test(name) ? name : `${name}: ${value}`));
}

/** Values and order of everything, and that all of `front` is in the ordered block of trace headers behind host. */
function checkOrder(ours: Head, plain: Head, front: Field[], injects: boolean): void {
  assert.equal(ours.line, plain.line);
  assert.equal(ours.fields[0]?.[0], 'host');
  const inOrder = (fields: Field[]) => fields.toSorted(([a], [b]) => traceRank(a) - traceRank(b));
  const end = ours.fields.findIndex(([name], i) => i > 0 && !TRACE_NAME.test(name));
  const block = ours.fields.slice(1, end < 0 ? undefined : end);
  const places = `order: ${names(ours.fields).join(', ')}`;
  assert.deepEqual(names(block), names(inOrder(block)), places);
  const late = front.filter(field => !block.includes(field));
  assert.deepEqual(names(late), [], places);
  assert.deepEqual(comparable(inOrder(trace(ours)), injects), comparable(inOrder(trace(plain)), injects));
  assert.deepEqual(foreign(ours), foreign(plain));
}

/** Rounds of the corpus before the filter must know what Envoy injects. */
const LESSONS = 2;

describe('header order on real Envoys', function () {
  this.timeout(60_000);

  for (const setup of SETUPS) {
    for (const direction of ['outbound', 'inbound'] as const) {
      /** Sends the corpus; `check` gets each list with what became of it. */
      const corpus = async (check: (sent: Field[], ours: Head, plain: Head) => void) => {
        const sink = await TraceSink.start();
        const bench = await Bench.start(setup.proxy(sink.address), direction === 'inbound');
        try {
          // With inline headers the filter learns from the first requests what Envoy appends.
          const lessons = /inline/.test(setup.name) ? LESSONS : 0;
          for (let pass = 0; pass <= lessons; pass++) {
            for (const fields of CORPUS) {
              const { ours, plain, statuses } = await bench.both(fields);
              assert.deepEqual(statuses, [200, 200]);
              if (pass === lessons) check(fields, ours, plain);
            }
          }
        } finally {
          await bench.stop();
          await sink.stop();
        }
      };

      it(`${setup.name}: ${direction}, a caller’s trace context is in front, all else as it was`, () =>
        corpus((sent, ours, plain) => {
          const came = trace(ours).filter(([name]) => names(sent).includes(name));
          checkOrder(ours, plain, came, setup.injects);
          if (direction === 'inbound') return;
          for (const name of ['x-cuid', 'x-mp-status', 'x-mp-progress'])
            assert.equal(valuesOf(ours, name).length, 1, name);
        }));

      if (setup.injects) {
        it(`${setup.name}: ${direction}, trace context that begins in this proxy is in front too`, () =>
          corpus((_, ours, plain) => {
            assert.ok(trace(ours).length > 0);
            checkOrder(ours, plain, trace(ours), true);
          }));
      }
    }
  }
});

const LIMITS = [8, 16, 32, 60].map(kib => kib * 1024);
/** From where stamps surely fit, even with all that the router may still add. */
const SWEEP_BYTES = 1200;
const FIELDS_MAX = 100;
/** About what the names below and the proxy's own headers take. */
const PROXY_BYTES = 130;

/** Name and value bytes, as proxies count a header block. */
const counted = (head: Head) => head.fields.reduce((sum, [name, value]) => sum + name.length + value.length, 0);

describe('stamps near the limits of other proxies', function () {
  this.timeout(60_000);
  const roomy: ProxyOptions = { maxRequestHeadersKb: 96, maxHeadersCount: 300 };

  for (const setup of SETUPS.slice(0, 3)) {
    it(`never carry a request across 8, 16, 32 or 60 KiB (${setup.name})`, async () => {
      const sink = await TraceSink.start();
      const bench = await Bench.start({ ...roomy, ...setup.proxy(sink.address) });
      try {
        let stamped = 0;
        let unstamped = 0;
        for (const limit of LIMITS) {
          for (let size = limit - SWEEP_BYTES; size <= limit + 40; size += 13) {
            // Two fields, as no field of one's own may exceed what a library takes.
            const half = Math.floor((size - PROXY_BYTES) / 2);
            const fields: Field[] = [
              ['x-request-id', 'aaaaaaaa-bbbb-4ccc-8ddd-000000000000'],
              ['x-a', 'a'.repeat(half)],
              ['x-b', 'b'.repeat(size - PROXY_BYTES - half)],
            ];
            const { ours, plain } = await bench.both(fields);
            assert.deepEqual(foreign(ours), foreign(plain));
            for (const measure of [counted, (head: Head) => head.bytes]) {
              const crosses = measure(plain) <= limit && measure(ours) > limit;
              assert.ok(!crosses, `${measure(plain)} became ${measure(ours)} bytes, across ${limit}`);
            }
            if (valuesOf(ours, 'x-cuid').length > 0) stamped++;
            else unstamped++;
          }
        }
        assert.ok(stamped > 20 && unstamped > 20, `${stamped} stamped, ${unstamped} not`);
      } finally {
        await bench.stop();
        await sink.stop();
      }
    });

    it(`never carry a request past 100 fields, where nothing is moved either (${setup.name})`, async () => {
      const sink = await TraceSink.start();
      const bench = await Bench.start({ ...roomy, ...setup.proxy(sink.address) });
      try {
        const seen = new Set<string>();
        for (let count = 70; count <= 108; count++) {
          const fields = Array.from({ length: count }, (_, i): Field => [`x-f-${i}`, `${i}`]);
          fields.push(['x-request-id', 'aaaaaaaa-bbbb-4ccc-8ddd-000000000000']);
          fields.push(['traceparent', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01']);
          const { ours, plain } = await bench.both(fields);
          assert.deepEqual(foreign(ours), foreign(plain));
          const [before, after] = [plain.fields.length, ours.fields.length];
          assert.ok(before > FIELDS_MAX || after <= FIELDS_MAX, `${before} fields became ${after}`);
          if (before > FIELDS_MAX) assert.deepEqual(names(ours.fields), names(plain.fields));
          seen.add(after > before ? 'stamped' : 'not stamped');
        }
        assert.deepEqual([...seen].sort(), ['not stamped', 'stamped']);
      } finally {
        await bench.stop();
        await sink.stop();
      }
    });
  }

  for (const protocol of ['http1', 'http2'] as const) {
    it(`a receiving Envoy with default limits refuses no request that it took without the filter (${protocol})`, async () => {
      const mesh = await Mesh.create({
        services: [
          { name: 'front', proxy: { ...roomy, wasm } },
          { name: 'plain', proxy: roomy },
          { name: 'back', protocol },
        ],
      });
      const app = await RawUpstream.start(mesh.proxy('back').app);
      try {
        await mesh.start();
        const ours = RawClient.open(mesh.proxy('front').outbound);
        const plain = RawClient.open(mesh.proxy('plain').outbound);
        const compare = async (fields: Field[], what: string) => {
          const request = get('back', '/', fields);
          const statuses = [(await plain.send(request)).status, (await ours.send(request)).status];
          assert.equal(statuses[1], statuses[0], `${what}: ${statuses[0]} without the filter, ${statuses[1]} with it`);
          return statuses[0];
        };
        const results = new Set<number | undefined>();
        for (let count = 85; count <= 101; count++) {
          const fields = Array.from({ length: count }, (_, i): Field => [`x-f-${i}`, `${i}`]);
          results.add(await compare(fields, `${count} fields`));
        }
        for (let size = 60 * 1024 - 700; size <= 60 * 1024; size += 23) {
          results.add(await compare([['x-a', 'a'.repeat(size)]], `${size} bytes`));
        }
        assert.ok(results.has(200) && results.size > 1, `statuses: ${[...results].join(' ')}`);
        ours.close();
        plain.close();
      } finally {
        await mesh.stop('kill');
        await app.stop();
      }
    });
  }
});

const ADDS = 'function envoy_on_request(h) h:headers():add("x-choice", "other") end';
/** Resolves the route while the header is there. */
const LOOKS = 'function envoy_on_request(h) h:metadata():get("x"); h:headers():remove("x-choice") end';

function luaWithoutRouteClearing(source: string, name: string): Json {
  return {
    name,
    typed_config: any('envoy.extensions.filters.http.lua.v3.Lua', {
      default_source_code: { inline_string: source },
      clear_route_cache: false,
    }),
  };
}

const CHOOSERS: { name: string; filters: Json[]; needsOrder: boolean }[] = [
  { name: 'a header that the route matches', filters: [luaFilter(ADDS, 'adds')], needsOrder: false },
  {
    name: 'a header that is gone when the filter runs',
    filters: [luaFilter(ADDS, 'adds'), luaWithoutRouteClearing(LOOKS, 'looks')],
    needsOrder: true,
  },
];

describe('the route that an earlier filter chose', function () {
  this.timeout(60_000);

  for (const chooser of CHOOSERS) {
    for (const order of chooser.needsOrder ? [true] : [false, true]) {
      it(`survives: ${chooser.name}${order ? ', with role order installed' : ''}`, async () => {
        const other = outboundCluster('other', 'shop', 8080);
        const routes = [
          {
            match: { prefix: '/', headers: [{ name: 'x-choice', string_match: { exact: 'other' } }] },
            route: { cluster: other },
          },
        ];
        const mesh = await Mesh.create({
          services: [
            {
              name: 'front',
              outboundOnly: true,
              proxy: { wasm, orderRole: order, outboundFiltersBefore: chooser.filters },
            },
            { name: 'back', noSidecar: true, routes },
            { name: 'other', noSidecar: true },
          ],
        });
        const back = await RawUpstream.start(mesh.proxy('back').app);
        const chosen = await RawUpstream.start(mesh.proxy('other').app);
        try {
          await mesh.start();
          const client = RawClient.open(mesh.proxy('front').outbound);
          const kinds: Field[][] = [
            [
              ['accept', '*/*'],
              ['traceparent', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'],
            ],
            [],
            // Copies of a former hop's own headers, which have to go.
            [
              ['x-cuid', '11111111-2222-4333-8444-555555555555'],
              ['x-mp-status', 'inflight=9'],
            ],
          ];
          let sent = 0;
          for (let round = 0; round < 4; round++) {
            for (const fields of kinds) {
              assert.equal((await client.send(get('back', '/', fields))).status, 200);
              sent++;
              assert.equal(
                chosen.heads.length,
                sent,
                `request ${sent} went to the default route: ${JSON.stringify(fields)}`,
              );
            }
          }
          assert.equal(back.heads.length, 0);
          for (const head of chosen.heads) assert.equal(valuesOf(head, 'x-cuid').length, 1);
          client.close();
        } finally {
          await mesh.stop('kill');
          await back.stop();
          await chosen.stop();
        }
      });
    }
  }
});
