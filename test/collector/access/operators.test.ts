import assert from 'node:assert/strict';
import { credentials, status as Code } from '@grpc/grpc-js';
import { hideLine, hidePolicy, hideRecord } from '../../../collector/src/access/hide-rollback.js';
import { Grant } from '../../../collector/src/access/caller.js';
import type { VerdictRecord } from '../../../collector/src/rollback/verdicts.js';
import type { Plain } from '../ingest-support.js';
import { Shop } from '../rollback/shop.js';
import { Clients, start, until } from '../rpc-support.js';
import { bearer, Folder, hashOf } from './support.js';

type Failure = Error & { code: number; details: string };

const NAMED = 'mode: enforce\nsteps:\n  - {service: payment.shop, operation: POST /charge}\n';

const failure = (call: Promise<unknown>): Promise<Failure> =>
  call.then(
    () => assert.fail('it was answered'),
    (error: unknown) => error as Failure,
  );

describe('early rollback and who may what', function () {
  this.timeout(60_000);
  const folder = new Folder();
  let shop: Shop;
  let key: string;
  const clients: Clients[] = [];
  const WHO = {
    all: ['operator', '*'],
    shopper: ['operator', 'shop'],
    banker: ['operator', 'bank'],
    reader: ['viewer', 'shop'],
  };
  const args = (): string[] => [
    ...['--token-file', folder.file('access.yaml'), '--rollback-policy', folder.file('policy.yaml')],
    ...['--data-dir', folder.file('data')],
  ];

  before(async () => {
    const people = Object.entries(WHO).map(
      ([name, [role, namespace]]) =>
        `  - {name: ${name}, token: ${hashOf(name)}, roles: [${role!}], namespaces: ['${namespace!}']}\n`,
    );
    const stock = `  - {name: stock-app, token: ${hashOf('stock-app')}, roles: [step], namespaces: [shop], services: [stock.shop]}\n`;
    const keeper = `  - {name: keeper, token: ${hashOf('keeper')}, roles: [operator], namespaces: [shop], services: [stock.shop]}\n`;
    const doorman = `  - {name: doorman, token: ${hashOf('doorman')}, roles: [operator], namespaces: [shop], services: [gateway.shop]}\n`;
    const sidecars = `  - {name: sidecars, token: ${hashOf('sidecars')}, roles: [reporter, viewer], namespaces: ['*']}\n`;
    folder.write('access.yaml', `people:\n${people.join('')}${stock}${keeper}${doorman}${sidecars}`);
    folder.write('policy.yaml', NAMED);
    shop = await Shop.start(args(), undefined, bearer('sidecars'));
    await shop.teach(120);
    key = await shop.fail();
    shop.pass(1);
  });
  after(async () => {
    for (const one of clients) one.close();
    await shop.stop();
    folder.remove();
  });

  function as(name: string): Clients {
    const made = new Clients(shop.collector.running.grpc, credentials.createInsecure(), bearer(name));
    clients.push(made);
    return made;
  }

  const audit = async (name: string, request: Plain = {}): Promise<Plain[]> =>
    ((await as(name).call('Rollback.ListAudit', request))['records'] ?? []) as Plain[];

  it('shows verdicts, plans and sums to those whose services they are about', async () => {
    const verdicts = async (name: string): Promise<Plain[]> =>
      ((await as(name).call('Rollback.List', {}))['verdicts'] ?? []) as Plain[];
    assert.deepEqual(
      (await verdicts('reader')).map(one => [one['key'], one['service']]),
      [[key, 'payment.shop']],
    );
    assert.deepEqual(await verdicts('banker'), []);
    assert.equal(((await as('reader').call('Rollback.GetPlan', { id: key }))['steps'] as Plain[]).length > 0, true);
    const [{ id }] = (await verdicts('reader')) as [Plain];
    for (const one of [key, id]) {
      assert.equal((await failure(as('banker').call('Rollback.GetPlan', { id: one }))).code, Code.NOT_FOUND);
    }
    const sums = await as('banker').call('Rollback.GetLedger', {});
    assert.deepEqual([sums['lines'] ?? [], sums['verdicts'] ?? '0', sums['audit'] ?? []], [[], '0', []]);
    assert.equal((await as('reader').call('Rollback.GetLedger', {}))['verdicts'], '1');
    assert.equal((await as('reader').call('Rollback.GetPolicy', {}))['text'] ?? '', '');
    assert.equal((await as('all').call('Rollback.GetPolicy', {}))['text'], NAMED);
  });

  const scopes: [string, string, boolean][] = [
    ['shopper', 'mesh', false],
    ['shopper', 'namespace/shop', true],
    ['shopper', 'namespace/bank', false],
    ['shopper', 'service/payment.shop', true],
    ['shopper', 'service/ledger.bank', false],
    ['shopper', 'kind/gateway.shop POST /checkout', true],
    ['shopper', 'kind/front.web POST /pay.shop', false],
    ['banker', 'namespace/shop', false],
    ['all', 'mesh', true],
  ];
  for (const [name, scope, may] of scopes) {
    it(`${may ? 'lets' : 'does not let'} ${name} change ${scope}`, async () => {
      const override = { scope, mode: 'ROLLBACK_MODE_OBSERVE', ttl: { seconds: 60 }, reason: 'a test', dryRun: true };
      for (const [call, request] of [
        ['Rollback.Kill', { scope, reason: 'a test', dryRun: true }],
        ['Rollback.Override', override],
      ] as const) {
        if (may) await as(name).call(call, request);
        else {
          const { code, details } = await failure(as(name).call(call, request));
          assert.deepEqual([code, /reaches beyond/.test(details)], [Code.PERMISSION_DENIED, true], details);
        }
      }
    });
  }

  it('lets operators doom what begins at their own, and nobody else know of it', async () => {
    const other = shop.newKey();
    const { gateway } = shop.sidecars;
    await gateway.began(other, shop.eventOf(other, 'entry'));
    await gateway.rows(shop.call(other, 'reserve'));
    const trigger = (name: string): Promise<Plain> =>
      as(name).call('Rollback.Trigger', { id: other, reason: 'a test', dryRun: true });
    const stepsOf = async (name: string): Promise<unknown[]> =>
      (((await trigger(name))['plan'] as Plain)['steps'] as Plain[]).map(step => step['service']);
    assert.deepEqual([await stepsOf('shopper'), await stepsOf('doorman')], [['stock.shop'], ['hidden']]);
    assert.equal((await failure(trigger('banker'))).code, Code.NOT_FOUND);
    const { code, details } = await failure(trigger('keeper'));
    assert.deepEqual(
      [code, details],
      [Code.PERMISSION_DENIED, 'this transaction does not begin in stock.shop, where you are operator'],
    );
    assert.equal((await failure(as('shopper').call('Rollback.Simulate', {}))).code, Code.PERMISSION_DENIED);
    await as('all').call('Rollback.Simulate', {});
  });

  it('lets a service follow and acknowledge its own signals, under the name that it proved', async () => {
    const app = as('stock-app');
    const other = app.stream('Rollback.Watch', { service: 'payment.shop' });
    const ended = await new Promise<Failure>(resolve => other.on('error', resolve));
    assert.deepEqual(
      [ended.code, /you may follow the signals of stock\.shop$/.test(ended.details)],
      [Code.PERMISSION_DENIED, true],
    );
    const own = app.stream('Rollback.Watch', { service: 'stock.shop' });
    own.on('error', () => undefined);
    const signal = await new Promise<Plain>(resolve => own.once('data', resolve));
    own.cancel();
    const id = signal['id'] as string;
    const hidden = await failure(as('banker').call('Rollback.Ack', { signal: id, by: 'banker' }));
    assert.deepEqual(
      [hidden.code, hidden.details],
      [Code.NOT_FOUND, `no signal has the id ${id}; signals are remembered for 90 days`],
    );
    const { step } = (await app.call('Rollback.Ack', { signal: id, by: 'stock-0', reason: 'undone' })) as {
      step: Plain;
    };
    assert.equal(step['acknowledgedBy'], 'stock-0');
    const [record] = await audit('all', { actions: ['ack'] });
    assert.deepEqual([record!['actor'], record!['subject'], record!['reason']], ['stock-app', id, 'undone']);
  });

  it('writes down who they are, not who they say they are, and shows operators of some what they did', async () => {
    await as('shopper').call('Rollback.Kill', { scope: 'service/stock.shop', reason: 'a test', actor: 'root' });
    const [record] = await audit('all', { actions: ['kill'] });
    assert.deepEqual(
      [record!['actor'], record!['subject'], record!['reason'], record!['result']],
      ['shopper', 'service/stock.shop', 'a test', '0 proxies told to forget all'],
    );
    assert.ok((await audit('shopper')).every(one => one['actor'] === 'shopper'));
    assert.ok((await audit('banker')).every(one => one['actor'] === 'banker'));
    shop.collector.clock.advanceMs(1);
    await as('shopper').call('Rollback.Kill', { scope: 'service/stock.shop', reason: 'done', lift: true });
  });

  it('pages the audit, narrowed by action, actor and time', async () => {
    const all = await audit('all', { pageSize: 1000 });
    const paged: Plain[] = [];
    let pageToken = '';
    do {
      const page = await as('all').call('Rollback.ListAudit', { pageSize: 3, pageToken });
      paged.push(...(page['records'] as Plain[]));
      pageToken = (page['nextPageToken'] ?? '') as string;
    } while (pageToken !== '');
    assert.deepEqual(paged, all);
    const mine = await audit('all', { actor: 'shopper', actions: ['kill', 'lift'] });
    assert.deepEqual(
      mine.map(one => one['action']),
      ['lift', 'kill'],
    );
    assert.deepEqual(await audit('all', { since: { seconds: 4e9 } }), []);
    const { code, details } = await failure(audit('all', { actions: ['kil'] }));
    assert.deepEqual([code, /^actions is "kil", must be one of trigger/.test(details)], [Code.INVALID_ARGUMENT, true]);
  });

  it('keeps the audit over a restart, each record once', async () => {
    const before = await audit('all', { pageSize: 1000 });
    assert.ok(before.some(one => one['action'] === 'refused') && before.some(one => one['action'] === 'ack'));
    await shop.stop();
    const again = await start(args(), shop.collector.clock, bearer('all'));
    const after = await until('the audit is back', async () => {
      const { records } = await again.call('Rollback.ListAudit', { pageSize: 1000 });
      return records as Plain[] | undefined;
    });
    await again.stop();
    assert.deepEqual(after, before);
  });
});

describe('what is hidden of a verdict', () => {
  const step = (service: string): VerdictRecord['steps'][number] => ({
    ...{
      signalId: `s-${service}`,
      eventId: '00000000000000e1',
      service,
      operation: `POST /${service}`,
      doneUs: 1,
      cuid: `c-${service}`,
    },
    ...{ unknown: false, after: [], state: 'waiting', acknowledgedBy: `by-${service}`, deliveries: 0, nextUs: 0 },
  });
  const edge = (caller: string, service: string): VerdictRecord['forward'][number] => ({
    ...{ caller, service, operation: `GET /${service}`, destination: '', onlyForward: true, workUs: 1 },
  });
  const record = {
    ...{
      id: '1',
      key: '2',
      kind: 'front.web POST /buy',
      service: 'pay.shop',
      operation: 'POST /pay',
      operatorReason: 'why',
    },
    evidence: ['failures=1'],
    forward: [edge('front.web', 'ship.ops'), edge('pay.shop', 'ledger.bank'), edge('scan.ops', 'ship.ops')],
    steps: [step('stock.ops'), step('ledger.bank')],
  } as unknown as VerdictRecord;
  const of = (...namespaces: string[]): VerdictRecord | undefined => hideRecord(record, Grant.of([{ namespaces }]));

  it('is nothing for who sees all, and all for who sees none of it', () => {
    assert.equal(of('*'), record);
    assert.equal(of('other'), undefined);
  });

  it('is what belongs to others', () => {
    const shop = JSON.stringify(of('shop'));
    for (const word of ['front.web', 'ship.ops', 'scan.ops', 'stock.ops', 'by-ledger'])
      assert.ok(!shop.includes(word), word);
    assert.match(shop, /pay\.shop.*failures=1.*GET \/ledger\.bank/);
    const bank = of('bank')!;
    assert.deepEqual(
      [bank.kind, bank.service, bank.operation, bank.evidence, bank.operatorReason, bank.forward.length],
      ['hidden', 'hidden', '', [], '', 1],
    );
    assert.deepEqual(
      bank.steps.map(one => [one.service, one.cuid]),
      [
        ['hidden', ''],
        ['ledger.bank', 'c-ledger.bank'],
      ],
    );
  });

  it('holds for the ledger and the policy', () => {
    const grant = Grant.of([{ namespaces: ['shop'] }]);
    assert.deepEqual(hideLine({ kind: 'front.web POST /buy', service: 'pay.shop', operation: 'x' }, grant), {
      ...{ kind: 'hidden', service: 'pay.shop', operation: 'x' },
    });
    const scopes = [
      'mesh',
      'namespace/shop',
      'namespace/bank',
      'service/a.bank',
      'kind/pay.shop GET /',
      'kind/a.bank GET /shop',
    ];
    const shown = hidePolicy(
      {
        ...{ text: 'secret', refused: 'line 3: secret' },
        overrides: scopes.map(scope => ({ scope })),
        kills: scopes.map(scope => ({ scope })),
        learned: [
          { kind: 'a.bank GET /', service: 'pay.shop' },
          { kind: 'a.bank GET /', service: 'a.bank' },
        ],
      },
      grant,
    );
    assert.deepEqual(
      shown.kills.map(({ scope }) => scope),
      ['mesh', 'namespace/shop', 'kind/pay.shop GET /'],
    );
    assert.deepEqual(shown.learned, [{ kind: 'hidden', service: 'pay.shop', forward: [] }]);
    assert.ok(!JSON.stringify(shown).includes('secret'));
  });
});
