import assert from 'node:assert/strict';
import fc from 'fast-check';
import { hash2, hash4, HashIndex, NONE } from '../../../collector/src/transactions/id-index.js';
import { candidates, requestIdText, idOfHex } from '../../../collector/src/transactions/ids.js';
import { Interner } from '../../../collector/src/transactions/interner.js';

describe('the index of hashes', () => {
  /** All numbers under a hash. */
  function numbers(index: HashIndex, hash: number): number[] {
    const found: number[] = [];
    for (let cell = index.first(hash); cell !== NONE; cell = index.after(cell, hash)) found.push(index.at(cell));
    return found.sort((a, b) => a - b);
  }

  it('holds what was added and not deleted, whatever falls into one place', () => {
    // The last twelve bits choose the first place: these begin at three places side by side, around the end.
    const hash = fc.constantFrom(0, 1, 0x1000, 0x2001, 0xfff, 0x7fffffff, -1, -0x80000000);
    const step = fc.record({ hash, number: fc.nat(3), remove: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), steps => {
        const index = new HashIndex();
        const model = new Map<number, number[]>();
        for (const { hash: at, number, remove } of steps) {
          const known = model.get(at) ?? [];
          if (!remove) {
            index.add(at, number);
            model.set(
              at,
              [...known, number].sort((a, b) => a - b),
            );
          } else {
            index.delete(at, number);
            const place = known.indexOf(number);
            if (place >= 0) model.set(at, known.toSpliced(place, 1));
          }
          for (const [key, expected] of model) assert.deepEqual(numbers(index, key), expected);
          assert.equal(index.size, [...model.values()].flat().length);
        }
      }),
    );
  });

  it('grows, and reuses what was deleted', () => {
    const index = new HashIndex();
    const hash = (n: number): number => hash2(7, n, n * 3);
    for (let n = 0; n < 5000; n++) index.add(hash(n), n);
    for (let n = 0; n < 5000; n += 2) index.delete(hash(n), n);
    for (let n = 10_000; n < 12_500; n++) index.add(hash(n), n);
    for (let n = 0; n < 5000; n++) assert.equal(index.find(hash(n), n) !== NONE, n % 2 === 1);
    for (let n = 10_000; n < 12_500; n++) assert.notEqual(index.find(hash(n), n), NONE);
    assert.equal(index.size, 5000);
  });

  it('spreads ids that differ in one word only', () => {
    for (const word of [0, 1, 2, 3]) {
      const taken = new Set<number>();
      for (let n = 0; n < 10_000; n++) {
        const id = [0, 0, 0, 0].with(word, n) as [number, number, number, number];
        taken.add(hash4(99, ...id) & 0xffff);
      }
      // Thrown at random, 10,000 leave 56,260 of 65,536 places empty.
      assert.ok(Math.abs(taken.size - 9276) < 200, `word ${word}: ${taken.size} places`);
    }
  });
});

describe('shared names', () => {
  it('stay as long as somebody refers to them', () => {
    const names = new Interner<string>();
    const a = names.acquire('a', () => 'a');
    assert.equal(
      names.acquire('a', () => assert.fail('made twice')),
      a,
    );
    names.retain(a);
    for (let n = 0; n < 2; n++) names.release(a);
    assert.equal(names.get(a), 'a');
    names.release(a);
    assert.equal(names.size, 0);
    assert.equal(
      names.acquire('b', () => 'b'),
      a,
      'its number is used again',
    );
  });
});

describe('ids that people paste', () => {
  const indexes = (text: string): string[] => candidates(text).map(({ index }) => index);

  for (const [text, expected] of [
    ['3f0d8a1e-6c1b-4d5e-8f90-123456789abc', ['request', 'key', 'key', 'request']],
    ['4bf92f3577b34da6a3ce929d0e0e4736', ['key', 'request', 'key', 'request']],
    ['00f067aa0ba902b7', ['event', 'key', 'key', 'request']],
    ['c0ffee', ['key', 'key', 'request']],
    ['12648430', ['key', 'key', 'key', 'request']],
    ['order-42', ['key', 'request']],
  ] as const) {
    it(`${text} can be ${expected.join(', ')}`, () => assert.deepEqual(indexes(text), expected));
  }

  it('request ids are shown as UUIDs if they were such', () => {
    const uuid = '3f0d8a1e-6c1b-9d5e-8f90-123456789abc';
    assert.equal(requestIdText(idOfHex(uuid.replaceAll('-', ''))), uuid);
    assert.equal(requestIdText(idOfHex('00'.repeat(15) + '07')), '00'.repeat(15) + '07');
  });
});
