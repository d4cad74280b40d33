import assert from 'node:assert/strict';
import fc from 'fast-check';
import { NONE_DECLINED } from '../../../collector/src/rollback/outcome.js';
import { PLAN_STEPS_MAX, planOf, type PlannedStep, type PlanRules } from '../../../collector/src/rollback/plan.js';
import {
  acknowledge,
  addressedTo,
  dueSteps,
  EXPIRE_US,
  expireSteps,
  isUnjudged,
  planState,
  SAME_LIFE_US,
  SETTLE_US,
  updatePlan,
} from '../../../collector/src/rollback/signals.js';
import { emptyRecord } from '../../../collector/src/rollback/record.js';
import type { VerdictRecord } from '../../../collector/src/rollback/verdicts.js';
import { NOW, view, type TestStep } from './views.js';

const ENTRY: TestStep = { name: 'gateway.shop POST /checkout', at: 0, outcome: 'running' };
const RULES: PlanRules = {
  declined: NONE_DECLINED,
  safe: new Set(),
  decidedUs: NOW + 1e6,
  forward: new Set(),
  alone: true,
};

const names = (steps: readonly PlannedStep[]): string[] => steps.map(step => step.operation.replace('POST /', ''));

function plan(steps: readonly TestStep[], rules: Partial<PlanRules> = {}): PlannedStep[] {
  return planOf(view([ENTRY, ...steps]), { ...RULES, ...rules }).steps;
}

const step = (name: string, at: number, more: Partial<TestStep> = {}): TestStep => ({
  name: `${name}.shop POST /${name}`,
  by: 'gateway.shop',
  at,
  ...more,
});

describe('the rollback plan', () => {
  it('undoes the newest first', () => {
    assert.deepEqual(names(plan([step('a', 0), step('b', 20), step('c', 40)])), ['c', 'b', 'a']);
  });

  it('knows what had to come after what: later calls of one parent, and what a step caused', () => {
    const steps = plan([
      step('a', 0, { ms: 50 }),
      step('inner', 10, { by: 'a.shop', parent: 1, ms: 5 }),
      step('b', 60),
      step('beside', 5, { ms: 100 }),
    ]);
    const after: unknown = Object.fromEntries(
      steps.map((one): [string | undefined, string[]] => [
        names([one])[0],
        names(steps.filter(other => one.after.includes(other.eventId))).sort(),
      ]),
    );
    assert.deepEqual(after, { a: ['b', 'inner'], inner: ['b'], b: [], beside: [] });
  });

  it('holds completed and unknown steps that change something, and nothing else', () => {
    const steps: TestStep[] = [
      step('done', 0),
      step('failed', 20, { outcome: 'failed' }),
      step('timedOut', 40, { outcome: 'failed', unknown: true }),
      step('cancelled', 60, { outcome: 'cancelled' }),
      step('declined', 80, { outcome: 'declined', http: 404 }),
      step('refused', 100, { outcome: 'refused' }),
      step('running', 120, { outcome: 'running' }),
      { name: 'stock.shop GET /stock', by: 'gateway.shop', at: 140 },
      { name: 'stock.shop /shop.Stock/Reserve', by: 'gateway.shop', at: 160 },
    ];
    const found = plan(steps, { decidedUs: NOW + 1e9 });
    assert.deepEqual(names(found), ['/shop.Stock/Reserve', 'cancelled', 'timedOut', 'done']);
    assert.deepEqual(
      found.map(one => one.unknown),
      [false, true, true, false],
    );
    const safe = new Set(['done.shop POST /done', 'stock.shop /shop.Stock/Reserve']);
    assert.deepEqual(names(plan(steps, { safe })), ['cancelled', 'timedOut']);
  });

  it('leaves out what compensates: begun after the verdict, and no part of the normal course', () => {
    const steps = [step('a', 0), step('refund', 50), step('late', 60)];
    const rules = { decidedUs: NOW + 40_000, forward: new Set(['late.shop POST /late']) };
    assert.deepEqual(names(plan(steps, rules)), ['late', 'a']);
    assert.deepEqual(names(plan(steps, { ...rules, alone: false })), ['a'], 'it may be of another request');
  });

  it('is bounded, and says how much is left out', () => {
    const many = view([ENTRY, ...Array.from({ length: 100 }, (_, n) => step('a', n * 20))]);
    const { steps, omitted } = planOf(many, { ...RULES, decidedUs: NOW + 1e9 });
    assert.deepEqual([steps.length, omitted], [PLAN_STEPS_MAX, 100 - PLAN_STEPS_MAX]);
  });

  it('never undoes a cause before its effects, whatever the tree', () => {
    const tree = fc.array(fc.record({ parent: fc.nat(), at: fc.nat(500), ms: fc.integer({ min: 1, max: 80 }) }), {
      minLength: 1,
      maxLength: 25,
    });
    fc.assert(
      fc.property(tree, nodes => {
        const at: number[] = [0];
        const steps = nodes.map((node, n) => {
          const parent = node.parent % (n + 1);
          at.push(at[parent]! + node.at);
          return step(`s${n}`, at[n + 1]!, { parent, ms: node.ms, by: `p${parent}.shop` });
        });
        const seen = view([ENTRY, ...steps]);
        const { steps: found } = planOf(seen, { ...RULES, decidedUs: NOW + 1e9 });
        assert.equal(found.length, nodes.length);
        const place = new Map(found.map((one, n) => [one.eventId, n]));
        for (const one of found) for (const id of one.after) assert.ok(place.get(id)! < place.get(one.eventId)!);
        seen.steps.forEach(({ parent, eventId }) => {
          const cause = seen.steps[parent];
          if (cause?.call === true) assert.ok(place.get(eventId)! < place.get(cause.eventId)!);
        });
      }),
      { numRuns: 200 },
    );
  });
});

describe('signals', () => {
  const DECIDED = NOW + 100_000;

  function record(steps: readonly TestStep[], more: Partial<VerdictRecord> = {}): VerdictRecord {
    const seen = view([ENTRY, ...steps]);
    const made = { ...emptyRecord(seen, DECIDED, 30_000), mode: 'enforce' as const, ...more };
    const { steps: planned, omitted } = planOf(seen, { ...RULES, decidedUs: DECIDED });
    updatePlan(made, planned, omitted);
    return made;
  }

  const told = (one: VerdictRecord, nowUs: number): string[] => dueSteps(one, nowUs).map(due => due.operation);

  it('wait until what was done before the verdict is known, then for all later steps', () => {
    const one = record([step('a', 0), step('b', 20)]);
    assert.deepEqual(told(one, DECIDED + SETTLE_US - 1), []);
    assert.deepEqual(told(one, DECIDED + SETTLE_US), ['POST /b']);
    assert.deepEqual(told(one, DECIDED + SETTLE_US + 1), []);
    assert.equal(acknowledge(one.steps[0]!, 'x', DECIDED + 1e6), true);
    assert.deepEqual(told(one, DECIDED + 1e6), ['POST /a']);
    assert.equal(planState(one), 'ROLLING_BACK');
    acknowledge(one.steps[1]!, 'x', DECIDED + 1e6);
    assert.equal(planState(one), 'ROLLED_BACK');
  });

  it('are repeated after 2, 4, 8 and so on up to 30 s, and given up after 15 min', () => {
    const one = record([step('a', 0), step('b', 20)]);
    const from = DECIDED + SETTLE_US;
    const times: number[] = [];
    for (let s = 0; s < 100; s++) if (told(one, from + s * 1e6).length > 0) times.push(s);
    assert.deepEqual(times, [0, 2, 6, 14, 30, 60, 90]);
    assert.equal(expireSteps(one, from + EXPIRE_US - 1), false);
    assert.equal(expireSteps(one, from + EXPIRE_US), true);
    assert.equal(planState(one), 'STUCK');
    assert.deepEqual(told(one, from + EXPIRE_US), ['POST /a'], 'what waited for it is told then');
  });

  it('go to the life that did it, and after two seconds to any of its service', () => {
    const one = record([step('a', 0)]);
    const [due] = dueSteps(one, DECIDED + SETTLE_US);
    assert.equal(addressedTo(due!, 'cuid-a.shop', DECIDED + SETTLE_US), true);
    assert.equal(addressedTo(due!, 'other', DECIDED + SETTLE_US + SAME_LIFE_US - 1), false);
    assert.equal(addressedTo(due!, 'other', DECIDED + SETTLE_US + SAME_LIFE_US), true);
    assert.equal(addressedTo(due!, '', DECIDED + SETTLE_US), true);
  });

  it('are not sent in observe, when held out, or when the transaction succeeded', () => {
    const later = DECIDED + 1e6;
    assert.deepEqual(told(record([step('a', 0)], { mode: 'observe' }), later), []);
    assert.deepEqual(told(record([step('a', 0)], { heldOut: true }), later), []);
    assert.deepEqual(told(record([step('a', 0)], { succeeded: true }), later), []);
    assert.deepEqual(told(record([step('a', 0)], { reason: 'learned' }), later), []);
    assert.deepEqual(told(record([step('a', 0)], { reason: 'learned', succeeded: false }), later), ['POST /a']);
  });

  it('have one id a step, keep their state when late steps come, and have one effect of 10,000 acknowledgements', () => {
    const one = record([step('a', 0)]);
    dueSteps(one, DECIDED + SETTLE_US);
    const { signalId, eventId } = one.steps[0]!;
    let effects = 0;
    for (let n = 0; n < 10_000; n++) if (acknowledge(one.steps[0]!, `x${n}`, DECIDED + n)) effects += 1;
    assert.deepEqual([effects, one.steps[0]!.acknowledgedBy], [1, 'x0']);
    const late = { eventId: 'f'.repeat(16), service: 'b.shop', operation: 'POST /b', cuid: '', unknown: false };
    const known = { ...late, eventId, service: 'a.shop', operation: 'POST /a', doneUs: 0, after: [late.eventId] };
    assert.equal(updatePlan(one, [{ ...late, doneUs: 0, after: [] }, known], 0), true);
    assert.deepEqual(
      one.steps.map(({ state }) => state),
      ['waiting', 'done'],
    );
    assert.equal(one.steps[1]!.signalId, signalId);
    assert.equal(updatePlan(one, [{ ...late, doneUs: 0, after: [] }, known], 0), false);
  });

  it('are bounded, however many steps come late', () => {
    const one = record([]);
    const late = (n: number): PlannedStep => {
      const eventId = n.toString(16).padStart(16, '0');
      return { eventId, service: 'a.shop', operation: 'POST /a', cuid: '', unknown: false, doneUs: n, after: [] };
    };
    let told = 0;
    for (let n = 1; n <= 1000; n++) {
      const newest = Array.from({ length: Math.min(n, PLAN_STEPS_MAX) }, (_, at) => late(n - at));
      updatePlan(one, newest, n - newest.length);
      told += dueSteps(one, DECIDED + SETTLE_US).length;
    }
    assert.deepEqual([one.steps.length, told, one.omitted], [PLAN_STEPS_MAX, PLAN_STEPS_MAX, 1000 - PLAN_STEPS_MAX]);
  });

  it('of a learned verdict that nobody judges are given up', () => {
    const one = record([step('a', 0)], { reason: 'learned' });
    assert.deepEqual([isUnjudged(one, DECIDED + 14 * 60e6), isUnjudged(one, DECIDED + 15 * 60e6)], [false, true]);
    assert.equal(planState(one), 'DECIDED');
  });
});
