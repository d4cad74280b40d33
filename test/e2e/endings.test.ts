// What a proxy's end costs: nothing when it is asked to leave, at most one interval when it is killed.
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../demo/src/mesh/child.js';
import type { Envoy } from '../../demo/src/mesh/envoy.js';
import { Load } from '../../demo/src/mesh/load.js';
import { logEntry, rowEntry, tally } from './support/ledger.js';
import { OddMesh } from './support/odd-mesh.js';

/** The default of `report.intervalMs`, which the promise is about. */
const DEFAULT_INTERVAL_MS = 1000;
/** How often a VM looks whether its interval is over, and hands over what it has; and a busy machine's delay. */
const TICKS_MS = 400 + 1000;
const RATE = 300;
const WARM_MS = 1700;
const FAREWELL_MS = 500;
const FAREWELL_MAX_MS = 15_000;
const NEW_LIFE_MS = 30_000;

/** Ends that give requests in work no time. */
const ENDS: [string, (envoy: Envoy) => Promise<void>][] = [
  ['SIGTERM alone', envoy => envoy.stop()],
  ['/quitquitquit', envoy => envoy.quit()],
];

async function meshUnderLoad(): Promise<{ world: OddMesh; load: Load; sentMs: number[] }> {
  const world = await OddMesh.start([{ name: 'front', outboundOnly: true }, { name: 'back' }], {
    proxy: { concurrency: 2, settings: { report: { intervalMs: DEFAULT_INTERVAL_MS } } },
  });
  await world.recorder.greeted('front', 'back');
  const sentMs: number[] = [];
  const load = Load.start({
    targets: [world.mesh.proxy('front').outbound],
    host: 'back',
    rate: RATE,
    next: n => {
      sentMs.push(Date.now());
      return { operation: 'GET /x', method: 'GET', path: n % 7 === 0 ? '/seventh' : '/x' };
    },
  });
  await sleep(WARM_MS);
  return { world, load, sentMs };
}

describe('the end of a proxy', function () {
  this.timeout(60_000);

  // 0 ms: no time for a last regular report after the last request.
  for (const settleMs of [0, 1500]) {
    it(`drained and stopped after ${settleMs} ms: no event is lost, and it says goodbye`, async () => {
      const { world, load } = await meshUnderLoad();
      try {
        await world.mesh.proxy('back').stopGracefully(settleMs);
        await load.stop();
        const life = world.recorder.life('back');
        await until('goodbye', FAREWELL_MAX_MS, () => life.goodbye);
        const log = await world.log('back');
        assert.ok(log.length > 100, `${log.length} requests`);
        assert.deepEqual(tally(life.rows.map(rowEntry)), tally(log.map(logEntry)));
        assert.deepEqual(life.lost, { batches: 0, rows: 0 });
      } finally {
        await world.stop();
      }
    });
  }

  for (const [name, end] of ENDS) {
    it(`${name}, in mid-load: no event of a logged request is lost`, async () => {
      const { world, load } = await meshUnderLoad();
      try {
        await end(world.mesh.proxy('back').envoy);
        await load.stop();
        const life = world.recorder.life('back');
        await until('goodbye', FAREWELL_MAX_MS, () => life.goodbye);
        const log = await world.log('back');
        const missing = log.length - life.rows.length;
        assert.equal(missing, 0, `${missing} of ${log.length} events lost`);
        assert.deepEqual(life.lost, { batches: 0, rows: 0 });
      } finally {
        await world.stop();
      }
    });
  }

  it('SIGKILL in mid-load: at most one interval is lost, without goodbye', async () => {
    const { world, load, sentMs } = await meshUnderLoad();
    try {
      const answered = () => world.app('back').total;
      const before = answered();
      const killedMs = Date.now();
      await world.mesh.proxy('back').kill();
      const after = answered();
      await load.stop();
      await sleep(FAREWELL_MS);
      const life = world.recorder.life('back');
      const lost = after - life.rows.length;
      const recent = sentMs.filter(ms => ms <= killedMs && ms > killedMs - DEFAULT_INTERVAL_MS - TICKS_MS).length;
      assert.ok(lost >= 0 && lost <= recent + (after - before), `${lost} of ${after} lost, ${recent} of them recent`);
      assert.deepEqual(life.lost, { batches: 0, rows: 0 }, 'what came has no gaps');
      assert.equal(life.goodbye, undefined);
    } finally {
      await world.stop();
    }
  });

  it('the next life on the same address is another one, and counts from its own beginning', async () => {
    const { world, load } = await meshUnderLoad();
    try {
      const back = world.mesh.proxy('back');
      await back.kill();
      await back.startNewLife();
      const lives = await until('a hundred events of another life', NEW_LIFE_MS, () => {
        const now = world.recorder.livesOf('back');
        return now.length > 1 && (now[1]?.rows.length ?? 0) > 100 ? now : undefined;
      });
      await load.stop();
      assert.equal(lives.length, 2);
      const [first, second] = lives.map(life => life.hello);
      assert.equal(first?.ip, second?.ip);
      assert.notEqual(first?.slot, second?.slot);
      assert.ok(Number(first?.bootEpoch) < Number(second?.bootEpoch));
      for (const life of lives) assert.deepEqual(life.lost, { batches: 0, rows: 0 });
    } finally {
      await world.stop();
    }
  });
});
