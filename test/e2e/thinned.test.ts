// Thinned reports: fewer rows, the same counts, and rows of whole transactions or none.
import { strict as assert } from 'node:assert';
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { App, type AppRequest, type AppResponse } from '../../demo/src/mesh/app.js';
import { until } from '../../demo/src/mesh/child.js';
import { Collector, CollectorClient } from '../../demo/src/mesh/collector.js';
import { FILTER_WASM } from '../../demo/src/mesh/envoy.js';
import { Load, type Shot } from '../../demo/src/mesh/load.js';
import { Mesh } from '../../demo/src/mesh/mesh.js';
import { tally } from './support/ledger.js';

const REQUESTS = 400;
const RATE = 200;
const ARRIVAL_MS = 30_000;
const RATIO = 0.25;
/** Far outside what a fair hash can do with REQUESTS keys: 5 standard deviations on either side. */
const SAMPLED = { least: 56, most: 144 };
const PAGE = 1000;

interface Service {
  name: string;
  events: string;
  operations: { operation: string; response_code: number; count: string }[];
}

interface Transaction {
  key: string;
  events: { service: string; operation: string; response_code: number; outcome: string }[];
}

/** What becomes of the n-th request: its events, `service OPERATION status`. */
function story(n: number): string[] {
  const outer = (text: string) => ['gate', 'front'].map(service => `${service}.shop ${text}`);
  if (n % 5 === 0) return [...outer('POST /checkout 500'), 'back.shop POST /pay 500'];
  if (n % 7 === 0) return outer('GET /missing 404');
  return [...outer('GET /shop 200'), 'back.shop GET /price 200'];
}

function shot(n: number): Shot {
  const [, operation = '', method = '', path = ''] = /^\S+ ((\S+) (\S+))/.exec(story(n)[0] ?? '') ?? [];
  return { operation, method, path, headers: { traceparent: `00-${keyOf(n)}-00f067aa0ba902b7-01` } };
}

/** The same in each run, and no pattern that a hash could like. */
function keyOf(n: number): string {
  return createHash('sha256').update(`transaction ${n}`).digest('hex').slice(0, 32);
}

async function front(request: AppRequest): Promise<AppResponse> {
  if (request.path === '/missing') return { status: 404 };
  const [method, path] = request.path === '/checkout' ? ['POST', '/pay'] : ['GET', '/price'];
  const { status } = await request.call('back', method, path);
  return { status };
}

class Stage {
  private constructor(
    private readonly dir: string,
    readonly collector: Collector,
    readonly client: CollectorClient,
    readonly mesh: Mesh,
    private readonly apps: App[],
  ) {}

  static async start(report: { events: string; ratio?: number }): Promise<Stage> {
    const dir = await mkdtemp(join(tmpdir(), 'thinned-'));
    const collector = await Collector.start({ dir, args: ['--log-level', 'warn'] });
    const mesh = await Mesh.create({
      services: [{ name: 'gate', gatewayTo: 'front' }, { name: 'front' }, { name: 'back' }],
      collector: collector.grpc,
      proxy: {
        wasm: { file: FILTER_WASM },
        concurrency: 2,
        settings: { report: { intervalMs: 200, ...report } },
      },
    });
    const { app, outbound } = mesh.proxy('front');
    const apps = [
      await App.start(app, outbound, front),
      await App.start(mesh.proxy('back').app, undefined, ({ path }) => ({ status: path === '/pay' ? 500 : 200 })),
    ];
    await mesh.start();
    return new Stage(dir, collector, new CollectorClient(collector.grpc), mesh, apps);
  }

  async load(): Promise<void> {
    const targets = [this.mesh.proxy('gate').inbound];
    const load = Load.start({ targets, host: 'shop.example', rate: RATE, count: REQUESTS, next: shot });
    assert.deepEqual((await load.ended()).errors, []);
  }

  /** Waits until as many events are counted as there were; then all counts as `service OPERATION status`. */
  async counts(): Promise<Record<string, number>> {
    const services = await until('all events', ARRIVAL_MS, async () => {
      const answer = await this.client.call<{ services: Service[] }>('Registry', 'ListServices');
      const events = answer.services.reduce((sum, service) => sum + Number(service.events), 0);
      return events >= EXPECTED.length ? answer.services : undefined;
    });
    return Object.fromEntries(
      services
        .flatMap(({ name, operations }) =>
          operations.map(
            ({ operation, response_code, count }) => [`${name} ${operation} ${response_code}`, Number(count)] as const,
          ),
        )
        .sort(([a], [b]) => (a < b ? -1 : 1)),
    );
  }

  async transactions(): Promise<Transaction[]> {
    const { client } = this;
    const list = await client.call<{ transactions: Transaction[] }>('Transactions', 'List', { page_size: PAGE });
    return Promise.all(
      list.transactions.map(({ key }) => client.call<Transaction>('Transactions', 'Get', { id: key })),
    );
  }

  async stop(): Promise<void> {
    await this.mesh.stop('kill');
    for (const app of this.apps) await app.stop();
    this.client.close();
    await this.collector.stop();
    await rm(this.dir, { recursive: true, force: true });
  }
}

const NUMBERS = Array.from({ length: REQUESTS }, (_, n) => n);
const EXPECTED = NUMBERS.flatMap(story);
const STORIES = new Map(NUMBERS.map(n => [keyOf(n), story(n)]));

const told = ({ events }: Transaction) =>
  events.map(({ service, operation, response_code }) => `${service} ${operation} ${response_code}`).sort();

describe('thinned reports', function () {
  this.timeout(60_000);

  it('failures: counts are exact, and every failed event has its row and no other has', async () => {
    const stage = await Stage.start({ events: 'failures' });
    try {
      await stage.load();
      assert.deepEqual(await stage.counts(), tally(EXPECTED));
      const failed = NUMBERS.filter(n => story(n).some(text => text.endsWith(' 500')));
      const transactions = await stage.transactions();
      assert.deepEqual(transactions.map(({ key }) => key).sort(), failed.map(keyOf).sort());
      for (const transaction of transactions) {
        assert.deepEqual(told(transaction), STORIES.get(transaction.key)?.toSorted());
        assert.ok(transaction.events.every(({ outcome }) => outcome === 'OUTCOME_FAILED'));
      }
    } finally {
      await stage.stop();
    }
  });

  it(`sample of ${RATIO}: counts are exact, and a transaction has rows from every sidecar or from none`, async () => {
    const stage = await Stage.start({ events: 'sample', ratio: RATIO });
    try {
      await stage.load();
      assert.deepEqual(await stage.counts(), tally(EXPECTED));
      const transactions = await stage.transactions();
      const { length } = transactions;
      assert.ok(length >= SAMPLED.least && length <= SAMPLED.most, `${length} of ${REQUESTS} transactions`);
      for (const transaction of transactions) {
        assert.deepEqual(told(transaction), STORIES.get(transaction.key)?.toSorted(), transaction.key);
      }
      assert.ok(new Set(transactions.map(transaction => told(transaction).join())).size > 1, 'of several kinds');
    } finally {
      await stage.stop();
    }
  });
});
