import assert from 'node:assert/strict';
import fc from 'fast-check';
import { edgeName, outline, type ShownFlow } from '../flow/graph.js';
import { execute, expected, operation, programs, service, type Run } from '../flow/programs.js';
import { CALL, ENTRY, EXTERNAL, PROBE, running, instance, STREAM, type TestRow } from './rows.js';
import { World } from './world.js';

const id = (n: number): string => (n + 1).toString(16).padStart(32, '0');
const flows = (world: World): ShownFlow[] => (world.transactions.flow.getFlow({}) as { flows: ShownFlow[] }).flows;

/** The rows that the proxies of a run tell: one life a service, each with a clock of its own. */
function rowsOf(runs: readonly Run[], transaction: number, skew: (service: string) => number): [string, TestRow][] {
  const common = { key: id(transaction) };
  const eventId = (run: Run): string => (transaction * 1000 + runs.indexOf(run) + 1).toString(16);
  const span = (run: Run): string => (0xabc000 + runs.indexOf(run)).toString(16);
  const begin = transaction * 1_000_000;
  return runs.flatMap((run): [string, TestRow][] => {
    const at = service(run.operation);
    const row = {
      ...common,
      event: eventId(run),
      operation: operation(run.operation),
      duration: run.endUs - run.startUs,
      status: run.failed ? 500 : 200,
    };
    if (run.parent === undefined) {
      return [[at, { ...row, start: begin + run.startUs + skew(at), spanOut: span(run), flags: ENTRY }]];
    }
    const caller = service(run.parent.operation);
    const call = { ...row, start: begin + run.startUs + skew(caller), spanIn: span(run.parent), flags: CALL };
    const event = { ...row, start: begin + run.startUs + skew(at), duration: row.duration - 5, spanOut: span(run) };
    return [
      [caller, { ...call, attempts: run.attempts, peerCuid: `cuid-${at}` }],
      [at, { ...event, peerCuid: `cuid-${caller}` }],
    ];
  });
}

describe('learning from rows', () => {
  it('finds the graph of random applications, whatever the order of rows and the clocks of proxies', () => {
    fc.assert(
      fc.property(
        programs(9),
        fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true })),
        (program, stream) => {
          const random = (): number => stream.next().value as number;
          const world = new World();
          const skews = Array.from({ length: 7 }, () => Math.floor(random() * 2e6));
          const transactions = Array.from({ length: 3 }, () => execute(program, random).slice(0, 400));
          const rows = transactions.flatMap((runs, n) => rowsOf(runs, n, name => skews[Number(name.slice(1))]!));
          const shuffled = rows.map(row => ({ row, by: random() })).sort((a, b) => a.by - b.by);
          for (const { row } of shuffled) world.rows(...row);
          world.pass(4);
          const truth = expected(transactions);
          const [flow] = flows(world);
          assert.deepEqual(
            Object.fromEntries(
              flow!.edges.map(edge => [edgeName(edge), [edge.transactions, edge.failures, edge.loop]]),
            ),
            Object.fromEntries(
              [...truth.edges].map(([name, edge]) => [
                name,
                [String(edge.transactions), String(edge.failures), edge.loop],
              ]),
            ),
          );
          world.pass(8);
          assert.equal(world.transactions.unlinked, 0);
        },
      ),
      { numRuns: 60 },
    );
  });

  const shop = (world: World, n: number, more: Partial<TestRow> = {}): void => {
    const ids = { key: id(n) };
    const start = n * 1_000_000;
    const eventId = (at: number): string => (n * 16 + at + 1).toString(16);
    world.rows('shop', {
      ...ids,
      event: eventId(0),
      start,
      duration: 1000,
      operation: 'POST /buy',
      flags: ENTRY,
      ...more,
    });
    world.rows('shop', {
      ...ids,
      event: eventId(1),
      start: start + 10,
      duration: 100,
      operation: 'POST /pay',
      peerService: 'bank.example.com:443',
      flags: CALL | EXTERNAL,
    });
  };

  it('names a callee without sidecar by its host, marked external', () => {
    const world = new World();
    for (let n = 0; n < 5; n++) shop(world, n);
    world.pass(4);
    const [flow] = flows(world);
    assert.deepEqual(outline(flow!), ['1 shop POST /buy -> bank.example.com POST /pay']);
    assert.equal(flow!.steps.find(step => step.service === 'bank.example.com')?.external, true);
    assert.equal(flow!.transactions, '5');
  });

  it('takes a call that did not arrive as one to the service it was meant for', () => {
    const world = new World();
    world.rows('pay.x', { key: id(99), event: 'ffff', start: 0, duration: 5, flags: ENTRY });
    world.rows('shop', { key: id(1), event: '1', start: 0, duration: 1000, operation: 'POST /buy', flags: ENTRY });
    world.rows('shop', {
      key: id(1),
      event: '2',
      start: 10,
      duration: 100,
      operation: 'POST /pay',
      peerService: 'pay.x.svc.cluster.local',
      status: 503,
      flags: CALL,
    });
    world.pass(4);
    const flow = flows(world).find(one => one.kind === 'shop POST /buy');
    assert.deepEqual(
      flow?.steps.map(step => [step.service, step.external]),
      [
        ['pay.x', false],
        ['shop', false],
      ],
    );
  });

  it('learns nothing from probes and streams, and not before the entry has ended', () => {
    const world = new World();
    shop(world, 1, { flags: ENTRY | PROBE });
    shop(world, 2, { flags: ENTRY | STREAM, duration: 0 });
    const half = { keyHi: id(3).slice(0, 16), keyLo: id(3).slice(16) };
    world.transactions.inFlight(instance('shop'), [
      { producer: 1n, omitted: 0, items: [running('777', { ...half, flags: ENTRY })] },
    ]);
    world.pass(12);
    assert.deepEqual(flows(world), []);
  });

  describe('from thinned rows', () => {
    const entry = (n: number): TestRow => ({
      key: id(n),
      event: `${n}1`,
      start: n,
      duration: 100,
      operation: 'POST /buy',
      flags: ENTRY,
    });
    const call: Partial<TestRow> = { flags: CALL, operation: 'POST /pay', peerCuid: 'cuid-pay' };
    const counts = (world: World): unknown[] => {
      const [flow] = flows(world);
      return [flow?.transactions, flow?.transactionsAbstained, flow?.steps.map(step => step.service)];
    };

    it('abstains, and says so', () => {
      const world = new World();
      world.thinned('shop', entry(1));
      world.pass(4);
      assert.deepEqual(counts(world), ['0', '1', []]);
    });

    it('abstains where a callee thins, whether or not its row is there', () => {
      for (const there of [true, false]) {
        const world = new World();
        world.thinned('pay', { ...entry(7), flags: 0, start: 0, key: id(99) });
        world.rows('shop', entry(1), { ...entry(1), ...call, event: '12' });
        if (there) world.thinned('pay', { ...entry(1), event: '12', operation: 'POST /pay', flags: 0 });
        world.pass(4);
        assert.deepEqual(counts(world), ['0', '1', []]);
      }
    });

    it('learns from the others, and again once all rows come', () => {
      const world = new World();
      world.rows('shop', entry(1));
      world.pass(4);
      world.thinned('shop', entry(2));
      world.pass(4);
      world.rows('shop', entry(3));
      world.pass(4);
      assert.deepEqual(counts(world), ['2', '1', ['shop']]);
      const restored = new World();
      restored.transactions.flow.restore(JSON.parse(JSON.stringify(world.transactions.flow.snapshot())));
      assert.deepEqual(counts(restored), ['2', '1', ['shop']]);
    });
  });

  it('counts a transaction once, although its rows are taken twice around a restart', () => {
    const before = new World();
    for (let n = 0; n < 5; n++) shop(before, n);
    before.pass(4);
    shop(before, 5); // not learned from when the snapshot is taken
    const state: unknown = JSON.parse(JSON.stringify(before.transactions.flow.snapshot()));
    const after = new World();
    for (let n = 0; n < 6; n++) shop(after, n);
    after.transactions.flow.restore(state);
    shop(after, 6);
    after.pass(4);
    assert.equal(flows(after)[0]?.transactions, '7');
  });

  it('is rebuilt from rows when the snapshot cannot be used', () => {
    const world = new World();
    for (let n = 0; n < 5; n++) shop(world, n);
    world.transactions.flow.restore({ graph: { version: 99 } });
    world.pass(4);
    assert.equal(flows(world)[0]?.transactions, '5');
  });

  it('forgets an edge that the application lost after the stated age', () => {
    const world = new World({ retainFlowMs: 60_000 });
    shop(world, 0);
    world.pass(30);
    world.rows('shop', {
      key: id(7),
      event: '7f',
      start: 30_000_000,
      duration: 1000,
      operation: 'POST /buy',
      flags: ENTRY,
    });
    world.pass(20);
    assert.equal(flows(world)[0]?.edges.length, 1);
    world.pass(30);
    assert.deepEqual(flows(world)[0]?.edges, []);
    world.pass(60);
    assert.deepEqual(flows(world), []);
  });
});
