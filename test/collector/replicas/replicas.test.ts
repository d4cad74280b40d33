import assert from 'node:assert/strict';
import type { TestCollector } from '../rpc-support.js';
import type { Plain } from '../ingest-support.js';
import { cuidOf, serviceOf, Sidecar, type Shop } from '../rollback/shop.js';
import { RedisServer } from '../../support/redis.js';
import {
  ENFORCE,
  Fleet,
  LogGround,
  RedisGround,
  series,
  spreadShop,
  summed,
  teach,
  until,
  verdictsAt,
  type Ground,
} from './support.js';

const NAMED = 'mode: enforce\nlearn: {enabled: false}\nsteps:\n  - {service: payment.shop, operation: POST /charge}\n';

/** Leases run for minutes, and answers are looked at from several sides. */
const SLOW_MS = 60_000;

/** The same for whatever collectors share. `leases`: time is cheap enough to let them run out. */
function shares(ground: () => Ground, leases: boolean): void {
  let fleet: Fleet;
  const begin = async (count: number, policy?: string): Promise<Fleet> =>
    (fleet = await Fleet.start(count, policy, ground()));
  afterEach(() => fleet.stop());

  const instance = async (collector: TestCollector, cuid: string): Promise<Plain> =>
    collector.call('Registry.GetInstance', { cuid });

  describe('give one answer wherever they are asked', () => {
    it('about lives, their status and jobs, within a second', async () => {
      await begin(2);
      const [a, b] = fleet.collectors as [TestCollector, TestCollector];
      const gateway = await new Sidecar(a, 'gateway', ENFORCE).open();
      await gateway.send({
        status: { inFlight: 7, queue: 3, queueSource: 'QUEUE_SOURCE_APP', ageMs: 5 },
        progress: [{ job: 'import', done: '3', of: '10', state: 'running' }],
      });
      await fleet.pass(0.5);
      for (const collector of [a, b]) {
        const one = await until('its status', async () => {
          const now = await instance(collector, cuidOf('gateway'));
          return now['status'] === undefined ? undefined : now;
        });
        assert.equal(one['state'], 'INSTANCE_STATE_LIVE');
        assert.equal((one['status'] as Plain)['inFlight'], 7);
        assert.equal((one['progress'] as Plain[])[0]!['job'], 'import');
      }
      // What is heard only there keeps it alive here.
      for (let n = 0; n < (leases ? 32 : 2); n++) {
        await fleet.pass(10);
        await gateway.send({ heartbeat: {} });
      }
      await fleet.pass(0.5);
      for (const collector of [a, b]) {
        assert.equal((await instance(collector, cuidOf('gateway')))['state'], 'INSTANCE_STATE_LIVE');
      }
    });

    it('about counts, transactions and what runs', async () => {
      await begin(2);
      const shop = await spreadShop(fleet, { gateway: 0, stock: 1, payment: 0, shipping: 1 });
      const key = shop.newKey();
      await shop.sidecars.gateway.began(key, shop.eventOf(key, 'entry'));
      await shop.sidecars.gateway.rows(shop.call(key, 'reserve'));
      await shop.sidecars.stock.rows(shop.event(key, 'reserve'));
      await fleet.settle();
      const [a, b] = await Promise.all(fleet.collectors.map(one => one.call('Transactions.Get', { id: key })));
      assert.deepEqual(a, b);
      assert.equal(b!['state'], 'TRANSACTION_STATE_RUNNING');
      const services = await Promise.all(fleet.collectors.map(one => one.call('Registry.ListServices')));
      assert.deepEqual(services[0]!['services'], services[1]!['services']);
    });

    it('and one that comes later knows what was before', async () => {
      await begin(1);
      await new Sidecar(fleet.collectors[0]!, 'gateway', ENFORCE).open();
      const late = await fleet.add();
      await fleet.pass(0.5);
      assert.equal((await instance(late, cuidOf('gateway')))['state'], 'INSTANCE_STATE_LIVE');
      assert.deepEqual([...(await series(late, 'replicas')).values()], [2]);
    });
  });

  describe('a life', () => {
    it('that moves from one to the other goes on, with its totals', async () => {
      await begin(2);
      const [a, b] = fleet.collectors as [TestCollector, TestCollector];
      const shop = await spreadShop(fleet, { gateway: 0, stock: 0, payment: 0, shipping: 0 });
      await shop.sidecars.gateway.rows(shop.call(shop.newKey(), 'reserve'));
      shop.sidecars.gateway.close();
      const moved = await new Sidecar(b, 'gateway', ENFORCE).open();
      await moved.send({ heartbeat: {} });
      await fleet.pass(1);
      for (const collector of [a, b]) {
        const one = await instance(collector, cuidOf('gateway'));
        assert.deepEqual([one['state'], one['calls'], one['unclean']], ['INSTANCE_STATE_LIVE', '1', false]);
      }
    });

    if (leases) {
      it('that ends unheard ends once, and is counted once, by whom it falls to', async () => {
        await begin(3);
        for (const [at, name] of (['gateway', 'stock', 'payment', 'shipping'] as const).entries()) {
          const sidecar = await new Sidecar(fleet.collectors[at % 3]!, name, ENFORCE).open();
          sidecar.close();
        }
        await fleet.pass(310);
        for (const collector of fleet.collectors) {
          const one = await instance(collector, cuidOf('stock'));
          assert.deepEqual([one['state'], one['unclean']], ['INSTANCE_STATE_GONE', true]);
        }
        assert.deepEqual(await summed(fleet.collectors, 'lives_unclean_total'), { sum: 4, twice: 0 });
      });
    }

    it('that says goodbye to one has ended for all', async () => {
      await begin(2);
      const gateway = await new Sidecar(fleet.collectors[0]!, 'gateway', ENFORCE).open();
      await gateway.send({ goodbye: { reason: 'drained' } });
      await fleet.settle();
      const one = await instance(fleet.collectors[1]!, cuidOf('gateway'));
      assert.deepEqual([one['state'], one['unclean']], ['INSTANCE_STATE_GONE', false]);
      assert.equal((await summed(fleet.collectors, 'lives_unclean_total')).sum, 0);
    });
  });

  describe('metrics', () => {
    const NAMES = [
      'events_total',
      'calls_total',
      'instances',
      'rollback_signals_total',
      'event_duration_seconds_total',
    ];

    it('have each series once, with the same sums before and after one dies', async () => {
      await begin(3, NAMED);
      const at = { gateway: 0, stock: 1, payment: 2, shipping: 1 };
      const shop = await spreadShop(fleet, at);
      const keys = Array.from({ length: 5 }, () => shop.newKey());
      await shop.sidecars.gateway.rows(...keys.flatMap(key => [shop.call(key, 'reserve'), shop.entry(key, 'ok')]));
      await shop.sidecars.stock.rows(...keys.map(key => shop.event(key, 'reserve')));
      await fleet.pass(1);
      const before = await Promise.all(NAMES.map(name => summed(fleet.collectors, name)));
      assert.deepEqual(
        before.map(({ twice }) => twice),
        NAMES.map(() => 0),
      );
      assert.deepEqual([before[0]!.sum, before[1]!.sum, before[2]!.sum], [10, 5, 4]);
      await fleet.kill(1);
      await fleet.pass(4);
      assert.deepEqual(await Promise.all(NAMES.map(name => summed(fleet.collectors, name))), before);
      assert.deepEqual([...(await series(fleet.collectors[0]!, 'replicas')).values()], [2]);
    });
  });

  describe('early rollback', () => {
    const failed = async (shop: Shop): Promise<string> => {
      const key = await shop.fail();
      await fleet.settle();
      return key;
    };
    const spread = async (count = 2): Promise<Shop> => {
      const shop = await spreadShop(await begin(count, NAMED), { gateway: 0, stock: 1, payment: 1, shipping: 1 });
      await teach(fleet, shop);
      return shop;
    };

    it('reaches sidecars at every replica, and all of them know the verdict', async () => {
      const shop = await spread();
      const key = await failed(shop);
      const { gateway, shipping } = shop.sidecars;
      await until('the directive here', () => gateway.take('DOOM')[0]);
      await until('the directive there', () => shipping.take('DOOM')[0]);
      await fleet.pass(0.5);
      const all = await Promise.all(fleet.collectors.map(verdictsAt));
      for (const [verdict, ...more] of all)
        assert.deepEqual([verdict!['key'], more.length, verdict!['proxies']], [key, 0, 2]);
      assert.deepEqual(all[0], all[1]);
      assert.equal((await summed(fleet.collectors, 'rollback_signals_total')).sum, 1);
      // Its end, where the entry is, is told everywhere.
      await gateway.rows(shop.entry(key, 'failed'));
      await until('the end there', () => shipping.take('END')[0]);
      assert.deepEqual([gateway.take('DOOM').length, shipping.take('DOOM').length], [1, 1]);
    });

    it('asks the proxies of all replicas for the kind, and decides where the failure came in', async () => {
      await begin(2, NAMED);
      const shop = await spreadShop(fleet, { gateway: 1, stock: 1, payment: 1, shipping: 1 });
      await teach(fleet, shop);
      const caller = await new Sidecar(fleet.collectors[0]!, 'gateway', ENFORCE, 2).open();
      const key = shop.newKey();
      await caller.rows(shop.call(key, 'charge', { outcome: 'failed' }));
      await until('the question', () => shop.sidecars.gateway.take('FLUSH')[0]);
      await shop.sidecars.gateway.began(key, shop.eventOf(key, 'entry'));
      await until('the directive', () => shop.sidecars.shipping.take('DOOM')[0]);
      assert.equal((await verdictsAt(fleet.collectors[0]!)).length, 1);
    });

    it('tells a step through one driver, to watchers and sidecars anywhere, and takes the word of the first', async () => {
      const shop = await spread(3);
      const seen: Plain[][] = fleet.collectors.map(collector => {
        const signals: Plain[] = [];
        collector.clients
          .stream('Rollback.Watch', { service: serviceOf('stock') })
          .on('data', (signal: Plain) => signals.push(signal))
          .on('error', () => undefined);
        return signals;
      });
      const key = await failed(shop);
      await shop.sidecars.gateway.rows(shop.entry(key, 'failed'));
      await fleet.pass(1);
      await until('signals everywhere', () => (seen.every(signals => signals.length > 0) ? true : undefined));
      const id = String(seen[0]![0]!['id']);
      assert.deepEqual(
        seen.map(signals => signals.map(one => [one['id'], one['delivery']])),
        seen.map(() => [[id, 1]]),
        'told once',
      );
      const { stock } = shop.sidecars;
      await until('the callback', () => stock.take('SIGNAL')[0]);
      const answers = await Promise.all(
        fleet.collectors.map(one => one.call('Rollback.Ack', { signal: id, by: 'test' })),
      );
      assert.deepEqual(answers.map(one => one['first']).sort(), [false, false, true]);
      await fleet.pass(3);
      const plans = await Promise.all(fleet.collectors.map(one => one.call('Rollback.GetPlan', { id: key })));
      for (const plan of plans) assert.equal(plan['state'], 'ROLLBACK_STATE_ROLLED_BACK');
      const ledgers = await Promise.all(fleet.collectors.map(one => one.call('Rollback.GetLedger', {})));
      for (const ledger of ledgers) {
        const acks = (ledger['audit'] as Plain[]).filter(one => one['action'] === 'ack');
        assert.equal(acks.length, 1);
      }
      assert.ok(seen.every(signals => signals.length === 1));
      assert.equal(stock.take('SIGNAL').length, 1, 'one callback');
    });

    it('goes on with a plan when its driver dies', async () => {
      const shop = await spread(3);
      const keys: string[] = [];
      for (let n = 0; n < 6; n++) keys.push(await failed(shop));
      for (const key of keys) await shop.sidecars.gateway.rows(shop.entry(key, 'failed'));
      await fleet.pass(1);
      await fleet.kill(2);
      const { stock } = shop.sidecars;
      const told = (): number => new Set(stock.take('SIGNAL').map(one => one['id'])).size;
      await until('all are told', () => (told() === 6 ? true : undefined));
      stock.directives.length = 0;
      await fleet.pass(8);
      await until('each is told again by somebody', () => (told() === 6 ? true : undefined));
    });

    it('is killed and overridden everywhere by a word to one', async () => {
      const shop = await spread();
      await failed(shop);
      const { gateway, shipping } = shop.sidecars;
      await until('the directive', () => shipping.take('DOOM')[0]);
      const answer = await fleet.collectors[1]!.call('Rollback.Kill', { reason: 'test' });
      assert.equal(answer['proxies'], 4, 'the proxies of both');
      await until('forgotten here', () => gateway.take('CLEAR')[0]);
      await until('forgotten there', () => shipping.take('CLEAR')[0]);
      await failed(shop);
      for (const collector of fleet.collectors) assert.equal((await verdictsAt(collector)).length, 1);
      await fleet.collectors[0]!.call('Rollback.Kill', { reason: 'test', lift: true });
      await fleet.settle();
      await failed(shop);
      for (const collector of fleet.collectors) assert.equal((await verdictsAt(collector)).length, 2);
      const [one, other] = await Promise.all(fleet.collectors.map(it => it.call('Rollback.GetLedger', {})));
      assert.deepEqual(one!['audit'], other!['audit']);
    });
  });
}

describe('several collectors on one log', () => {
  shares(() => new LogGround(), true);

  describe('when the log is late, or away', () => {
    let fleet: Fleet;
    let ground: LogGround;
    beforeEach(async () => {
      ground = new LogGround();
      fleet = await Fleet.start(2, NAMED, ground);
    });
    afterEach(() => fleet.stop());

    it('makes one verdict of failures that come in at two replicas at once', async () => {
      const shop = await spreadShop(fleet, { gateway: 0, stock: 1, payment: 1, shipping: 1 });
      await teach(fleet, shop);
      const other = await new Sidecar(fleet.collectors[1]!, 'gateway', ENFORCE, 2).open();
      for (let n = 0; n < 20; n++) {
        const key = shop.newKey();
        await shop.sidecars.gateway.began(key, shop.eventOf(key, 'entry'));
        await fleet.settle();
        const before = ground.log.records.length;
        for (const store of ground.stores) store.held = true;
        shop.sidecars.gateway.post(shop.call(key, 'charge', { outcome: 'failed' }));
        other.post(shop.call(key, 'charge', { outcome: 'failed', event: shop.eventOf(key, 'other'), at: 25 }));
        await until('both in the log', () => (ground.log.records.length === before + 2 ? true : undefined));
        for (const store of ground.stores) {
          store.held = false;
          store.wake();
        }
        await fleet.settle();
      }
      await fleet.pass(0.5);
      const all = await Promise.all(fleet.collectors.map(verdictsAt));
      for (const verdicts of all) assert.equal(verdicts.length, 20);
      assert.deepEqual(
        all[0]!.map(one => one['id']),
        all[1]!.map(one => one['id']),
      );
      assert.ok((await summed(fleet.collectors, 'rollback_claims_lost_total')).sum > 0, 'both proposed');
      const { shipping } = shop.sidecars;
      await until('all directives', () => (shipping.take('DOOM').length >= 20 ? true : undefined));
      assert.equal(new Set(shipping.take('DOOM').map(one => one['id'])).size, 20);
    });

    it('a replica without its store decides nothing, answers from memory and says so, and catches up', async () => {
      const shop = await spreadShop(fleet, { gateway: 0, stock: 0, payment: 0, shipping: 0 });
      await teach(fleet, shop);
      const [a, b] = fleet.collectors as [TestCollector, TestCollector];
      ground.stores[0]!.cut();
      await until('stale', async () => ((await a.get('/readyz')).text.includes('degraded') ? true : undefined));
      const ready = await a.get('/readyz');
      assert.equal(ready.code, 200);
      const answer = await fetch(`http://${a.running.http}/api/v1/instances`);
      assert.ok(Number(answer.headers.get('meshpulse-stale-ms')) > 1000);
      assert.equal(((await answer.json()) as { instances: Plain[] }).instances.length, 4);
      assert.ok([...(await series(a, 'store_stale_seconds')).values()][0]! > 1);
      const key = shop.newKey();
      await shop.sidecars.gateway.began(key, shop.eventOf(key, 'entry'));
      shop.sidecars.gateway.post(shop.call(key, 'charge', { outcome: 'failed' }));
      await fleet.pass(10);
      assert.deepEqual(await Promise.all(fleet.collectors.map(verdictsAt)), [[], []]);
      // Nobody takes over the leases of lives that only the other one can hear.
      await fleet.pass(2);
      ground.stores[0]!.heal();
      await fleet.pass(1);
      assert.equal((await a.get('/readyz')).text, 'ok\n');
      await shop.sidecars.gateway.rows(shop.entry(key, 'failed'));
      await fleet.settle();
      const states = await Promise.all([a, b].map(one => one.call('Transactions.Get', { id: key })));
      assert.deepEqual(states[0], states[1]);
    });
  });
});

describe('several collectors on one Redis', function () {
  this.timeout(SLOW_MS);
  let redis: RedisServer;
  before(async () => {
    redis = await RedisServer.start();
  });
  after(() => redis.stop());
  shares(() => new RedisGround(redis.url), process.env['TEST_LONG'] === '1');
});
