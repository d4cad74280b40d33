/** Applications made at random, run as their programs say, and the graph that an onlooker with perfect sight would draw. */
import fc from 'fast-check';
import type { FlowNode } from '../../../collector/src/flow/learn.js';

/** What an operation does: one group after the other, each `repeat` times, its callees at the same time. */
export type Body = readonly { readonly callees: readonly number[]; readonly repeat: number }[];

/** By operation; 0 is the entry. Callees may be any operation: circles end at DEPTH_MAX. */
export type Program = readonly Body[];

const DEPTH_MAX = 4;
const NODES_MAX = 300;

export const programs = (operations: number): fc.Arbitrary<Program> =>
  fc.array(body(operations), { minLength: operations, maxLength: operations });

function body(operations: number): fc.Arbitrary<Body> {
  const callees = fc.uniqueArray(fc.nat(operations - 1), { maxLength: 5 });
  return fc
    .tuple(
      callees,
      fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 5, maxLength: 5 }),
      fc.infiniteStream(fc.integer({ min: 1, max: 3 })),
    )
    .map(([all, sizes, repeats]) => {
      const groups: { callees: number[]; repeat: number }[] = [];
      let rest = all;
      for (let at = 0; rest.length > 0; at++) {
        groups.push({ callees: rest.slice(0, sizes[at]), repeat: repeats.next().value as number });
        rest = rest.slice(sizes[at]);
      }
      return groups;
    });
}

export interface Run {
  readonly operation: number;
  readonly startUs: number;
  endUs: number;
  readonly failed: boolean;
  readonly attempts: number;
  readonly parent: Run | undefined;
  readonly depth: number;
}

/** Runs of one transaction, parents first. `random` gives numbers in [0, 1). */
export function execute(program: Program, random: () => number): Run[] {
  const runs: Run[] = [];
  const run = (operation: number, startUs: number, parent: Run | undefined): Run => {
    const depth = parent === undefined ? 0 : parent.depth + 1;
    const failed = random() < 0.2;
    const self: Run = { operation, startUs, endUs: 0, failed, attempts: 1 + Math.floor(random() * 3), parent, depth };
    runs.push(self);
    let now = startUs + 10 + Math.floor(random() * 100);
    const deeper = depth < DEPTH_MAX && runs.length < NODES_MAX;
    for (const { callees, repeat } of deeper ? program[operation]! : []) {
      for (let round = 0; round < repeat; round++) {
        const parallel = callees.map(callee => run(callee, now + Math.floor(random() * 5), self));
        now = Math.max(now, ...parallel.map(child => child.endUs)) + 10;
      }
    }
    self.endUs = now + 1000;
    return self;
  };
  run(0, 0, undefined);
  return runs;
}

export const service = (operation: number): string => `s${operation % 7}`;
export const operation = (number: number): string => `GET /${number}`;

export function toNodes(runs: readonly Run[], missing: ReadonlySet<Run> = new Set()): FlowNode[] {
  const seen = runs.filter(run => !missing.has(run));
  return seen.map(run => ({
    service: service(run.operation),
    operation: operation(run.operation),
    external: false,
    parent: run.parent === undefined ? -1 : seen.indexOf(run.parent),
    entry: run.parent === undefined,
    events: 1,
    eventsFailed: run.failed ? 1 : 0,
    failed: run.failed,
    attempts: run.attempts,
    durationUs: run.endUs - run.startUs,
    startUs: run.startUs,
    endUs: run.endUs,
  }));
}

export interface ExpectedEdge {
  transactions: number;
  calls: number;
  failures: number;
  attempts: number;
  loop: boolean;
}

export interface Expected {
  readonly steps: Map<string, { transactions: number; events: number; failures: number }>;
  readonly edges: Map<string, ExpectedEdge>;
}

/** Counted the plain way. Runs whose parent was not seen have no edge. */
export function expected(transactions: readonly (readonly Run[])[], missing: ReadonlySet<Run> = new Set()): Expected {
  const result: Expected = { steps: new Map(), edges: new Map() };
  for (const runs of transactions) {
    const steps = new Set<string>();
    const edges = new Set<string>();
    for (const run of runs.filter(one => !missing.has(one))) {
      const key = `${service(run.operation)} ${operation(run.operation)}`;
      const step = result.steps.get(key) ?? { transactions: 0, events: 0, failures: 0 };
      result.steps.set(key, step);
      step.events += 1;
      step.failures += Number(run.failed);
      if (!steps.has(key)) step.transactions += 1;
      steps.add(key);
      if (run.parent === undefined || missing.has(run.parent)) continue;
      const edgeKey = `${service(run.parent.operation)} ${operation(run.parent.operation)} -> ${key}`;
      const edge = result.edges.get(edgeKey) ?? { transactions: 0, calls: 0, failures: 0, attempts: 0, loop: false };
      result.edges.set(edgeKey, edge);
      edge.calls += 1;
      edge.failures += Number(run.failed);
      edge.attempts += run.attempts;
      edge.loop ||= comesBack(run, missing);
      if (!edges.has(edgeKey)) edge.transactions += 1;
      edges.add(edgeKey);
    }
  }
  return result;
}

function comesBack(run: Run, missing: ReadonlySet<Run>): boolean {
  for (let above = run.parent; above !== undefined && !missing.has(above); above = above.parent) {
    if (above.operation === run.operation) return true;
  }
  return false;
}
