// Several replicas of the collector behind one cluster: streams spread over them, move away from one that leaves
// or is dead, and nothing is lost or counted twice on the way.
import { strict as assert } from 'node:assert';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../demo/src/mesh/child.js';
import { Collector, CollectorClient } from '../../demo/src/mesh/collector.js';
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

  it('real collectors that are restarted one after the other under load have every event, in one of them', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'e2e-replicas-'));
    const args = (name: string): string[] => [
      ...['--data-dir', join(dir, name), '--drain-time', `${DRAIN_MS}ms`, '--log-level', 'warn'],
    ];
    const collectors = [
      await Collector.start({ dir, args: args('a') }),
      await Collector.start({ dir, args: args('b') }),
    ];
    const clients = collectors.map(({ grpc }) => new CollectorClient(grpc));
    const [first, second] = collectors.map(({ grpc }) => grpc);
    const world = await OddMesh.start(
      SERVICES.map(name => ({ name })),
      { collector: first!, proxy: { patch: replicated([first!, second!], 'ROUND_ROBIN') } },
    );
    try {
      const events = async (): Promise<Record<string, number>> => {
        const sums: Record<string, number> = {};
        for (const client of clients) {
          const answer = await client.call<{ services: { name: string; events: string }[] }>(
            'Registry',
            'ListServices',
          );
          for (const { name, events: count } of answer.services) sums[name] = (sums[name] ?? 0) + Number(count);
        }
        return sums;
      };
      await until('all known', ARRIVAL_MS, async () =>
        Object.keys(await events()).length === SERVICES.length ? true : undefined,
      );
      const pressure = new Pressure(world.mesh, SERVICES, RATE);
      for (const index of [0, 1, 0]) {
        await collectors[index]!.stop();
        collectors[index] = await collectors[index]!.restarted();
        await sleep(1000);
      }
      const sent = await pressure.stop();
      const expected = Object.fromEntries(SERVICES.map((name, i) => [`${name}.shop`, sent[i]!]));
      let last: Record<string, number> = {};
      await until('all events', ARRIVAL_MS, async () => {
        last = await events();
        return SERVICES.every((name, i) => last[`${name}.shop`]! >= sent[i]!) ? true : undefined;
      }).catch((error: unknown) => {
        throw new Error(`${JSON.stringify(last)}, expected ${JSON.stringify(expected)}`, { cause: error });
      });
      await sleep(1000);
      assert.deepEqual(await events(), expected);
    } finally {
      await world.stop();
      for (const client of clients) client.close();
      for (const collector of collectors) await collector.stop();
      await rm(dir, { recursive: true, force: true });
    }
  });
});
