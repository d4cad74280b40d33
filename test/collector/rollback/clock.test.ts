/** Clocks that are wrong: those of the senders, and the collector's own. */
import assert from 'node:assert/strict';
import type { Plain } from '../ingest-support.js';
import { until } from '../rpc-support.js';
import { serviceOf, SERVICES, type Shop } from './shop.js';
import { failAfterTwo, planOf, startShop, verdictsOf } from './support.js';

const HOUR_US = 3600e6;
const STEP_BACK_MS = -300_000;

const microseconds = (time: unknown): number => {
  const { seconds = 0, nanos = 0 } = time as { seconds?: string | number; nanos?: number };
  return Number(seconds) * 1e6 + Number(nanos) / 1000;
};

/** Every duration, however deep; us. */
function durations(value: unknown, name = ''): [string, number][] {
  if (typeof value !== 'object' || value === null) return [];
  const isTime = Object.keys(value).every(key => key === 'seconds' || key === 'nanos') && 'seconds' in value;
  if (isTime) return [[name, microseconds(value)]];
  return Object.entries(value).flatMap(([key, inner]) => durations(inner, `${name}.${key}`));
}

/** Also what keeps streams from being ended for their silence. */
async function heartbeats(shop: Shop): Promise<void> {
  for (const name of SERVICES) await shop.sidecars[name].send({ heartbeat: {} });
}

describe('early rollback by wrong clocks', function () {
  this.timeout(60_000);
  let shop: Shop;
  beforeEach(async () => {
    shop = await startShop();
  });
  afterEach(() => shop.stop());

  for (const [gateway, others] of [
    [1, -1],
    [-1, 1],
  ] as const) {
    it(`decides the same when callers are ${gateway} h and callees ${others} h off, and says how far`, async () => {
      for (const name of SERVICES) shop.sidecars[name].skewUs = (name === 'gateway' ? gateway : others) * HOUR_US;
      for (let message = 0; message < 3; message++) await heartbeats(shop);
      await shop.teach(120);
      const { gateway: caller, stock, shipping } = shop.sidecars;
      // Healthy ones, told from both sides: no verdict.
      for (let n = 0; n < 30; n++) {
        const key = shop.newKey();
        await stock.rows(shop.event(key, 'reserve'));
        await caller.rows(shop.call(key, 'reserve'), shop.call(key, 'charge'), shop.entry(key, 'ok'));
      }
      assert.deepEqual(await verdictsOf(shop), []);
      const key = await shop.fail();
      await stock.rows(shop.event(key, 'reserve'));
      await until('the directive', () => shipping.take('DOOM')[0]);
      shop.pass(1);
      assert.deepEqual(
        (await planOf(shop, key)).map(step => [step['operation'], step['state']]),
        [['POST /reserve', 'STEP_STATE_SIGNALLED']],
      );
      const told = durations(await shop.collector.call('Transactions.Explain', { id: key }));
      assert.ok(told.length > 0);
      assert.deepEqual(
        told.filter(([, us]) => us < 0),
        [],
      );
      const { text } = await shop.collector.get('/metrics');
      for (const name of SERVICES) {
        const line = text
          .split('\n')
          .find(one => one.startsWith('meshpulse_clock_offset_seconds') && one.includes(`"${serviceOf(name)}"`));
        assert.ok(Math.abs(Number(line?.split(' ').at(-1)) - 3600) < 1, line);
      }
    });
  }

  it('takes no failure of 20 s ago for one of now, whatever its sender’s clock says', async () => {
    const { gateway } = shop.sidecars;
    gateway.skewUs = HOUR_US;
    for (let message = 0; message < 3; message++) await heartbeats(shop);
    await shop.teach(120);
    const key = shop.newKey();
    await gateway.began(key, shop.eventOf(key, 'entry'));
    // The message is as much too old as its rows: an offset rests on the youngest ones.
    gateway.skewUs -= 20e6;
    await gateway.rows(shop.call(key, 'reserve'), shop.call(key, 'charge', { outcome: 'failed' }));
    gateway.skewUs += 20e6;
    assert.deepEqual(await verdictsOf(shop), []);
    await shop.fail();
    await until('the next one', () => gateway.take('DOOM')[0]);
  });

  it('goes on when its own clock is set back by 5 min: TTLs, signals and versions', async () => {
    const { clock } = shop.collector;
    const { gateway, stock } = shop.sidecars;
    const signals: Plain[] = [];
    const watch = shop.collector.clients.stream('Rollback.Watch', { service: serviceOf('stock') });
    watch.on('data', (signal: Plain) => signals.push(signal));
    watch.on('error', () => undefined);
    await shop.teach(120);
    const key = await failAfterTwo(shop);
    await until('the directive', () => gateway.take('DOOM')[0]);
    clock.setWallMs(STEP_BACK_MS);
    shop.pass(1);
    await until('the signal', () => signals[0]);
    shop.pass(3);
    await until('its repeat', () => signals[1]);
    await heartbeats(shop);
    shop.pass(24);
    await heartbeats(shop);
    assert.equal((await verdictsOf(shop))[0]!['ended'] ?? null, null, 'within its TTL');
    shop.pass(3);
    const [verdict] = await verdictsOf(shop);
    assert.equal(verdict!['endReason'], 'ttl', 'after 30 s, not after 5 min');
    assert.ok(microseconds(verdict!['ended']) >= microseconds(verdict!['decided']));
    // And what fails from now on.
    const next = await shop.fail();
    await until('the next directive', () => gateway.take('DOOM')[1]);
    assert.deepEqual((await verdictsOf(shop)).map(one => one['key']).sort(), [key, next].sort());
    const versions = [...gateway.directives, ...stock.directives].map(one => BigInt(String(one['version'])));
    assert.equal(new Set(versions).size, versions.length);
    const own = gateway.directives.map(one => BigInt(String(one['version'])));
    assert.deepEqual(
      own,
      [...own].sort((a, b) => (a < b ? -1 : 1)),
      'they only grow',
    );
    const { text } = await shop.collector.get('/metrics');
    const negative = text
      .split('\n')
      .filter(line => /seconds(_sum|_total|\{| )/.test(line) && / -\d/.test(line) && !line.includes('clock_offset'));
    assert.deepEqual(negative, []);
    watch.cancel();
  });

  it('decides nothing false when its clock leaps an hour ahead', async () => {
    await shop.teach(120);
    const { gateway, shipping } = shop.sidecars;
    shop.collector.clock.setWallMs(3_600_000);
    for (let n = 0; n < 30; n++) {
      const key = shop.newKey();
      await gateway.rows(shop.call(key, 'reserve'), shop.call(key, 'charge'), shop.entry(key, 'ok'));
    }
    shop.pass(5);
    assert.deepEqual(await verdictsOf(shop), []);
    await shop.fail();
    await until('the directive', () => shipping.take('DOOM')[0]);
  });
});
