// A collector under load wishes for fewer rows: real Envoys send fewer, count all of them, and forget the wish.
import { strict as assert } from 'node:assert';
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../demo/src/mesh/child.js';
import { Load, total } from '../../demo/src/mesh/load.js';
import { Outcome } from '../filter/wire.js';
import { INTERVAL_MS, OddMesh } from './support/odd-mesh.js';
import type { Life } from './support/recorder.js';

const REQUESTS = 400;
const RATE = 200;
const RATIO = 0.25;
/** Five standard deviations on either side of what a fair hash does with so many keys. */
const SAMPLED = { least: 56, most: 144 };
const ARRIVAL_MS = 30_000;
/** Until all VMs have looked into the table that they share. */
const HEARD_MS = 1000;
const SERVICES = ['left', 'right'];

/** No pattern that a hash could like. */
const keyOf = (n: number): string => createHash('sha256').update(`wish ${n}`).digest('hex').slice(0, 32);

/** Events of a life: by exact counts where there are some, else by rows. */
function counted(life: Life): number {
  const batches = [...life.batches.values()].flatMap(bySeq => [...bySeq.values()]);
  return batches.reduce((sum, { events, counts }) => {
    const exact = counts.reduce((all, { count }) => all + Number(count), 0);
    return sum + (counts.length > 0 ? exact : (events?.rows ?? 0));
  }, 0);
}

describe('a wish for fewer rows', function () {
  this.timeout(120_000);

  it(`of ${RATIO}: two sidecars keep the same transactions, every failure, and exact counts`, async () => {
    const world = await OddMesh.start(
      SERVICES.map(name => ({ name })),
      { proxy: { concurrency: 2 } },
    );
    const { recorder, mesh } = world;
    try {
      await recorder.greeted(...SERVICES);
      let first = 0;
      const load = async (): Promise<void> => {
        const from = first;
        first += REQUESTS;
        const loads = SERVICES.map(service =>
          Load.start({
            targets: [mesh.proxy(service).inbound],
            host: service,
            rate: RATE,
            count: REQUESTS,
            next: n => ({
              operation: 'GET /x',
              method: 'GET',
              path: '/x',
              headers: {
                traceparent: `00-${keyOf(from + n)}-00f067aa0ba902b7-01`,
                ...(n % 10 === 0 ? { 'x-do': JSON.stringify({ status: 500 }) } : {}),
              },
            }),
          }).ended(),
        );
        for (const report of await Promise.all(loads))
          assert.equal(
            total(report, status => status !== 0),
            REQUESTS,
          );
        await until('every event counted', ARRIVAL_MS, () =>
          SERVICES.every(service => counted(recorder.life(service)) >= first) ? true : undefined,
        );
        await sleep(3 * INTERVAL_MS);
        for (const service of SERVICES) assert.equal(counted(recorder.life(service)), first);
      };
      const keys = (service: string, from: number, fits: (outcome: number) => boolean): string[] => {
        const wanted = new Set(Array.from({ length: REQUESTS }, (_, n) => keyOf(from + n)));
        return recorder
          .rows(service)
          .filter(({ key, outcome }) => wanted.has(key) && fits(outcome))
          .map(({ key }) => key)
          .sort();
      };
      await load();
      for (const service of SERVICES) assert.equal(keys(service, 0, () => true).length, REQUESTS);

      recorder.tell({ sampleRatio: RATIO });
      await sleep(HEARD_MS);
      await load();
      const kept = keys('left', REQUESTS, outcome => outcome === Outcome.Ok);
      assert.ok(kept.length >= SAMPLED.least && kept.length <= SAMPLED.most, `${kept.length} of ${REQUESTS}`);
      assert.deepEqual(
        keys('right', REQUESTS, outcome => outcome === Outcome.Ok),
        kept,
      );
      for (const service of SERVICES)
        assert.equal(keys(service, REQUESTS, outcome => outcome === Outcome.Failed).length, REQUESTS / 10);

      recorder.tell({ sampleRatio: 1 });
      await sleep(HEARD_MS);
      await load();
      for (const service of SERVICES) {
        assert.equal(keys(service, 2 * REQUESTS, () => true).length, REQUESTS);
        assert.deepEqual(recorder.life(service).lost, { batches: 0, rows: 0 });
      }
    } finally {
      await world.stop();
    }
  });
});
