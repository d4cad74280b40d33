import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parseAccessFile, personOf } from '../../../collector/src/access/access-file.js';
import { Grant } from '../../../collector/src/access/caller.js';
import { isFrom } from '../../../collector/src/access/peers.js';
import { Refusals, TOLD_MAX, TOLD_PER_CALLER_MAX, WINDOW_MS } from '../../../collector/src/access/refusals.js';
import { parseSpiffe, workloadOf } from '../../../collector/src/access/spiffe.js';
import { parseXfcc, workloadOfXfcc } from '../../../collector/src/access/xfcc.js';
import { Audits } from '../../../collector/src/rollback/audits.js';
import { RETENTION } from '../../../collector/src/rollback/retention.js';
import { hashOf, spiffe } from './support.js';

describe('SPIFFE ids', () => {
  it('are taken apart', () => {
    assert.deepEqual(parseSpiffe('spiffe://cluster.local/ns/shop/sa/pay'), {
      ...{
        id: 'spiffe://cluster.local/ns/shop/sa/pay',
        trustDomain: 'cluster.local',
        namespace: 'shop',
        account: 'pay',
      },
    });
  });

  for (const text of [
    ...['', 'spiffe://', 'https://a/ns/b/sa/c', 'spiffe://a/ns/b', 'spiffe://a/ns/b/sa/', 'spiffe://a/ns//sa/c'],
    ...['spiffe://a/ns/b/sa/c/d', 'spiffe://a/ns/b/sa/c?d', 'spiffe://a/ns/b/sa/c ', ' spiffe://a/ns/b/sa/c'],
    ...['spiffe://a/ns/b.c/sa/d', 'spiffe://a/ns/B/sa/c', 'SPIFFE://a/ns/b/sa/c', 'spiffe://a/ns/*/sa/c'],
    ...['spiffe://a/ns/b/sa/c\n', 'spiffe://a/ns/b/sa/c\0', 'spiffe://a@b/ns/b/sa/c', 'spiffe://a/x/../ns/b/sa/c'],
    `spiffe://a/ns/${'b'.repeat(64)}/sa/c`,
  ]) {
    it(`are not ${JSON.stringify(text)}`, () => assert.throws(() => parseSpiffe(text), { name: 'IdentityError' }));
  }

  it('come from a certificate with one URI and plain names only', () => {
    const of = (subjectAltName: string | undefined): unknown => workloadOf({ subjectAltName }).id;
    assert.equal(of(`DNS:pay.shop, URI:${spiffe('shop')}`), spiffe('shop'));
    for (const bad of [
      undefined,
      '',
      'DNS:a',
      `URI:${spiffe('a')}, URI:${spiffe('b')}`,
      `URI:"${spiffe('a')}\\u0000"`,
    ]) {
      assert.throws(() => of(bad), { name: 'IdentityError' }, bad);
    }
  });
});

describe('x-forwarded-client-cert', () => {
  it('is read as Envoy writes it, and only its last element counts', () => {
    const own = `By=${spiffe('meshpulse')};Hash=00ff;Subject="O=a\\"b,CN=c;d";URI=${spiffe('shop')};DNS=x;DNS=y`;
    assert.deepEqual(parseXfcc(own)[0]!.slice(1, 4), [
      ['hash', '00ff'],
      ['subject', 'O=a"b,CN=c;d'],
      ['uri', spiffe('shop')],
    ]);
    assert.equal(workloadOfXfcc([`By=x;URI=${spiffe('bank')},${own}`]).namespace, 'shop');
    // What a client smuggles into a value of an earlier element is no element.
    assert.equal(workloadOfXfcc([`Subject=",URI=${spiffe('bank')}";URI=a,${own}`]).namespace, 'shop');
  });

  for (const [what, values] of [
    ['nothing', []],
    ['two lines of it', [`URI=${spiffe('a')}`, `URI=${spiffe('b')}`]],
    ['an empty value', ['']],
    ['no URI', ['By=x;Hash=1']],
    ['a URI before the last element only', [`URI=${spiffe('a')},By=x`]],
    ['two URIs', [`URI=${spiffe('a')};URI=${spiffe('b')}`]],
    ['two URIs of which one is written otherwise', [`URI=${spiffe('a')};uri=${spiffe('b')}`]],
    ['an open quote', [`URI=${spiffe('a')};Subject="x`]],
    ['text behind a quote', [`Subject="x"y;URI=${spiffe('a')}`]],
    ['an empty pair', [`URI=${spiffe('a')};`]],
    ['an empty element', [`URI=${spiffe('a')},`]],
    ['a NUL', [`URI=${spiffe('a')}\0`]],
    ['no key', [spiffe('a')]],
    ['too much', [`${'A=b;'.repeat(20_000)}URI=${spiffe('a')}`]],
  ] as [string, string[]][]) {
    it(`with ${what} names nobody`, () => assert.throws(() => workloadOfXfcc(values), { name: 'IdentityError' }));
  }

  it('never names whom a stranger put in front of the last element', () => {
    const piece = fc.constantFrom(',', ';', '=', '"', '\\', 'URI', 'By', 'x', spiffe('bank'), ' ');
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), pieces => {
        let id = 'nobody';
        try {
          id = workloadOfXfcc([`${pieces.join('')},By=y;URI=${spiffe('shop')}`]).id;
        } catch (error) {
          assert.equal((error as Error).name, 'IdentityError');
        }
        assert.ok(id === 'nobody' || id === spiffe('shop'), id);
      }),
      { numRuns: 5000 },
    );
  });
});

describe('addresses of the own sidecar', () => {
  for (const [address, trusted, yes] of [
    ['127.0.0.6', ['127.0.0.6'], true],
    ['::ffff:127.0.0.6', ['127.0.0.6'], true],
    ['127.0.0.1', ['127.0.0.6'], false],
    ['127.8.9.1', ['loopback'], true],
    ['::1', ['loopback'], true],
    ['10.0.0.1', ['loopback', '::6'], false],
    ['', ['loopback'], false],
    ['127.0.0.1', [], false],
  ] as [string, string[], boolean][]) {
    it(`${address || 'none'} ${yes ? 'is' : 'is not'} of ${trusted.join()}`, () => {
      assert.equal(isFrom(address, trusted), yes);
    });
  }
});

describe('grants', () => {
  it('cover services of their namespaces, the outside only when they are of all', () => {
    const shop = Grant.of([{ namespaces: ['shop'] }, { namespaces: ['bank'], services: ['ledger.bank'] }]);
    const seen = ['pay.shop', 'ledger.bank', 'scan.bank', 'pay.shopping', 'shop', '', 'api.example.com'];
    assert.deepEqual(
      seen.filter(one => shop.covers(one)),
      ['pay.shop', 'ledger.bank'],
    );
    assert.deepEqual([shop.all, shop.hasNamespace('shop'), shop.hasNamespace('bank')], [false, true, false]);
    assert.ok(seen.every(one => Grant.ALL.covers(one)) && Grant.ALL.all && !seen.some(one => Grant.NONE.covers(one)));
  });
});

describe('the access file', () => {
  const ann = (more = ''): string =>
    `people:\n  - name: ann\n    token: ${hashOf('t')}\n    roles: [viewer]\n    namespaces: [shop]\n${more}`;
  const faults: [string, string, string | RegExp][] = [
    ['no YAML', 'people: [', /^line 1: this is not YAML: /],
    ['a list', '- a', 'line 1: the file must be a map of people, users, groups, workloads'],
    ['a section that is none', 'peple: []', 'line 1: the file has no field "peple"; did you mean people?'],
    ['people that are no list', 'people: {a: b}', 'line 1: people must be a list'],
    ['a field that is none', ann('    rols: [viewer]\n'), 'line 6: people[0] has no field "rols"; did you mean roles?'],
    ['a field twice', ann('    name: b\n'), /^line 6: this is not YAML: Map keys must be unique/],
    [
      'no token',
      'people:\n  - name: ann\n    roles: [viewer]\n    namespaces: [shop]\n',
      /^line 2: people\[0\]\.token is missing, must be sha256: and 64 hex digits, as of `printf/,
    ],
    [
      'a token in the clear',
      'people:\n  - name: ann\n    token: swordfish\n    roles: [viewer]\n    namespaces: [shop]\n',
      /^line 3: people\[0\]\.token must be sha256: and 64 hex digits/,
    ],
    [
      'a role that is none',
      ann().replace('viewer', 'admin'),
      'line 4: people[0].roles has "admin", may have reporter, agent, step, viewer, operator',
    ],
    ['no role', ann().replace('[viewer]', '[]'), /^line 2: people\[0\]\.roles is missing, must have one of reporter/],
    [
      'no namespace',
      ann().replace('[shop]', '[]'),
      "line 2: people[0].namespaces is missing: name those that viewer is for, or '*' for all",
    ],
    [
      'a bad namespace',
      ann().replace('[shop]', '[Shop]'),
      /^line 5: people\[0\]\.namespaces has "Shop", must be names/,
    ],
    ['a bad end', ann('    expires: soon\n'), /^line 6: people\[0\]\.expires must be a time like 2027-01-31T12:00:00Z/],
    [
      'one token for two',
      ann(`  - {name: bob, token: '${hashOf('t')}', roles: [viewer], namespaces: [shop]}\n`),
      'line 6: token of bob is that of ann; give each a token of their own',
    ],
    [
      'no name',
      'groups:\n  - roles: [viewer]\n    namespaces: [a]\n',
      /^line 2: groups\[0\]\.name is missing, must be a text/,
    ],
    [
      'a group twice',
      'groups:\n  - {name: a, roles: [agent]}\n  - {name: a, roles: [agent]}\n',
      'line 3: groups[1].name "a" is there twice; keep one',
    ],
    ['no SPIFFE id', 'workloads:\n  - {id: pay, roles: [step]}\n', /^line 2: workloads\[0\]\.id "pay" is not spiffe:/],
    ['a viewer of nothing', `workloads:\n  - {id: '${spiffe('a')}', roles: [viewer]}\n`, /namespaces is missing/],
  ];
  for (const [what, text, message] of faults) {
    it(`with ${what} is refused by line, field and remedy`, () => {
      assert.throws(() => parseAccessFile(text), { name: 'AccessFileError', message });
      assert.throws(
        () => parseAccessFile(text),
        (error: Error) => !error.message.includes('swordfish') && !error.message.includes(hashOf('t')),
      );
    });
  }

  it('never repeats a token that stands where it must not', () => {
    for (const text of [
      'people: swordfish: x',
      'people:\n  - {token: "swordfish}',
      '? [swordfish]\n: - {',
      'swordfish',
    ]) {
      assert.throws(
        () => parseAccessFile(text),
        (error: Error) => error.name === 'AccessFileError' && !error.message.includes('swordfish'),
        text,
      );
    }
  });

  it('may be empty, and knows people by their token until it expires', () => {
    assert.equal(personOf(parseAccessFile(''), 't', 0), undefined);
    const file = parseAccessFile(ann('    expires: 2027-01-31\n'));
    const at = (time: string): string | undefined => personOf(file, 't', Date.parse(time))?.name;
    assert.deepEqual([at('2027-01-30T23:59:59Z'), at('2027-01-31T00:00:00Z')], ['ann', undefined]);
    assert.equal(personOf(file, 'T', 0), undefined);
  });

  it('compares every entry, whoever it is', () => {
    const people = Array.from(
      { length: 50 },
      (_, n) => `  - {name: p${n}, token: '${hashOf(`t${n}`)}', roles: [viewer], namespaces: [a]}\n`,
    );
    const file = parseAccessFile(`people:\n${people.join('')}`);
    let compared = 0;
    const watched = {
      ...file,
      people: file.people.map(one => Object.defineProperty({ ...one }, 'hash', { get: () => (compared++, one.hash) })),
    };
    for (const [token, name] of [
      ['t0', 'p0'],
      ['t49', 'p49'],
      ['no', undefined],
    ] as const) {
      compared = 0;
      assert.equal(personOf(watched, token, 0)?.name, name);
      assert.equal(compared, 50, token);
    }
  });
});

describe('refusals', () => {
  const refused = (who: string, why = 'no'): Parameters<Refusals['note']>[0] => ({
    who,
    call: 'C',
    why,
    cause: 'role',
  });

  it('are told once in a window, and how often at its end', () => {
    const told: string[] = [];
    const refusals = new Refusals((who, _call, why, result) => told.push(`${who} ${why} ${result}`));
    refusals.tick(0);
    for (let i = 0; i < 100; i++) refusals.note(refused('a'));
    refusals.note(refused('b'));
    assert.deepEqual(told, ['a no refused', 'b no refused']);
    refusals.tick(WINDOW_MS - 1);
    assert.equal(told.length, 2);
    refusals.tick(WINDOW_MS);
    assert.deepEqual(told.slice(2), ['a no refused 99 times more in 5 minutes']);
    assert.equal(refusals.total.get('role'), 101);
    refusals.note(refused('a'));
    assert.equal(told.at(-1), 'a no refused');
  });

  it('fill nothing, however different they are', () => {
    let told = 0;
    const refusals = new Refusals(() => told++);
    refusals.tick(0);
    for (let i = 0; i < 1000; i++) refusals.note(refused('a', `why ${i}`));
    assert.equal(told, TOLD_PER_CALLER_MAX);
    for (let i = 0; i < 10_000; i++) refusals.note(refused(`caller ${i}`));
    assert.equal(told, TOLD_MAX);
    refusals.tick(WINDOW_MS);
    assert.equal(told, TOLD_MAX + 1, 'the rest is one number');
    assert.equal(refusals.total.get('role'), 11_000);
  });

  it('never push out what was done', () => {
    const audits = new Audits();
    const add = (n: number, action: 'kill' | 'refused'): void =>
      audits.add({
        id: `${action} ${n}`,
        atUs: n,
        action,
        actor: 'a'.repeat(10_000),
        reason: '',
        subject: '',
        result: '',
      });
    add(1, 'kill');
    for (let n = 0; n < RETENTION.auditMax + 50; n++) add(n + 2, 'refused');
    add(1, 'kill');
    const all = audits.all();
    assert.deepEqual([all.length, all.at(-1)!.id], [RETENTION.auditMax + 1, 'kill 1']);
    assert.ok(all.every(({ actor }) => actor.length < 1000));
    for (let n = 0; n < RETENTION.auditMax + 5; n++) add(n, 'kill');
    assert.equal(audits.all().filter(({ action }) => action === 'kill').length, RETENTION.auditMax);
    audits.expire(91 * 24 * 3600 * 1e6);
    assert.equal(audits.all().length, 0);
  });
});
