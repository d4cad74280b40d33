import assert from 'node:assert/strict';
import { credentials, status as Code } from '@grpc/grpc-js';
import { cuidOf, ipOf, Mesh } from '../../cli/support.js';
import type { Plain } from '../ingest-support.js';
import { Clients, until } from '../rpc-support.js';
import { CALL, ENTRY, EXTERNAL, type TestRow } from '../transactions/rows.js';
import { bearer, Folder, hashOf } from './support.js';

const KEY = '4bf92f3577b34da6a3ce929d0e0e4736';
const LOCAL = '5bf92f3577b34da6a3ce929d0e0e4737';
const KIND = 'front.web POST /buy';

/** front.web -> pay.shop -> ledger.bank -> scan.ops, and a call of the bank's to the outside. */
const CROSSING: ReadonlyMap<string, readonly TestRow[]> = ((): Map<string, TestRow[]> => {
  const call = (event: string, operation: string, to: string, start: number, more: Partial<TestRow> = {}): TestRow => {
    const peerCuid = to === '' ? {} : { peerCuid: cuidOf(to) };
    return {
      key: KEY,
      event,
      operation,
      start,
      duration: 90_000 - start,
      flags: CALL,
      attempts: 1,
      ...peerCuid,
      ...more,
    };
  };
  const served = (event: string, operation: string, by: string, start: number): TestRow => ({
    ...{ key: KEY, event, operation, start, duration: 80_000 - start, details: `seen by ${operation}` },
    ...(by === '' ? { flags: ENTRY } : { peerCuid: cuidOf(by) }),
  });
  return new Map([
    ['front.web', [served('1', 'POST /buy', '', 0), call('2', 'POST /pay', 'pay.shop', 1000)]],
    ['pay.shop', [served('2', 'POST /pay', 'front.web', 2000), call('3', 'POST /book', 'ledger.bank', 3000)]],
    [
      'ledger.bank',
      [
        served('3', 'POST /book', 'pay.shop', 4000),
        call('4', 'POST /scan', 'scan.ops', 5000),
        call('5', 'GET /rate', '', 6000, { flags: CALL | EXTERNAL, peerService: 'rates.example.com:443' }),
      ],
    ],
    ['scan.ops', [served('4', 'POST /scan', 'ledger.bank', 6000)]],
  ]);
})();

const WHO = ['shop', 'bank', 'ops', 'other', 'all'] as const;
type Who = (typeof WHO)[number];

describe('what is seen of other namespaces', function () {
  this.timeout(60_000);
  const folder = new Folder();
  let mesh: Mesh;
  const clients = new Map<Who, Clients>();
  const as = (who: Who): Clients => clients.get(who)!;

  before(async () => {
    const person = (name: string, roles: string, namespace: string): string =>
      `  - {name: ${name}, token: ${hashOf(`token-${name}`)}, roles: [${roles}], namespaces: ['${namespace}']}\n`;
    const people = WHO.map(name => person(name, 'viewer', name === 'all' ? '*' : name));
    folder.write('access.yaml', `people:\n${people.join('')}${person('sidecars', 'reporter', '*')}`);
    mesh = await Mesh.start(['--token-file', folder.file('access.yaml')], bearer('token-sidecars'));
    for (const who of WHO) {
      clients.set(who, new Clients(mesh.grpc, credentials.createInsecure(), bearer(`token-${who}`)));
    }
    const fromMs = Date.now() - 2000;
    for (const [service, rows] of CROSSING) await mesh.report(service, rows, fromMs);
    await mesh.report('scan.ops', [{ key: LOCAL, event: '9', start: 0, duration: 10, flags: ENTRY }], fromMs);
    await until('the flow is learned', async () => {
      const { flows = [] } = (await as('all').call('Registry.GetFlow', { kind: KIND })) as { flows?: Plain[] };
      return flows[0];
    });
  });
  after(async () => {
    for (const one of clients.values()) one.close();
    await mesh.stop();
    folder.remove();
  });

  const names = async (
    who: Who,
    call: string,
    field: string,
    name: string,
    request: Plain = {},
  ): Promise<unknown[]> => {
    const answer = await as(who).call(call, request);
    return ((answer[field] ?? []) as Plain[]).map(one => one[name]).sort();
  };
  const refusedWith = async (who: Who, call: string, request: Plain): Promise<[number, string]> => {
    const error = (await as(who)
      .call(call, request)
      .catch((e: unknown) => e)) as Error & { code: number; details: string };
    assert.ok(error instanceof Error, `${call} answered ${who}`);
    return [error.code, error.details];
  };

  it('lists services and instances of what was granted only, also when others are asked for', async () => {
    assert.deepEqual(await names('bank', 'Registry.ListServices', 'services', 'name'), ['ledger.bank']);
    assert.deepEqual(await names('other', 'Registry.ListServices', 'services', 'name'), []);
    assert.deepEqual(await names('all', 'Registry.ListServices', 'services', 'name'), [
      ...['front.web', 'ledger.bank', 'pay.shop', 'rates.example.com', 'scan.ops'],
    ]);
    assert.deepEqual(await names('bank', 'Registry.ListServices', 'services', 'name', { namespace: 'shop' }), []);
    assert.deepEqual(await names('shop', 'Registry.ListInstances', 'instances', 'service'), ['pay.shop']);
    assert.deepEqual(
      await names('shop', 'Registry.ListInstances', 'instances', 'service', { service: 'scan.ops' }),
      [],
    );
  });

  it('knows no life of others, in the words for one that is not there', async () => {
    const own = await as('shop').call('Registry.GetInstance', { cuid: cuidOf('pay.shop') });
    assert.equal(own['service'], 'pay.shop');
    const [there, absent] = [cuidOf('scan.ops'), 'ffffffff-0000-4000-8000-000000000001'];
    const [code, details] = await refusedWith('shop', 'Registry.GetInstance', { cuid: there });
    const [codeOfAbsent, of] = await refusedWith('shop', 'Registry.GetInstance', { cuid: absent });
    assert.deepEqual([code, details.replace(there, absent)], [codeOfAbsent, of]);
    assert.equal(code, Code.NOT_FOUND);
  });

  it('says nobody had an address that somebody else had', async () => {
    const ask = (who: Who, ip: string): Promise<Plain> => as(who).call('Registry.WhoHad', { ip });
    const [others, absent] = [await ask('shop', ipOf('scan.ops')), await ask('shop', '10.99.0.1')];
    assert.deepEqual(others, absent);
    assert.equal(others['unknown'], true);
    assert.equal(((await ask('shop', ipOf('pay.shop')))['intervals'] as Plain[])[0]!['service'], 'pay.shop');
  });

  it('tells the state of own instances only', async () => {
    const seen: unknown[] = [];
    const stream = as('bank').stream('Registry.WatchStatus', {});
    await new Promise<void>(resolve => {
      stream.on('error', () => undefined);
      stream.on('data', ({ instance, synced }: { instance?: Plain; synced?: boolean }) => {
        if (instance !== undefined && instance !== null) seen.push(instance['service']);
        if (synced === true) resolve();
      });
    });
    stream.cancel();
    assert.deepEqual(seen, ['ledger.bank']);
  });

  const get = async (who: Who): Promise<Plain & { events: Plain[] }> =>
    (await as(who).call('Transactions.Get', { id: KEY })) as Plain & { events: Plain[] };
  const shape = ({ events }: { events: Plain[] }): unknown[] =>
    events.map(one => `${one['service'] as string} ${(one['operation'] ?? '') as string}`.trim()).sort();

  it('shows steps by either of their ends, and others as hidden', async () => {
    assert.deepEqual(shape(await get('shop')), [
      'hidden',
      'hidden',
      'hidden',
      'ledger.bank POST /book',
      'pay.shop POST /pay',
    ]);
    assert.deepEqual(shape(await get('ops')), ['hidden', 'hidden', 'hidden', 'hidden', 'scan.ops POST /scan']);
    assert.deepEqual(shape(await get('bank')), [
      ...['hidden', 'hidden', 'ledger.bank POST /book', 'rates.example.com GET /rate', 'scan.ops POST /scan'],
    ]);
    assert.deepEqual(shape(await get('all')), [
      ...['front.web POST /buy', 'ledger.bank POST /book', 'pay.shop POST /pay'],
      ...['rates.example.com GET /rate', 'scan.ops POST /scan'],
    ]);
  });

  it('keeps to the callee what only the callee knows of itself', async () => {
    const book = async (who: Who): Promise<Plain> =>
      (await get(who)).events.find(one => one['operation'] === 'POST /book')!;
    const [caller, callee] = [await book('shop'), await book('bank')];
    assert.deepEqual([caller['node'] ?? '', caller['details'] ?? ''], ['', '']);
    assert.deepEqual([callee['node'], callee['details']], ['node-1', 'seen by POST /book']);
    const story = (await as('shop').call('Transactions.Explain', { id: KEY })) as Plain & { lines: Plain[] };
    const nodes = story.lines.flatMap(line =>
      ((line['evidence'] ?? []) as string[]).filter(fact => fact.startsWith('node=')).map(() => line['text'] as string),
    );
    assert.ok(nodes.length > 0 && nodes.every(text => /pay\.shop POST \/pay/.test(text)), nodes.join('\n'));
  });

  it('leaves nothing of a hidden step but when it ran and how it ended', async () => {
    for (const who of ['shop', 'ops'] as const) {
      const transaction = await get(who);
      assert.equal(transaction['kind'], 'hidden');
      for (const event of transaction.events.filter(one => one['service'] === 'hidden')) {
        const { eventId, parentEventId, service, started, duration, ended, outcome, entry, ...rest } = event;
        assert.ok([eventId, service, started, duration, ended, outcome].every(one => one !== undefined));
        assert.ok(typeof parentEventId === 'string' || parentEventId === undefined);
        assert.ok(entry === undefined || typeof entry === 'boolean');
        const told = Object.entries(rest).filter(([, value]) =>
          Array.isArray(value) ? value.length > 0 : Boolean(value),
        );
        assert.deepEqual(told, []);
      }
      for (const stranger of await strangers(who)) assert.ok(!JSON.stringify(transaction).includes(stranger), stranger);
    }
  });

  /** Words that only those may read who were granted either end of the step that they belong to. */
  async function strangers(who: Who): Promise<string[]> {
    const { events } = await get('all');
    const own = { shop: ['2', '3'], ops: ['4'], bank: ['3', '4', '5'], other: [], all: [] }[who];
    const others = events.filter(({ eventId }) => !own.some(id => id.padStart(16, '0') === eventId));
    const shown = events
      .filter(event => !others.includes(event))
      .map(event => JSON.stringify(event))
      .join();
    return others
      .flatMap(({ service, operation, cuid, details }) => [service, operation, cuid, details] as string[])
      .filter(word => Boolean(word) && !shown.includes(word));
  }

  it('tells a story without names of others, and without what was decided', async () => {
    const story = (await as('ops').call('Transactions.Explain', { id: KEY })) as Plain & { lines: Plain[] };
    const text = JSON.stringify(story);
    for (const stranger of [...(await strangers('ops')), 'web', 'shop']) {
      assert.ok(!text.includes(stranger), `${stranger} in ${text}`);
    }
    assert.ok(story.lines.some(line => line['text'] === 'a step in a namespace that you were not granted'));
    assert.equal(story['summary'], '4 of its 5 steps are in namespaces that you were not granted.');
    const whole = await as('all').call('Transactions.Explain', { id: KEY });
    assert.match(whole['summary'] as string, /^front\.web POST \/buy succeeded/);
  });

  it('knows no transaction of others, in the words for one that is not there', async () => {
    const absent = 'f'.repeat(32);
    for (const call of ['Transactions.Get', 'Transactions.Explain', 'Rollback.GetPlan']) {
      for (const who of ['other', 'shop'] as const) {
        const id = who === 'other' ? KEY : LOCAL;
        const [code, details] = await refusedWith(who, call, { id });
        const [, of] = await refusedWith(who, call, { id: absent });
        const timeless = (text: string): string => text.replace(/since [^,;]*/g, '').replaceAll(/[0-9a-f]{32}/g, 'ID');
        assert.deepEqual([code, timeless(details)], [Code.NOT_FOUND, timeless(of)], `${call} ${who}`);
      }
    }
  });

  it('lists what touches own services, also by the callee of a call, and searches nothing else', async () => {
    const keys = (who: Who, request: Plain = {}): Promise<unknown[]> =>
      names(who, 'Transactions.List', 'transactions', 'key', request);
    assert.deepEqual(await keys('shop'), [KEY]);
    assert.deepEqual(await keys('ops'), [KEY, LOCAL]);
    assert.deepEqual(await keys('other'), []);
    assert.deepEqual(await keys('ops', { service: 'front.web' }), [], 'whether it is part of it is not told');
    assert.deepEqual(await keys('ops', { namespace: 'web' }), []);
    assert.deepEqual(await keys('ops', { service: 'scan.ops' }), [KEY, LOCAL]);
    assert.deepEqual(await names('ops', 'Transactions.List', 'transactions', 'kind'), ['hidden', 'scan.ops GET /']);
  });

  it('follows what touches own services, its kind hidden, and nothing else', async () => {
    const key = 'c'.repeat(32);
    const open = (who: Who): { seen: Plain[]; cancel: () => void } => {
      const stream = as(who).stream('Transactions.Watch', {});
      const seen: Plain[] = [];
      stream.on('error', () => undefined);
      stream.on('data', (one: Plain) => seen.push(one));
      return { seen, cancel: () => stream.cancel() };
    };
    const [shop, bank, all] = [open('shop'), open('bank'), open('all')];
    await new Promise(resolve => setTimeout(resolve, 200));
    const entry = { key, start: 0, operation: 'POST /new', duration: 20, flags: ENTRY, event: 'c1' };
    const call = { ...entry, event: 'c2', flags: CALL, operation: 'POST /pay', peerCuid: cuidOf('pay.shop') };
    await mesh.report('front.web', [entry, call], Date.now());
    await until('all is told', () => all.seen.find(one => one['key'] === key && one['kind'] !== ''));
    const told = await until('shop is told', () => shop.seen.find(one => one['key'] === key && one['kind'] !== ''));
    assert.equal(told['kind'], 'hidden');
    assert.deepEqual(bank.seen, []);
    for (const one of [shop, bank, all]) one.cancel();
  });

  it('shows of a flow the own steps and the edges that begin or end there', async () => {
    const flows = async (who: Who, request: Plain = {}): Promise<Plain[]> =>
      ((await as(who).call('Registry.GetFlow', request))['flows'] ?? []) as Plain[];
    const hidden = (await flows('shop')).find(({ kind }) => kind === 'hidden') as { steps: Plain[]; edges: Plain[] };
    assert.deepEqual(
      hidden.steps.map(({ service }) => service),
      ['pay.shop'],
    );
    assert.deepEqual(hidden.edges.map(({ fromService, toService }) => [fromService, toService]).sort(), [
      ['front.web', 'pay.shop'],
      ['pay.shop', 'ledger.bank'],
    ]);
    assert.deepEqual(await flows('other'), []);
    assert.deepEqual(await flows('shop', { kind: KIND }), [], 'whether there is such a kind is not told');
    assert.equal((await flows('all', { kind: KIND })).length, 1);
  });

  it('answers over HTTP alike', async () => {
    const fetched = async (who: Who, path: string): Promise<[number, Plain]> => {
      const answer = await fetch(`http://${mesh.http}/api/v1/${path}`, { headers: bearer(`token-${who}`) });
      return [answer.status, (await answer.json()) as Plain];
    };
    const [, { services }] = await fetched('bank', 'services');
    assert.deepEqual(
      (services as Plain[]).map(({ name }) => name),
      ['ledger.bank'],
    );
    assert.equal((await fetched('other', `transactions/${KEY}`))[0], 404);
    assert.equal((await fetched('shop', `transactions/${KEY}`))[1]['kind'], 'hidden');
  });
});
