// Several replicas of the collector behind one cluster: streams spread over them, move away from one that leaves
// or is dead, and nothing is lost or counted twice on the way.
import { strict as assert } from 'node:assert';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../demo/src/mesh/child.js';
import { Collector, CollectorClient } from '../../demo/src/mesh/collector.js';
import { RedisServer } from '../support/redis.js';
import { OddMesh } from './support/odd-mesh.js';
import { Pressure, replicated, Replicas } from './support/replicas.js';

const SERVICES = ['one', 'two', 'three', 'four'];
/** Requests per second to each proxy. */
const RATE = 50;
const DRAIN_MS = 3000;
/** A tick, and the time that an Envoy on a busy machine takes. */
const SLACK_MS = 2500;
const ARRIVAL_MS = 30_000;
const TEST_LONG = process.env['TEST_LONG'] === '1';
/** Without outlier detection, a proxy that chooses at random chooses a dead replica again and again. */
const DEAD_ONE = [
  ['ROUND_ROBIN', false],
  ['LEAST_REQUEST', true],
] as const;

const sum = (a: readonly number[], b: readonly number[]): number[] => a.map((value, i) => value + b[i]!);

describe('two replicas behind one cluster', function () {
  this.timeout(120_000);

  for (const lbPolicy of TEST_LONG ? (['ROUND_ROBIN', 'LEAST_REQUEST'] as const) : (['LEAST_REQUEST'] as const))
    it(`a replica that leaves: its streams are elsewhere in time, with nothing sent twice (${lbPolicy})`, async () => {
      const stage = await Replicas.start(SERVICES, lbPolicy);
      try {
        await stage.connected();
        const pressure = stage.pressure(RATE);
        for (const leaving of [0, 1, 0]) {
          await stage.leave(leaving, DRAIN_MS, SLACK_MS);
          await sleep(500);
        }
        await stage.assertExact(await pressure.stop(), 0);
        assert.deepEqual(
          stage.replicas.map(({ calls }) => calls),
          [0, 0],
          'a move is no failure',
        );
      } finally {
        await stage.stop();
      }
    });

  it('rolling restart: each replica leaves, ends and comes back under load, twice; nothing is missing', async () => {
    const stage = await Replicas.start(SERVICES, 'ROUND_ROBIN');
    try {
      await stage.connected();
      const pressure = stage.pressure(RATE);
      for (const leaving of [0, 1, 0, 1]) {
        const replica = stage.replicas[leaving]!;
        replica.tell({ drainMs: DRAIN_MS / 3 });
        await sleep(DRAIN_MS / 3);
        replica.stop();
        await sleep(1000);
        replica.hints = undefined;
        await replica.resume();
        await sleep(500);
        await stage.connected();
      }
      await stage.assertExact(await pressure.stop());
    } finally {
      await stage.stop();
    }
  });

  for (const [lbPolicy, outliers] of TEST_LONG ? DEAD_ONE : DEAD_ONE.slice(0, 1))
    it(`a replica that dies, and stays dead: its streams are at the other one within seconds (${lbPolicy})`, async () => {
      const stage = await Replicas.start(SERVICES, lbPolicy, { outliers });
      try {
        await stage.connected();
        const victim = stage.replicas.findIndex(({ openStreams }) => openStreams > 0);
        const pressure = stage.pressure(RATE);
        await sleep(1000);
        stage.replicas[victim]!.stop();
        await stage.connected();
        const first = await pressure.stop();
        const more = stage.pressure(RATE);
        await sleep(1000);
        await stage.assertExact(sum(first, await more.stop()));
      } finally {
        await stage.stop();
      }
    });

  it('real collectors on one Redis, killed or restarted in turn under load: each knows every event, once', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'e2e-replicas-'));
    const redis = await RedisServer.start();
    const args = ['--store', redis.url, '--drain-time', `${DRAIN_MS}ms`, '--log-level', 'warn'];
    const collectors = [await Collector.start({ dir, args }), await Collector.start({ dir, args })];
    const clients = collectors.map(({ grpc }) => new CollectorClient(grpc));
    const [first, second] = collectors.map(({ grpc }) => grpc);
    const world = await OddMesh.start(
      SERVICES.map(name => ({ name })),
      { collector: first!, proxy: { patch: replicated([first!, second!], 'ROUND_ROBIN') } },
    );
    try {
      // Of each replica: events, and reports that are missing, by service.
      const known = (): Promise<Record<string, [number, number]>[]> =>
        Promise.all(
          clients.map(async client => {
            const { instances } = await client.call<{ instances: Instance[] }>('Registry', 'ListInstances');
            const own = instances.filter(({ service }) => SERVICES.includes(service.replace('.shop', '')));
            return Object.fromEntries(
              own.map(({ service, events, reports_lost: lost }) => [service, [Number(events), Number(lost)]]),
            );
          }),
        );
      await until('all known', ARRIVAL_MS, async () =>
        (await known()).every(one => Object.keys(one).length === SERVICES.length) ? true : undefined,
      );
      const pressure = new Pressure(world.mesh, SERVICES, RATE);
      for (const [index, how] of [
        [0, 'stop'],
        [1, 'stop'],
        [0, 'kill'],
      ] as const) {
        await collectors[index]![how]();
        collectors[index] = await collectors[index]!.restarted();
        await sleep(1500);
      }
      const sent = await pressure.stop();
      const expected = Object.fromEntries(SERVICES.map((name, i) => [`${name}.shop`, [sent[i]!, 0]]));
      let last: unknown;
      await until('every event at each', ARRIVAL_MS, async () => {
        const now = await known();
        last = now;
        return now.every(one => SERVICES.every((name, i) => (one[`${name}.shop`]?.[0] ?? 0) >= sent[i]!))
          ? true
          : undefined;
      }).catch((error: unknown) => {
        throw new Error(`${JSON.stringify(last)}, expected ${JSON.stringify(expected)}`, { cause: error });
      });
      await sleep(1000);
      assert.deepEqual(await known(), [expected, expected]);
    } finally {
      await world.stop();
      for (const client of clients) client.close();
      for (const collector of collectors) await collector.stop();
      await redis.stop();
      await rm(dir, { recursive: true, force: true });
    }
  });
});

interface Instance {
  service: string;
  events: string;
  reports_lost: string;
}
