/** Properties, shared data, queues and sizes that no proxy should ever hand over: whatever they are, no trap. */
import assert from 'node:assert/strict';
import { double, type Pair, type PropertyTree, type PropertyValue } from '../support/proxy-wasm-host.js';
import { RUNS } from './counts.js';
import { application } from './headers.js';
import { Random } from './random.js';
import { assertAlive, Sidecar, TRACEPARENT } from './sidecar.js';

const HEADERS: readonly Pair[] = [
  ['x-a', '1'],
  ['content-type', 'application/grpc'],
  ['traceparent', TRACEPARENT],
];

function anything(random: Random): PropertyValue {
  const kinds: readonly (() => PropertyValue)[] = [
    () => undefined,
    () => '',
    () => random.bytes(random.below(20)),
    () => random.bytes(random.below(5000)),
    () => BigInt(random.u32()) << BigInt(random.below(33)),
    () => -1n,
    () => double(random.pick([NaN, Infinity, -1, 0.5, 1e300])),
    () => random.chance(0.5),
    () => ({ a: { b: 'c' } }),
    () => new Uint8Array(random.below(70_000)),
    () => 'outbound|80||pay.shop.svc.cluster.local',
    () => '|'.repeat(random.below(300)),
  ];
  return random.pick(kinds)();
}

function properties(random: Random): PropertyTree {
  const maybe = (): PropertyValue => anything(random);
  return {
    connection: { mtls: maybe(), id: maybe() },
    source: { address: maybe(), port: maybe() },
    destination: { address: maybe(), port: maybe() },
    upstream: { address: maybe(), request_attempt_count: maybe(), cx_pool_ready_duration: maybe() },
    request: { total_size: maybe(), duration: maybe(), size: maybe() },
    response: { code: maybe(), flags: maybe(), grpc_status: maybe(), code_details: maybe(), total_size: maybe() },
    xds: { cluster_name: maybe(), listener_direction: maybe(), cluster_metadata: maybe(), route_name: maybe() },
  };
}

describe('a host that talks nonsense', function () {
  this.timeout(600_000);

  it(`in properties of requests (${String(RUNS.properties)})`, () => {
    const random = new Random(31);
    let sidecar = new Sidecar();
    for (let i = 0; i < RUNS.properties; i++) {
      if (i % 2000 === 0) {
        sidecar = new Sidecar({ order: true });
        sidecar.connect();
      }
      const options = { headers: HEADERS, properties: properties(random) };
      const exchange = random.chance(0.5) ? sidecar.receive(options) : sidecar.call(options);
      const before = application(exchange.request.pairs());
      exchange.requestHeaders(false);
      exchange.requestBody(
        Buffer.from(
          `\0${random.pick(['\xff\xff\xff\xff', '\0\0\0\0', '\x7f\xff\xff\xff'])}${random.bytes(random.below(9))}`,
          'latin1',
        ),
      );
      assert.deepEqual(application(exchange.request.pairs()), before);
      sidecar.answer(exchange, { status: random.pick([200, 503]) });
      if (i % 100 === 99) {
        sidecar.advance(1200);
        assertAlive(sidecar);
      }
    }
    assertAlive(sidecar);
  });

  it('in node metadata', () => {
    const random = new Random(32);
    for (let i = 0; i < 300; i++) {
      const maybe = (): PropertyValue => anything(random);
      const node = {
        id: random.pick<PropertyValue>(['~~~', 'sidecar~', 'router~a~b.c~d', maybe()]),
        cluster: maybe(),
        metadata: {
          NAME: maybe(),
          NAMESPACE: maybe(),
          WORKLOAD_NAME: maybe(),
          CLUSTER_ID: maybe(),
          LABELS: random.chance(0.5) ? { app: maybe() } : maybe(),
          INSTANCE_IPS: maybe(),
        },
      };
      const sidecar = new Sidecar({ node });
      sidecar.connect();
      sidecar.serve();
      sidecar.advance(2000);
      assertAlive(sidecar);
    }
  });

  it('in shared data and queues, which other filters can write', () => {
    const random = new Random(33);
    for (let i = 0; i < 150; i++) {
      const sidecar = new Sidecar({ workers: 2 });
      sidecar.connect();
      for (let n = 0; n < 20; n++) {
        for (const key of sidecar.proxy.sharedData.keys('')) {
          if (!random.chance(0.3)) continue;
          const present = sidecar.proxy.sharedData.get('', key)?.value ?? Buffer.alloc(0);
          const mutated = Buffer.from(present);
          for (let m = 0; m < 4 && mutated.length > 0; m++) mutated[random.below(mutated.length)] = random.below(256);
          const value = random.pick([
            Buffer.alloc(0),
            mutated,
            mutated.subarray(0, random.below(mutated.length + 1)),
            Buffer.alloc(random.below(100_000), random.below(256)),
          ]);
          sidecar.proxy.sharedData.set('', key, value, 0);
        }
        for (const name of ['meshpulse.queue']) {
          const token = sidecar.proxy.queues.resolve('', name);
          // Only what is still protobuf reaches the collector's decoder here; the filter forwards it unread.
          if (token !== 0) sidecar.proxy.queues.enqueue(token, Buffer.from([0x32, 0x00]));
        }
        sidecar.serve({ worker: random.below(2) });
        sidecar.advance(random.below(900));
      }
      assertAlive(sidecar);
    }
  });

  it('in the sizes of callbacks', () => {
    const sidecar = new Sidecar();
    sidecar.connect();
    const root = sidecar.proxy.worker(0).root(sidecar.inbound);
    assert.ok(root !== undefined);
    for (const size of [0, 1, -1, 0x7fffffff, 65537]) {
      for (const callback of ['proxy_on_grpc_receive', 'proxy_on_grpc_close', 'proxy_on_queue_ready']) {
        root.vm.upcall(root, callback, [root.id, 2, size], () => undefined);
      }
    }
    assertAlive(sidecar);
  });
});
