import assert from 'node:assert/strict';
import { DEAD_MS, Membership } from '../../../collector/src/replicas/membership.js';
import { ownerOf } from '../../../collector/src/replicas/ownership.js';

const NAMES = Array.from({ length: 3000 }, (_, n) => `service-${n}.shop`);
const members = (count: number): string[] => Array.from({ length: count }, (_, n) => `${n}`.padStart(16, 'a'));

describe('duties of replicas', () => {
  it('fall to one member each, whoever asks, and in equal shares', () => {
    const all = members(5);
    const shares = new Map<string, number>();
    for (const name of NAMES) {
      const owner = ownerOf(name, all)!;
      assert.equal(ownerOf(name, [...all].reverse()), owner);
      shares.set(owner, (shares.get(owner) ?? 0) + 1);
    }
    for (const share of shares.values()) assert.ok(share > 480 && share < 720, `${[...shares.values()].join(' ')}`);
    assert.equal(shares.size, 5);
  });

  it('move only from who goes, and only to who comes', () => {
    const all = members(5);
    for (const gone of all) {
      const rest = all.filter(id => id !== gone);
      for (const name of NAMES) {
        const before = ownerOf(name, all);
        if (before === gone) assert.ok(rest.includes(ownerOf(name, rest)!));
        else assert.equal(ownerOf(name, rest), before);
      }
    }
  });

  it('are nobody’s without members', () => {
    assert.equal(ownerOf('x', []), undefined);
  });
});

describe('membership', () => {
  it('is who was heard within 3 s, and takes nothing before it has settled', () => {
    const own = new Membership('b');
    assert.equal(own.owns('x'), false);
    own.settle();
    assert.ok(NAMES.every(name => own.owns(name)));
    assert.deepEqual(
      [own.heard('a', 0), own.heard('c', 1000), own.heard('a', 2000), own.heard('b', 0)],
      [true, true, false, false],
    );
    assert.deepEqual(
      [own.all, own.others],
      [
        ['a', 'b', 'c'],
        ['a', 'c'],
      ],
    );
    const share = NAMES.filter(name => own.owns(name)).length;
    assert.ok(share > 800 && share < 1200, String(share));
    assert.deepEqual(own.expire(1000 + DEAD_MS), []);
    assert.deepEqual(own.expire(1001 + DEAD_MS), ['c']);
    assert.deepEqual([own.left('a'), own.left('a'), own.all], [true, false, ['b']]);
  });

  it('keeps who is known while nobody can be heard', () => {
    const own = new Membership('b');
    own.heard('a', 0);
    own.forgive(60_000);
    assert.deepEqual(own.expire(60_000 + DEAD_MS), []);
  });

  it('is bounded', () => {
    const own = new Membership('self');
    for (let n = 0; n < 1000; n++) own.heard(`r${n}`, 0);
    assert.equal(own.all.length, 64);
  });
});
