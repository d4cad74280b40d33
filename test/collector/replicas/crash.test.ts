/** Collectors in processes of their own, on one Redis: killed, stopped one after the other, and cut off. */
import assert from 'node:assert/strict';
import { FaultProxy } from '../../../demo/src/mesh/fault-proxy.js';
import { systemClock } from '../../../collector/src/clock.js';
import { meshpulse } from '../../cli/support.js';
import { RedisServer } from '../../support/redis.js';
import { batch, hello, type Plain } from '../ingest-support.js';
import { spawnCollector, type Child } from '../process-support.js';
import { freshPrefix } from '../redis-support.js';
import { Clients, start, until, type ReportClient, type TestCollector } from '../rpc-support.js';
import { Shop, Sidecar } from '../rollback/shop.js';
import { ENFORCE, policyFile, series, verdictsAt } from './support.js';

const LONG = process.env['TEST_LONG'] === '1';
const KILLS = LONG ? 20 : 3;
/** A partition lasts this long, ms. */
const CUT_MS = LONG ? 30_000 : 5000;
const READY_MS = 3000;

const SIDECARS = 4;
const ROWS = 3;
const rows = Array.from({ length: ROWS }, () => ({}));
/** Batches that a sidecar has not been answered yet, at most. */
const WINDOW = 100;
const BATCH_EVERY_MS = 20;
const NAMED = 'mode: enforce\nlearn: {enabled: false}\nsteps:\n  - {service: payment.shop, operation: POST /charge}\n';

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms));

/** A sidecar that keeps what is not acknowledged, and goes to the next collector when its stream ends. */
class Reporter {
  made = 0;
  acked = 0;
  private stream: ReportClient | undefined;
  private timer: NodeJS.Timeout | undefined;
  private at: number;

  constructor(
    private readonly number: number,
    private readonly collectors: () => readonly Clients[],
  ) {
    this.at = number;
  }

  get cuid(): string {
    return `00000000-0000-4000-8000-0000000000${String(10 + this.number)}`;
  }

  connect(): void {
    const all = this.collectors();
    const clients = all[this.at++ % Math.max(1, all.length)];
    if (clients === undefined) return void setTimeout(() => this.connect(), 50);
    const stream = clients.report();
    this.stream = stream;
    stream.call.on('data', (reply: Plain) => {
      for (const ack of (reply['acks'] ?? []) as Plain[]) this.acked = Math.max(this.acked, Number(ack['seq']));
      if ((reply['hints'] as Plain | null)?.['drainMs'] !== undefined && this.stream === stream) this.move(stream);
    });
    void stream.ended.then(() => {
      if (this.stream === stream) setTimeout(() => this.connect(), 20);
    });
    const producers = [{ id: '11', nextSeq: String(this.made + 1), batchedEvents: String(this.made * ROWS) }];
    const replay = Array.from({ length: this.made - this.acked }, (_, i) => batch(this.acked + i + 1, rows));
    const who = { cuid: this.cuid, proxyId: `p${this.number}`, ip: `10.0.1.${this.number}`, service: 'payment.shop' };
    stream.send({ hello: hello({ ...who, producers }), batches: replay });
  }

  /** Makes batches at a steady pace, as long as there is room for what is not acknowledged. */
  start(): void {
    this.connect();
    this.timer = setInterval(() => {
      if (this.made - this.acked >= WINDOW) return;
      this.made += 1;
      this.stream?.send({ batches: [batch(this.made, rows)] });
    }, BATCH_EVERY_MS);
  }

  /** Makes no more batches. */
  stop(): void {
    clearInterval(this.timer);
  }

  private move(stream: ReportClient): void {
    this.stream = undefined;
    stream.call.end();
    this.connect();
  }
}

describe('collectors on one Redis, in processes of their own', function () {
  this.timeout(LONG ? 600_000 : 120_000);
  let redis: RedisServer;
  let prefix: string;
  const children = new Map<Child, Clients>();
  let made: Reporter[] = [];

  before(async () => {
    redis = await RedisServer.start();
  });
  after(() => redis.stop());
  beforeEach(() => {
    prefix = freshPrefix();
  });
  afterEach(async () => {
    for (const reporter of made) reporter.stop();
    for (const child of [...children.keys()]) await kill(child);
  });

  const run = async (): Promise<Child> => {
    const args = ['--store', redis.url, '--redis-prefix', prefix, '--drain-time', '1s'];
    const child = await spawnCollector(args);
    children.set(child, new Clients(child.grpc));
    return child;
  };
  const kill = async (child: Child, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> => {
    const clients = children.get(child);
    // Those that are told to leave are still asked until they have left.
    if (signal === 'SIGKILL') children.delete(child);
    child.process.kill(signal);
    await child.exited;
    children.delete(child);
    clients?.close();
  };
  const all = (): readonly Clients[] => [...children.values()];
  const reporters = (): void => {
    made = Array.from({ length: SIDECARS }, (_, n) => new Reporter(n, all));
    for (const reporter of made) reporter.start();
  };
  /** Everything that was made is acknowledged, and every collector knows all of it, once. */
  const nothingIsLost = async (): Promise<void> => {
    for (const reporter of made) reporter.stop();
    await until('all acknowledged', () => (made.every(({ acked, made: all }) => acked === all) ? true : undefined));
    await sleep(500);
    for (const clients of all()) {
      let total = 0;
      for (const { cuid, made: count } of made) {
        const life = await clients.call('Registry.GetInstance', { cuid });
        assert.deepEqual([life['events'], life['reportsLost'], life['eventsLost']], [String(count * ROWS), '0', '0']);
        assert.equal(life['state'], 'INSTANCE_STATE_LIVE');
        total += count * ROWS;
      }
      const { services } = (await clients.call('Registry.ListServices', {})) as { services: Plain[] };
      assert.equal(services[0]!['events'], String(total));
    }
  };

  it(`lose nothing when one is killed in mid-load, ${KILLS} times, and its sidecars are served within 3 s`, async () => {
    let victims = [await run(), await run()];
    reporters();
    for (let round = 0; round < KILLS; round++) {
      const before = made.map(({ acked }) => acked);
      await until('load', () => (made.every(({ acked }, n) => acked > before[n]! + 20) ? true : undefined));
      const [victim, ...rest] = victims;
      await kill(victim!);
      const killedMs = performance.now();
      const then = made.map(({ acked }) => acked);
      await until('all are served', () => (made.every(({ acked }, n) => acked > then[n]!) ? true : undefined));
      const servedMs = performance.now() - killedMs;
      assert.ok(servedMs < READY_MS, `served after ${Math.round(servedMs)} ms`);
      victims = [...rest, await run()];
    }
    await nothingIsLost();
  });

  it('lose nothing when they are restarted one after the other', async () => {
    let old = [await run(), await run()];
    reporters();
    for (let round = 0; round < 2; round++) {
      await sleep(500);
      const [leaving, ...rest] = old;
      const next = await run();
      await kill(leaving!, 'SIGTERM');
      old = [...rest, next];
    }
    await nothingIsLost();
  });
});

describe('a replica that is cut off from Redis', function () {
  this.timeout(LONG ? 180_000 : 60_000);
  let redis: RedisServer;
  let fault: FaultProxy;
  const collectors: TestCollector[] = [];

  before(async () => {
    redis = await RedisServer.start();
    fault = await FaultProxy.start({ host: '127.0.0.1', port: redis.port });
    const prefix = freshPrefix();
    for (const port of [fault.address.port, redis.port]) {
      const store = ['--store', `redis://127.0.0.1:${port}`, '--redis-prefix', prefix];
      collectors.push(await start([...store, '--rollback-policy', policyFile(NAMED)], systemClock()));
    }
  });
  after(async () => {
    fault.set({ kind: 'none' });
    for (const collector of collectors) await collector.stop();
    await fault.stop();
    await redis.stop();
  });

  it(`for ${CUT_MS / 1000} s decides nothing and says so; healed, both agree and nobody was told twice`, async () => {
    const [a, b] = collectors as [TestCollector, TestCollector];
    const open = (at: TestCollector, name: 'gateway' | 'stock' | 'payment' | 'shipping', n = 1): Promise<Sidecar> =>
      new Sidecar(at, name, ENFORCE, n).open();
    const sidecars = {
      gateway: await open(a, 'gateway'),
      stock: await open(a, 'stock'),
      payment: await open(b, 'payment'),
      shipping: await open(b, 'shipping'),
    };
    const shop = Shop.of(a, sidecars);
    const beyond = await open(b, 'gateway', 2);
    const rows = Array.from({ length: 120 }, () => shop.newKey()).flatMap(key => [
      shop.call(key, 'charge'),
      shop.call(key, 'ship'),
      shop.entry(key, 'ok'),
    ]);
    await sidecars.gateway.rows(...rows);
    await sleep(4500);

    fault.set({ kind: 'blackhole' });
    await until('it is stale', async () => ((await a.get('/readyz')).text.includes('degraded') ? true : undefined));
    const cutMs = performance.now();
    const [there, here] = [shop.newKey(), shop.newKey()];
    await sidecars.gateway.began(here, shop.eventOf(here, 'entry'));
    sidecars.gateway.post(shop.call(here, 'charge', { outcome: 'failed' }));
    await beyond.began(there, shop.eventOf(there, 'entry'));
    await beyond.rows(shop.call(there, 'charge', { outcome: 'failed' }));
    await until('the other decides', () => sidecars.shipping.take('DOOM')[0]);
    const asked = await meshpulse(['status', '--collector', a.running.grpc]);
    assert.match(asked.err, /^note: the collector at .* has not heard its store for \d+\.\d s; it answers from memory/);
    assert.match(asked.out, /gateway\.shop/);
    await sleep(CUT_MS - (performance.now() - cutMs));
    assert.deepEqual(await verdictsAt(a), []);
    assert.deepEqual(sidecars.gateway.take('DOOM'), []);
    assert.ok([...(await series(a, 'store_stale_seconds')).values()][0]! > 1);

    fault.set({ kind: 'none' }, true);
    await until('it is fresh again', async () => ((await a.get('/readyz')).text === 'ok\n' ? true : undefined));
    const ids = async (at: TestCollector): Promise<string> =>
      JSON.stringify((await verdictsAt(at)).map(one => [one['id'], one['key']]).sort());
    await until('both agree', async () =>
      (await ids(a)) === (await ids(b)) && (await ids(a)).includes(there) ? true : undefined,
    );
    const keys = (await verdictsAt(a)).map(one => one['key']);
    assert.equal(new Set(keys).size, keys.length, 'one verdict a transaction');
    for (const sidecar of [...Object.values(sidecars), beyond]) {
      const told = sidecar.take('DOOM').map(one => one['id']);
      assert.equal(new Set(told).size, told.length, 'told once');
    }
    for (const collector of collectors) {
      // What waited at the one that was cut off is appended when that has read on.
      const life = await until('all 241 calls are counted', async () => {
        const told = await collector.call('Registry.GetInstance', { cuid: sidecars.gateway.cuid });
        return told['calls'] === '241' ? told : undefined;
      });
      assert.equal(life['reportsLost'], '0');
    }
  });
});
