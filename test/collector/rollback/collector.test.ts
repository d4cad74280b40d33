import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nameHash } from '../../../collector/src/rollback/hash.js';
import type { Plain } from '../ingest-support.js';
import { until } from '../rpc-support.js';
import { cuidOf, FLAG, hostOf, serviceOf, Shop, Sidecar } from './shop.js';

const folder = (): string => mkdtempSync(join(tmpdir(), 'meshpulse-rollback-'));

function policy(text: string): string {
  const path = join(folder(), 'policy.yaml');
  writeFileSync(path, text);
  return path;
}

const NAMED = 'mode: enforce\nsteps:\n  - {service: payment.shop, operation: POST /charge}\n';
const hash = (destination: string, operation: string): string => String(nameHash(destination, operation));

describe('early rollback in the collector', () => {
  let shop: Shop;
  const started = async (text = NAMED, mode?: string): Promise<Shop> =>
    (shop = await Shop.start(['--rollback-policy', policy(text)], mode));
  const verdicts = async (): Promise<Plain[]> =>
    ((await shop.collector.call('Rollback.List', { pageSize: 1000 }))['verdicts'] ?? []) as Plain[];

  afterEach(() => shop.stop());

  it('tells callers and callees of forward work what to refuse, and nobody else', async () => {
    await started();
    await shop.teach(120);
    const key = await shop.fail();
    const { gateway, shipping, payment, stock } = shop.sidecars;
    await until('the directive', () => gateway.take('DOOM')[0]);
    const [doom] = gateway.take('DOOM');
    assert.deepEqual(doom!['refuse'], [hash(hostOf('shipping'), 'POST /ship')]);
    assert.deepEqual(
      doom!['keys'],
      [key.slice(0, 16), key.slice(16)].map(half => String(BigInt(`0x${half}`))),
    );
    assert.equal(doom!['mode'], 'ROLLBACK_MODE_ENFORCE');
    assert.equal(doom!['step'], 'payment.shop POST /charge');
    assert.equal(doom!['budgetPpm'], 1_000_000);
    await until('the second line', () => shipping.take('DOOM')[0]);
    assert.deepEqual(shipping.take('DOOM')[0]!['refuseIn'], [hash('', 'POST /ship')]);
    assert.deepEqual([payment.take('DOOM'), stock.take('DOOM')], [[], []]);
    const [verdict] = await verdicts();
    assert.equal(verdict!['key'], key);
    assert.deepEqual(verdict!['forward'], ['gateway.shop -> shipping.shop POST /ship']);
    assert.equal(verdict!['reason'], 'VERDICT_REASON_NAMED');
  });

  it('decides once its kind is known: the proxies of entries are asked', async () => {
    await started();
    await shop.teach(120);
    const { gateway } = shop.sidecars;
    const key = shop.newKey();
    await gateway.rows(shop.call(key, 'charge', { outcome: 'failed' }));
    await until('the question', () => gateway.take('FLUSH')[0]);
    assert.deepEqual(await verdicts(), []);
    await gateway.began(key, shop.eventOf(key, 'entry'));
    await until('the directive', () => gateway.take('DOOM')[0]);
  });

  it('takes what a repeated parent calls again for a repeat, wherever it runs', async () => {
    await started('mode: enforce\nsteps:\n  - {service: payment.shop, operation: POST /charge, failures: 2}\n');
    await shop.teach(120);
    const key = await shop.fail();
    assert.deepEqual(await verdicts(), [], 'the caller’s proxy may repeat the parent');
    const elsewhere = await new Sidecar(shop.collector, 'gateway', 'ROLLBACK_MODE_ENFORCE', 2).open();
    const again = { outcome: 'failed', at: 60, event: shop.eventOf(key, 'other') } as const;
    await elsewhere.rows(shop.call(key, 'charge', again));
    assert.equal((await verdicts()).length, 1);
  });

  it('decides a bounded number at once, and counts what it lets go', async () => {
    await started();
    await shop.teach(120);
    for (let n = 0; n < 310; n++) await shop.fail();
    assert.equal((await verdicts()).length, 300);
    const { text } = await shop.collector.get('/metrics');
    assert.match(text, /^meshpulse_rollback_abstained_total\{reason="too many at once"\} 10$/m);
    shop.pass(1);
    await shop.fail();
    assert.equal((await verdicts()).length, 301);
  });

  it('decides nothing without enough traces, about an ended transaction, or when killed', async () => {
    await started();
    await shop.teach(99);
    await shop.fail();
    await shop.teach(30);
    const ended = shop.newKey();
    await shop.sidecars.gateway.rows(shop.call(ended, 'charge', { outcome: 'failed' }), shop.entry(ended, 'failed'));
    await shop.collector.call('Rollback.Kill', { reason: 'test' });
    await shop.fail();
    assert.deepEqual(await verdicts(), []);
    assert.deepEqual(shop.sidecars.gateway.take('DOOM'), []);
  });

  it('tells older filters and those that are off nothing', async () => {
    for (const mode of ['ROLLBACK_MODE_UNSPECIFIED', 'ROLLBACK_MODE_OFF']) {
      await started(NAMED, mode);
      await shop.teach(120);
      await shop.fail();
      assert.equal((await verdicts()).length, 1);
      assert.deepEqual(shop.sidecars.gateway.take('DOOM'), []);
      if (mode.endsWith('UNSPECIFIED')) await shop.stop();
    }
  });

  it('gives in observe the verdicts that enforce gives on the same traffic, named and learned', async () => {
    const outcomes = ['ok', 'failed', 'failed', 'ok', 'failed'] as const;
    const seen: Record<string, unknown[]> = {};
    for (const mode of ['observe', 'enforce']) {
      await started(`mode: ${mode}\nsteps:\n  - {service: stock.shop, operation: POST /reserve}\n`);
      await shop.teach(120, 60);
      const { gateway } = shop.sidecars;
      for (let n = 0; n < 60; n++) {
        const key = shop.newKey();
        const outcome = outcomes[n % outcomes.length]!;
        const step = n % 4 === 0 ? 'reserve' : 'charge';
        await gateway.began(key, shop.eventOf(key, 'entry'));
        await gateway.rows(shop.call(key, step, { outcome }));
        await gateway.rows(shop.entry(key, outcome));
        shop.pass(0.25);
      }
      seen[mode] = (await verdicts()).map(({ key, reason, operation, heldOut }) => [key, reason, operation, heldOut]);
      if (mode === 'observe') await shop.stop();
    }
    assert.deepEqual(seen['observe'], seen['enforce']);
    const reasons = new Set(seen['enforce']!.map(one => (one as unknown[])[1]));
    assert.deepEqual([...reasons].sort(), ['VERDICT_REASON_LEARNED', 'VERDICT_REASON_NAMED']);
    assert.equal(seen['enforce']!.length, 36, 'each failure, and nothing else');
  });

  it('gives the same verdicts in observe, marked so', async () => {
    await started(NAMED.replace('enforce', 'observe'));
    await shop.teach(120);
    const key = await shop.fail();
    const doom = await until('the directive', () => shop.sidecars.gateway.take('DOOM')[0]);
    assert.equal(doom['mode'], 'ROLLBACK_MODE_OBSERVE');
    assert.equal((await verdicts())[0]!['key'], key);
  });

  it('learns from what it left alone only', async () => {
    await started('mode: enforce\nlearn: {budgetRatio: 0.2, budgetMin: 10}');
    await shop.teach(120, 40);
    const learned = async (): Promise<number> => {
      const view = await shop.collector.call('Rollback.GetPolicy');
      return Number((view['learned'] as Plain[]).find(step => step['operation'] === 'POST /charge')!['failures']);
    };
    assert.equal(await learned(), 40);
    for (let n = 0; n < 60; n++) {
      const key = await shop.fail();
      await shop.sidecars.gateway.rows(shop.entry(key, 'failed'));
    }
    shop.pass(5);
    const heldOut = (await verdicts()).filter(one => one['heldOut'] === true).length;
    assert.equal((await verdicts()).length, 60);
    assert.equal(await learned(), 40 + heldOut);
    const dooms = shop.sidecars.gateway.take('DOOM');
    assert.equal(dooms.filter(one => one['mode'] === 'ROLLBACK_MODE_OBSERVE').length, heldOut);
    assert.deepEqual([dooms[0]!['budgetPpm'], dooms[0]!['budgetMin']], [200_000, 10]);
  });

  it('ends directives with the entry, with a second entry, and counts wrong verdicts', async () => {
    await started();
    await shop.teach(120);
    const { gateway, shipping } = shop.sidecars;
    const ended = await shop.fail();
    await gateway.rows(shop.entry(ended, 'ok'));
    await until('the end', () => shipping.take('END')[0]);
    const twice = await shop.fail();
    await gateway.began(twice, '00000000000000ff');
    await until('the second end', () => shipping.take('END')[1]);
    const all = await verdicts();
    const [first, second] = [ended, twice].map(key => all.find(one => one['key'] === key));
    assert.deepEqual([first!['endReason'], first!['wrong']], ['entry ended', true]);
    assert.deepEqual([second!['endReason'], second!['wrong']], ['second entry', false]);
    const { text } = await shop.collector.get('/metrics');
    const series =
      'meshpulse_rollback_wrong_verdicts_total{kind="gateway.shop POST /checkout",destination_service="payment.shop",operation="POST /charge"}';
    assert.ok(
      text.includes(`${series} 1`),
      text
        .split('\n')
        .filter(line => line.includes('wrong_verdicts'))
        .join('\n'),
    );
  });

  it('lets directives go at their TTL when nothing ends them', async () => {
    await started(`ttl: 2s\n${NAMED}`);
    await shop.teach(120);
    await shop.fail();
    const doom = await until('the directive', () => shop.sidecars.gateway.take('DOOM')[0]);
    assert.equal(doom['ttlMs'], 2000);
    shop.pass(3);
    assert.equal((await verdicts())[0]!['endReason'], 'ttl');
  });

  it('keeps an exact ledger of what filters say', async () => {
    await started();
    await shop.teach(120);
    const key = await shop.fail();
    const { gateway, shipping } = shop.sidecars;
    const refused = { outcome: 'refused', flags: 1 | FLAG.LOCAL_REPLY } as const;
    await gateway.rows(
      shop.call(key, 'ship', refused),
      // The callee's refusal as its caller sees it: the callee tells of it itself.
      shop.call(key, 'ship', { outcome: 'refused', event: 'f000000000000001' }),
      shop.call(key, 'ship', { flags: 1 | FLAG.WOULD_REFUSE, event: 'f000000000000002' }),
      shop.call(key, 'ship', { flags: 1 | FLAG.WITHHELD, event: 'f000000000000003' }),
      shop.call(key, 'charge', { flags: 1 | FLAG.NO_RETRIES, outcome: 'failed', event: 'f000000000000004' }),
      shop.call(key, 'charge', { flags: 1 | FLAG.RETRY_REFUSED, outcome: 'failed', event: 'f000000000000005' }),
    );
    await shipping.rows(shop.event(key, 'ship', { outcome: 'refused', flags: FLAG.LOCAL_REPLY }));
    const ledger = await shop.collector.call('Rollback.GetLedger');
    const [line] = ledger['lines'] as Plain[];
    const { work, ...counts } = line!['saved'] as Plain;
    assert.deepEqual(
      { ...counts, wouldWork: undefined },
      { refused: '2', wouldRefuse: '1', withheld: '1', retriesSuppressed: '2', wouldWork: undefined },
    );
    // `ship` takes 30 ms at its caller's clock: nothing else was heard of it while it was learned.
    assert.deepEqual(work, { seconds: '0', nanos: 60_000_000 });
    const { text } = await shop.collector.get('/metrics');
    assert.ok(text.includes('meshpulse_work_saved_seconds_total{result="refused"} 0.06'));
    assert.ok(
      /requests_refused_total\{source_service="gateway.shop",destination_service="shipping.shop",result="refused"\} 2/.test(
        text,
      ),
    );
  });

  it('answers over HTTP as over gRPC', async () => {
    await started();
    await shop.teach(120);
    const key = await shop.fail();
    const { verdicts: all } = (await shop.collector.get('/api/v1/rollback/verdicts?states=rolling_back')).json();
    assert.deepEqual(
      (all as Plain[]).map(one => one['key']),
      [key],
    );
    assert.equal(
      (await shop.collector.get(`/api/v1/rollback/plans/${key}`)).json()['state'],
      'ROLLBACK_STATE_ROLLING_BACK',
    );
    assert.equal((await shop.collector.get('/api/v1/rollback/ledger')).json()['verdicts'], '1');
    assert.equal((await shop.collector.get('/api/v1/rollback/policy')).json()['mode'], 'ROLLBACK_MODE_ENFORCE');
    assert.equal((await shop.collector.get('/api/v1/rollback/plans/nobody')).code, 404);
    assert.equal((await shop.collector.get('/api/v1/rollback/verdicts?states=odd')).code, 400);
  });

  it('tells the whole story of a transaction, and shows it as doomed while it runs', async () => {
    await started();
    await shop.teach(120);
    const key = await shop.fail();
    const { gateway } = shop.sidecars;
    const doomed = await shop.collector.call('Transactions.List', { states: ['TRANSACTION_STATE_DOOMED'] });
    assert.deepEqual(
      (doomed['transactions'] as Plain[]).map(one => one['key']),
      [key],
    );
    await gateway.rows(shop.call(key, 'ship', { outcome: 'refused', flags: 1 | FLAG.LOCAL_REPLY, ms: 0 }));
    shop.pass(1);
    await gateway.rows(shop.entry(key, 'failed'));
    const story = await shop.collector.call('Transactions.Explain', { id: key });
    const texts = (story['lines'] as Plain[]).map(line => line['text'] as string);
    for (const part of [
      'doomed: payment.shop POST /charge failed for good, the policy names it (enforced)',
      '2 proxies were told to refuse shipping.shop POST /ship',
      '1 request was refused, about 30.0 ms of work saved',
      'stock.shop POST /reserve has to be undone: told once, not acknowledged yet',
      'rollback: rolling back',
      'filters forgot it: entry ended',
      'state: failed',
    ]) {
      assert.ok(texts.includes(part), `${part} in\n${texts.join('\n')}`);
    }
    assert.match(story['summary'] as string, /failed after .* It was doomed: payment.shop POST \/charge/);
  });

  it('signals completed steps in causal order, again and again, until they are acknowledged once', async () => {
    await started();
    await shop.teach(120);
    const { gateway, stock } = shop.sidecars;
    const signals: Plain[] = [];
    const watch = shop.collector.clients.stream('Rollback.Watch', { service: serviceOf('stock') });
    watch.on('data', (signal: Plain) => signals.push(signal));
    watch.on('error', () => undefined);
    const key = shop.newKey();
    await gateway.began(key, shop.eventOf(key, 'entry'));
    await gateway.rows(
      shop.call(key, 'reserve'),
      shop.call(key, 'release', { at: 17, ms: 2, operation: 'POST /hold' }),
      shop.call(key, 'charge', { outcome: 'failed', responseFlags: 4 }),
    );
    const plan = await shop.collector.call('Rollback.GetPlan', { id: key });
    assert.deepEqual(
      (plan['steps'] as Plain[]).map(step => [step['operation'], step['unknown']]),
      [
        ['POST /charge', true],
        ['POST /hold', false],
        ['POST /reserve', false],
      ],
    );
    assert.equal(plan['state'], 'ROLLBACK_STATE_ROLLING_BACK');
    shop.pass(1);
    assert.equal(signals.length, 0, 'later steps come first');
    const [charge] = plan['steps'] as Plain[];
    await shop.collector.call('Rollback.Ack', { signal: charge!['signalId'], by: 'payment' });
    await until('the next signal', () => signals[0]);
    assert.equal((signals[0]!['step'] as Plain)['operation'], 'POST /hold');
    await until('the callback', () => stock.take('SIGNAL')[0]);
    const body = JSON.parse(String(stock.take('SIGNAL')[0]!['body'])) as Plain;
    assert.equal(body['id'], signals[0]!['id']);
    shop.pass(3);
    await until('the repeat', () => signals[1]);
    assert.deepEqual([signals[1]!['id'], signals[1]!['delivery']], [signals[0]!['id'], 2]);
    await stock.send({ signalResults: [{ id: signals[0]!['id'], status: 204 }] });
    await until('the last signal', () => signals.find(one => (one['step'] as Plain)['operation'] === 'POST /reserve'));
    const last = signals.at(-1)!;
    const acks = await Promise.all(
      Array.from({ length: 200 }, () =>
        shop.collector.call('Rollback.Ack', { signal: last['id'], step: (last['step'] as Plain)['eventId'], by: 'x' }),
      ),
    );
    assert.equal(acks.filter(one => one['first'] === true).length, 1);
    assert.equal((await shop.collector.call('Rollback.GetPlan', { id: key }))['state'], 'ROLLBACK_STATE_ROLLED_BACK');
    watch.cancel();
  });

  it('sends a resumed watcher what it has not seen', async () => {
    await started();
    await shop.teach(120);
    const key = await shop.fail();
    shop.pass(1);
    const first = async (request: Plain): Promise<Plain | undefined> => {
      const watch = shop.collector.clients.stream('Rollback.Watch', { service: serviceOf('stock'), ...request });
      const signal = await Promise.race([
        new Promise<Plain>(resolve => watch.on('data', resolve)),
        new Promise<undefined>(resolve => setTimeout(() => resolve(undefined), 300)),
      ]);
      watch.on('error', () => undefined);
      watch.cancel();
      return signal;
    };
    const signal = await first({});
    assert.equal(signal!['key'], key);
    assert.equal(await first({ resumeToken: signal!['resumeToken'] }), undefined);
    assert.equal(await first({ resumeToken: '0', cuid: cuidOf('stock', 7) }), undefined, 'another life waits');
    shop.pass(2.5);
    assert.equal((await first({ resumeToken: signal!['resumeToken'], cuid: cuidOf('stock', 7) }))!['delivery'], 2);
  });

  it('waits with signals of learned verdicts until the entry has failed, and never signals a success', async () => {
    await started('mode: enforce');
    await shop.teach(120, 60);
    const keys: string[] = [];
    while (keys.length < 2) {
      const key = await shop.fail();
      const verdict = (await verdicts()).find(one => one['key'] === key);
      if (verdict!['heldOut'] !== true) keys.push(key);
    }
    shop.pass(1);
    const states = (): Promise<unknown[]> =>
      Promise.all(
        keys.map(async id =>
          ((await shop.collector.call('Rollback.GetPlan', { id }))['steps'] as Plain[]).map(step => step['state']),
        ),
      );
    assert.deepEqual(await states(), [['STEP_STATE_WAITING'], ['STEP_STATE_WAITING']]);
    await shop.sidecars.gateway.rows(shop.entry(keys[0]!, 'failed'), shop.entry(keys[1]!, 'ok'));
    shop.pass(1);
    assert.deepEqual(await states(), [['STEP_STATE_SIGNALLED'], ['STEP_STATE_WAITING']]);
  });

  it('kills within one turn, and lets kills, overrides and verdicts outlive a restart', async () => {
    const dataDir = folder();
    shop = await Shop.start(['--data-dir', dataDir, '--rollback-policy', policy(NAMED)]);
    await shop.teach(120);
    const key = await shop.fail();
    const { gateway, payment } = shop.sidecars;
    await shop.collector.call('Rollback.Kill', { reason: 'too much', actor: 'me', dryRun: true });
    assert.deepEqual(payment.take('CLEAR'), []);
    const killed = await shop.collector.call('Rollback.Kill', { reason: 'too much', actor: 'me' });
    assert.equal(killed['proxies'], 4);
    await until('everyone told', () => payment.take('CLEAR')[0]);
    assert.equal(gateway.take('END').length, 1);
    await shop.collector.call('Rollback.Override', {
      scope: 'service/payment.shop',
      mode: 'ROLLBACK_MODE_OBSERVE',
      ttl: { seconds: '3600' },
      reason: 'careful',
    });
    const before = await shop.collector.call('Rollback.GetLedger');
    await shop.stop();
    shop = await Shop.start(['--data-dir', dataDir, '--rollback-policy', policy(NAMED)]);
    const view = await shop.collector.call('Rollback.GetPolicy');
    assert.deepEqual(
      (view['kills'] as Plain[]).map(one => one['scope']),
      ['mesh'],
    );
    assert.deepEqual(
      (view['overrides'] as Plain[]).map(one => one['mode']),
      ['ROLLBACK_MODE_OBSERVE'],
    );
    assert.equal((await verdicts())[0]!['key'], key);
    const after = await shop.collector.call('Rollback.GetLedger');
    assert.deepEqual(
      [after['lines'], after['verdicts'], after['audit']],
      [before['lines'], before['verdicts'], before['audit']],
    );
  });

  it('lets go of what another policy decided, within a second or two', async () => {
    const path = policy(NAMED);
    shop = await Shop.start(['--rollback-policy', path]);
    await shop.teach(120);
    await shop.fail();
    const { gateway, payment } = shop.sidecars;
    await until('the directive', () => gateway.take('DOOM')[0]);
    writeFileSync(path, NAMED.replace('enforce', 'off'));
    shop.pass(2);
    await until('the end', () => gateway.take('END')[0]);
    await until('everyone told', () => payment.take('CLEAR')[0]);
    assert.equal((await verdicts())[0]!['endReason'], 'another policy');
  });

  it('tells a kill to proxies that report by single calls, and to those that come back', async () => {
    await started();
    const { gateway, payment } = shop.sidecars;
    const once = async (): Promise<unknown[]> => {
      const reply = await shop.collector.call('Ingest.ReportOnce', { hello: gateway.hello() });
      return ((reply['directives'] ?? []) as Plain[]).map(one => one['kind']);
    };
    gateway.close();
    await until('the stream to end', async () => {
      const { text } = await shop.collector.get('/metrics');
      return /^meshpulse_report_streams 3$/m.exec(text) ?? undefined;
    });
    assert.deepEqual(await once(), []);
    await shop.collector.call('Rollback.Kill', { scope: 'service/payment.shop', reason: 'test' });
    await payment.send({ hello: payment.hello() });
    await until('the one that says hello', () => payment.take('CLEAR')[0]);
    await shop.collector.call('Rollback.Kill', { reason: 'test' });
    assert.ok((await once()).includes('DIRECTIVE_KIND_CLEAR'));
  });

  it('signals nothing that was killed', async () => {
    await started();
    await shop.teach(120);
    const key = await shop.fail();
    await shop.collector.call('Rollback.Kill', { reason: 'test' });
    shop.pass(2);
    const states = async (): Promise<unknown[]> =>
      ((await shop.collector.call('Rollback.GetPlan', { id: key }))['steps'] as Plain[]).map(step => step['state']);
    assert.deepEqual(await states(), ['STEP_STATE_WAITING']);
    await shop.collector.call('Rollback.Kill', { reason: 'test', lift: true });
    shop.pass(1);
    assert.deepEqual(await states(), ['STEP_STATE_SIGNALLED']);
  });

  it('undoes nothing of a second request under the same id, and takes no word of it for the first', async () => {
    await started();
    await shop.teach(120);
    const key = await shop.fail();
    shop.pass(2);
    const again = { ...shop.entry(key, 'ok'), event: '00000000000000ff' };
    await shop.sidecars.gateway.rows(shop.call(key, 'ship'), again);
    const plan = await shop.collector.call('Rollback.GetPlan', { id: key });
    assert.deepEqual(
      (plan['steps'] as Plain[]).map(step => step['operation']),
      ['POST /reserve'],
    );
    const [verdict] = await verdicts();
    assert.deepEqual([verdict!['endReason'], verdict!['wrong']], ['second entry', false]);
  });

  it('refuses by hand no more than the policy lets it', async () => {
    for (const [text, forward] of [
      ['', ['gateway.shop -> shipping.shop POST /ship']],
      ['never: [shipping.shop POST /ship]\n', []],
      ['scopes: [{scope: service/shipping.shop, mode: observe}]\n', []],
    ] as const) {
      await started(NAMED + text);
      await shop.teach(120);
      const key = shop.newKey();
      await shop.sidecars.gateway.began(key, shop.eventOf(key, 'entry'));
      await shop.sidecars.gateway.rows(shop.call(key, 'charge'));
      const { verdict } = await shop.collector.call('Rollback.Trigger', { id: key, reason: 'test', dryRun: true });
      assert.deepEqual((verdict as Plain)['forward'] ?? [], forward);
      if (text.startsWith('scopes')) return;
      await shop.stop();
    }
  });

  it('reads another policy while it runs, and keeps the one in force when it is wrong', async () => {
    const path = policy(NAMED);
    shop = await Shop.start(['--rollback-policy', path]);
    const view = (): Promise<Plain> => shop.collector.call('Rollback.GetPolicy');
    writeFileSync(path, 'mode: observe\nttl: 30h\n');
    shop.pass(2);
    assert.deepEqual(
      [(await view())['refused'], (await view())['mode']],
      ['line 2: ttl is "30h", must be 1s to 300s, written like 30s', 'ROLLBACK_MODE_ENFORCE'],
    );
    writeFileSync(path, 'mode: observe\nttl: 10s\n');
    shop.pass(2);
    assert.deepEqual([(await view())['refused'], (await view())['mode']], ['', 'ROLLBACK_MODE_OBSERVE']);
  });

  it('tries a trigger without doing it, and does it with a reason', async () => {
    await started();
    await shop.teach(120);
    const key = shop.newKey();
    const { gateway } = shop.sidecars;
    await gateway.began(key, shop.eventOf(key, 'entry'));
    await gateway.rows(shop.call(key, 'reserve'));
    await assert.rejects(
      shop.collector.call('Rollback.Trigger', { id: key }),
      /reason is "", must be a text of 1 to 256 bytes/,
    );
    const dry = await shop.collector.call('Rollback.Trigger', { id: key, reason: 'fraud', dryRun: true });
    assert.deepEqual(
      ((dry['plan'] as Plain)['steps'] as Plain[]).map(step => step['operation']),
      ['POST /reserve'],
    );
    assert.deepEqual([await verdicts(), gateway.take('DOOM')], [[], []]);
    await shop.collector.call('Rollback.Trigger', { id: key, reason: 'fraud', actor: 'me' });
    await until('the directive', () => gateway.take('DOOM')[0]);
    const { audit } = await shop.collector.call('Rollback.GetLedger');
    assert.deepEqual(
      (audit as Plain[]).map(one => [one['action'], one['actor'], one['reason'], one['subject']]),
      [['trigger', 'me', 'fraud', key]],
    );
  });

  it('simulates a policy on what is kept', async () => {
    await started('mode: off');
    await shop.teach(120, 10);
    const scored = await shop.collector.call('Rollback.Simulate', { policy: NAMED });
    assert.deepEqual(
      [scored['transactions'], scored['failing'], scored['right'], scored['wrong']],
      ['130', '10', '10', '0'],
    );
    await assert.rejects(
      shop.collector.call('Rollback.Simulate', { policy: 'mode: maybe' }),
      /line 1: mode is \\?"maybe\\?", must be off, observe, enforce/,
    );
  });

  it('hints only where nothing weaker holds', async () => {
    await started(`${NAMED}scopes: [{scope: service/gateway.shop, mode: observe}]\n`);
    const { gateway, stock } = shop.sidecars;
    for (const [at, sidecar] of [gateway, stock].entries()) {
      const event = (n: number): string => (n + 1).toString(16).padStart(16, 'cd'[at]);
      const row = (n: number) => shop.call(shop.newKey(), 'charge', { outcome: 'failed', event: event(n) });
      await sidecar.rows(...Array.from({ length: 25 }, (_, n) => row(n)));
    }
    shop.pass(0.5);
    await until('stock told', () => stock.take('DOWN')[0]);
    assert.deepEqual(gateway.take('DOWN'), []);
  });

  it('hints at services that are down when several reporters say so, and lifts it', async () => {
    await started();
    await shop.teach(120);
    const { gateway, stock, shipping } = shop.sidecars;
    const bad = (n: number) =>
      shop.call(shop.newKey(), 'charge', { outcome: 'failed', event: (n + 1).toString(16).padStart(16, 'b') });
    const many = (outcome: 'ok' | 'failed'): ReturnType<typeof bad>[] =>
      Array.from({ length: 25 }, (_, n) => ({ ...bad(n), outcome }));
    shop.pass(11);
    await gateway.rows(...many('failed'));
    shop.pass(0.5);
    await until('the only reporter decides alone', () => gateway.take('DOWN')[0]);
    shop.pass(11);
    await stock.rows(...many('ok'));
    await shipping.rows(...many('ok'));
    await gateway.rows(...many('failed'));
    await until('lifted', () => gateway.take('UP')[0]);
    const before = gateway.take('DOWN').length;
    shop.pass(0.5);
    assert.equal(gateway.take('DOWN').length, before, 'one reporter is outvoted');
    await stock.rows(...many('failed').concat(...Array.from({ length: 12 }, () => many('failed'))));
    await shipping.rows(...many('failed').concat(...Array.from({ length: 12 }, () => many('failed'))));
    shop.pass(0.5);
    await until('stock told', () => stock.take('DOWN')[0]);
    shop.pass(11);
    await gateway.rows(...many('ok'));
    shop.pass(0.5);
    await until('lifted again', () => stock.take('UP')[0]);
    assert.deepEqual(stock.take('DOWN')[0]!['destinations'], [hash(hostOf('payment'), '')]);
  });
});
