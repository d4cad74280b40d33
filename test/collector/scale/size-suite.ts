// A mesh of some size against one collector or several: everyone connected, nothing lost, readers kept
// in their place. The same body for every size.

import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { percentile } from '../process-support.js';
import { startFleet, type RunningFleet } from './fleets.js';
import { spawnMeasured, type Measured } from './measured.js';
import { Probe, startReaders } from './readers.js';

export interface Size {
  readonly services: number;
  readonly instances: number;
  /** Every instance says something in this time, ms. */
  readonly everyMs: number;
  /** Longest that all may take to connect, ms; generous where the machine is shared. */
  readonly connectMsMax: number;
  /** How long traffic flows before and after the kill, ms. */
  readonly flowMs: number;
  /** Rounds without and with readers, each of this long, ms. */
  readonly readerRounds: number;
  readonly readerMs: number;
}

const PER_CONNECTION = 250;
const READERS = 50;
const SCRAPE_MS_MAX = 1000;
const RECONNECT_MS_MAX = 30_000;

/** Nothing may keep the thread from reports for longer, ms of CPU. */
const STALL_MS_MAX = 50;

const ARMS = ['none', 'twin', 'here'] as const;
type Arm = (typeof ARMS)[number];

export function sizeSuite(size: Size): void {
  const { services, instances, everyMs, connectMsMax, flowMs, readerRounds, readerMs } = size;
  describe(`${services} services and ${instances} instances`, function () {
    this.timeout(2 * connectMsMax + 2 * flowMs + 3 * readerRounds * readerMs + 120_000);
    const dataDir = mkdtempSync(join(tmpdir(), 'meshpulse-size-'));
    let collector: Measured;
    let fleet: RunningFleet;
    const say = (text: string): void => console.log(`      ${text}`);
    const args = ['--streams-max', '50000', '--log-level', 'info', '--data-dir', dataDir];
    const run = async (...more: string[]): Promise<void> => void (collector = await spawnMeasured([...args, ...more]));

    before(() => run());
    after(async () => {
      await fleet?.end();
      await collector?.kill();
      rmSync(dataDir, { recursive: true, force: true });
    });

    it('all connect, and stay connected', async () => {
      const before = await collector.figures();
      const plan = {
        collectors: [collector.grpc],
        services,
        instances,
        perConnection: PER_CONNECTION,
        everyMs,
        batchEvery: 2,
      };
      fleet = startFleet(plan);
      const { tookMs } = await fleet.until('all connected', ({ connected }) => connected === instances, connectMsMax);
      const { rssMib, heapMib, stallCpuMs } = await collector.figures();
      await new Promise(resolve => setTimeout(resolve, flowMs));
      const after = await collector.figures();
      const later = await fleet.figures();
      say(`connected in ${(tookMs / 1000).toFixed(1)} s; thread kept for ${stallCpuMs.toFixed(0)} ms of CPU at most`);
      const per = (mib: number): string => ((mib * 1024) / instances).toFixed(1);
      say(
        `${rssMib.toFixed(0)} MiB resident, ${heapMib.toFixed(0)} MiB of heap: ` +
          `${per(rssMib - before.rssMib)} and ${per(heapMib - before.heapMib)} KiB a stream`,
      );
      say(
        `${(flowMs / 1000).toFixed(0)} s of ${Math.round((instances * 1000) / everyMs)} messages/s: thread kept for ` +
          `${after.stallCpuMs.toFixed(0)} ms at most, ${after.rssMib.toFixed(0)} MiB; ends ${JSON.stringify(later.ends)}`,
      );
      assert.equal(later.connected, instances);
      assert.ok(later.acked > 0);
    });

    it('every service is in the metrics, and a scrape takes less than a second', async () => {
      await collector.figures();
      const beganMs = performance.now();
      const text = await (await fetch(`http://${collector.http}/metrics`)).text();
      const tookMs = performance.now() - beganMs;
      const { stallCpuMs } = await collector.figures();
      const own = text.split('\n').filter(line => line.startsWith('meshpulse_'));
      say(
        `scrape of ${own.length} series: ${tookMs.toFixed(0)} ms, thread kept for ${stallCpuMs.toFixed(0)} ms of CPU`,
      );
      const named = new Set(
        own.flatMap(line => /^meshpulse_instances\{destination_service="(s\d+\.shop)"/.exec(line)?.[1] ?? []),
      );
      assert.equal(named.size, services);
      assert.ok(stallCpuMs <= STALL_MS_MAX, `the thread was kept for ${stallCpuMs} ms`);
      assert.ok(tookMs <= SCRAPE_MS_MAX * 5, `${tookMs} ms`);
    });

    it('readers who ask without pause keep no report waiting', async () => {
      const probe = new Probe(collector.grpc);
      await probe.begin();
      // The same readers at a twin with the same lives: they take as much of the machine, but not of this process.
      const copy = `${dataDir}-twin`;
      cpSync(dataDir, copy, { recursive: true, filter: path => !path.endsWith('lock') });
      const twin = await spawnMeasured(['--data-dir', copy]);
      const waits: Record<Arm, number[]> = { none: [], twin: [], here: [] };
      const ratios: string[] = [];
      let refused = 0;
      let answered = 0;
      const stalls: number[] = [];
      try {
        for (let round = 0; round < readerRounds; round++) {
          const p99: Partial<Record<Arm, number>> = {};
          for (const arm of ARMS) {
            const target = arm === 'twin' ? twin : collector;
            const readers = arm === 'none' ? undefined : await startReaders({ ...target, clients: READERS });
            await probe.measure(500, 10);
            await collector.figures();
            const took = await probe.measure(readerMs, 10);
            const stall = (await collector.figures()).stallCpuMs;
            const figures = await readers?.end();
            waits[arm].push(...took);
            p99[arm] = percentile(took, 0.99);
            if (arm !== 'here' || figures === undefined) continue;
            stalls.push(stall);
            refused += figures.refused;
            answered += figures.answered;
            assert.equal(figures.failed, 0);
          }
          ratios.push((p99.here! / p99.twin!).toFixed(2));
        }
      } finally {
        await twin.kill();
        rmSync(copy, { recursive: true, force: true });
        probe.end();
      }
      const shown = (all: readonly number[]): string =>
        `p50 ${percentile(all, 0.5).toFixed(1)}, p99 ${percentile(all, 0.99).toFixed(1)} ms`;
      say(
        `a report waits ${shown(waits.none)}; with ${READERS} readers elsewhere ${shown(waits.twin)}, here ${shown(waits.here)}`,
      );
      say(`p99 with readers here / elsewhere, by round: ${ratios.join(' ')}`);
      say(
        `${answered} reads answered, ${refused} refused; thread kept for ${stalls.map(Math.round).join(' ')} ms of CPU at most`,
      );
      // The median: a snapshot or a collection of garbage falls into some round, and is not the readers' doing.
      assert.ok(percentile(stalls, 0.5) <= STALL_MS_MAX, `the thread was kept for ${stalls.join(' ')} ms`);
    });

    it('after a kill and a restart all are back within 30 s, and nothing acknowledged is gone', async () => {
      const ports = ['--grpc', collector.grpc, '--http', collector.http];
      await collector.kill();
      const before = await fleet.figures();
      const beganMs = performance.now();
      await run(...ports);
      const startedMs = performance.now() - beganMs;
      const { events } = await sumOf(collector);
      assert.ok(events >= before.acked, `${events} events kept, ${before.acked} acknowledged`);
      const { tookMs } = await fleet.until('all back', ({ connected }) => connected === instances, connectMsMax);
      say(`recovered in ${(startedMs / 1000).toFixed(1)} s, all back ${(tookMs / 1000).toFixed(1)} s later`);
      await fleet.noMore();
      const { figures } = await fleet.until('all acknowledged', one => one.acked === one.made, connectMsMax);
      const now = await sumOf(collector);
      say(`${figures.made} events made, ${now.events} counted, ${now.lost} lost`);
      assert.deepEqual(now, { events: figures.made, lost: 0 });
      if (process.env['TEST_LONG'] === '1') assert.ok(tookMs <= RECONNECT_MS_MAX, `${tookMs} ms`);
    });
  });
}

/** What the metrics say of the fleet. */
async function sumOf({ http }: { readonly http: string }): Promise<{ events: number; lost: number }> {
  const lines = (await (await fetch(`http://${http}/metrics`)).text()).split('\n');
  const sum = (start: string): number =>
    lines
      .filter(line => line.startsWith(start) && !line.includes('"probe.shop"'))
      .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  return { events: sum('meshpulse_events_total{'), lost: sum('meshpulse_events_lost_total{') };
}
