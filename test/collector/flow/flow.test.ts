import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Durations } from '../../../collector/src/flow/durations.js';
import { getFlow } from '../../../collector/src/flow/get-flow.js';
import { edgesOf, FlowGraph } from '../../../collector/src/flow/graph.js';
import { learn, type FlowNode } from '../../../collector/src/flow/learn.js';
import { places } from '../../../collector/src/flow/order.js';
import { restoreTo, snapshotOf } from '../../../collector/src/flow/snapshot.js';
import { edgeName, outline, type ShownFlow } from './graph.js';
import { execute, expected, operation, programs, service, toNodes, type Program, type Run } from './programs.js';

const T0 = 1_700_000_000_000_000;
const DAY_US = 24 * 3_600_000_000;

function shown(graph: FlowGraph, request: object = {}, nowUs = T0): ShownFlow[] {
  return getFlow(graph, request, nowUs).flows as ShownFlow[];
}

/** A node of `service OPERATION`, as `name start-end`. */
function node(name: string, parent: number, startUs = 0, endUs = 100, more: Partial<FlowNode> = {}): FlowNode {
  const base = { external: false, events: 1, eventsFailed: 0, failed: false, attempts: 1, durationUs: endUs - startUs };
  return { ...base, service: name, operation: 'GET /', parent, entry: parent < 0, startUs, endUs, ...more };
}

/** Looks at three items, reserves, charges, then mail and shipping at the same time. */
const CHECKOUT: FlowNode[] = [
  node('gateway', -1, 0, 1000),
  node('shop', 0, 1, 999),
  node('items', 1, 10, 20),
  node('items', 1, 21, 30),
  node('items', 1, 31, 40),
  node('reserve', 1, 50, 60),
  node('charge', 1, 70, 170, { attempts: 2 }),
  node('mail', 1, 200, 300),
  node('ship', 1, 201, 280),
  node('bank', 6, 80, 90, { external: true }),
];

const FAILED_CHECKOUT: FlowNode[] = [
  ...CHECKOUT.slice(0, 6),
  node('charge', 1, 70, 170, { failed: true, eventsFailed: 1, attempts: 2 }),
  node('release', 1, 180, 190),
];

describe('the flow of a few transactions', () => {
  it('is the true graph: order, fan-out, loops and branches', () => {
    const graph = new FlowGraph();
    for (let n = 0; n < 3; n++) graph.add(learn(CHECKOUT), T0 + n);
    for (let n = 0; n < 2; n++) graph.add(learn(FAILED_CHECKOUT), T0 + 10 + n);
    const [flow] = shown(graph);
    assert.deepEqual(outline(flow!), [
      '1 charge GET / -> bank GET /',
      '1 gateway GET / -> shop GET /',
      '1 shop GET / -> items GET / x3',
      '2 shop GET / -> reserve GET /',
      '3 shop GET / -> charge GET /',
      '4 shop GET / -> mail GET / parallel',
      '4 shop GET / -> release GET /',
      '4 shop GET / -> ship GET / parallel',
    ]);
    assert.equal(flow!.transactions, '5');
    assert.equal(flow!.singleEntryRatio, 1);
    const charge = flow!.edges.find(edge => edge.toService === 'charge')!;
    assert.deepEqual([charge.failures, charge.attemptsMean, charge.transactions], ['2', 2, '5']);
    assert.equal(flow!.steps.find(step => step.service === 'bank')?.external, true);
    assert.equal(flow!.steps.find(step => step.service === 'items')?.events, '15');
  });

  it('does not change its mind for one odd run', () => {
    const graph = new FlowGraph();
    const sequence = (a: number, b: number): FlowNode[] => [
      node('e', -1, 0, 99),
      node('a', 0, a, a + 5),
      node('b', 0, b, b + 5),
    ];
    for (let n = 0; n < 5; n++) graph.add(learn(sequence(10, 20)), T0);
    graph.add(learn(sequence(20, 10)), T0);
    graph.add(learn(sequence(10, 11)), T0);
    assert.deepEqual(outline(shown(graph)[0]!), ['1 e GET / -> a GET /', '2 e GET / -> b GET /']);
  });

  it('takes calls that only touch as one after the other', () => {
    const graph = new FlowGraph();
    graph.add(learn([node('e', -1, 0, 999), node('a', 0, 10, 101), node('b', 0, 100, 200)]), T0);
    assert.deepEqual(outline(shown(graph)[0]!), ['1 e GET / -> a GET /', '2 e GET / -> b GET /']);
  });

  it('is the program that made them: random ones with circles, from five transactions, in any order of rows', () => {
    fc.assert(
      fc.property(
        programs(12),
        fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true })),
        fc.noShrink(fc.integer()),
        (program, stream, seed) => {
          const random = (): number => stream.next().value as number;
          const graph = new FlowGraph();
          const transactions = Array.from({ length: 5 }, () => execute(program, random));
          transactions.forEach((runs, n) => graph.add(learn(shuffled(toNodes(runs), seed + n)), T0 + n));
          const [flow] = shown(graph);
          assertCounts(flow!, transactions, new Set());
          assertPlaces(flow!, program);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('lacks nothing but the missing when parents are missing', () => {
    fc.assert(
      fc.property(programs(8), fc.integer({ min: 1, max: 1 << 30 }), (program, seed) => {
        const random = mulberry(seed);
        const graph = new FlowGraph();
        const transactions = Array.from({ length: 5 }, () => execute(program, random));
        const missing = new Set(transactions.flatMap(runs => runs.slice(1).filter(() => random() < 0.15)));
        transactions.forEach((runs, n) => graph.add(learn(shuffled(toNodes(runs, missing), seed + n)), T0 + n));
        assertCounts(shown(graph)[0]!, transactions, missing);
      }),
      { numRuns: 200 },
    );
  });

  it('is learned of nothing without an entry, and of each entry on its own', () => {
    assert.deepEqual(learn([node('a', -1, 0, 1, { entry: false })]), []);
    const graph = new FlowGraph();
    for (let n = 0; n < 98; n++) graph.add(learn([node('a', -1)]), T0);
    for (let n = 0; n < 2; n++) graph.add(learn([node('a', -1), node('a', -1), node('b', 1)]), T0);
    const [flow] = shown(graph);
    assert.equal(flow!.transactions, '102');
    assert.equal(flow!.singleEntryRatio, 0.98);
    for (let n = 0; n < 100; n++) graph.add(learn([node('a', -1)]), T0);
    assert.equal(shown(graph)[0]!.singleEntryRatio, 1, 'it looks back on 100 traces');
  });

  it('learns 10,000 events within a second, of 10,000 steps and 100,000 edges', () => {
    const graph = new FlowGraph();
    const random = mulberry(7);
    const transactions = Array.from({ length: 250 }, () => {
      const nodes = [node('s0', -1, 0, 1e6)];
      while (nodes.length < 401) {
        const start = nodes.length * 10;
        nodes.push(node(`s${Math.floor(random() * 10_000)}`, Math.floor(random() * nodes.length), start, start + 9));
      }
      return nodes;
    });
    const began = performance.now();
    for (const nodes of transactions) graph.add(learn(nodes), T0);
    const took = performance.now() - began;
    assert.ok(graph.size.steps > 9000 && graph.size.edges > 90_000, JSON.stringify(graph.size));
    assert.ok(took < 10_000, `100,000 events took ${took.toFixed(0)} ms`);
  });
});

describe('the flow over time', () => {
  it('survives a restart as it was', () => {
    fc.assert(
      fc.property(programs(6), fc.integer({ min: 1, max: 1 << 30 }), (program, seed) => {
        const random = mulberry(seed);
        const graph = new FlowGraph();
        for (let n = 0; n < 4; n++) graph.add(learn(toNodes(execute(program, random))), T0 + n);
        const copy = new FlowGraph();
        assert.ok(restoreTo(copy, JSON.parse(JSON.stringify(snapshotOf(graph)))));
        assert.deepEqual(shown(copy), shown(graph));
        assert.deepEqual(copy.size, graph.size);
        const more = learn(toNodes(execute(program, random)));
        graph.add(more, T0 + 9);
        copy.add(more, T0 + 9);
        assert.deepEqual(shown(copy), shown(graph));
      }),
      { numRuns: 30 },
    );
  });

  for (const state of [undefined, null, 7, 'x', {}, { version: 2, kinds: [] }, { version: 1 }]) {
    it(`begins with nothing when it is given ${JSON.stringify(state)}`, () => {
      const graph = new FlowGraph();
      graph.add(learn(CHECKOUT), T0);
      assert.equal(restoreTo(graph, state), false);
      assert.equal(shown(graph).length, 1);
    });
  }

  it('forgets edges, steps and kinds that are gone, and only those', () => {
    const graph = new FlowGraph();
    graph.add(learn([node('e', -1), node('old', 0, 10, 20), node('kept', 0, 30, 40)]), T0);
    graph.add(learn([node('other', -1)]), T0);
    graph.add(learn([node('e', -1), node('kept', 0, 10, 20), node('new', 0, 30, 40)]), T0 + DAY_US);
    graph.forget(T0 + 1);
    const [flow, ...rest] = shown(graph);
    assert.deepEqual(rest, []);
    assert.deepEqual(outline(flow!), ['1 e GET / -> kept GET /', '2 e GET / -> new GET /']);
    assert.deepEqual(
      flow!.steps.map(step => step.service),
      ['e', 'kept', 'new'],
    );
    assert.deepEqual(graph.size, { kinds: 1, steps: 3, edges: 2 });
  });

  it('shows only what was seen within the window', () => {
    const graph = new FlowGraph();
    graph.add(learn([node('e', -1), node('old', 0)]), T0);
    graph.add(learn([node('e', -1), node('new', 0)]), T0 + 60e6);
    assert.deepEqual(outline(shown(graph, { windowSeconds: 30 }, T0 + 60e6)[0]!), ['1 e GET / -> new GET /']);
    assert.deepEqual(shown(graph, { windowSeconds: 30 }, T0 + 600e6), []);
    assert.equal(shown(graph, { kind: 'e GET /' }).length, 1);
    assert.equal(shown(graph, { kind: 'x GET /' }).length, 0);
  });

  it('keeps its bounds: the kind unseen for longest goes first, then the oldest edges of the last', () => {
    const graph = new FlowGraph({ kindsMax: 3, stepsMax: 8, edgesMax: 6 });
    for (const kind of ['a', 'b', 'c', 'a', 'd']) graph.add(learn([node(kind, -1), node('x', 0)]), T0);
    assert.deepEqual([...graph.kinds.keys()], ['c GET /', 'a GET /', 'd GET /']);
    assert.equal(graph.dropped, 1);
    graph.add(
      learn([node('a', -1), ...Array.from({ length: 20 }, (_, n) => node(`y${n}`, 0, n * 10, n * 10 + 5))]),
      T0,
    );
    assert.ok(graph.size.steps <= 8 && graph.size.edges <= 6, JSON.stringify(graph.size));
    const kind = graph.kinds.get('a GET /')!;
    assert.equal(edgesOf(kind).length, graph.size.edges);
  });
});

describe('durations', () => {
  it('give quantiles within a tenth', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 4_294_967_295 }), { minLength: 1, maxLength: 500 }), values => {
        const durations = new Durations();
        for (const value of values) durations.add(value);
        const sorted = [...values].sort((a, b) => a - b);
        for (const q of [0.5, 0.99]) {
          const exact = sorted[Math.max(0, Math.ceil(q * values.length) - 1)]!;
          assert.ok(Math.abs(durations.quantile(q) - exact) <= 0.1 * exact, `${q}: ${durations.quantile(q)}, ${exact}`);
        }
      }),
    );
  });

  it('weigh the recent past more', () => {
    const durations = new Durations();
    for (let n = 0; n < 20_000; n++) durations.add(1000);
    for (let n = 0; n < 20_000; n++) durations.add(9000);
    assert.ok(durations.quantile(0.5) > 8000);
    assert.ok(durations.snapshot().length <= 2);
    assert.equal(new Durations().quantile(0.5), 0);
  });
});

describe('places', () => {
  it('do not run in circles when the votes do', () => {
    const beats = (a: number, b: number) =>
      (a + 1) % 3 === b ? { before: 3, after: 0, overlap: 0 } : { before: 0, after: 3, overlap: 0 };
    assert.deepEqual(
      places([1, 2, 3], beats).map(({ order }) => order),
      [1, 2, 3],
    );
  });
});

function assertCounts(flow: ShownFlow, transactions: readonly (readonly Run[])[], missing: ReadonlySet<Run>): void {
  const truth = expected(transactions, missing);
  const steps = flow.steps.map(step => [
    `${step.service} ${step.operation}`,
    { transactions: Number(step.transactions), events: Number(step.events), failures: Number(step.failures) },
  ]);
  assert.deepEqual(Object.fromEntries(steps), Object.fromEntries(truth.steps));
  const edges = flow.edges.map(edge => [
    edgeName(edge),
    {
      transactions: Number(edge.transactions),
      calls: Math.round(edge.callsMean * Number(edge.transactions)),
      failures: Number(edge.failures),
      attempts: Math.round(edge.attemptsMean * edge.callsMean * Number(edge.transactions)),
      loop: edge.loop,
    },
  ]);
  assert.deepEqual(Object.fromEntries(edges), Object.fromEntries(truth.edges));
}

/** Each callee stands in the place of its group, alone or not as the program says. */
function assertPlaces(flow: ShownFlow, program: Program): void {
  for (const [at, groups] of program.entries()) {
    groups.forEach(({ callees }, index) => {
      for (const callee of callees) {
        const edge = flow.edges.find(
          one => edgeName(one) === `${service(at)} ${operation(at)} -> ${service(callee)} ${operation(callee)}`,
        );
        if (edge === undefined) continue; // not reached
        assert.equal(edge.order, index + 1, `order of ${edgeName(edge)}`);
        assert.equal(edge.parallel, callees.length > 1, `parallel of ${edgeName(edge)}`);
      }
    });
  }
}

function mulberry(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** The same nodes in another order, with their parents' new positions. */
function shuffled(nodes: readonly FlowNode[], seed: number): FlowNode[] {
  const random = mulberry(seed);
  const order = nodes.map((_, at) => ({ at, by: random() })).sort((a, b) => a.by - b.by);
  const place = new Map(order.map(({ at }, to) => [at, to]));
  return order.map(({ at }) => ({ ...nodes[at]!, parent: place.get(nodes[at]!.parent) ?? -1 }));
}
