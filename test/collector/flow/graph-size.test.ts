import assert from 'node:assert/strict';
import { flowPieces } from '../../../collector/src/flow/get-flow.js';
import { FlowGraph } from '../../../collector/src/flow/graph.js';
import { learn, type FlowNode } from '../../../collector/src/flow/learn.js';
import { edgeName, type ShownFlow } from './graph.js';

const T0 = 1_700_000_000_000_000;
const OPERATIONS = 10_000;
const TRANSACTIONS = 275;
const NODES = 401;

/** In a thousand: calls to oneself, calls to someone further up, nodes whose parent never came. */
const SELF = 20;
const BACK = 50;
const MISSING = 30;

/** Learning is promised at 1 s per 10,000 events; on a machine that does other things, five times that. */
const LEARN_MS_PER_10000_MAX = 5000;

interface Plain {
  readonly name: string;
  readonly parent: Plain | undefined;
  readonly node: Omit<FlowNode, 'parent'>;
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

/** One transaction: a tree of calls to any operation, own and earlier ones among them. */
function transaction(random: () => number): Plain[] {
  const pick = (below: number): number => Math.floor(random() * below);
  const made: Plain[] = [];
  const add = (name: string, parent: Plain | undefined): void => {
    const startUs = made.length * 10;
    const failed = pick(10) === 0;
    const [service, operation] = name.split(' ', 2) as [string, string];
    const node = {
      service,
      operation,
      external: false,
      entry: made.length === 0,
      events: 1,
      eventsFailed: Number(failed),
      failed,
      attempts: 1 + pick(3),
      durationUs: 9,
      startUs,
      endUs: startUs + 9,
    };
    made.push({ name, parent, node });
  };
  add('entry /', undefined);
  while (made.length < NODES) {
    const parent = made[pick(made.length)]!;
    const kind = pick(1000);
    const name = kind < SELF ? parent.name : kind < BACK ? (parent.parent ?? parent).name : `s${pick(OPERATIONS)} /`;
    add(name, pick(1000) < MISSING ? undefined : parent);
  }
  return made;
}

/** As rows come: in any order, parents by position. */
function shuffled(all: readonly Plain[], random: () => number): FlowNode[] {
  const order = [...all].map(one => ({ one, by: random() })).sort((a, b) => a.by - b.by);
  const place = new Map(order.map(({ one }, at) => [one, at]));
  return order.map(({ one }) => ({ ...one.node, parent: one.parent === undefined ? -1 : place.get(one.parent)! }));
}

type Counted = Record<string, number>;

/** Counted the plain way. */
function reference(transactions: readonly (readonly Plain[])[]): {
  steps: Map<string, Counted>;
  edges: Map<string, Counted>;
} {
  const steps = new Map<string, Counted>();
  const edges = new Map<string, Counted>();
  const count = (map: Map<string, Counted>, key: string, more: Counted, seen: Set<string>): void => {
    const sum = map.get(key) ?? { transactions: 0 };
    for (const [name, value] of Object.entries(more)) sum[name] = (sum[name] ?? 0) + value;
    if (!seen.has(key)) sum['transactions'] = sum['transactions']! + 1;
    seen.add(key);
    map.set(key, sum);
  };
  for (const all of transactions) {
    const stepsSeen = new Set<string>();
    const edgesSeen = new Set<string>();
    for (const { name, parent, node } of all) {
      const failures = Number(node.failed);
      count(steps, name, { events: 1, failures }, stepsSeen);
      if (parent === undefined) continue;
      let loop = false;
      for (let up: Plain | undefined = parent; up !== undefined && !loop; up = up.parent) loop = up.name === name;
      const key = `${parent.name} -> ${name}`;
      count(edges, key, { calls: 1, failures, attempts: node.attempts }, edgesSeen);
      if (loop) edges.get(key)!['loop'] = 1;
    }
  }
  return { steps, edges };
}

describe('a flow of 10,000 steps and 100,000 edges', function () {
  this.timeout(120_000);

  it('with circles, calls to oneself and missing parents, in any order of rows, is the plain count', () => {
    const random = mulberry(11);
    const transactions = Array.from({ length: TRANSACTIONS }, () => transaction(random));
    const rows = transactions.map(all => shuffled(all, random));
    const graph = new FlowGraph();
    const beganMs = performance.now();
    rows.forEach((nodes, n) => graph.add(learn(nodes), T0 + n));
    const learnMs = performance.now() - beganMs;
    const events = TRANSACTIONS * NODES;

    let longestMs = 0;
    let flows: ShownFlow[] = [];
    const pieces = flowPieces(graph, {}, T0 + TRANSACTIONS);
    for (let done = false; !done;) {
      const fromMs = performance.now();
      const step = pieces.next();
      longestMs = Math.max(longestMs, performance.now() - fromMs);
      done = step.done === true;
      if (step.done === true) flows = step.value.flows as ShownFlow[];
    }
    const perTenThousand = (learnMs * 10_000) / events;
    console.log(
      `      ${JSON.stringify(graph.size)}: ${perTenThousand.toFixed(0)} ms per 10,000 events; ` +
        `longest piece of GetFlow ${longestMs.toFixed(0)} ms`,
    );
    const [flow] = flows;
    const truth = reference(transactions);
    const steps = flow!.steps.map(one => [
      `${one.service} ${one.operation}`,
      { transactions: Number(one.transactions), events: Number(one.events), failures: Number(one.failures) },
    ]);
    assert.deepEqual(new Map(steps as [string, Counted][]), truth.steps);
    const edges = flow!.edges.map(one => {
      const calls = Math.round(one.callsMean * Number(one.transactions));
      const counted: Counted = {
        transactions: Number(one.transactions),
        calls,
        failures: Number(one.failures),
        attempts: Math.round(one.attemptsMean * calls),
        ...(one.loop ? { loop: 1 } : {}),
      };
      return [edgeName(one), counted] as [string, Counted];
    });
    assert.deepEqual(new Map(edges), truth.edges);
    assert.ok(graph.size.steps >= OPERATIONS * 0.9 && graph.size.edges >= 100_000, JSON.stringify(graph.size));
    assert.ok(perTenThousand <= LEARN_MS_PER_10000_MAX, `${perTenThousand} ms`);
  });
});
