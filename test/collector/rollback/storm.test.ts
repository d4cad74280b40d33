import assert from 'node:assert/strict';
import type { Plain } from '../ingest-support.js';
import { until } from '../rpc-support.js';
import type { Shop, Sidecar } from './shop.js';
import { failAfterTwo, planOf, startShop, verdictsOf } from './support.js';

const TIMES = 10_000;
/** Bounds of one message. */
const BATCHES_MAX = 250;
const ROWS_MAX = 1000;
const RESULTS_MAX = 50;
/** Calls under way at once. */
const CALLS_MAX = 500;

/** What a sidecar sends from now on, as it sends it. */
function recorded(sidecar: Sidecar): Plain[] {
  const sent: Plain[] = [];
  const send = sidecar.send.bind(sidecar);
  sidecar.send = report => {
    sent.push(report);
    return send(report);
  };
  return sent;
}

describe(`the same thing ${TIMES.toLocaleString('en')} times`, function () {
  this.timeout(300_000);
  let shop: Shop;
  before(async () => {
    shop = await startShop();
    await shop.teach(120);
  });
  after(() => shop.stop());

  it('a failure in replayed batches and in new ones is one verdict, told once', async () => {
    const { gateway, shipping } = shop.sidecars;
    const sent = recorded(gateway);
    const key = await shop.fail();
    await until('the directive', () => shipping.take('DOOM')[0]);
    const before = await shop.collector.call('Transactions.Get', { id: key });
    const [batch] = sent.at(-1)!['batches'] as Plain[];
    const replays = Array.from({ length: BATCHES_MAX }, () => batch!);
    for (let done = 0; done < TIMES; done += BATCHES_MAX) await gateway.send({ batches: replays });
    const failed = shop.call(key, 'charge', { outcome: 'failed' });
    for (let done = 0; done < TIMES; done += ROWS_MAX) {
      await gateway.rows(...Array.from({ length: ROWS_MAX }, () => failed));
    }
    assert.deepEqual(
      (await verdictsOf(shop)).map(verdict => verdict['key']),
      [key],
    );
    assert.deepEqual([gateway.take('DOOM').length, shipping.take('DOOM').length], [1, 1]);
    assert.equal((await planOf(shop, key)).length, 1);
    const ledger = await shop.collector.call('Rollback.GetLedger');
    assert.equal(ledger['verdicts'], '1');
    const after = await shop.collector.call('Transactions.Get', { id: key });
    assert.ok(((before['events'] ?? []) as Plain[]).length > 0);
    assert.deepEqual(after['events'], before['events']);
    await gateway.rows(shop.entry(key, 'failed'));
  });

  it('an acknowledgement, by call and by callback, is one step undone', async () => {
    const { stock } = shop.sidecars;
    const key = await failAfterTwo(shop);
    shop.pass(1);
    const [hold, reserve] = await planOf(shop, key);
    let first = 0;
    for (let done = 0; done < TIMES; done += CALLS_MAX) {
      const calls = Array.from({ length: CALLS_MAX }, () =>
        shop.collector.call('Rollback.Ack', { signal: hold!['signalId'], by: 'stock' }),
      );
      first += (await Promise.all(calls)).filter(answer => answer['first'] === true).length;
    }
    assert.equal(first, 1);
    const result = { id: reserve!['signalId'], status: 204 };
    for (let done = 0; done < TIMES; done += RESULTS_MAX) {
      await stock.send({ signalResults: Array.from({ length: RESULTS_MAX }, () => result) });
    }
    const states = (await planOf(shop, key)).map(step => step['state']);
    assert.deepEqual(states, ['STEP_STATE_DONE', 'STEP_STATE_DONE']);
    const { audit } = await shop.collector.call('Rollback.GetLedger', { pageSize: 1000 });
    assert.deepEqual(
      (audit as Plain[])
        .filter(one => one['action'] === 'ack')
        .map(one => one['subject'])
        .sort(),
      [hold!['signalId'], reserve!['signalId']].map(String).sort(),
    );
  });
});
