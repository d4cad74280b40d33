import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Shop } from '../collector/rollback/shop.js';
import { begin, meshpulse, until, type Ran } from './support.js';

const folder = mkdtempSync(join(tmpdir(), 'meshpulse-cli-rollback-'));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const NAMED = file('named.yaml', 'mode: enforce\nsteps:\n  - {service: payment.shop, operation: POST /charge}\n');

describe('meshpulse rollback', () => {
  let shop: Shop;
  let key: string;
  const ask = (...args: string[]): Promise<Ran> =>
    meshpulse(['rollback', ...args], { MESHPULSE_COLLECTOR: shop.collector.running.grpc });
  const answer = async <T>(...args: string[]): Promise<T> => JSON.parse((await ask(...args, '-o', 'json')).out) as T;

  before(async () => {
    shop = await Shop.start(['--rollback-policy', NAMED]);
    await shop.teach(120);
    key = await shop.fail();
    shop.pass(1);
  });

  after(() => shop.stop());

  it('lists verdicts, as a table and as JSON', async () => {
    const { code, out } = await ask('list');
    assert.equal(code, 0);
    const [head, row, ...rest] = out.trimEnd().split('\n');
    assert.deepEqual(rest, []);
    assert.match(head!, /^VERDICT +TRANSACTION +STEP +REASON +MODE +REFUSED +SAVED +AGE +STATE$/);
    assert.match(row!, new RegExp(`${key} +payment.shop POST /charge +named +enforce +0 .* rolling-back$`));
    const { verdicts } = await answer<{ verdicts: { key: string }[] }>('list');
    assert.deepEqual(
      verdicts.map(one => one.key),
      [key],
    );
    assert.equal((await ask('list', '--state', 'stuck')).err, 'no transaction was found doomed\n');
  });

  it('shows the plan by any id, and acknowledges a step once', async () => {
    const plan = await ask('plan', key);
    assert.match(plan.out, /^1 +stock.shop POST \/reserve +signalled +1 +- +[0-9a-f]{16}/m);
    const { steps } = await answer<{ steps: { signalId: string }[] }>('plan', key);
    const [{ signalId }] = steps as [{ signalId: string }];
    const tried = await ask('ack', signalId, '--by', 'me', '--reason', 'by hand', '--dry-run');
    assert.deepEqual([tried.code, tried.err], [0, 'nothing was done\n']);
    const first = await ask('ack', signalId, '--by', 'me', '--reason', 'by hand');
    assert.match(first.out, /stock.shop POST \/reserve of event [0-9a-f]{16}: acknowledged now\n/);
    assert.match((await ask('ack', signalId, '--reason', 'again')).out, /acknowledged before, by me at /);
    assert.match((await ask('plan', key)).out, /State: +rolled-back/);
    assert.equal((await ask('plan', 'nobody')).code, 1);
    assert.equal((await ask('ack', 'xyz', '--reason', 'x')).code, 2);
  });

  it('sums up what was done, and who did what', async () => {
    const { out } = await ask('ledger');
    assert.match(out, /^payment.shop POST \/charge +gateway.shop POST \/checkout +1 +0 +0 +0 +0 +0 +0 +0.0ms$/m);
    assert.match(out, /^\S+ +ack +me +[0-9a-f]{16} +by hand +stock.shop POST \/reserve undone$/m);
  });

  it('wants a reason for what changes something, and tries it without doing it', async () => {
    for (const args of [
      ['trigger', key],
      ['kill'],
      ['override', 'mesh', '--mode', 'off', '--ttl', '1h'],
      ['ack', 'x'],
    ]) {
      const { code, err } = await ask(...args);
      assert.equal(code, 2, args.join(' '));
      assert.match(err, /required option '--reason <text>' not specified/);
    }
    const tried = await ask('kill', '--reason', 'x', '--dry-run');
    assert.deepEqual([tried.code, tried.err], [0, 'nothing was done\n']);
    assert.deepEqual((await answer<{ kills: unknown[] }>('policy')).kills, []);
  });

  it('limits, kills and lifts', async () => {
    assert.equal(
      (await ask('override', 'service/payment.shop', '--mode', 'observe', '--ttl', '1h', '--reason', 'careful')).code,
      0,
    );
    assert.match((await ask('kill', 'namespace/shop', '--reason', 'stop')).out, /^namespace\/shop: off until lifted/);
    const { out } = await ask('policy');
    assert.match(out, /^namespace\/shop .* stop$/m);
    assert.match(out, /^service\/payment.shop +observe .* careful$/m);
    assert.match((await ask('kill', 'namespace/shop', '--lift', '--reason', 'over')).out, /the kill is lifted/);
    assert.match((await ask('override', 'service/payment.shop', '--lift', '--reason', 'over')).out, /is lifted/);
    const view = await answer<{ kills: unknown[]; overrides: unknown[] }>('policy');
    assert.deepEqual([view.kills, view.overrides], [[], []]);
  });

  for (const [args, message] of [
    [['override', 'mesh', '--reason', 'x'], 'give --mode and --ttl, or --lift'],
    [['override', 'mesh', '--mode', 'off', '--reason', 'x'], '--mode and --ttl go together'],
    [['override', 'mesh', '--mode', 'off', '--ttl', '25h', '--reason', 'x'], 'ttl is "90000s", must be 1s to 24h'],
    [['override', 'planet', '--mode', 'off', '--ttl', '1h', '--reason', 'x'], 'scope is "planet", must be `mesh`'],
    [['list', '--state', 'stick'], 'did you mean stuck?'],
    [['simulate', '--policy', '/nowhere'], '--policy /nowhere cannot be read'],
  ] as const) {
    it(`refuses ${args.join(' ')}`, async () => {
      const { code, err } = await ask(...args);
      assert.equal(code, 2);
      assert.ok(err.includes(message), err);
    });
  }

  it('checks a policy file without a collector, naming the line', async () => {
    assert.equal((await meshpulse(['rollback', 'policy', '--check', NAMED])).code, 0);
    const bad = file('bad.yaml', 'mode: enforce\nsteps:\n  - service: payment.shop\n    operatoin: POST /charge\n');
    const { code, err } = await meshpulse(['rollback', 'policy', '--check', bad]);
    assert.equal(code, 1);
    assert.equal(err, `${bad}: line 4: steps[0] has no field operatoin; did you mean operation?\n`);
  });

  it('scores a policy on what was recorded', async () => {
    const { code, out } = await ask('simulate', '--policy', NAMED);
    assert.equal(code, 0);
    assert.match(out, /^Transactions: +120, 0 with a final failure$/m);
  });

  it('triggers by hand, and tells the story in `why`', async () => {
    const mine = shop.newKey();
    await shop.sidecars.gateway.began(mine, shop.eventOf(mine, 'entry'));
    await shop.sidecars.gateway.rows(shop.call(mine, 'reserve'));
    const tried = await ask('trigger', mine, '--reason', 'fraud', '--dry-run');
    assert.match(tried.out, /Because: +fraud/);
    assert.equal((await answer<{ verdicts: unknown[] }>('list')).verdicts.length, 1);
    assert.equal((await ask('trigger', mine, '--reason', 'fraud')).code, 0);
    const why = await meshpulse(['why', mine], { MESHPULSE_COLLECTOR: shop.collector.running.grpc });
    assert.match(why.out, /doomed by hand: fraud \(enforced\)/);
    assert.match(why.out, /State: +doomed/);
  });

  it('follows signals, one object a line', async () => {
    const running = begin(['rollback', 'watch', 'stock.shop', '-o', 'json'], {
      MESHPULSE_COLLECTOR: shop.collector.running.grpc,
    });
    const other = await shop.fail();
    await until('a signal', () => {
      shop.pass(0.25);
      return running.out().includes(other) ? true : undefined;
    });
    running.child.kill();
    await running.ended;
    const last = running.out().trimEnd().split('\n').at(-1)!;
    assert.equal((JSON.parse(last) as { step: { operation: string } }).step.operation, 'POST /reserve');
  });
});
