import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ManualClock } from '../../collector/src/clock.js';
import { BUSY_MS, CALM_MS, LEVEL_MAX, next, NO_PRESSURE, Wishes, wishOf } from '../../collector/src/ingest/wishes.js';
import { hello, type Plain } from './ingest-support.js';
import { start, until } from './rpc-support.js';

/** Levels after each second of a load that is `busy(second, level)`. */
function levels(seconds: number, busy: (second: number, level: number) => number, from = NO_PRESSURE): number[] {
  let state = from;
  return Array.from({ length: seconds }, (_, second) => {
    state = next(state, busy(second, state.level), second * 1000);
    return state.level;
  });
}

describe('what a busy collector asks of filters', () => {
  it('is nothing while it has time', () => {
    assert.deepEqual(new Set(levels(100, () => 0.8)), new Set([0]));
    assert.deepEqual(wishOf(NO_PRESSURE), { intervalMs: 0, sampleRatio: 1 });
  });

  it('is nothing for a moment of load', () => {
    assert.deepEqual(new Set(levels(60, second => (second % 3 === 0 ? 0.5 : 1))), new Set([0]));
  });

  it('grows by one step every few seconds, up to a bound', () => {
    const steps = levels(60, () => 1);
    assert.equal(steps[BUSY_MS / 1000], 1);
    assert.deepEqual(
      [...new Set(steps)],
      Array.from({ length: LEVEL_MAX + 1 }, (_, level) => level),
    );
    assert.equal(steps.at(-1), LEVEL_MAX);
  });

  it('is taken back step by step when it is calm for long', () => {
    const steps = levels(CALM_MS / 100, () => 0.05, { level: 3 });
    assert.equal(steps[CALM_MS / 1000 - 1], 3);
    assert.equal(steps[CALM_MS / 1000], 2);
    assert.equal(steps.at(-1), 0);
  });

  it('first slows reports down, then thins rows, and never asks for more at a higher level', () => {
    const wishes = Array.from({ length: LEVEL_MAX + 1 }, (_, level) => wishOf({ level }));
    assert.deepEqual(wishes[1], { intervalMs: 2000, sampleRatio: 1 });
    wishes.slice(1).forEach((wish, at) => {
      assert.ok(wish.intervalMs >= wishes[at]!.intervalMs && wish.sampleRatio <= wishes[at]!.sampleRatio);
      assert.ok(wish.intervalMs >= 100 && wish.intervalMs <= 60_000 && wish.sampleRatio > 0);
    });
  });

  it('settles under any steady load: it does not swing between two wishes', () => {
    fc.assert(
      fc.property(fc.double({ min: 0.1, max: 20, noNaN: true }), offered => {
        // Half of the work is rows, and goes with the ratio; the rest with how often reports come.
        const share = (level: number): number => {
          const { intervalMs, sampleRatio } = wishOf({ level });
          return 0.5 * sampleRatio + 0.5 * Math.min(1, 1000 / Math.max(1000, intervalMs)) * sampleRatio;
        };
        const steps = levels(600, (_, level) => Math.min(1, offered * share(level)));
        const last = steps.slice(-200);
        assert.ok(new Set(last).size === 1, `levels ${[...new Set(last)].join()} under ${offered}`);
      }),
    );
  });

  it('is said to each stream once, again while it holds, and taken back once', () => {
    const wishes = new Wishes<object>();
    const [a, b] = [{}, {}];
    assert.deepEqual(wishes.hints(a, 0), {});
    for (let second = 0; second <= 3; second++) wishes.look(1, second * 1000);
    assert.deepEqual(wishes.hints(a, 3000), { hints: { intervalMs: 2000, sampleRatio: 1 } });
    assert.deepEqual(wishes.hints(a, 4000), {});
    assert.deepEqual(wishes.hints(a, 24_000), { hints: { intervalMs: 2000, sampleRatio: 1 } });
    for (let second = 24; second <= 50; second++) wishes.look(0, second * 1000);
    assert.deepEqual(wishes.hints(a, 50_000), { hints: { intervalMs: 0, sampleRatio: 1 } });
    assert.deepEqual(wishes.hints(a, 90_000), {});
    assert.deepEqual(wishes.hints(b, 90_000), {}, 'one that was told nothing');
  });

  it('goes with the answer to the next report', async () => {
    const clock = new ManualClock();
    const collector = await start([], clock, {}, undefined, () => 1);
    try {
      const stream = collector.report();
      const first = await stream.ask({ hello: hello() });
      assert.equal(first['hints'], undefined);
      const hints = await until('less is asked for', async () => {
        clock.advanceMs(1000);
        const reply = await stream.ask({ heartbeat: {} });
        return reply['hints'] as Plain | undefined;
      });
      assert.deepEqual([hints['intervalMs'], hints['sampleRatio']], [2000, 1]);
      assert.match((await collector.get('/metrics')).text, /^meshpulse_sample_ratio_wished 1$/m);
    } finally {
      await collector.stop();
    }
  });
});
