// Early rollback as a whole: real proxies, the real collector, and applications that go on after a failure as
// applications do. What is done in vain is counted at the applications, by one clock.
import { strict as assert } from 'node:assert';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isHeldOut } from '../../collector/src/rollback/policy.js';
import { App, type AppRequest, type AppResponse } from '../../demo/src/mesh/app.js';
import { until } from '../../demo/src/mesh/child.js';
import { Collector, CollectorClient } from '../../demo/src/mesh/collector.js';
import { FILTER_WASM } from '../../demo/src/mesh/envoy.js';
import { Load } from '../../demo/src/mesh/load.js';
import { Mesh } from '../../demo/src/mesh/mesh.js';
import { PolicyFile, type RollbackMode } from '../../demo/src/policy-file.js';

const STEP = { service: 'pay.shop', operation: 'POST /charge' };
/** Calls of the shop after the charge began: each works, and has a note taken, which is work too. */
const BRANCHES = [
  ['stock', '/pick'],
  ['mail', '/label'],
  ['stock', '/pack'],
  ['mail', '/send'],
] as const;
const COMPENSATION = '/cancel';
/** Between the beginnings of two branches; a verdict has the first one to arrive. */
const BRANCH_MS = 150;
const WORK_MS = 80;
const RATE = 15;
/** Enforced traffic, in multiples of the usual. */
const SCALE = process.env['TEST_LONG'] === '1' ? 4 : 1;
const SETTLED_MS = 30_000;
const KILLED_MS = 10_000;
/** One transaction, from its beginning to its end, on a slow machine. */
const TRANSACTION_MS = 10_000;

/** What a number of failing transactions cost after their failure. */
interface Waste {
  failed: number;
  /** Requests that arrived: of branches, and of all. */
  heads: number;
  requests: number;
  /** Time that services spent on them. */
  workMs: number;
}

interface PolicyView {
  /** Of the file in force. */
  text: string;
  learned: { service: string; operation: string; decides: boolean; forward: string[] }[];
}

interface Ledger {
  total: { refused: string } | null;
  wrong_verdicts: string;
}

class Shop {
  private readonly apps: App[] = [];
  /** Key -> what was done for it after its failure. */
  private readonly failures = new Map<string, Waste>();
  /** Compensations that reached stock. */
  cancelled = 0;

  static async start(mesh: Mesh): Promise<Shop> {
    const shop = new Shop();
    const apps = [
      ['shop', (request: AppRequest) => shop.order(request)],
      ['pay', (request: AppRequest) => ({ status: request.headers['x-fail'] === '1' ? 503 : 200 })],
      ['stock', (request: AppRequest) => shop.work(request)],
      ['mail', (request: AppRequest) => shop.work(request)],
      ['audit', (request: AppRequest) => shop.work(request)],
    ] as const;
    for (const [name, handler] of apps) {
      const proxy = mesh.proxy(name);
      shop.apps.push(await App.start(proxy.app, proxy.outbound, handler));
    }
    return shop;
  }

  async stop(): Promise<void> {
    for (const app of this.apps) await app.stop();
  }

  waste(keys: string[]): Waste {
    const all = keys.flatMap(key => this.failures.get(key) ?? []);
    const sum = (of: (waste: Waste) => number) => all.reduce((total, waste) => total + of(waste), 0);
    return { failed: all.length, heads: sum(w => w.heads), requests: sum(w => w.requests), workMs: sum(w => w.workMs) };
  }

  private async order(request: AppRequest): Promise<AppResponse> {
    const fail = request.headers['x-fail'] === '1';
    const charge = request.call('pay', 'POST', '/charge', { headers: { 'x-fail': fail ? '1' : '0' } }).then(answer => {
      if (answer.status !== 200) this.failures.set(keyOf(request), { failed: 1, heads: 0, requests: 0, workMs: 0 });
      return answer;
    });
    const branches = BRANCHES.map(async ([service, path], i) => {
      await sleep((i + 1) * BRANCH_MS);
      await request.call(service, 'POST', path);
    });
    await Promise.all([charge, ...branches]);
    if ((await charge).status === 200) return { status: 200 };
    const undone = await request.call('stock', 'POST', COMPENSATION);
    return { status: undone.status === 200 ? 503 : 500 };
  }

  private async work(request: AppRequest): Promise<AppResponse> {
    if (request.path === COMPENSATION) {
      this.cancelled++;
      return { status: 200 };
    }
    const waste = this.failures.get(keyOf(request));
    const began = performance.now();
    await sleep(WORK_MS);
    const head = request.path !== '/note';
    if (head) await request.call('audit', 'POST', '/note');
    if (waste) {
      waste.requests++;
      if (head) waste.heads++;
      waste.workMs += performance.now() - began;
    }
    return { status: 200 };
  }
}

function keyOf(request: AppRequest): string {
  return String(request.headers['traceparent']).slice(3, 35);
}

describe('early rollback with the collector', function () {
  this.timeout(240_000);
  let dir: string;
  let collector: Collector;
  let client: CollectorClient;
  let policy: PolicyFile;
  let mesh: Mesh;
  let shop: Shop;
  /** What a failing transaction costs without rollback. */
  let without: Waste;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'rollback-'));
    policy = new PolicyFile(join(dir, 'rollback.yaml'));
    await policy.write('observe');
    collector = await Collector.start({ dir, args: ['--rollback-policy', policy.path] });
    client = new CollectorClient(collector.grpc);
    mesh = await Mesh.create({
      collector: collector.grpc,
      services: [
        { name: 'gate', gatewayTo: 'shop' },
        ...['shop', 'pay', 'stock', 'mail', 'audit'].map(name => ({ name })),
      ],
      proxy: { wasm: { file: FILTER_WASM }, settings: { rollback: { mode: 'enforce' } } },
    });
    shop = await Shop.start(mesh);
    await mesh.start();
  });
  after(async () => {
    client.close();
    await mesh.stop('kill');
    await shop.stop();
    await collector.stop();
    await rm(dir, { recursive: true, force: true });
  });

  const inForce = () => client.call<PolicyView>('Rollback', 'GetPolicy');
  const ledger = () => client.call<Ledger>('Rollback', 'GetLedger');
  const setPolicy = async (mode: RollbackMode, steps: (typeof STEP)[] = []): Promise<void> => {
    const text = await policy.write(mode, steps);
    await until(`policy ${mode}`, SETTLED_MS, async () => ((await inForce()).text === text ? true : undefined));
  };
  const workSaved = async (): Promise<number> => {
    const lines = (await collector.get('/metrics')).split('\n');
    const line = lines.find(
      text => text.startsWith('meshpulse_work_saved_seconds_total{') && text.includes('"refused"'),
    );
    return Number(line?.slice(line.lastIndexOf(' ') + 1) ?? 0);
  };

  /** `count` transactions of which every `failEvery`-th fails; every `heldOutEvery`-th of those is one that learning holds out. */
  const traffic = async (count: number, failEvery: number, heldOutEvery = 20): Promise<Waste> => {
    const keys: string[] = [];
    let failing = 0;
    const load = Load.start({
      targets: [mesh.proxy('gate').inbound],
      host: 'shop.example.com',
      rate: RATE,
      count,
      next: n => {
        const fails = n % failEvery === 0;
        const key = newKey(fails && ++failing % heldOutEvery === 0);
        if (fails) keys.push(key);
        const headers = { traceparent: `00-${key}-${randomBytes(8).toString('hex')}-01`, 'x-fail': fails ? '1' : '0' };
        return { operation: 'POST /order', method: 'POST', path: '/order', headers };
      },
    });
    const { counts } = await load.ended();
    assert.deepEqual(
      Object.fromEntries(counts.get('POST /order') ?? []),
      { ...(failing < count ? { 200: count - failing } : {}), 503: failing },
      'applications end as ever',
    );
    return shop.waste(keys);
  };

  it('learns the step whose failure is the end, and what comes after it', async () => {
    await traffic(150, 3);
    const learned = await until('a learned step', SETTLED_MS, async () => {
      const { learned: steps } = await inForce();
      return steps.find(one => one.service === STEP.service && one.operation === STEP.operation && one.decides);
    });
    for (const [service, path] of BRANCHES)
      assert.ok(
        learned.forward.some(edge => edge.endsWith(`${service}.shop POST ${path}`)),
        learned.forward.join(', '),
      );
    assert.ok(!learned.forward.some(edge => edge.includes(COMPENSATION)), 'compensation is not forward');
  });

  it('off, everything after the failure is done in vain', async () => {
    await setPolicy('off');
    without = await traffic(60, 5);
    assert.equal(without.failed, 12);
    assert.equal(without.requests, without.failed * BRANCHES.length * 2);
  });

  /** What is saved, by the applications and by the collector, in the same traffic. */
  const enforced = async (run: () => Promise<Waste>): Promise<void> => {
    const [refusedBefore, workBefore] = [Number((await ledger()).total?.refused ?? 0), await workSaved()];
    const cancelled = shop.cancelled;
    const waste = await run();
    const expected = (of: (one: Waste) => number) => (waste.failed * of(without)) / without.failed;
    const report = `${waste.requests} requests in vain, ${expected(w => w.requests)} without rollback`;
    assert.ok(waste.requests <= 0.2 * expected(w => w.requests), report);
    assert.equal(shop.cancelled - cancelled, waste.failed, 'every compensation passes');

    const savedHeads = expected(w => w.heads) - waste.heads;
    const refused = await until('the ledger', SETTLED_MS, async () => {
      const now = Number((await ledger()).total?.refused ?? 0) - refusedBefore;
      return now >= 0.8 * savedHeads ? now : undefined;
    });
    assert.ok(refused <= 1.2 * savedHeads, `${refused} refused, ${savedHeads} saved`);
    const [saved, measured] = [(await workSaved()) - workBefore, (expected(w => w.workMs) - waste.workMs) / 1000];
    console.log(
      `      ${report}; ${refused} refused; ${saved.toFixed(1)} s of work saved by the ledger, ${measured.toFixed(1)} s measured`,
    );
    assert.ok(saved >= 0.8 * measured && saved <= 1.2 * measured, `${saved} s, measured ${measured} s`);
    assert.equal((await ledger()).wrong_verdicts, '0');
  };

  it('enforced, a fifth at most with one in ten failing, at the default budget', async () => {
    await setPolicy('enforce');
    await enforced(() => traffic(SCALE * 200, 10));
  });

  it('enforced, a fifth at most with a named step that always fails', async () => {
    await setPolicy('enforce', [STEP]);
    await enforced(() => traffic(SCALE * 40, 1));
  });

  /** Time until a failing transaction is done as if there were no rollback, or until one is not. */
  const untilDone = async (whole: boolean): Promise<number> => {
    const sinceMs = Date.now();
    return until(whole ? 'nothing refused' : 'refusals', KILLED_MS + TRANSACTION_MS, async () => {
      const beganMs = Date.now() - sinceMs;
      const { requests } = await traffic(1, 1);
      return (requests === BRANCHES.length * 2) === whole ? beganMs : undefined;
    });
  };

  it('passes everything within 10 s of a kill, until it is lifted', async () => {
    await untilDone(false);
    await client.call('Rollback', 'Kill', { scope: 'mesh', reason: 'test', actor: 'e2e' });
    assert.ok((await untilDone(true)) <= KILLED_MS);
    await client.call('Rollback', 'Kill', { scope: 'mesh', reason: 'test', actor: 'e2e', lift: true });
    await untilDone(false);
  });

  it('passes everything within 10 s of a policy file that says off', async () => {
    await untilDone(false);
    await policy.write('off');
    assert.ok((await untilDone(true)) <= KILLED_MS);
  });

  it('passes everything once the collector is gone', async () => {
    await setPolicy('enforce', [STEP]);
    await untilDone(false);
    await collector.kill();
    assert.ok((await untilDone(true)) <= KILLED_MS);
  });
});

function newKey(heldOut: boolean): string {
  for (;;) {
    const key = randomBytes(16).toString('hex');
    if (isHeldOut(key) === heldOut) return key;
  }
}
