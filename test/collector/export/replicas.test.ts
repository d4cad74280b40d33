import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import type { Plain } from '../ingest-support.js';
import { Fleet, spreadShop, verdictsAt } from '../replicas/support.js';
import { NAMED } from '../rollback/support.js';
import { until } from '../rpc-support.js';
import { Sink } from './support.js';

describe('exports of two replicas', () => {
  let folder: string;
  let fleet: Fleet;
  const sinks: Sink[] = [];
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'meshpulse-replicas-export-'));
    writeFileSync(join(folder, 'key'), '0123456789abcdef');
    fleet = new Fleet();
    for (const at of [0, 1]) {
      const sink = new Sink();
      sinks.push(sink);
      const hook = ['--export', `webhook=${await sink.listen()}`, '--export-webhook-key-file', join(folder, 'key')];
      await fleet.add(NAMED, [...hook, '--export', `jsonl=${join(folder, String(at))}`]);
    }
  });
  afterEach(async () => {
    await fleet.stop();
    for (const sink of sinks.splice(0)) sink.close();
    rmSync(folder, { recursive: true });
  });

  const idsAt = (at: number): string[] => sinks[at]!.got.map(({ headers }) => headers['webhook-id'] as string);

  async function fails(shop: Awaited<ReturnType<typeof spreadShop>>): Promise<string> {
    const key = shop.newKey();
    await shop.sidecars.gateway.began(key, shop.eventOf(key, 'entry'));
    await shop.sidecars.gateway.rows(shop.call(key, 'reserve'), shop.call(key, 'charge', { outcome: 'failed' }));
    await fleet.pass(0.25);
    return key;
  }

  it('tell of each verdict by one of them, and of each row by the one that took it', async () => {
    const shop = await spreadShop(fleet, { gateway: 0, stock: 1, payment: 0, shipping: 1 });
    await shop.teach(120);
    await fleet.pass(5);
    for (let n = 0; n < 12; n++) await fails(shop);
    const verdicts = await verdictsAt(fleet.collectors[0]!);
    assert.equal(verdicts.length, 12);
    const wanted = verdicts.map(({ id }) => `${id as string}.decided`).sort();
    await until('all told', () => {
      const got = [...idsAt(0), ...idsAt(1)].filter(id => id.endsWith('.decided')).sort();
      return got.length >= 12 ? got : undefined;
    });
    const decided = [0, 1].map(at => idsAt(at).filter(id => id.endsWith('.decided')));
    assert.deepEqual(decided.flat().sort(), wanted);
    assert.ok(decided[0]!.length > 0 && decided[1]!.length > 0, 'both act for some');
    const all = [...idsAt(0), ...idsAt(1)];
    assert.equal(new Set(all).size, all.length, 'each once');
    // The row was taken by the first, and the second applied it too.
    await fleet.stop();
    fleet = new Fleet();
    const services = [0, 1].map(at => {
      const at0 = join(folder, String(at));
      const lines = readdirSync(at0).flatMap(name =>
        gunzipSync(readFileSync(join(at0, name)))
          .toString()
          .trim()
          .split('\n'),
      );
      return [...new Set(lines.map(line => (JSON.parse(line) as Plain)['service']))];
    });
    assert.deepEqual(services, [['gateway.shop'], []]);
  });

  it('go on with the verdicts of one that dies', async () => {
    const shop = await spreadShop(fleet, { gateway: 0, stock: 0, payment: 0, shipping: 0 });
    await shop.teach(120);
    await fleet.pass(5);
    for (let n = 0; n < 8; n++) {
      const key = await fails(shop);
      await shop.sidecars.gateway.rows(shop.entry(key, 'failed'));
    }
    await fleet.pass(2);
    const wanted = (await verdictsAt(fleet.collectors[0]!)).map(({ id }) => `${id as string}.ended`).sort();
    await fleet.kill(1);
    await fleet.pass(4);
    // Nothing of them is in force any more: they are told again because someone has gone.
    await until('all told by the first', () => {
      const got = idsAt(0).filter(id => id.endsWith('.ended'));
      return got.length >= 8 ? got : undefined;
    });
    assert.deepEqual(
      idsAt(0)
        .filter(id => id.endsWith('.ended'))
        .sort(),
      wanted,
    );
  });
});
