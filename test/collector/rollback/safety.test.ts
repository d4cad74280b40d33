import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Learner } from '../../../collector/src/rollback/learner.js';
import { NO_CONTROLS } from '../../../collector/src/rollback/modes.js';
import { decide, type Policy } from '../../../collector/src/rollback/policy.js';
import { parsePolicy } from '../../../collector/src/rollback/policy-file.js';
import { asOf } from '../../../collector/src/rollback/simulate.js';
import type { View } from '../../../collector/src/rollback/view.js';
import { NOW, view, type TestStep } from './views.js';

/** What an application does when a step fails for good. */
const HANDLERS = ['fatal', 'caught', 'fallback'] as const;

interface Stage {
  readonly handler: (typeof HANDLERS)[number];
  readonly failRatio: number;
  /** Repeats above the proxy. */
  readonly retries: number;
  /** Calls started beside it, 15 ms apart, whatever becomes of it. */
  readonly branches: number;
  /** The same operation is called again when it is undone, and never else. */
  readonly compensates: boolean;
}

type App = readonly Stage[];

const app: fc.Arbitrary<App> = fc.array(
  fc.record({
    handler: fc.constantFrom(...HANDLERS),
    failRatio: fc.constantFrom(0, 0.05, 0.3, 0.6),
    retries: fc.nat(2),
    branches: fc.nat(3),
    compensates: fc.boolean(),
  }),
  { minLength: 1, maxLength: 5 },
);

interface Run {
  readonly view: View;
  readonly success: boolean;
  readonly refused: readonly string[];
  readonly compensations: number;
  readonly doomedUs: number | undefined;
}

/** The same for a seed, whether refusals come between or not. */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    return ((state ^ (state >>> 13)) >>> 0) / 2 ** 32;
  };
}

const CALL_MS = 10;
const BY = 'gateway.shop';
const name = (op: string): string => `${op}.shop POST /${op}`;

function execute(
  stages: App,
  seed: number,
  judge: (soFar: View, atUs: number) => ReadonlySet<string> | undefined,
): Run {
  // Drawn beforehand: what happens must not depend on how many questions were asked.
  const draw = random(seed);
  const luck = stages.map(({ retries }) => Array.from({ length: retries + 1 }, () => draw()));
  const calls: TestStep[] = [];
  const refused: string[] = [];
  let [at, doomedMs, compensations] = [1, Number.POSITIVE_INFINITY, 0];
  let list: ReadonlySet<string> = new Set();
  const make = (op: string, beginMs: number, fails: boolean): boolean => {
    const isRefused = beginMs > doomedMs && list.has(name(op));
    if (isRefused) refused.push(op);
    calls.push({
      name: name(op),
      by: BY,
      at: beginMs,
      ms: isRefused ? 0 : CALL_MS,
      outcome: isRefused ? 'refused' : fails ? 'failed' : 'ok',
    });
    return !isRefused && !fails;
  };
  const whole = (state: View['state']): View =>
    view([{ name: 'gateway.shop POST /checkout', at: 0, ms: at }, ...calls], { state });
  const ask = (ms: number): void => {
    if (doomedMs !== Number.POSITIVE_INFINITY) return;
    const listed = judge(asOf(whole('RUNNING'), NOW + ms * 1000), NOW + ms * 1000);
    if (listed === undefined) return;
    [list, doomedMs] = [listed, ms];
  };
  const done: number[] = [];
  let success = true;
  for (const [n, stage] of stages.entries()) {
    const begin = at;
    let [good, beside] = [false, 0];
    const besides = (untilMs: number): void => {
      for (; beside < stage.branches && begin + 5 + 15 * beside <= untilMs; beside++)
        make(`beside${n}_${beside}`, begin + 5 + 15 * beside, false);
    };
    for (let attempt = 0; attempt <= stage.retries && !good; attempt++) {
      good = make(`step${n}`, at, luck[n]![attempt]! < stage.failRatio);
      at += CALL_MS + 1;
      besides(at - 1);
      if (!good) ask(at - 1);
    }
    if (!good && stage.handler === 'fallback') good = make(`fallback${n}`, at, false);
    at += CALL_MS + 1;
    besides(Number.POSITIVE_INFINITY);
    if (good) done.push(n);
    else if (stage.handler === 'fatal') {
      success = false;
      for (const m of done.reverse().filter(k => stages[k]!.compensates)) {
        compensations += 1;
        make(`undo${m}`, at, false);
        at += CALL_MS + 1;
      }
      break;
    }
  }
  at += 100;
  const doomedUs = doomedMs === Number.POSITIVE_INFINITY ? undefined : NOW + doomedMs * 1000;
  return { view: whole(success ? 'SUCCEEDED' : 'FAILED'), success, refused, compensations, doomedUs };
}

const never = (): undefined => undefined;

/** Enforce on an application that was observed for a while, the same transactions again without it. */
function pairs(stages: App, policy: Policy, seed: number, runs: number): { off: Run; on: Run }[] {
  const learner = new Learner(() => policy.declined);
  for (let n = 0; n < 300; n++) learner.add(execute(stages, seed + n, never).view, NOW);
  const judge = (soFar: View, atUs: number): ReadonlySet<string> | undefined => {
    const { verdict } = decide(policy, learner.get(soFar.kind), soFar, NO_CONTROLS, atUs);
    return verdict === undefined || verdict.heldOut ? undefined : new Set(verdict.forward.map(({ edge }) => edge.step));
  };
  return Array.from({ length: runs }, (_, n) => ({
    off: execute(stages, seed + 10_000 + n, never),
    on: execute(stages, seed + 10_000 + n, judge),
  }));
}

describe('early rollback, on the same transactions with and without it', () => {
  it('breaks none that succeeds, refuses no compensation and nothing of those that are healthy or healed', () => {
    let [refusals, doomed, undone] = [0, 0, 0];
    fc.assert(
      fc.property(app, fc.nat(1e6), (stages, seed) => {
        for (const { off, on } of pairs(stages, parsePolicy('mode: enforce'), seed, 60)) {
          assert.equal(on.success, off.success);
          assert.equal(on.compensations, off.compensations);
          for (const op of on.refused) assert.match(op, /^(beside|step)/, `${op} was refused`);
          if (off.success) assert.deepEqual(on.refused, []);
          refusals += on.refused.length;
          undone += on.compensations;
          doomed += on.doomedUs === undefined ? 0 : 1;
        }
      }),
      { numRuns: 60, seed: 7 },
    );
    assert.ok(doomed > 100 && refusals > 50 && undone > 50, `${doomed} doomed, ${refusals} refused, ${undone} undone`);
  });

  it('refuses most of what is needless once a step is named', () => {
    const stages: App = [
      { handler: 'fatal', failRatio: 0, retries: 0, branches: 0, compensates: true },
      { handler: 'fatal', failRatio: 0.3, retries: 0, branches: 4, compensates: false },
      { handler: 'fatal', failRatio: 0, retries: 0, branches: 0, compensates: false },
    ];
    const policy = parsePolicy('mode: enforce\nsteps: [{service: step1.shop, operation: POST /step1, failures: 1}]');
    let [needless, refused] = [0, 0];
    for (const { off, on } of pairs(stages, policy, 1, 300)) {
      assert.equal(on.success, off.success);
      if (on.doomedUs === undefined) continue;
      const late = off.view.steps.filter(step => step.service.startsWith('beside') && step.beganUs > on.doomedUs!);
      needless += late.length;
      refused += on.refused.length;
    }
    assert.ok(needless > 100, String(needless));
    assert.equal(refused, needless);
  });
});
