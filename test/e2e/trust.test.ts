// Who may speak of containers: own headers cross only between proxies that know each other, and nobody else
// ever gets or injects one.
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { freePort } from '../../demo/src/mesh/address.js';
import { until } from '../../demo/src/mesh/child.js';
import { FILTER_WASM } from '../../demo/src/mesh/envoy.js';
import type { Json } from '../../demo/src/mesh/json.js';
import { Mesh, type MeshOptions, type Proxy } from '../../demo/src/mesh/mesh.js';
import { outboundCluster } from '../../demo/src/mesh/node.js';
import { RowFlag } from '../filter/wire.js';
import { OWN_NAME } from './support/header-corpus.js';
import { exchange, get, RawClient, RawUpstream, valuesOf, type Field, type Head } from './support/raw-http.js';
import { Recorder } from './support/recorder.js';

const FORGED_CUID = '11111111-2222-4333-8444-555555555555';
const FORGED: Field[] = [
  ['x-cuid', FORGED_CUID],
  ['x-mp-status', 'inflight=9, age=0'],
  ['x-mp-progress', 'event="00000000000000aa", job="forged"'],
  ['x-mp-rollback', 'forged-1'],
];
const MIXED_CASE: Field[] = FORGED.map(([name, value]) => [name.toUpperCase(), value]);
/** The same names to software that takes `_` for `-`. */
const TWINS: Field[] = FORGED.map(([name, value]) => [name.replaceAll('-', '_'), value]);
const MIXED_TWINS: Field[] = [
  ['x-mp_status', 'inflight=9'],
  ['x_mp-progress', 'event="00000000000000aa"'],
];
const DUPLICATES: Field[] = [
  ['x-cuid', FORGED_CUID],
  ['x-cuid', '99999999-2222-4333-8444-555555555555'],
  ['x-mp-status', 'inflight=9'],
  ['x-mp-status', 'inflight=8'],
];
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const EXTERNAL = 'api.example.org';

const own = (head: Head) => head.fields.filter(([name]) => OWN_NAME.test(name.toLowerCase()));
const ownNames = (head: Head) => own(head).map(([name]) => name);

/** A mesh with a raw application behind each proxy, and a collector that listens. */
class World {
  private constructor(
    readonly mesh: Mesh,
    readonly apps: Map<string, RawUpstream>,
    readonly recorder: Recorder,
  ) {}

  static async start(options: Partial<MeshOptions>): Promise<World> {
    const recorder = await Recorder.start();
    const settings = { report: { intervalMs: 200 }, ...options.proxy?.settings };
    const mesh = await Mesh.create({
      services: [],
      collector: recorder.address,
      ...options,
      proxy: { wasm: { file: FILTER_WASM }, ...options.proxy, settings },
    });
    const apps = new Map<string, RawUpstream>();
    for (const { spec, app } of mesh.proxies) {
      if (!spec.gatewayTo && !spec.outboundOnly) apps.set(spec.name, await RawUpstream.start(app));
    }
    for (const { host, address } of options.externals ?? []) apps.set(host, await RawUpstream.start(address));
    await mesh.start();
    return new World(mesh, apps, recorder);
  }

  app(name: string): RawUpstream {
    const app = this.apps.get(name);
    if (!app) throw new Error(`no application ${name}`);
    return app;
  }

  /** The CUID of a proxy, from its hello. */
  async cuid(service: string): Promise<string> {
    await this.recorder.greeted(service);
    return this.recorder.life(service).hello.cuid;
  }

  /** TLS to a proxy's inbound listener, as the workload `as` or as nobody. */
  tls(to: Proxy, as?: string): RawClient {
    const file = (name: string) => readFileSync(join(this.mesh.dir, name));
    const identity = as ? { cert: file(`${as}.shop.crt`), key: file(`${as}.shop.key`) } : {};
    return new RawClient(
      connectTls({ ...to.inbound, ...identity, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] }),
    );
  }

  async stop(): Promise<void> {
    await this.mesh.stop('kill');
    for (const app of this.apps.values()) await app.stop();
    this.recorder.stop();
  }
}

describe('trust between proxies with mTLS', function () {
  this.timeout(60_000);
  let world: World;
  before(async () => {
    const address = { host: '127.0.0.1', port: await freePort() };
    world = await World.start({
      mtls: true,
      services: [
        { name: 'gate', gatewayTo: 'front' },
        { name: 'front', proxy: { permissive: true } },
        { name: 'back' },
        { name: 'bare', noSidecar: true },
      ],
      externals: [{ host: EXTERNAL, address }],
    });
    for (const app of world.apps.values()) app.answer = () => ({});
  });
  after(() => world.stop());

  const viaGate = (fields: Field[]) => exchange(world.mesh.proxy('gate').inbound, get('shop.example', '/gate', fields));
  const outbound = (host: string, fields: Field[], path = '/out') =>
    exchange(world.mesh.proxy('front').outbound, get(host, path, fields));

  for (const [name, fields] of Object.entries({ FORGED, MIXED_CASE, TWINS, MIXED_TWINS, DUPLICATES })) {
    it(`a gateway lets nothing in from outside: ${name}`, async () => {
      const answer = await viaGate(fields);
      assert.equal(answer.status, 200);
      const head = world.app('front').last;
      assert.deepEqual(ownNames(head).toSorted(), ['x-cuid', 'x-mp-progress', 'x-mp-status']);
      assert.deepEqual(valuesOf(head, 'x-cuid'), [await world.cuid('gate')]);
      assert.ok(!JSON.stringify(head.fields).includes('forged'));
    });

    it(`a TLS peer without identity injects nothing: ${name}`, async () => {
      const client = world.tls(world.mesh.proxy('front'));
      const answer = await client.send(get('front', '/nobody', fields));
      client.close();
      assert.equal(answer.status, 200);
      assert.deepEqual(own(world.app('front').last), []);
      assert.deepEqual(own(answer.head), []);
    });

    it(`an external cluster receives nothing that the application sent: ${name}`, async () => {
      assert.equal((await outbound(EXTERNAL, fields)).status, 200);
      assert.deepEqual(own(world.app(EXTERNAL).last), []);
    });

    it(`old copies in an application's call are replaced: ${name}`, async () => {
      assert.equal((await outbound('back', fields)).status, 200);
      const head = world.app('back').last;
      assert.deepEqual(valuesOf(head, 'x-cuid'), [await world.cuid('front')]);
      assert.equal(valuesOf(head, 'x-mp-status').length, 1);
      assert.doesNotMatch(valuesOf(head, 'x-mp-status')[0] ?? '', /inflight=[98]/);
      assert.doesNotMatch(valuesOf(head, 'x-mp-progress')[0] ?? '', /00000000000000aa/);
      assert.deepEqual(
        ownNames(head).filter(n => n.includes('_')),
        [],
      );
    });
  }

  it('a gateway lets nothing out, neither its own nor what the application says', async () => {
    world.app('front').answer = () => ({ fields: [...FORGED, ...TWINS, ['x-app', 'stays']] });
    const answer = await viaGate([]);
    world.app('front').answer = () => ({});
    assert.deepEqual(own(answer.head), []);
    assert.deepEqual(valuesOf(answer.head, 'x-app'), ['stays']);
  });

  it('a peer with identity is believed and answered', async () => {
    const client = world.tls(world.mesh.proxy('front'), 'back');
    const sent: Field[] = FORGED.filter(([name]) => name !== 'x-mp-rollback');
    const answer = await client.send(get('front', '/peer', sent));
    client.close();
    assert.deepEqual(own(world.app('front').last), sent);
    assert.deepEqual(valuesOf(answer.head, 'x-cuid'), [await world.cuid('front')]);
    assert.match(valuesOf(answer.head, 'x-mp-status')[0] ?? '', /^inflight=\d+(, .*)?$/);
  });

  for (const [name, fields] of Object.entries({ TWINS, MIXED_TWINS })) {
    it(`even a peer with identity gets these dropped: ${name}`, async () => {
      const client = world.tls(world.mesh.proxy('front'), 'back');
      assert.equal((await client.send(get('front', '/peer', fields))).status, 200);
      client.close();
      assert.deepEqual(own(world.app('front').last), []);
    });
  }

  it('of a repeated own header only one copy passes, even from a peer with identity', async () => {
    const client = world.tls(world.mesh.proxy('front'), 'back');
    assert.equal((await client.send(get('front', '/peer', DUPLICATES))).status, 200);
    client.close();
    assert.deepEqual(own(world.app('front').last), [DUPLICATES[0], DUPLICATES[2]]);
  });

  it('an application cannot speak for its proxy in a response', async () => {
    world.app('front').answer = () => ({ fields: [...FORGED, ...TWINS, ...DUPLICATES, ['x-app', 'stays']] });
    const client = world.tls(world.mesh.proxy('front'), 'back');
    const { head } = await client.send(get('front', '/peer', []));
    client.close();
    world.app('front').answer = () => ({});
    assert.deepEqual(valuesOf(head, 'x-cuid'), [await world.cuid('front')]);
    assert.equal(valuesOf(head, 'x-mp-status').length, 1);
    assert.doesNotMatch(JSON.stringify(head.fields), /inflight=9|inflight=8|11111111|99999999/);
    assert.deepEqual(
      ownNames(head).filter(n => n.includes('_')),
      [],
    );
    assert.deepEqual(valuesOf(head, 'x-app'), ['stays']);
  });

  it('nobody gets an own header from an answer to a peer without identity', async () => {
    world.app('front').answer = () => ({ fields: [...FORGED, ...TWINS, ...DUPLICATES, ['x-app', 'stays']] });
    const client = world.tls(world.mesh.proxy('front'));
    const { head } = await client.send(get('front', '/nobody', []));
    client.close();
    world.app('front').answer = () => ({});
    assert.deepEqual(own(head), []);
    assert.deepEqual(valuesOf(head, 'x-app'), ['stays']);
  });

  it('the caller sees who in the mesh answered, and status', async () => {
    const { head } = await outbound('back', []);
    assert.deepEqual(valuesOf(head, 'x-cuid'), [await world.cuid('back')]);
    assert.equal(valuesOf(head, 'x-mp-status').length, 1);
  });

  for (const callee of [EXTERNAL, 'bare']) {
    it(`answers of ${callee}, which proves no identity, inject nothing`, async () => {
      world.app(callee).answer = () => ({ fields: [...FORGED, ...TWINS, ['x-app', 'stays']] });
      const { head } = await outbound(callee, []);
      world.app(callee).answer = () => ({});
      assert.deepEqual(own(head), []);
      assert.deepEqual(valuesOf(head, 'x-app'), ['stays']);
    });
  }

  it('a compensation mark of at most 64 bytes goes to the mesh, never outside', async () => {
    const mark = (size: number): Field[] => [['x-mp-rollback', 'r'.repeat(size)]];
    await outbound('back', mark(64));
    assert.deepEqual(valuesOf(world.app('back').last, 'x-mp-rollback'), ['r'.repeat(64)]);
    await outbound('back', mark(65));
    assert.deepEqual(valuesOf(world.app('back').last, 'x-mp-rollback'), []);
    await outbound(EXTERNAL, mark(8));
    assert.deepEqual(valuesOf(world.app(EXTERNAL).last, 'x-mp-rollback'), []);
  });

  it('own headers of a message stay under 256 bytes', async () => {
    const job = 'j'.repeat(60);
    for (const progress of [
      `job="${job}", done=1, of=2, queue=3, state=packing`,
      `job="${job}", done=123456789012345`,
    ]) {
      for (const rollback of [[], [['x-mp-rollback', 'r'.repeat(64)] satisfies Field]]) {
        await outbound('back', [['x-mp-progress', progress], ...rollback]);
        const bytes = own(world.app('back').last).reduce(
          (sum, [name, value]) => sum + name.length + value.length + 4,
          0,
        );
        assert.ok(bytes < 256, `${bytes} bytes`);
      }
    }
  });

  it('every CUID is a UUID of its own', async () => {
    const cuids = await Promise.all(['gate', 'front', 'back'].map(service => world.cuid(service)));
    for (const cuid of cuids) assert.match(cuid, UUID);
    assert.equal(new Set(cuids).size, 3);
  });

  it('rows name a caller only if it proved its identity', async () => {
    const front = world.mesh.proxy('front');
    const send = async (as: string | undefined, path: string) => {
      const client = world.tls(front, as);
      await client.send(get('front', path, FORGED));
      client.close();
    };
    await send(undefined, '/row-nobody');
    await send('back', '/row-peer');
    const rows = await until('both rows', 10_000, () => {
      const found = world.recorder.rows('front').filter(row => row.operation.startsWith('GET /row-'));
      return found.length === 2 ? found : undefined;
    });
    const nobody = rows.find(row => row.operation === 'GET /row-nobody');
    const peer = rows.find(row => row.operation === 'GET /row-peer');
    assert.deepEqual([nobody?.peerCuid, (nobody?.flags ?? 0) & RowFlag.Entry], ['', RowFlag.Entry]);
    assert.notEqual(nobody?.event, '00000000000000aa');
    assert.deepEqual([peer?.peerCuid, (peer?.flags ?? 0) & RowFlag.Entry], [FORGED_CUID, 0]);
    assert.equal(peer?.event, '00000000000000aa');
  });
});

describe('trust between proxies without TLS', function () {
  this.timeout(60_000);

  for (const trust of ['mtls', 'all'] as const) {
    it(`trust ${trust}: ${trust === 'all' ? 'peers are believed, twins and repetitions are not' : 'nobody is believed or answered'}`, async () => {
      const world = await World.start({ services: [{ name: 'front' }], proxy: { settings: { trust } } });
      try {
        const front = world.mesh.proxy('front');
        world.app('front').answer = () => ({ fields: [...FORGED.slice(0, 2), ['x-app', 'stays']] });
        const believed = FORGED.slice(0, 3);
        const { head } = await exchange(front.inbound, get('front', '/', believed));
        assert.deepEqual(own(world.app('front').last), trust === 'all' ? believed : []);
        assert.deepEqual(valuesOf(head, 'x-cuid'), trust === 'all' ? [await world.cuid('front')] : []);
        assert.equal(own(head).length, trust === 'all' ? 2 : 0);
        assert.deepEqual(valuesOf(head, 'x-app'), ['stays']);
        for (const fields of [TWINS, MIXED_TWINS]) {
          await exchange(front.inbound, get('front', '/', fields));
          assert.deepEqual(own(world.app('front').last), []);
        }
        await exchange(front.inbound, get('front', '/', DUPLICATES));
        assert.deepEqual(own(world.app('front').last), trust === 'all' ? [DUPLICATES[0], DUPLICATES[2]] : []);
      } finally {
        await world.stop();
      }
    });
  }

  it('by default only outbound clusters that are not external are in the mesh', async () => {
    const marked = outboundCluster('marked', 'shop', 8080);
    const markExternal = (bootstrap: Json) => {
      const { clusters } = bootstrap['static_resources'] as { clusters: Json[] };
      for (const cluster of clusters) {
        if (cluster['name'] === marked) cluster['metadata'] = { filter_metadata: { istio: { external: true } } };
      }
    };
    const passthrough = { host: 'PassthroughCluster', address: { host: '127.0.0.1', port: await freePort() } };
    const world = await World.start({
      services: [
        { name: 'front', outboundOnly: true },
        { name: 'back', noSidecar: true },
        { name: 'marked', noSidecar: true },
      ],
      externals: [passthrough],
      proxy: { settings: { mesh: {} }, patch: markExternal },
    });
    try {
      const { outbound } = world.mesh.proxy('front');
      for (const [host, stamps] of [
        ['back', 3],
        ['marked', 0],
        ['PassthroughCluster', 0],
      ] as const) {
        assert.equal((await exchange(outbound, get(host, '/', FORGED.slice(0, 3)))).status, 200);
        assert.equal(own(world.app(host).last).length, stamps, host);
      }
    } finally {
      await world.stop();
    }
  });
});
