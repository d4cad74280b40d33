import assert from 'node:assert/strict';
import { ManualClock } from '../../../collector/src/clock.js';
import { Outbox, type OutboxParts } from '../../../collector/src/replicas/outbox.js';
import type { Life } from '../../../collector/src/registry/life.js';

describe('what a replica tells of its lives', () => {
  it('holds for a while that one has left, as the bus may lose it', () => {
    const clock = new ManualClock();
    const life = { cuid: 'c1', streams: 1, lastSeenMs: 0, statusMs: 0, clock: { current: {} } } as unknown as Life;
    const outbox = new Outbox({
      clock,
      registry: { activeLives: new Set([life]), jobsHeard: () => [] },
      rollback: { proxies: { size: 0, highestVersion: 0, takesCallbacks: () => false }, ledger: { since: 0 } },
      recovered: { countingSinceUs: 0 },
      streams: () => 0,
    } as unknown as OutboxParts);
    const told = (): (readonly [string, boolean])[] => {
      outbox.all();
      return outbox.take(false).flatMap(({ lives }) => lives.map(({ cuid, connected }) => [cuid, connected] as const));
    };
    outbox.heard(life);
    assert.deepEqual(told(), [['c1', true]]);
    life.streams = 0;
    outbox.heard(life);
    for (let round = 0; round < 7; round++) {
      assert.deepEqual(told(), [['c1', false]], `round ${round}`);
      clock.advanceMs(10_000);
    }
    assert.deepEqual(told(), [['c1', false]], 'once more');
    assert.deepEqual(told(), []);
  });
});
