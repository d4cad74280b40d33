import assert from 'node:assert/strict';
import fc from 'fast-check';
import { DownTable } from '../../../collector/src/rollback/down.js';
import { nameHash } from '../../../collector/src/rollback/hash.js';

interface Said {
  readonly reporter: string;
  readonly workload: string;
  readonly calls: number;
  readonly failures: number;
}

const said = (reporter: string, calls: number, failures: number, workload = reporter): Said => ({
  reporter,
  workload,
  calls,
  failures,
});

function judge(all: readonly Said[], table = new DownTable(), nowMs = 0): boolean {
  for (const one of all) table.note('payment', one.reporter, one.workload, one.calls, one.failures, nowMs);
  table.judge(nowMs);
  return table.isDown('payment');
}

describe('services that are down mesh-wide', () => {
  const cases: readonly [string, boolean, readonly Said[]][] = [
    [
      'three of three from two workloads',
      true,
      [said('a', 20, 20, 'x'), said('b', 20, 18, 'x'), said('c', 20, 20, 'y')],
    ],
    ['two thirds', true, [said('a', 20, 20), said('b', 20, 20), said('c', 20, 0)]],
    ['one of three: outvoted', false, [said('a', 50, 50), said('b', 20, 0), said('c', 20, 0)]],
    ['one of two', false, [said('a', 50, 50), said('b', 20, 0)]],
    ['the only two there are', true, [said('a', 20, 20), said('b', 20, 20)]],
    ['the only one there is', true, [said('a', 20, 20)]],
    [
      'one workload, where there are others',
      false,
      [said('a', 20, 20, 'x'), said('b', 20, 20, 'x'), said('c', 19, 0, 'y')],
    ],
    ['too few calls', false, [said('a', 19, 19), said('b', 19, 19), said('c', 19, 19)]],
    ['less than nine in ten', false, [said('a', 20, 17), said('b', 20, 17), said('c', 20, 17)]],
    ['nothing heard', false, []],
  ];
  for (const [title, down, all] of cases) {
    it(`${down ? 'are' : 'are not'} told by ${title}`, () => assert.equal(judge(all), down));
  }

  it('are up again when less than half of the calls fail, or when nobody calls', () => {
    const failing = [said('a', 20, 20), said('b', 20, 20), said('c', 20, 20)];
    const table = new DownTable();
    assert.equal(judge(failing, table), true);
    assert.equal(judge([said('a', 50, 0)], table, 1000), true, '60 of 110 fail');
    assert.equal(judge([said('b', 20, 0)], table, 2000), false, '60 of 130 fail');
    const silent = new DownTable();
    assert.equal(judge(failing, silent), true);
    assert.equal(judge([], silent, 9999), true);
    assert.equal(judge([], silent, 10_000), false);
  });

  it('are told of when they change, with what that rests on, and only then', () => {
    const table = new DownTable();
    for (const name of ['a', 'b', 'c']) table.note('payment', name, name, 20, 20, 0);
    const evidence = ['reporters=3', 'voters=3', 'against=3', 'calls=60', 'failures=60'];
    assert.deepEqual(table.judge(0), [{ callee: 'payment', down: true, evidence }]);
    assert.deepEqual(table.judge(250), []);
    assert.deepEqual(table.down(), ['payment']);
    assert.deepEqual(table.reportersOf('payment'), ['a', 'b', 'c']);
  });

  it('never are where fewer than two thirds of those with a say speak against them', () => {
    const reporter = fc.record({
      calls: fc.integer({ min: 20, max: 100 }),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
    });
    fc.assert(
      fc.property(fc.array(reporter, { minLength: 1, maxLength: 12 }), all => {
        const told = all.map(({ calls, share }, n) => said(`r${n}`, calls, Math.floor(calls * share)));
        const against = told.filter(({ calls, failures }) => failures >= 0.9 * calls).length;
        const wanted = against >= (2 / 3) * told.length && against >= Math.min(2, told.length);
        assert.equal(judge(told), wanted);
      }),
      { numRuns: 500 },
    );
  });

  it('are looked at in bounded number, the least recently called forgotten first', () => {
    const table = new DownTable();
    for (let n = 0; n < 3000; n++) table.note(`service-${n}`, 'a', 'a', 20, 20, 0);
    assert.equal(table.judge(0).length, 2000);
    assert.equal(table.isDown('service-999'), false);
    assert.equal(table.isDown('service-2999'), true);
  });
});

describe('names in directives', () => {
  it('are FNV-1a of 64 bits over destination, line feed and operation', () => {
    // The published values of '' and 'a', one line feed further.
    assert.equal(nameHash('', ''), ((0xcbf29ce484222325n ^ 10n) * 0x100000001b3n) & 0xffffffffffffffffn);
    assert.equal(nameHash('a', ''), ((0xaf63dc4c8601ec8cn ^ 10n) * 0x100000001b3n) & 0xffffffffffffffffn);
    assert.notEqual(nameHash('a', 'b'), nameHash('', 'a\nb'));
  });
});
