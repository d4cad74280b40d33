// The same mesh against three collectors on one Redis: spread, one killed, none the wiser.

import assert from 'node:assert/strict';
import type { Plain } from '../ingest-support.js';
import { RedisServer } from '../../support/redis.js';
import { Clients } from '../rpc-support.js';
import { startFleet, type RunningFleet } from './fleets.js';
import { spawnMeasured, type Measured } from './measured.js';

export interface ReplicatedSize {
  readonly services: number;
  readonly instances: number;
  readonly everyMs: number;
  readonly connectMsMax: number;
  readonly flowMs: number;
}

const REPLICAS = 3;
const PER_CONNECTION = 100;
const BACK_MS_MAX = 30_000;

/** How long until every replica has applied what the others were told last, ms. */
const CONVERGED_MS_MAX = 60_000;

export function replicasSuite({ services, instances, everyMs, connectMsMax, flowMs }: ReplicatedSize): void {
  describe(`${services} services and ${instances} instances on ${REPLICAS} collectors and one Redis`, function () {
    this.timeout(4 * connectMsMax + 2 * flowMs + 120_000);
    const collectors: Measured[] = [];
    let redis: RedisServer;
    let fleet: RunningFleet | undefined;
    const say = (text: string): void => console.log(`      ${text}`);

    before(async () => {
      redis = await RedisServer.start('--appendonly', 'yes');
      const args = ['--streams-max', '50000', '--store', redis.url];
      for (let n = 0; n < REPLICAS; n++) collectors.push(await spawnMeasured(args));
    });
    after(async () => {
      await fleet?.end();
      for (const collector of collectors) await collector.kill();
      await redis.stop();
    });

    const spread = async (): Promise<string> => {
      const counts = await Promise.all(collectors.map(one => metricSum(one, 'meshpulse_report_streams ')));
      const figures = await Promise.all(collectors.map(one => one.figures()));
      return collectors
        .map(
          (_, n) =>
            `${counts[n]} streams, ${figures[n]!.rssMib.toFixed(0)} MiB, stall ${figures[n]!.stallCpuMs.toFixed(0)} ms`,
        )
        .join('; ');
    };

    it('all connect to one of them, and every one counts every event', async () => {
      const addresses = collectors.map(one => one.grpc);
      const plan = {
        collectors: addresses,
        services,
        instances,
        perConnection: PER_CONNECTION,
        everyMs,
        batchEvery: 2,
      };
      fleet = startFleet(plan);
      const { tookMs } = await fleet.until('all connected', one => one.connected === instances, connectMsMax);
      say(`connected in ${(tookMs / 1000).toFixed(1)} s: ${await spread()}`);
      await new Promise(resolve => setTimeout(resolve, flowMs));
      say(`after ${flowMs / 1000} s: ${await spread()}`);
    });

    it('one is killed: its streams are back at the others within 30 s, and nothing acknowledged is gone', async () => {
      const [gone] = collectors.splice(0, 1);
      await gone!.kill();
      const isBack = async (): Promise<number> =>
        (await fleet!.until('all back', one => one.connected === instances, connectMsMax)).tookMs;
      const tookMs = await isBack();
      say(`all back ${(tookMs / 1000).toFixed(1)} s after a kill: ${await spread()}`);
      await fleet!.noMore();
      const { figures } = await fleet!.until('all acknowledged', one => one.acked === one.made, connectMsMax);
      const counted = (): Promise<number[]> => Promise.all(collectors.map(eventsOf));
      const alikeMs = await untilEqual(
        counted,
        collectors.map(() => figures.made),
      );
      // The series of a service are one replica's; those of the one that died go to others within seconds.
      const told = async (): Promise<number> => {
        const sums = await Promise.all(collectors.map(one => metricSum(one, 'meshpulse_events_total{')));
        return sums.reduce((total, one) => total + one, 0);
      };
      const toldMs = await untilEqual(told, figures.made);
      say(
        `${figures.made} events made; counted alike by each ${Math.round(alikeMs)} ms after the last acknowledgement, ` +
          `and by the metrics of all ${Math.round(toldMs)} ms later`,
      );
      if (process.env['TEST_LONG'] === '1') assert.ok(tookMs <= BACK_MS_MAX, `${tookMs} ms`);
    });
  });
}

/** Asks until the answer is the one wanted; returns after how many ms that was. */
async function untilEqual<T>(ask: () => Promise<T>, wanted: T): Promise<number> {
  const beganMs = performance.now();
  for (;;) {
    const answer = await ask();
    const tookMs = performance.now() - beganMs;
    if (JSON.stringify(answer) === JSON.stringify(wanted)) return tookMs;
    if (tookMs > CONVERGED_MS_MAX) assert.deepEqual(answer, wanted);
    await new Promise(resolve => setTimeout(resolve, 200));
  }
}

/** Events of all services, as one collector answers. */
async function eventsOf({ grpc }: Measured): Promise<number> {
  const clients = new Clients(grpc);
  let sum = 0;
  for (let pageToken = ''; ;) {
    const answer = await clients.call('Registry.ListServices', { pageSize: 1000, pageToken });
    for (const one of (answer['services'] ?? []) as Plain[]) if (one['external'] !== true) sum += Number(one['events']);
    pageToken = (answer['nextPageToken'] as string | undefined) ?? '';
    if (pageToken === '') break;
  }
  clients.close();
  return sum;
}

async function metricSum({ http }: Measured, start: string): Promise<number> {
  const lines = (await (await fetch(`http://${http}/metrics`)).text())
    .split('\n')
    .filter(line => line.startsWith(start));
  return lines.reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}
