/** Transactions that are counted by their shape teach what they would have taught if they had been looked at. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { outline, type ShownFlow } from '../flow/graph.js';
import { CALL, ENTRY, EXTERNAL, PROBE, STREAM, type TestRow } from './rows.js';
import { World } from './world.js';

/** Who calls whom: by service, each with the service that it is called by; 0 is the entry. */
type Tree = readonly number[];

/** Something that is not as usual in one transaction. */
const ODDITIES = [
  'failed',
  'retried',
  'lost',
  'twice',
  'probe',
  'stream',
  'external',
  'entry',
  'other',
  'two',
  'apart',
] as const;
type Oddity = (typeof ODDITIES)[number];

interface Plan {
  readonly tree: number;
  readonly operation: number;
  readonly odd: Oddity | undefined;
  readonly at: number;
}

const tree: fc.Arbitrary<Tree> = fc
  .array(fc.nat(100), { minLength: 1, maxLength: 5 })
  .map(draws => draws.map((draw, at) => draw % (at + 1)));

const plan: fc.Arbitrary<Plan> = fc.record({
  tree: fc.nat(1),
  operation: fc.nat(1),
  odd: fc.oneof(
    { weight: 3, arbitrary: fc.constant(undefined) },
    { weight: 2, arbitrary: fc.constantFrom(...ODDITIES) },
  ),
  at: fc.nat(4),
});

const hex = (n: number): string => n.toString(16);

/** The rows of a transaction, each with the service whose proxy tells it. */
function rowsOf(parents: Tree, { operation, odd, at }: Plan, n: number): [string, TestRow][] {
  const place = at % parents.length;
  const key = hex(n + 1);
  const common = { key, operation: `GET /${operation}` };
  const begin = n * 1000;
  const event = (service: number): string => hex(n * 100 + service + 1);
  const rows: [string, TestRow][] = [
    ['s0', { ...common, event: event(0), start: begin, duration: 900, spanOut: hex(n * 100 + 50), flags: ENTRY }],
  ];
  parents.forEach((parent, index) => {
    const child = index + 1;
    const here = odd !== undefined && index === place ? odd : undefined;
    const status = here === 'failed' ? 503 : 200;
    const name = here === 'other' ? 'GET /other' : common.operation;
    const callee = { ...common, operation: name, event: event(child), status, duration: 400 - child * 10 };
    const flags = here === 'probe' ? PROBE : here === 'stream' ? STREAM : 0;
    const call = { ...callee, start: begin + 10 * child, flags: CALL | flags, spanIn: hex(n * 100 + 50 + parent) };
    const named = { peerCuid: `cuid-s${child}`, peerService: `s${child}.svc`, attempts: here === 'retried' ? 2 : 1 };
    if (here === 'external') {
      rows.push([`s${parent}`, { ...call, flags: CALL | EXTERNAL, peerService: 'bank.example.com:443' }]);
      return;
    }
    rows.push([`s${parent}`, { ...call, ...named }]);
    const answer = { ...callee, start: begin + 10 * child + 1, duration: callee.duration - 5, flags };
    if (here === 'lost') return;
    // The caller's side and the callee's do not have the same id: each looks as if the other were missing.
    if (here === 'apart') answer.event = hex(n * 100 + 70 + child);
    rows.push([`s${child}`, { ...answer, spanOut: hex(n * 100 + 50 + child), peerCuid: `cuid-s${parent}` }]);
    if (here === 'retried') rows.push([`s${child}`, { ...answer, start: begin + 10 * child + 300, duration: 20 }]);
    if (here === 'twice') rows.push(rows.at(-1)!);
    if (here === 'two') {
      const again = { ...call, ...named, event: hex(n * 100 + 90), start: begin + 600, duration: 90 };
      rows.push(
        [`s${parent}`, again],
        [`s${child}`, { ...answer, event: again.event, start: begin + 610, duration: 80 }],
      );
    }
  });
  if (odd === 'entry')
    rows.push(['s9', { ...common, event: hex(n * 100 + 95), start: begin, duration: 5, flags: ENTRY }]);
  return rows;
}

/** All but durations, places among the callees, and what was going on at the same time. */
function counted(world: World): object {
  const { flows } = world.transactions.flow.getFlow({}) as { flows: (ShownFlow & Record<string, unknown>)[] };
  return flows
    .map(flow => ({
      kind: flow.kind,
      transactions: flow.transactions,
      single: flow['singleEntryRatio'],
      steps: flow.steps
        .map(({ service, operation, transactions, events, failures }) =>
          [service, operation, transactions, events, failures].join(),
        )
        .sort(),
      edges: flow.edges
        .map(edge => {
          const { transactions, calls, failures, attempts, loop } = edge as unknown as Record<string, unknown>;
          return [
            outline({ ...flow, edges: [edge] })[0]!.replace(/^\d+ /, ''),
            transactions,
            calls,
            failures,
            attempts,
            loop,
          ].join();
        })
        .sort(),
    }))
    .sort((a, b) => (a.kind < b.kind ? -1 : 1));
}

describe('transactions of a known shape', () => {
  it('teach the same counts without a look, among others that need one', () => {
    let skimmed = 0;
    fc.assert(
      fc.property(
        fc.tuple(tree, tree),
        fc.array(plan, { minLength: 20, maxLength: 60 }),
        fc.infiniteStream(fc.nat()),
        (trees, plans, order) => {
          const skimming = new World({ looksPerSecond: 0 });
          const looking = new World({ looksPerSecond: 1e9 });
          const rows = plans.flatMap((one, n) => rowsOf(trees[one.tree]!, one, n));
          const shuffled = rows.map(row => ({ row, by: order.next().value as number })).sort((a, b) => a.by - b.by);
          for (const world of [skimming, looking]) {
            for (const { row } of shuffled) world.rows(...row);
            world.pass(15);
          }
          assert.equal(looking.transactions.counters['skimmed'], 0);
          skimmed += skimming.transactions.counters['skimmed']!;
          assert.deepEqual(counted(skimming), counted(looking));
          assert.equal(skimming.transactions.unlinked, looking.transactions.unlinked);
          assert.deepEqual(skimming.list({ pageSize: 100 }).transactions, looking.list({ pageSize: 100 }).transactions);
        },
      ),
      { numRuns: 150 },
    );
    assert.ok(skimmed > 500, `only ${skimmed} were counted by their shape`);
  });
});
