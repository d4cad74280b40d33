/** What has to hold for the same transactions without and with early rollback. */
import assert from 'node:assert/strict';
import { compare, type Comparison } from './compare.js';
import type { Run } from './run.js';
import { runInThread } from './worker.js';

export interface SuiteOptions {
  readonly seed: number;
  readonly count: number;
  readonly learn: number;
  /** As RunOptions.quiet. */
  readonly quiet?: boolean;
  readonly timeoutMs: number;
}

/** Faults shown when there are many. */
const SHOWN_MAX = 20;

export function pairsSuite({ seed, count, learn, quiet = false, timeoutMs }: SuiteOptions): void {
  describe(`${String(count)} transactions, off and enforce${quiet ? ', of steps that never failed before' : ''}`, () => {
    let off: Run;
    let enforce: Run;
    let pairs: Comparison;

    before(async function () {
      this.timeout(timeoutMs);
      const options = { seed, count, learn, quiet };
      [off, enforce] = await Promise.all([
        runInThread({ ...options, mode: 'off' }),
        runInThread({ ...options, mode: 'enforce' }),
      ]);
      pairs = compare(off, enforce);
    });

    it('all end, and many fail', () => {
      assert.equal(off.results.length, count);
      assert.equal(enforce.results.length, count);
      assert.ok(pairs.failing > (count - learn) / 10, `${String(pairs.failing)} failed`);
    });

    it('succeed, leave behind and refund the same; nothing healthy, shared or undoing is refused', () => {
      const { faults } = pairs;
      assert.deepEqual(faults.slice(0, SHOWN_MAX), [], `${String(faults.length)} faults`);
      assert.ok(pairs.refunds > count / 100, `${String(pairs.refunds)} refunds`);
    });

    it('are doomed by name and by what was learned, never wrongly', () => {
      // A named step dooms from its first failure on, a learned one after many.
      for (const reason of quiet ? ['named'] : ['named', 'learned']) assert.ok(enforce.verdicts.has(reason), reason);
      // Of two requests under one id, one may fail and end before the other succeeds.
      const single = off.results.filter(({ scenario }) => scenario !== 'again');
      const wrong = new Set(enforce.wrong);
      assert.deepEqual(
        single.filter(({ traceId }) => wrong.has(traceId)).map(({ index }) => index),
        [],
      );
      assert.equal(off.verdicts.size + off.signals.size, 0);
    });

    it('need less work when they fail', () => {
      const { forward, refused, touched } = pairs;
      const avoided = forward.off - forward.enforce;
      const operations = [...refused].map(([operation, times]) => `${operation} ${String(times)}`).join(', ');
      console.log(
        `      ${String(pairs.failing)} failed; ${String(avoided)} of their ${String(forward.off)} forward requests ` +
          `were avoided; refused: ${operations}; refunds: ${String(pairs.refunds)}`,
      );
      assert.ok(avoided > 0);
      for (const scenario of quiet ? ['checkout'] : ['checkout', 'booking']) assert.ok(touched.has(scenario), scenario);
      const others = [...touched.keys()].filter(
        scenario => !['checkout', 'booking', 'subscribe', 'again'].includes(scenario),
      );
      assert.deepEqual(others, []);
    });
  });
}
