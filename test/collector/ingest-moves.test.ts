/** Replicas that ask streams to go elsewhere: who asks, how many, and where it ends. */
import assert from 'node:assert/strict';
import { Moves, surplus } from '../../collector/src/ingest/moves.js';
import { Random } from '../filter/random.js';

describe('streams of several replicas', () => {
  const rows: readonly [string, number, readonly number[], number][] = [
    ['a replica alone has no more than its share', 30_000, [], 0],
    ['as many as another', 100, [100], 0],
    ['a little more than another is chance', 105, [95], 0],
    ['one more of few is chance', 3, [1], 0],
    ['all of them: a quarter of what is too much', 20, [0], 3],
    ['fewer than the mean', 0, [20], 0],
    ['many: not all at once', 30_000, [0, 0], 500],
    ['two that have too much ask on their own', 50, [50, 0], 5],
  ];
  for (const [what, own, others, expected] of rows)
    it(`${what}: ${own} and ${others.join(', ')} -> ${expected}`, () => assert.equal(surplus(own, others), expected));

  for (const choice of ['in turn', 'at random'] as const)
    for (const start of [
      [300, 0],
      [300, 0, 0],
      [150, 150, 0],
      [5000, 4000, 0],
    ])
      it(`end near the mean and then stay: ${start.join(', ')} (proxies choose ${choice})`, () => {
        const random = new Random(7);
        const counts = [...start];
        const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length;
        let turn = 0;
        let moved = 0;
        const rounds = 60;
        for (let round = 0; round < rounds; round++) {
          const asks = counts.map((own, i) =>
            surplus(
              own,
              counts.filter((_, j) => j !== i),
            ),
          );
          if (round >= rounds - 10) moved += asks.reduce((sum, ask) => sum + ask, 0);
          for (const [from, ask] of asks.entries()) {
            for (let i = 0; i < ask; i++) {
              const to = choice === 'at random' ? random.below(counts.length) : turn++ % counts.length;
              counts[from]! -= 1;
              counts[to]! += 1;
            }
          }
        }
        assert.ok(Math.max(...counts) <= mean * 1.1 + 2, counts.join(' and '));
        assert.equal(moved, 0, 'nothing moves any more');
      });

  it('asks the oldest first, and each once', () => {
    const moves = new Moves<{ readonly name: string }>({ monotonicMs: () => 0, nowUs: () => 0 });
    const [a, b, c] = ['a', 'b', 'c'].map(name => ({ name }));
    const sessions = new Set([a!, b!, c!]);
    const names = (count: number): string[] => moves.choose(sessions, count).chosen.map(({ name }) => name);
    assert.deepEqual(names(2), ['a', 'b']);
    assert.deepEqual(names(2), ['c']);
    assert.deepEqual(names(2), []);
    assert.ok(moves.choose(sessions, 0).hints.drainMs! > 0);
    assert.deepEqual(moves.hints(), {}, 'the others are not asked');
  });

  it('says what is left while it leaves, and never 0', () => {
    let nowMs = 1000;
    const moves = new Moves({ monotonicMs: () => nowMs, nowUs: () => 0 });
    assert.deepEqual(moves.leave(5000), { drainMs: 5000 });
    nowMs += 4000.5;
    assert.deepEqual(moves.hints(), { hints: { drainMs: 1000 } });
    nowMs += 60_000;
    assert.deepEqual(moves.hints(), { hints: { drainMs: 1 } });
  });
});
