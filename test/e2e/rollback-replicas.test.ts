// Early rollback over two replicas of the collector: the failing caller reports to one, the callee that refuses is told
// by the other, and both tell the same story.
import { strict as assert } from 'node:assert';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { App, type AppRequest, type AppResponse } from '../../demo/src/mesh/app.js';
import { until } from '../../demo/src/mesh/child.js';
import { Collector, CollectorClient } from '../../demo/src/mesh/collector.js';
import { FILTER_WASM } from '../../demo/src/mesh/envoy.js';
import { Load } from '../../demo/src/mesh/load.js';
import { Mesh } from '../../demo/src/mesh/mesh.js';
import { PolicyFile } from '../../demo/src/policy-file.js';
import { RedisServer } from '../support/redis.js';

const STEP = { service: 'pay.shop', operation: 'POST /charge' };
/** From the failed charge to the forward work, ms: the verdict and both its ways have so long. */
const LATER_MS = 400;
const RATE = 30;
const TAUGHT = 130;
const FAILING = 20;
const SETTLED_MS = 30_000;

interface Ledger {
  total: { refused: string } | null;
  verdicts: string;
}

describe('early rollback over two replicas of the collector', function () {
  this.timeout(180_000);
  let dir: string;
  let redis: RedisServer;
  let collectors: Collector[];
  let clients: CollectorClient[];
  let policy: PolicyFile;
  let mesh: Mesh;
  const apps: App[] = [];
  /** Keys of failing transactions that reached stock. */
  const inVain: string[] = [];

  const order = async (request: AppRequest): Promise<AppResponse> => {
    const fail = request.headers['x-fail'] === '1';
    const charge = await request.call('pay', 'POST', '/charge', { headers: { 'x-fail': fail ? '1' : '0' } });
    // What follows does not look at what the charge said.
    if (fail) await sleep(LATER_MS);
    await request.call('stock', 'POST', '/pick', { headers: { 'x-fail': fail ? '1' : '0' } });
    return { status: charge.status === 200 ? 200 : 503 };
  };
  const pick = (request: AppRequest): AppResponse => {
    if (request.headers['x-fail'] === '1') inVain.push(String(request.headers['traceparent']).slice(3, 35));
    return { status: 200 };
  };

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'rollback-replicas-'));
    redis = await RedisServer.start();
    policy = new PolicyFile(join(dir, 'rollback.yaml'));
    await policy.write('enforce', [STEP]);
    collectors = [];
    for (let n = 0; n < 2; n++) {
      collectors.push(await Collector.start({ dir, args: ['--rollback-policy', policy.path, '--store', redis.url] }));
    }
    clients = collectors.map(({ grpc }) => new CollectorClient(grpc));
    const observe = { settings: { rollback: { mode: 'observe' as const } } };
    mesh = await Mesh.create({
      collector: collectors.map(({ grpc }) => grpc),
      // In turn: gate and pay report to the first; shop, the caller, and the one after it to the second.
      services: [
        { name: 'stock' },
        { name: 'shop', proxy: { wasm: { file: FILTER_WASM }, ...observe } },
        { name: 'gate', gatewayTo: 'shop', proxy: { wasm: { file: FILTER_WASM }, ...observe } },
        { name: 'pay' },
      ],
      proxy: { wasm: { file: FILTER_WASM }, settings: { rollback: { mode: 'enforce' } } },
    });
    const handlers = {
      shop: order,
      pay: (r: AppRequest) => ({ status: r.headers['x-fail'] === '1' ? 503 : 200 }),
      stock: pick,
    };
    for (const [name, handler] of Object.entries(handlers)) {
      const { app, outbound } = mesh.proxy(name);
      apps.push(await App.start(app, outbound, handler));
    }
    await mesh.start();
  });
  after(async () => {
    for (const client of clients) client.close();
    await mesh.stop('kill');
    for (const app of apps) await app.stop();
    for (const collector of collectors) await collector.stop();
    await redis.stop();
    await rm(dir, { recursive: true, force: true });
  });

  const traffic = async (count: number, fails: boolean): Promise<void> => {
    const load = Load.start({
      targets: [mesh.proxy('gate').inbound],
      host: 'shop.example.com',
      rate: RATE,
      count,
      next: () => {
        const traceparent = `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-01`;
        const headers = { traceparent, 'x-fail': fails ? '1' : '0' };
        return { operation: 'POST /order', method: 'POST', path: '/order', headers };
      },
    });
    await load.ended();
  };
  const ledgers = (): Promise<Ledger[]> => Promise.all(clients.map(one => one.call<Ledger>('Rollback', 'GetLedger')));

  it('is enforced by the sidecar of a callee that reports to the other replica than the caller does', async () => {
    await traffic(TAUGHT, false);
    // Transactions are learned from once they have been quiet for some seconds.
    await sleep(6000);
    await traffic(FAILING, true);
    assert.ok(inVain.length <= 0.2 * FAILING, `${inVain.length} of ${FAILING} reached stock`);
    const refused = FAILING - inVain.length;
    const [one, other] = await until('the same ledger at both', SETTLED_MS, async () => {
      const both = await ledgers();
      return both.every(({ total }) => Number(total?.refused ?? 0) === refused) ? both : undefined;
    });
    assert.deepEqual(one, other);
    assert.equal(Number(one!.verdicts), FAILING);
  });
});
