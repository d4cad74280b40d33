import assert from 'node:assert/strict';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { ManualClock } from '../../collector/src/clock.js';
import type { Hello } from '../../collector/src/ingest/report.js';
import { decodeReport } from '../../collector/src/ingest/decode-report.js';
import { Registry } from '../../collector/src/registry/registry.js';
import { batch, CUID, encodeReport, hello } from './ingest-support.js';
import { start } from './rpc-support.js';

const LONG = process.env['TEST_LONG'] === '1';

/** Lives that report, each a service of its own. */
const LIVES = LONG ? 100_000 : 3000;
/** As in the promise of 200 ms a scrape, and the default. */
const SERIES_MAX = LONG ? [5000, 50_000] : [500];

/** A scrape goes in slices and holds nobody up; walking 100,000 services takes what it takes on a busy machine, ms. */
const SCRAPE_MS_MAX = 5000;

/** Lives over a long time, of which one in a hundred lives at a time. */
const EVER = LONG ? 1_000_000 : 50_000;
const KEPT = LONG ? 100_000 : 5000;

/** What one life may cost. */
const LIFE_KIB_MAX = 4;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const cuidOf = (n: number): string => `${n.toString(16).padStart(8, '0')}${CUID.slice(8)}`;
const ipOf = (n: number): string => `10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`;

describe('many lives', function () {
  this.timeout(LONG ? 600_000 : 60_000);

  for (const seriesMax of SERIES_MAX) {
    it(`${LIVES} of them, each of its own service: /metrics stays within ${seriesMax} series, and its sums are right`, async () => {
      const collector = await start([
        ...['--metrics-series-max', String(seriesMax), '--peer-messages-per-second', '1000000'],
        ...['--retain-lives-max', '1000'],
      ]);
      try {
        for (let from = 0; from < LIVES; from += 100) {
          await Promise.all(
            Array.from({ length: 100 }, (_, i) => {
              const n = from + i;
              const who = { cuid: cuidOf(n), proxyId: `p${n}`, ip: ipOf(n), service: `s${n}.shop` };
              return collector.call('Ingest.ReportOnce', { hello: hello(who), batches: [batch(1, [{}, {}])] });
            }),
          );
        }
        const beganMs = performance.now();
        const { text } = await collector.get('/metrics');
        const tookMs = performance.now() - beganMs;
        const own = text.split('\n').filter(line => line.startsWith('meshpulse_'));
        console.log(`      /metrics took ${Math.round(tookMs)} ms for ${own.length} series`);
        assert.ok(tookMs <= SCRAPE_MS_MAX, `${tookMs} ms`);
        const events = own.filter(line => line.startsWith('meshpulse_events_total{'));
        const sum = events.reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
        assert.equal(sum, 2 * LIVES);
        assert.ok(events.some(line => line.includes('destination_service="other"')));
        // One `other` a metric comes on top.
        assert.ok(own.length <= seriesMax + 70, `${own.length} series`);
        collector.clock.advanceMs(600_000);
        collector.running.tick();
        const { instances } = (await collector.call('Registry.ListInstances', { pageSize: 1000 })) as {
          instances: unknown[];
        };
        assert.equal(instances.length, 1000, 'those that ended are kept up to their number');
      } finally {
        await collector.stop();
      }
    });
  }

  it(`${EVER} over time, of which a hundredth lives: those kept are bounded, and so is what they cost`, () => {
    const clock = new ManualClock();
    const registry = new Registry({ clock, retainMs: 30 * 24 * 3_600_000, retainMax: KEPT, instancesMax: EVER / 50 });
    const plain = decodeReport(encodeReport({ hello: hello({ bootEpoch: '0' }) })).hello!;
    const heapMib = (): number => {
      collectGarbage();
      return process.memoryUsage().heapUsed / 2 ** 20;
    };
    const before = heapMib();
    for (let n = 0; n < EVER; n++) {
      const one: Hello = {
        ...plain,
        cuid: cuidOf(n),
        proxyId: `p${n}`,
        ip: ipOf(n % 65_536),
        service: `s${n % 50}.shop`,
      };
      const { life } = registry.hello(one, 'stream', 0);
      if (n >= EVER / 100) registry.goodbye(registry.find(cuidOf(n - EVER / 100)) ?? life);
      if (n % 1000 === 0) registry.tick();
    }
    registry.tick();
    const grownMib = heapMib() - before;
    console.log(`      ${registry.size} lives kept, ${Math.round(grownMib)} MiB`);
    assert.ok(registry.activeLives.size <= EVER / 100, String(registry.activeLives.size));
    assert.equal(registry.size - registry.activeLives.size, KEPT);
    assert.equal(registry.livesEvicted, EVER - registry.size);
    assert.ok(grownMib * 1024 <= registry.size * LIFE_KIB_MAX, `${grownMib} MiB`);
  });
});
