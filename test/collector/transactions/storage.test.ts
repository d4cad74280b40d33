import assert from 'node:assert/strict';
import fc from 'fast-check';
import { IdIndex, NONE } from '../../../collector/src/transactions/id-index.js';
import { candidates, requestIdText, idOfHex } from '../../../collector/src/transactions/ids.js';
import { Interner } from '../../../collector/src/transactions/interner.js';

describe('the index of ids', () => {
  it('is a map, whatever is set and deleted', () => {
    const word = fc.constantFrom(0, 1, 0x7fffffff, 0x80000000, 0xffffffff);
    const step = fc.record({ id: fc.tuple(word, word, word, word), value: fc.nat(3), remove: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), fc.integer(), (steps, seed) => {
        const index = new IdIndex(seed);
        const model = new Map<string, number>();
        for (const { id, value, remove } of steps) {
          const key = id.join();
          if (!remove) {
            index.set(...id, value);
            model.set(key, value);
          } else {
            index.delete(...id, value);
            if (model.get(key) === value) model.delete(key);
          }
          assert.equal(index.get(...id), model.get(key) ?? NONE);
          assert.equal(index.size, model.size);
        }
      }),
    );
  });

  it('grows, and reuses what was deleted', () => {
    const index = new IdIndex(7);
    for (let n = 0; n < 5000; n++) index.set(n, 0, 0, n * 3, n);
    for (let n = 0; n < 5000; n += 2) index.delete(n, 0, 0, n * 3, n);
    for (let n = 10_000; n < 12_500; n++) index.set(n, 0, 0, n * 3, n);
    for (let n = 0; n < 5000; n++) assert.equal(index.get(n, 0, 0, n * 3), n % 2 === 0 ? NONE : n);
    for (let n = 10_000; n < 12_500; n++) assert.equal(index.get(n, 0, 0, n * 3), n);
    assert.equal(index.size, 5000);
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
