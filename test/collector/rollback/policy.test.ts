import assert from 'node:assert/strict';
import fc from 'fast-check';
import { FAILURES_MAX, SUCCESSES_MAX, THINNED_US } from '../../../collector/src/rollback/kind-stats.js';
import { Learner } from '../../../collector/src/rollback/learner.js';
import { effectiveMode, MODE, MODES, NO_CONTROLS, type Controls } from '../../../collector/src/rollback/modes.js';
import { decide, isHeldOut, type Decision, type Policy } from '../../../collector/src/rollback/policy.js';
import { DEFAULT_POLICY, parsePolicy } from '../../../collector/src/rollback/policy-file.js';
import type { View } from '../../../collector/src/rollback/view.js';
import { wilsonLower } from '../../../collector/src/rollback/wilson.js';
import {
  checkout,
  failing,
  KIND,
  NOTIFY,
  NOW,
  PAY,
  RELEASE,
  RESERVE,
  SHIP,
  taught,
  view,
  type TestStep,
} from './views.js';

/** What both `reserve` and `release` call. */
const ADJUST = 'stock.shop POST /adjust';

const JUST_AFTER = NOW + 31_000;

const on = (learner: Learner, policy = DEFAULT_POLICY, seen: View = failing(), controls = NO_CONTROLS): Decision =>
  decide(policy, learner.get(seen.kind), seen, controls, JUST_AFTER);

const why = (decision: Decision): string => (decision.verdict === undefined ? decision.why : 'decided');
const forward = ({ verdict }: Decision): string[] => (verdict?.forward ?? []).map(({ edge }) => edge.step).sort();

const named = (extra = ''): Policy =>
  parsePolicy(`mode: enforce\nsteps:\n  - service: payment.shop\n    operation: POST /charge\n${extra}`);

describe('the Wilson lower bound', () => {
  for (const [hits, trials, decides] of [
    [35, 35, true],
    [52, 53, true],
    [34, 34, false],
    [51, 53, false],
    [20, 20, false],
    [0, 0, false],
  ] as const) {
    it(`${decides ? 'reaches' : 'stays below'} 0.9 at ${hits} of ${trials}`, () => {
      assert.equal(wilsonLower(hits, trials) >= 0.9, decides);
    });
  }

  it('lies between 0 and the share that was seen, and rises with hits', () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.nat(1000), (a, b) => {
        const [hits, trials] = [Math.min(a, b), Math.max(a, b, 1)];
        const bound = wilsonLower(hits, trials);
        assert.ok(bound >= 0 && bound <= hits / trials + 1e-12);
        if (hits < trials) assert.ok(wilsonLower(hits + 1, trials) > bound);
      }),
    );
  });
});

describe('a learned verdict', () => {
  for (const [fatal, harmless, decides] of [
    [35, 0, true],
    [52, 1, true],
    [34, 0, false],
    [51, 2, false],
  ] as const) {
    it(`${decides ? 'is made' : 'is not made'} after ${fatal} of ${fatal + harmless} final failures were fatal`, () => {
      assert.equal(why(on(taught(100, { harmless, failed: fatal }))), decides ? 'decided' : 'below the bound');
    });
  }

  it('agrees with the bound for every history', () => {
    fc.assert(
      fc.property(fc.nat(80), fc.nat(12), (fatal, harmless) => {
        const decided = on(taught(120, { failed: fatal, harmless })).verdict !== undefined;
        assert.equal(decided, wilsonLower(fatal, fatal + harmless) >= 0.9);
      }),
      { numRuns: 60 },
    );
  });

  it('is never made about a step that fails often but harmlessly', () => {
    assert.equal(why(on(taught(200, { harmless: 300 }))), 'below the bound');
  });

  it('is let go once the application is repaired: five successes of those held out are enough', () => {
    const learner = taught(200, { failed: 53 });
    assert.equal(why(on(learner)), 'decided');
    for (let n = 0; n < 5; n++) learner.add(checkout('harmless'), NOW);
    assert.equal(why(on(learner)), 'below the bound');
  });

  it('rests on the last 24 hours', () => {
    const learner = new Learner();
    for (let n = 0; n < 60; n++) learner.add(checkout('failed'), NOW - 25 * 3600 * 1e6);
    for (let n = 0; n < 100; n++) learner.add(checkout('ok'), NOW);
    assert.equal(why(on(learner)), 'below the bound');
  });

  it('is held out by a hash of the key, for about one in twenty', () => {
    let held = 0;
    for (let n = 0; n < 20_000; n++) if (isHeldOut(n.toString(16).padStart(32, '0'))) held += 1;
    assert.ok(held > 850 && held < 1150, `${held} of 20000`);
    const learner = taught(100, { failed: 60 });
    for (let n = 0; n < 100; n++) {
      const seen = failing(NOW, { key: n.toString(16).padStart(32, '0') });
      assert.equal(on(learner, DEFAULT_POLICY, seen).verdict?.heldOut, isHeldOut(seen.key));
      assert.equal(on(learner, named(), seen).verdict?.heldOut, false);
    }
  });

  it('names what it rests on', () => {
    const { verdict } = on(taught(100, { failed: 52, harmless: 1 }));
    for (const fact of ['seen=53', 'fatal=52', 'failures=1', 'failures_limit=1', 'traces=153', 'mode=observe']) {
      assert.ok(verdict!.evidence.includes(fact), `${fact} in ${verdict!.evidence.join(' ')}`);
    }
  });
});

describe('a verdict is not made', () => {
  const learner = taught(150, { failed: 60 });
  const cases: [string, string, View][] = [
    ['while the kind is not known', 'kind not known', failing(NOW, { kind: '', kinds: [] })],
    ['about a kind never seen', 'too few traces', failing(NOW, { kind: 'x GET /' })],
    ['with two entries', 'more than one entry', failing(NOW, { entries: 2 })],
    ['after the end', 'ended', failing(NOW, { state: 'FAILED' })],
    ['on thinned rows', 'thinned', failing(NOW, { thinned: true })],
    ['on an old failure', 'no fresh final failure', failing(NOW - 11e6)],
    [
      'without a failure',
      'no fresh final failure',
      view([
        { name: 'gateway.shop POST /checkout', at: 0, outcome: 'running' },
        { name: PAY, by: 'gateway.shop', at: 1 },
      ]),
    ],
    [
      'on a cancelled call',
      'no fresh final failure',
      view([
        { name: 'g GET /', at: 0 },
        { name: PAY, by: 'g', at: 1, outcome: 'cancelled' },
      ]),
    ],
    [
      'on our own refusal',
      'no fresh final failure',
      view([
        { name: 'g GET /', at: 0 },
        { name: PAY, by: 'g', at: 1, outcome: 'refused' },
      ]),
    ],
    [
      'on a declined call',
      'no fresh final failure',
      view([
        { name: 'g GET /', at: 0 },
        { name: PAY, by: 'g', at: 1, outcome: 'declined', http: 402 },
      ]),
    ],
  ];
  for (const [title, expected, seen] of cases) {
    for (const policy of [DEFAULT_POLICY, named()]) {
      it(`${title}, ${policy.steps.length > 0 ? 'named' : 'learned'}`, () =>
        assert.equal(why(on(learner, policy, seen)), expected));
    }
  }

  it('with 99 traces, but with 100', () => {
    assert.equal(why(on(taught(99), named())), 'too few traces');
    assert.equal(why(on(taught(100), named())), 'decided');
  });

  it('when more than 1 % of the traces had several entries', () => {
    const batch = (): View => checkout('ok', NOW, { entries: 3, kinds: [KIND, KIND, KIND] });
    const some = taught(198);
    some.add(batch(), NOW);
    some.add(batch(), NOW);
    assert.equal(why(on(some, named())), 'decided');
    some.add(batch(), NOW);
    assert.equal(why(on(some, named())), 'kind has several entries');
  });

  it('when the second entries come after the trace was learned from', () => {
    const late = taught(200);
    for (let n = 0; n < 3; n++) late.secondEntry(KIND, KIND);
    assert.equal(why(on(late, named())), 'kind has several entries');
  });

  it('for ten minutes after rows of the kind were thinned', () => {
    const thinned = taught(150);
    thinned.add(checkout('ok', NOW, { thinned: true }), NOW);
    assert.equal(why(on(thinned, named())), 'thinned');
    const later = JUST_AFTER + THINNED_US;
    assert.equal(why(decide(named(), thinned.get(KIND), failing(later - 31_000), NO_CONTROLS, later)), 'decided');
  });
});

describe('final failures', () => {
  const repeated = (times: number, healed: boolean): View =>
    view(
      [
        { name: 'gateway.shop POST /checkout', at: 0 },
        ...Array.from({ length: times }, (_, n) => ({
          name: PAY,
          by: 'gateway.shop',
          at: 10 + 20 * n,
          outcome: 'failed' as const,
        })),
        ...(healed ? [{ name: PAY, by: 'gateway.shop', at: 10 + 20 * times }] : []),
      ],
      { state: 'SUCCEEDED' },
    );
  const now = (seen: View, learner: Learner, policy = named()): string =>
    why(decide(policy, learner.get(KIND), { ...seen, state: 'RUNNING' }, NO_CONTROLS, NOW + 200_000));

  it('are waited for as often as the application has repeated the call', () => {
    const learner = taught(120);
    learner.add(repeated(2, true), NOW);
    assert.equal(now(repeated(2, false), learner), 'it may be repeated');
    assert.equal(now(repeated(3, false), learner), 'decided');
  });

  it('are counted by the policy where it says so', () => {
    const learner = taught(120);
    learner.add(repeated(2, true), NOW);
    assert.equal(now(repeated(1, false), learner, named('    failures: 1\n')), 'decided');
    assert.equal(now(repeated(1, false), learner, named('    failures: 2\n')), 'it may be repeated');
  });

  it('are not what a repeat has healed', () => {
    assert.equal(now(repeated(1, true), taught(120)), 'no fresh final failure');
  });

  it('of calls side by side are not repeats of each other', () => {
    const both = view([
      { name: 'gateway.shop POST /checkout', at: 0 },
      { name: PAY, by: 'gateway.shop', at: 10, outcome: 'failed' },
      { name: PAY, by: 'gateway.shop', at: 12, outcome: 'failed' },
    ]);
    const learner = taught(120);
    learner.add(repeated(1, true), NOW);
    assert.equal(now(both, learner), 'it may be repeated');
  });

  it('include declined codes that the policy lists', () => {
    const declined = view([
      { name: 'gateway.shop POST /checkout', at: 0 },
      { name: PAY, by: 'gateway.shop', at: 10, outcome: 'declined', http: 402 },
    ]);
    assert.equal(now(declined, taught(120)), 'no fresh final failure');
    assert.equal(
      now(declined, taught(120), { ...named(), declined: { http: new Set([402]), grpc: new Set() } }),
      'decided',
    );
  });
});

describe('forward operations', () => {
  it('are what follows in at least 20 good transactions, and nothing else', () => {
    const learner = taught(100, { failed: 60 });
    assert.deepEqual(forward(on(learner)), [NOTIFY, SHIP]);
  });

  for (const [times, listed] of [
    [19, []],
    [20, ['rare.shop POST /x']],
  ] as const) {
    it(`${listed.length === 0 ? 'do not ' : ''}hold what was seen ${times} times`, () => {
      const learner = new Learner();
      const steps = [
        { name: 'gateway.shop POST /checkout', at: 0 },
        { name: PAY, by: 'gateway.shop', at: 10 },
      ];
      const rare = { name: 'rare.shop POST /x', by: 'gateway.shop', at: 60 };
      for (let n = 0; n < 100; n++) {
        learner.add(view(n < times ? [...steps, rare] : steps, { state: 'SUCCEEDED' }), NOW);
      }
      assert.deepEqual(forward(on(learner, named())), listed);
    });
  }

  it('go on being forward when branches run on after the failure', () => {
    assert.deepEqual(forward(on(taught(100, { parallel: 60 }))), [NOTIFY, SHIP]);
  });

  it('never hold what is mainly seen after failures, however often some successes had it too', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 35, max: 100 }), (odd, failures) => {
        const learner = taught(150 - odd, { failed: failures });
        for (let n = 0; n < odd; n++) {
          learner.add(
            view(
              [
                { name: 'gateway.shop POST /checkout', at: 0 },
                { name: PAY, by: 'gateway.shop', at: 10 },
                { name: RELEASE, by: 'gateway.shop', at: 30 },
              ],
              { state: 'SUCCEEDED' },
            ),
            NOW,
          );
        }
        const listed = forward(on(learner, named()));
        assert.ok(!listed.includes(RELEASE) && !listed.includes(PAY) && !listed.includes(RESERVE), listed.join());
      }),
      { numRuns: 40 },
    );
  });

  /** Money and goods side by side; `after` is what the application does once payment has failed. */
  const steps = (pay: 'ok' | 'failed'): TestStep[] => [
    { name: 'gateway.shop POST /checkout', at: 0, ms: 100 },
    { name: PAY, by: 'gateway.shop', at: 5, ms: 20, outcome: pay },
    { name: RESERVE, by: 'gateway.shop', at: 10, ms: 8 },
    { name: ADJUST, by: 'stock.shop', at: 12, ms: 4, parent: 2 },
    { name: SHIP, by: 'gateway.shop', at: 20 },
  ];
  const branches = (after: readonly TestStep[], more: readonly TestStep[] = [], failures = 60): Learner => {
    const learner = new Learner();
    for (let n = 0; n < 100; n++) learner.add(view([...steps('ok'), ...more], { state: 'SUCCEEDED' }), NOW);
    const failed = [...steps('failed'), ...more, ...after];
    for (let n = 0; n < failures; n++) learner.add(view(failed, { state: 'FAILED' }), NOW);
    return learner;
  };

  it('leave out what a compensation needs, though the normal course needs it too', () => {
    assert.deepEqual(forward(on(branches([]))), [SHIP, ADJUST, RESERVE]);
    const release = { name: RELEASE, by: 'gateway.shop', at: 40 };
    const adjust = { name: ADJUST, by: 'stock.shop', at: 42, ms: 4, parent: 5 };
    assert.deepEqual(forward(on(branches([release, adjust]))), [SHIP, RESERVE]);
  });

  it('are told only to those who see the step fail until its failure has been seen three times', () => {
    for (const [failures, listed] of [
      [2, [SHIP, RESERVE]],
      [3, [SHIP, ADJUST, RESERVE]],
    ] as const) {
      assert.deepEqual(forward(on(branches([], [], failures), named())), listed);
    }
  });

  it('leave out what compensations were refused when nobody had seen them before', () => {
    const learner = branches([], [], 3);
    const release: TestStep = { name: RELEASE, by: 'gateway.shop', at: 40, outcome: 'failed' };
    const adjust: TestStep = { name: ADJUST, by: 'stock.shop', at: 42, ms: 1, parent: 5, outcome: 'refused' };
    learner.addEnforced(view([...steps('failed'), release, adjust], { state: 'FAILED' }), NOW);
    assert.deepEqual(forward(on(learner, named())), [SHIP, RESERVE]);
    const before = learner.get(KIND)!.evidence(PAY, NOW);
    assert.deepEqual(before, { failures: 3, fatal: 3 }, 'it is no evidence');
  });

  it('leave out what a compensation needed once, though other failures have pushed it out of sight', () => {
    const release = { name: RELEASE, by: 'gateway.shop', at: 40 };
    const adjust = { name: ADJUST, by: 'stock.shop', at: 42, ms: 4, parent: 5 };
    const learner = branches([release, adjust], [], 3);
    assert.deepEqual(forward(on(learner, named())), [SHIP, RESERVE]);
    for (let n = 0; n < FAILURES_MAX; n++) learner.add(view(steps('failed'), { state: 'FAILED' }), NOW);
    assert.deepEqual(forward(on(learner, named())), [SHIP, RESERVE]);
  });

  it('leave out an operation that takes back what it did', () => {
    assert.deepEqual(forward(on(branches([{ name: RESERVE, by: 'gateway.shop', at: 40 }]))), [SHIP, ADJUST]);
  });

  it('hold what is done several times when all goes well', () => {
    const again = { name: SHIP, by: 'gateway.shop', at: 35 };
    assert.deepEqual(forward(on(branches([], [again]))), [SHIP, ADJUST, RESERVE]);
  });

  it('leave out what nothing leads to from the entry: consumers of messages use the sender’s ids', () => {
    const consumer = { name: NOTIFY, by: 'indexer.shop', at: 50, parent: -1 };
    assert.deepEqual(forward(on(branches([], [consumer]))), [SHIP, ADJUST, RESERVE]);
    const both = { name: SHIP, by: 'gateway.shop', at: 50, parent: -1 };
    assert.deepEqual(forward(on(branches([], [both]))), [ADJUST, RESERVE]);
  });

  it('leave out what the policy protects', () => {
    const policy = parsePolicy('mode: enforce\nnever: [mail.shop POST /notify]');
    assert.deepEqual(forward(on(taught(100, { failed: 60 }), policy)), [SHIP]);
  });

  it('leave out services where something weaker holds', () => {
    const policy = parsePolicy('mode: enforce');
    const override = {
      scope: 'service/mail.shop',
      mode: 'observe' as const,
      untilUs: JUST_AFTER + 1e6,
      reason: '',
      actor: '',
    };
    const kill = { scope: 'service/shipping.shop', sinceUs: 0, reason: '', actor: '' };
    const learner = taught(100, { failed: 60 });
    assert.deepEqual(forward(on(learner, policy, failing(), { overrides: [override], kills: [] })), [SHIP]);
    assert.deepEqual(forward(on(learner, policy, failing(), { overrides: [], kills: [kill] })), [NOTIFY]);
  });

  it('are bounded in what they rest on', () => {
    const learner = taught(SUCCESSES_MAX * 3);
    const state = learner.snapshot() as { kinds: { successes: unknown[] }[] };
    assert.equal(state.kinds[0]!.successes.length, SUCCESSES_MAX);
  });
});

describe('the mode in force', () => {
  const place = { kind: KIND, service: 'payment.shop', caller: 'gateway.shop' };
  const scopes = [
    'mesh',
    'namespace/shop',
    'service/payment.shop',
    'service/gateway.shop',
    `kind/${KIND}`,
    'service/other.shop',
    'namespace/else',
    'kind/x',
  ];
  const controls = fc.record({
    overrides: fc.array(
      fc.record({
        scope: fc.constantFrom(...scopes),
        mode: fc.constantFrom(...MODES),
        untilUs: fc.constantFrom(NOW - 1, NOW + 1),
        reason: fc.constant(''),
        actor: fc.constant(''),
      }),
    ),
    kills: fc.array(
      fc.record({
        scope: fc.constantFrom(...scopes),
        sinceUs: fc.constant(0),
        reason: fc.constant(''),
        actor: fc.constant(''),
      }),
    ),
  });

  it('is the weakest of policy and what applies; a kill beats everything', () => {
    fc.assert(
      fc.property(fc.constantFrom(...MODES), controls, (policy, given: Controls) => {
        const mode = effectiveMode(policy, given, place, NOW);
        const applies = (scope: string): boolean => scopes.indexOf(scope) < 5;
        if (given.kills.some(kill => applies(kill.scope))) return assert.equal(mode, 'off');
        const live = given.overrides.filter(one => one.untilUs > NOW && applies(one.scope)).map(one => MODE[one.mode]);
        return assert.equal(MODE[mode], Math.min(MODE[policy], ...live));
      }),
    );
  });

  it('is recorded with the verdict, and `off` decides nothing', () => {
    const learner = taught(100, { failed: 60 });
    for (const mode of MODES) {
      const decision = on(learner, parsePolicy(`mode: ${mode}`));
      assert.equal(decision.verdict?.mode ?? 'off', mode);
    }
    assert.equal(
      on(
        learner,
        parsePolicy('mode: observe\nsteps: [{service: payment.shop, operation: POST /charge, mode: enforce}]'),
      ).verdict?.mode,
      'observe',
    );
  });
});

describe('what was learned', () => {
  it('is the same after a restart', () => {
    const learner = taught(150, { failed: 60, harmless: 2 });
    const restored = new Learner();
    restored.restore(JSON.parse(JSON.stringify(learner.snapshot())));
    assert.deepEqual(restored.snapshot(), learner.snapshot());
    assert.deepEqual(forward(on(restored)), forward(on(learner)));
    assert.equal(why(on(restored)), why(on(learner)));
  });

  it('is not taken from a snapshot of another layout', () => {
    const learner = new Learner();
    for (const state of [null, {}, { version: 9, kinds: [] }, 'x']) learner.restore(state);
    assert.deepEqual([...learner.all()], []);
  });
});
