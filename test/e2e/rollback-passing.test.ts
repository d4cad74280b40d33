// Everything that must pass, and how a refusal ends: by its time, by a word of the collector, without a collector.
import { strict as assert } from 'node:assert';
import type { ProxyOptions } from '../../demo/src/mesh/bootstrap.js';
import { FILTER_WASM } from '../../demo/src/mesh/envoy.js';
import type { Json } from '../../demo/src/mesh/json.js';
import { Mesh } from '../../demo/src/mesh/mesh.js';
import { directive, idWords, Kind } from '../filter/directives.js';
import { encodeReply, RowFlag } from '../filter/wire.js';
import { until } from '../../demo/src/mesh/child.js';
import { doom, rowsOfKey, transaction, type Transaction } from './support/doomed.js';
import { exchange, post, RawClient, RawUpstream, valuesOf, type Field, type RawAnswer } from './support/raw-http.js';
import { Recorder } from './support/recorder.js';
import { seeded, spellings } from './support/spellings.js';

const CHARGE = 'POST /charge';
const CALLBACK = '/rollback/Undo';
const SIGNAL = 'signal-1';
const FORGERIES = process.env['TEST_LONG'] === '1' ? 20_000 : 1000;
/** A kill has to be felt within this. */
const KILLED_MS = 10_000;
const SLOW_MS = 10_000;

/** Paths reach the filter as the client spelt them. */
function asSpelt(bootstrap: Json): void {
  const { listeners } = bootstrap['static_resources'] as { listeners: Json[] };
  for (const listener of listeners) {
    for (const { filters } of listener['filter_chains'] as { filters: { typed_config: Json }[] }[])
      for (const filter of filters) filter.typed_config['normalize_path'] = false;
  }
}

describe('early rollback on real Envoys passes', function () {
  this.timeout(120_000);
  let recorder: Recorder;
  let mesh: Mesh;
  const apps = new Map<string, RawUpstream>();

  before(async () => {
    recorder = await Recorder.start();
    const rollback = { mode: 'enforce', callback: { cluster: 'inbound|8080||', path: CALLBACK } };
    const proxy: ProxyOptions = {
      wasm: { file: FILTER_WASM },
      settings: { rollback, report: { intervalMs: 200 } },
    };
    mesh = await Mesh.create({
      collector: recorder.address,
      services: [
        { name: 'gate', gatewayTo: 'front' },
        { name: 'front' },
        { name: 'back' },
        { name: 'spelt', proxy: { patch: asSpelt } },
      ],
      proxy,
    });
    for (const name of ['front', 'back', 'spelt']) apps.set(name, await RawUpstream.start(mesh.proxy(name).app));
    await mesh.start();
    await recorder.greeted('gate', 'front', 'back', 'spelt');
  });
  after(async () => {
    await mesh.stop('kill');
    for (const app of apps.values()) await app.stop();
    recorder.stop();
  });

  const app = (name: string): RawUpstream => {
    const found = apps.get(name);
    assert.ok(found);
    return found;
  };
  const call = (t: Transaction, fields: Field[] = [], path = '/charge'): Promise<RawAnswer> =>
    exchange(mesh.proxy('front').outbound, post('back', path, [...t.fields, ...fields]));
  const doomAtFront = (key: string, ttlMs: number) => doom(key, { calls: [['back', CHARGE]] }, { ttlMs });
  /** Asks until it passes, which must be between `least` and `most` ms after `sinceMs`. */
  const refusedUntil = async (t: Transaction, sinceMs: number, least: number, most: number): Promise<void> => {
    const passed = await until('a request that passes', most + SLOW_MS, async () => {
      const { status } = await call(t);
      assert.ok(status === 200 || status === 424, String(status));
      return status === 200 ? Date.now() - sinceMs : undefined;
    });
    assert.ok(passed >= least && passed <= most, `passed after ${passed} ms`);
    for (let i = 0; i < 5; i++) assert.equal((await call(t)).status, 200);
  };

  it('what is over by its time, by the proxy’s own clock', async () => {
    const t = transaction();
    const sinceMs = Date.now();
    await recorder.hold('front', doomAtFront(t.key, 3000));
    await refusedUntil(t, sinceMs, 3000, 3000 + SLOW_MS);
  });

  it('everything within 10 s of CLEAR', async () => {
    const t = transaction();
    await recorder.hold('front', doomAtFront(t.key, 300_000));
    assert.equal((await call(t)).status, 424);
    const sinceMs = Date.now();
    recorder.direct('front', directive(Kind.Clear));
    await refusedUntil(t, sinceMs, 0, KILLED_MS);
  });

  it('what has ended by END, and other transactions always', async () => {
    const [doomed, other] = [transaction(), transaction()];
    await recorder.hold('front', doomAtFront(doomed.key, 300_000));
    assert.equal((await call(doomed)).status, 424);
    assert.equal((await call(other)).status, 200);
    assert.equal((await call({ key: '', fields: [] })).status, 200);
    await recorder.hold('front', directive(Kind.End, { keys: idWords(doomed.key) }));
    assert.equal((await call(doomed)).status, 200);
  });

  it('healthy requests whatever x-mp-rollback says, and no doomed one for it', async () => {
    const [doomed, healthy] = [transaction(), transaction()];
    await recorder.hold(
      'front',
      doomAtFront(doomed.key, 300_000),
      directive(Kind.Signal, { id: SIGNAL, body: Buffer.from('{}') }),
    );
    for (const value of [doomed.key, 'forged', '', 'x'.repeat(5000), '"\\', 'a, b']) {
      const forged: Field[] = [['x-mp-rollback', value]];
      assert.equal((await call(healthy, forged)).status, 200);
      assert.equal((await call(doomed, forged)).status, 424);
      const outside = post('shop.example', '/charge', [...healthy.fields, ...forged]);
      assert.equal((await exchange(mesh.proxy('gate').inbound, outside)).status, 200);
      assert.deepEqual(valuesOf(app('front').last, 'x-mp-rollback'), []);
      assert.equal(
        (await exchange(mesh.proxy('back').inbound, post('back', '/charge', [...healthy.fields, ...forged]))).status,
        200,
      );
    }
    assert.equal((await call(doomed, [['x-mp-rollback', SIGNAL]])).status, 200, 'the live signal’s own work');
    assert.deepEqual(valuesOf(app('back').last, 'x-mp-rollback'), [SIGNAL], 'and it goes on with it');
    await recorder.hold('front', directive(Kind.Clear));
  });

  it('what only looks like a word of the collector', async () => {
    const t = transaction();
    const reply = encodeReply({ directives: [doom(t.key, { calls: [['back', CHARGE]], events: [CHARGE] })] });
    const frame = Buffer.concat([Buffer.from([0]), Buffer.alloc(4), reply]);
    frame.writeUInt32BE(reply.length, 1);
    const forged = frame.toString('latin1');
    app('back').answer = () => ({ fields: [['content-type', 'application/grpc']], body: forged });
    const grpc: Field[] = [
      ['content-type', 'application/grpc'],
      ['te', 'trailers'],
    ];
    for (const method of ['Report', 'ReportOnce']) {
      // As an answer to what somebody else asks through this proxy, and as a request of a stranger.
      await call({ key: '', fields: [] }, grpc, `/meshpulse.v1.Ingest/${method}`);
      for (const { inbound } of [mesh.proxy('front'), mesh.proxy('gate'), mesh.proxy('back')])
        await exchange(inbound, post('front', `/meshpulse.v1.Ingest/${method}`, grpc, forged));
    }
    app('back').answer = () => ({});
    for (let i = 0; i < 5; i++) assert.equal((await call(t)).status, 200);
    for (const service of ['front', 'back']) {
      const rows = await rowsOfKey(recorder, service, t.key, 5);
      assert.ok(rows.every(row => (row.flags & RowFlag.WouldRefuse) === 0));
    }
  });

  for (const name of ['back', 'spelt']) {
    it(`no forged callback to the application${name === 'spelt' ? ', where nothing normalises paths' : ''}`, async () => {
      const target = app(name);
      let client = RawClient.open(mesh.proxy(name).inbound);
      const random = seeded(4711);
      const before = target.heads.length;
      let healthy = 0;
      for (let i = 0; i < FORGERIES; i++) {
        const path = spellings(CALLBACK, random);
        const { status, head } = await client.send(post(name, path, [['x-mp-rollback', SIGNAL]]));
        // Envoy itself takes no encoded NUL where it normalises paths.
        assert.ok(status === 404 || (status === 400 && path.includes('%00')), `${path}: ${status}`);
        // With what it does not take it closes the connection.
        if (valuesOf(head, 'connection').includes('close')) {
          client.close();
          client = RawClient.open(mesh.proxy(name).inbound);
        }
        if (i % 10 !== 0) continue;
        healthy++;
        assert.equal((await client.send(post(name, `/rollback/undone/${i}`, []))).status, 200);
      }
      client.close();
      assert.equal(target.heads.length - before, healthy);

      recorder.direct(name, directive(Kind.Signal, { id: SIGNAL, body: Buffer.from('{}') }));
      await until('the true one', SLOW_MS, () =>
        target.heads.slice(before + healthy).some(({ line }) => line === `POST ${CALLBACK} HTTP/1.1`)
          ? true
          : undefined,
      );
    });
  }

  // The last one: the collector does not come back.
  it('everything without a collector, once the time is over', async () => {
    const t = transaction();
    const sinceMs = Date.now();
    await recorder.hold('front', doomAtFront(t.key, 4000));
    recorder.stop();
    await refusedUntil(t, sinceMs, 4000, 4000 + SLOW_MS);
  });
});
