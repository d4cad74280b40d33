import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Plain } from '../ingest-support.js';
import { start, until, type TestCollector } from '../rpc-support.js';
import { Ledger } from '../../../collector/src/rollback/ledger.js';
import { RETENTION } from '../../../collector/src/rollback/retention.js';
import type { Shop } from './shop.js';
import { failAfterTwo, startShop, verdictsOf } from './support.js';

const DAY_MS = 24 * 3600 * 1000;
const DAY_US = DAY_MS * 1000;

/** Turned at once: what is kept is looked at by each tick. */
function passDays({ clock, running }: TestCollector, days: number): void {
  clock.advanceMs(days * DAY_MS);
  running.tick();
}

describe('what is kept, by a turned clock', () => {
  let folder: string;
  let shop: Shop;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'meshpulse-retention-'));
  });
  afterEach(async () => {
    await shop.collector.stop();
    rmSync(folder, { recursive: true });
  });

  /** A shop with one verdict, one finished transaction and one audit record. */
  async function shopOf(args: readonly string[]): Promise<void> {
    shop = await startShop(['--data-dir', folder, ...args]);
    await shop.teach(120);
    await failAfterTwo(shop);
    await until('a verdict', async () => (await verdictsOf(shop))[0]);
    await shop.collector.call('Rollback.Kill', { scope: 'mesh', reason: 'drill', actor: 'ann' });
  }

  const count = async (name: string, list: string, request: Plain = {}): Promise<number> =>
    ((await shop.collector.call(name, request))[list] as unknown[] | undefined)?.length ?? 0;
  const verdicts = (): Promise<number> => count('Rollback.List', 'verdicts');
  const audits = (): Promise<number> => count('Rollback.GetLedger', 'audit');
  const lives = (): Promise<number> =>
    count('Registry.ListInstances', 'instances', { states: ['INSTANCE_STATE_GONE', 'INSTANCE_STATE_LIVE'] });
  const transactions = (state: string): Promise<number> =>
    count('Transactions.List', 'transactions', { states: [`TRANSACTION_STATE_${state}`], pageSize: 1000 });

  it('verdicts and audit records go after 90 days, lives after 30, unless the settings say otherwise', async () => {
    await shopOf([]);
    assert.deepEqual([await verdicts(), await audits(), await lives()], [1, 1, 4]);
    passDays(shop.collector, 1); // lives end
    passDays(shop.collector, 28.9);
    assert.equal(await lives(), 4);
    passDays(shop.collector, 1.2);
    assert.equal(await lives(), 0);
    passDays(shop.collector, 58.8);
    assert.deepEqual([await verdicts(), await audits()], [1, 1]);
    passDays(shop.collector, 0.2);
    assert.deepEqual([await verdicts(), await audits()], [0, 0]);
  });

  it('each by its own setting', async () => {
    await shopOf(['--retain-signals', '2d', '--retain-audit', '4d', '--retain-lives', '6d']);
    passDays(shop.collector, 0.5); // lives end
    passDays(shop.collector, 1.6);
    assert.deepEqual([await verdicts(), await audits(), await lives()], [0, 1, 4]);
    passDays(shop.collector, 2);
    assert.deepEqual([await verdicts(), await audits(), await lives()], [0, 0, 4]);
    passDays(shop.collector, 3);
    assert.equal(await lives(), 0);
  });

  it('transactions 15 min, failed ones 24 h, unless the settings say otherwise', async () => {
    await shopOf(['--retain-events', '10m', '--retain-failed', '2h']);
    const { gateway } = shop.sidecars;
    const key = shop.newKey();
    await gateway.rows(shop.call(key, 'charge', { outcome: 'failed' }), shop.entry(key, 'failed'));
    shop.pass(15);
    const succeeded = await transactions('SUCCEEDED');
    assert.ok(succeeded >= 100 && (await transactions('FAILED')) === 1, `${succeeded}`);
    passDays(shop.collector, 11 / (24 * 60));
    shop.pass(2);
    assert.deepEqual([await transactions('SUCCEEDED'), await transactions('FAILED')], [0, 1]);
    passDays(shop.collector, 2.1 / 24);
    shop.pass(2);
    assert.equal(await transactions('FAILED'), 0);
  });

  it('what is past its time does not come back with a restart', async () => {
    await shopOf(['--retain-signals', '2d', '--retain-audit', '4d']);
    await shop.collector.stop();
    const { clock } = shop.collector;
    clock.advanceMs(3 * DAY_MS);
    const again = await start(['--data-dir', folder, '--retain-signals', '2d', '--retain-audit', '4d'], clock);
    try {
      again.running.tick();
      assert.equal((await again.call('Rollback.List'))['verdicts'], undefined);
      assert.equal(((await again.call('Rollback.GetLedger'))['audit'] as Plain[]).length, 1);
    } finally {
      await again.stop();
    }
  });

  it('at most as many verdicts and audit records as the settings say', async () => {
    shop = await startShop(['--verdicts-max', '100', '--audit-max', '100']);
    await shop.teach(120);
    for (let i = 0; i < 103; i++) {
      await failAfterTwo(shop);
      await shop.collector.call('Rollback.Kill', { scope: `service/s${i}`, reason: 'r', actor: 'ann' });
      shop.collector.clock.advanceMs(100);
    }
    assert.equal((await verdictsOf(shop)).length, 100);
    assert.equal(await count('Rollback.GetLedger', 'audit', { pageSize: 1000 }), 100);
  });
});

describe('the ledger', () => {
  const record = (service: string): never =>
    ({ kind: 'k', service, operation: 'o', mode: 'enforce', reason: 'named', heldOut: false }) as never;
  const sums = (ledger: Ledger): object =>
    Object.fromEntries(ledger.all().map(({ service, verdicts, saved }) => [service, [verdicts, saved.refused]]));

  it('puts lines without news into one, and keeps the sums', () => {
    const ledger = new Ledger(0, { ...RETENTION, ledgerUs: 10 * DAY_US });
    for (const service of ['a', 'b', 'b']) ledger.verdict(record(service));
    ledger.requests('refused', 5, 'x', 'a');
    ledger.expire(DAY_US);
    ledger.expire(9 * DAY_US);
    ledger.verdict(record('b'));
    ledger.expire(10 * DAY_US);
    assert.deepEqual(sums(ledger), { a: [1, 0], b: [3, 0] });
    ledger.expire(11 * DAY_US + 1);
    assert.deepEqual(sums(ledger), { other: [1, 0], b: [3, 0] });
    assert.deepEqual(
      [...ledger.edges()].map(({ source, refused }) => [source, refused]),
      [['other', 5]],
    );
    ledger.expire(1000 * DAY_US);
    assert.deepEqual(sums(ledger), { other: [4, 0] });
    assert.equal(ledger.saved.refused, 5);
  });

  it('goes on with its ages after a restart', () => {
    const before = new Ledger(0, { ...RETENTION, ledgerUs: 10 * DAY_US });
    before.verdict(record('a'));
    before.expire(DAY_US);
    const after = new Ledger(0, { ...RETENTION, ledgerUs: 10 * DAY_US });
    after.restore(JSON.parse(JSON.stringify(before.snapshot())) as ReturnType<Ledger['snapshot']>);
    after.expire(12 * DAY_US);
    assert.deepEqual(sums(after), { other: [1, 0] });
  });
});
