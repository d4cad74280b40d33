// Two replicas behind one cluster: how a fleet spreads, and the fallback to calls.
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../demo/src/mesh/child.js';
import { COLLECTOR_CLUSTER } from '../../demo/src/mesh/mesh.js';
import { Replicas } from './support/replicas.js';

const SERVICES = ['one', 'two', 'three', 'four'];
/** Requests per second to each proxy. */
const RATE = 50;
const FALLBACK_MS = 30_000;
const DRAIN_MS = 5000;
const SLACK_MS = 3000;
const FLEET = Array.from({ length: 20 }, (_, i) => `s${i}`);
/** A fair coin leaves fewer than so many of 20 on one side once in 100,000 times. */
const FEWEST = 2;

describe('two replicas behind one cluster, for long', function () {
  this.timeout(300_000);

  for (const lbPolicy of ['ROUND_ROBIN', 'LEAST_REQUEST'] as const)
    it(`20 sidecars: both replicas get streams; all are elsewhere when one leaves (${lbPolicy})`, async () => {
      const stage = await Replicas.start(FLEET, lbPolicy);
      try {
        await stage.connected();
        console.log(`      streams: ${stage.streams.join(' and ')}`);
        assert.ok(Math.min(...stage.streams) >= FEWEST, stage.streams.join(' and '));
        const pressure = stage.pressure(10);
        await stage.leave(0, DRAIN_MS, SLACK_MS);
        // They stay there until they are asked: of a restarted replica's share the others must let go.
        assert.deepEqual(stage.streams, [0, FLEET.length]);
        await stage.assertExact(await pressure.stop(), 0);
      } finally {
        await stage.stop();
      }
    });

  it('calls instead of streams, and one replica dead: every other call fails, and all arrives', async () => {
    const stage = await Replicas.start(SERVICES, 'ROUND_ROBIN', {
      prepare: replica => void (replica.stream = { kind: 'reset' }),
    });
    try {
      const calls = (): number => stage.replicas.reduce((all, replica) => all + replica.calls, 0);
      const greeted = stage.world.mesh.proxy('one').envoy;
      const pressure = stage.pressure(RATE);
      await until('calls', FALLBACK_MS, () => (calls() > 2 * SERVICES.length ? true : undefined));
      stage.replicas[1].stop();
      await sleep(5000);
      const sent = await pressure.stop();
      await stage.assertExact(sent);
      const failed = await greeted.stat(`cluster.${COLLECTOR_CLUSTER}.upstream_cx_connect_fail`);
      assert.ok(failed > 0, 'the dead one was tried');
    } finally {
      await stage.stop();
    }
  });
});
