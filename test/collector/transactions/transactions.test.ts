import assert from 'node:assert/strict';
import fc from 'fast-check';
import { NotFound } from '../../../collector/src/errors.js';
import { batch, CALL, ENTRY, instance, PROBE, running, SHADOW, type TestRow } from './rows.js';
import { microseconds, World } from './world.js';

const KEY = '4bf92f3577b34da6a3ce929d0e0e4736';
const REQUEST = '3f0d8a1e-6c1b-4d5e-8f90-123456789abc';
/** The same, with Envoy's trace reason in the version digit. */
const REQUEST_TRACED = '3f0d8a1e-6c1b-9d5e-8f90-123456789abc';

const join = { key: KEY, request: REQUEST };

/** gateway -> shop -> payment (failed twice) and stock, then release; one row each side. */
function checkout(ids: { key?: string; request?: string } = join): [string, TestRow][] {
  const wrong = { status: 503, responseFlags: 0 };
  return [
    [
      'gateway',
      { ...ids, event: '1', start: 0, duration: 100_000, flags: ENTRY, operation: 'POST /checkout', ...wrong },
    ],
    [
      'gateway',
      {
        ...ids,
        event: '2',
        start: 0,
        duration: 99_000,
        flags: CALL,
        operation: 'POST /checkout',
        peerService: 'shop.store.svc.cluster.local',
        peerCuid: 'cuid-shop',
        attempts: 1,
        ...wrong,
      },
    ],
    [
      'shop',
      {
        ...ids,
        event: '2',
        start: 500,
        duration: 98_000,
        peerCuid: 'cuid-gateway',
        operation: 'POST /checkout',
        ...wrong,
      },
    ],
    [
      'shop',
      {
        ...ids,
        event: '3',
        start: 1000,
        duration: 5000,
        flags: CALL,
        operation: 'POST /reserve',
        peerCuid: 'cuid-stock',
        attempts: 1,
      },
    ],
    ['stock', { ...ids, event: '3', start: 1200, duration: 4000, peerCuid: 'cuid-shop', operation: 'POST /reserve' }],
    [
      'shop',
      {
        ...ids,
        event: '4',
        start: 7000,
        duration: 80_000,
        flags: CALL,
        operation: 'POST /charge',
        peerCuid: 'cuid-payment',
        attempts: 2,
        wait: 20_000,
        ...wrong,
      },
    ],
    [
      'payment',
      { ...ids, event: '4', start: 8000, duration: 20_000, peerCuid: 'cuid-shop', operation: 'POST /charge', ...wrong },
    ],
    [
      'payment#2',
      {
        ...ids,
        event: '4',
        start: 50_000,
        duration: 30_000,
        peerCuid: 'cuid-shop',
        operation: 'POST /charge',
        ...wrong,
      },
    ],
    [
      'shop',
      {
        ...ids,
        event: '5',
        start: 90_000,
        duration: 3000,
        flags: CALL,
        operation: 'POST /release',
        peerCuid: 'cuid-stock',
        attempts: 1,
      },
    ],
    ['stock', { ...ids, event: '5', start: 90_100, duration: 2000, peerCuid: 'cuid-shop', operation: 'POST /release' }],
  ];
}

function parents(world: World, id = KEY): string[] {
  return world
    .get(id)
    .events.map(event => `${event.parentEventId.slice(-1) || '-'}>${event.eventId.slice(-1)} ${event.service}`);
}

const TREE = ['->1 gateway', '1>2 shop', '2>3 stock', '2>4 payment', '2>4 payment', '2>5 stock'];

describe('transactions', () => {
  it('joins events and calls of one key, in order of cause', () => {
    const world = new World();
    for (const [name, row] of checkout()) world.rows(name, row);
    const shown = world.get(KEY);
    assert.deepEqual(parents(world), TREE);
    assert.equal(shown.state, 'TRANSACTION_STATE_FAILED');
    assert.equal(shown.kind, 'gateway POST /checkout');
    assert.equal(shown.entries, 1);
    assert.equal(shown.keySource, 'KEY_SOURCE_TRACEPARENT');
    assert.equal(microseconds(shown.duration), 100_000);
    assert.deepEqual(shown.requestIds.length, 1);
    assert.equal(shown.events[4]?.call?.attempts, 2, 'the call stands with its last attempt');
    assert.equal(shown.events[3]?.call, undefined);
  });

  it('finds the same tree in every order of arrival', () => {
    const rows = checkout();
    fc.assert(
      fc.property(fc.shuffledSubarray(rows, { minLength: rows.length }), shuffled => {
        const world = new World();
        for (const [name, row] of shuffled) world.rows(name, row);
        assert.deepEqual(parents(world), TREE);
        assert.equal(world.transactions.size, 1);
        assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_FAILED');
      }),
      { numRuns: 100 },
    );
  });

  it('joins a hop that only knows the request id, whatever the trace reason in it, in every order', () => {
    const rows = checkout().map(([name, row]): [string, TestRow] => {
      if (name !== 'gateway') return [name, { ...row, request: REQUEST_TRACED }];
      return [name, { ...row, key: REQUEST.replaceAll('-', ''), keySource: 9 }];
    });
    fc.assert(
      fc.property(fc.shuffledSubarray(rows, { minLength: rows.length }), shuffled => {
        const world = new World();
        for (const [name, row] of shuffled) world.rows(name, row);
        assert.equal(world.transactions.size, 1);
        assert.deepEqual(parents(world), TREE);
        const shown = world.get(REQUEST);
        assert.equal(shown.key, KEY, 'a trace context is the better key');
        assert.equal(shown.keySource, 'KEY_SOURCE_TRACEPARENT');
        assert.equal(world.get(REQUEST_TRACED).key, KEY);
        assert.ok([REQUEST, REQUEST_TRACED].includes(shown.requestIds[0]!), 'ids are shown as they were sent');
      }),
      { numRuns: 100 },
    );
  });

  it('merges two that were apart once a row carries the ids of both', () => {
    const world = new World();
    world.rows('a', {
      event: '1',
      start: 0,
      duration: 1000,
      request: REQUEST,
      key: REQUEST.replaceAll('-', ''),
      keySource: 9,
      flags: ENTRY,
    });
    world.rows('b', { event: '2', start: 200, duration: 100, key: KEY, peerCuid: 'cuid-a' });
    assert.equal(world.transactions.size, 2);
    world.rows('a', {
      event: '2',
      start: 100,
      duration: 500,
      key: KEY,
      request: REQUEST,
      flags: CALL,
      peerCuid: 'cuid-b',
    });
    assert.equal(world.transactions.size, 1);
    assert.deepEqual(parents(world), ['->1 a', '1>2 b']);
    assert.equal(world.transactions.counters['merged'], 1);
  });

  it('is found by every id of it, and says how far back it looked otherwise', () => {
    const world = new World();
    world.rows('a', { event: 'abcdef0123456789', start: 0, duration: 10, key: KEY, request: REQUEST, flags: ENTRY });
    for (const id of [KEY, KEY.toUpperCase(), REQUEST, REQUEST.replaceAll('-', ''), 'abcdef0123456789']) {
      assert.equal(world.get(id).key, KEY, id);
    }
    const short = '00000000000000000000000000c0ffee';
    world.rows('a', { event: '7', start: 0, duration: 10, key: short, keySource: 8, flags: ENTRY });
    for (const id of ['c0ffee', short, '12648430']) assert.equal(world.get(id).key, short, id);
    // The first 16 bytes of SHA-256 of `order-42`.
    const hash = 'd1ac7dc0a4b8a4a5a5c6f1e7a8d3c1f2';
    assert.throws(() => world.get(hash), NotFound);
    assert.throws(() => world.get('order-42'), /remembered since 2023-11-14T22:13:20\.000Z/);
  });

  it('is found by its plain text when that was hashed', async () => {
    const { createHash } = await import('node:crypto');
    const key = createHash('sha256').update('order-42').digest('hex').slice(0, 32);
    const world = new World();
    world.rows('a', { event: '1', start: 0, duration: 10, key, keySource: 1, keyText: 'order-42', flags: ENTRY });
    assert.equal(world.get('order-42').key, key);
    assert.equal(world.get('order-42').keyText, 'order-42');
  });

  it('shows a repeated row once, and two attempts at one instance twice', () => {
    const world = new World();
    const row = { ...join, event: '1', start: 0, duration: 10, flags: ENTRY };
    world.rows('a', row, row);
    world.rows('a', row);
    assert.equal(world.get(KEY).events.length, 1);
    assert.equal(world.get(KEY).entries, 1);
    world.rows('b', { ...join, event: '2', start: 5, duration: 1, status: 503, peerCuid: 'cuid-a' });
    world.rows('b', { ...join, event: '2', start: 8, duration: 1, peerCuid: 'cuid-a' });
    assert.equal(world.get(KEY).events.length, 3);
    assert.equal(world.transactions.counters['duplicateRows'], 2);
  });

  it('never shows an effect before its cause, nor a negative duration, when clocks disagree', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -5_000_000, max: 5_000_000 }), { minLength: 4, maxLength: 4 }), skews => {
        const world = new World();
        const skewed = new Map(['gateway', 'shop', 'stock', 'payment'].map((name, at) => [name, skews[at]!]));
        for (const [name, row] of checkout()) {
          world.rows(name, { ...row, start: row.start + 10_000_000 + (skewed.get(name.replace('#2', '')) ?? 0) });
        }
        assert.deepEqual(parents(world), TREE);
        const begun = new Map<string, number>();
        for (const event of world.get(KEY).events) {
          const start = microseconds(event.started);
          assert.ok(start >= (begun.get(event.parentEventId) ?? 0), event.eventId);
          assert.ok(microseconds(event.duration) >= 0);
          begun.set(event.eventId, Math.min(start, begun.get(event.eventId) ?? start));
        }
        for (const line of world.explain(KEY).lines) assert.ok(microseconds(line.offset) >= 0);
      }),
      { numRuns: 50 },
    );
  });

  it('prefers the span, and then the event that started last, as the parent of a call', () => {
    const world = new World();
    const events = [
      { key: KEY, event: 'a1', start: 0, duration: 1000, spanOut: 'aa', flags: ENTRY },
      { key: KEY, event: 'a2', start: 100, duration: 800, spanOut: 'bb', peerCuid: 'cuid-x' },
    ];
    world.rows('a', ...events, { key: KEY, event: 'c1', start: 200, duration: 10, spanIn: 'aa', flags: CALL });
    world.rows('a', { key: KEY, event: 'c2', start: 200, duration: 10, spanIn: 'ff', flags: CALL });
    world.rows('a', { key: KEY, event: 'c3', start: 950, duration: 10, flags: CALL });
    // Of nobody: it began before every event.
    world.rows('a', { key: KEY, event: 'c4', start: -50, duration: 10, flags: CALL });
    const parentOf = new Map(
      world.get(KEY).events.map(event => [event.eventId.slice(-2), event.parentEventId.slice(-2)]),
    );
    assert.deepEqual(
      [parentOf.get('c1'), parentOf.get('c2'), parentOf.get('c3'), parentOf.get('c4')],
      ['a1', 'a2', 'a1', ''],
    );
  });

  describe('a life that was given another CUID while its requests ran', () => {
    const [before, now] = [instance('shop', { cuid: 'by-proxy' }), instance('shop', { cuid: 'by-agent' })];
    const event = { key: KEY, event: '1', start: 0, duration: 9000, flags: ENTRY };
    const call = { key: KEY, event: '2', start: 1000, duration: 500, flags: CALL, peerCuid: 'cuid-stock' };
    const world = (): World => {
      const made = new World();
      made.aliases.set('by-proxy', 'by-agent');
      return made;
    };

    it('is the caller under either of them', () => {
      for (const [first, second] of [
        [before, now],
        [now, before],
      ] as const) {
        const at = world();
        at.transactions.ingest(batch(first, [event]));
        at.transactions.ingest(batch(second, [call]));
        assert.deepEqual(parents(at), ['->1 shop', '1>2 unknown']);
      }
    });

    it('is the peer that a callee names by the former one', () => {
      const at = world();
      at.transactions.ingest(batch(now, [event]));
      at.rows('stock', { key: KEY, event: '2', start: 1100, duration: 300, peerCuid: 'by-proxy' });
      assert.deepEqual(parents(at), ['->1 shop', '1>2 stock']);
    });

    it('ends the request that was listed under the former one', () => {
      const at = world();
      const half = { keyHi: KEY.slice(0, 16), keyLo: KEY.slice(16) };
      const items = [running('1', { ...half, flags: ENTRY | (2 << 20) })];
      at.transactions.inFlight(before, [{ producer: 1n, omitted: 0, items }]);
      at.transactions.ingest(batch(now, [event]));
      assert.deepEqual([at.get(KEY).events.length, at.get(KEY).state], [1, 'TRANSACTION_STATE_SUCCEEDED']);
    });
  });

  it('keeps a shadow apart: labelled, no evidence, never taken for the answer', () => {
    const world = new World();
    world.rows('a', { ...join, event: '1', start: 0, duration: 1000, flags: ENTRY });
    world.rows('a', { ...join, event: '2', start: 10, duration: 100, flags: CALL, peerCuid: 'cuid-b' });
    world.rows('b', { ...join, event: '2', start: 20, duration: 50, peerCuid: 'cuid-a' });
    world.rows('b-new', {
      ...join,
      event: '2',
      start: 30,
      duration: 5000,
      flags: SHADOW,
      status: 500,
      peerCuid: 'cuid-a',
    });
    world.pass(11);
    const shadow = world.get(KEY).events.find(event => event.service === 'b-new');
    assert.deepEqual(shadow?.labels, ['shadow']);
    const [flow] = (world.transactions.flow.getFlow({}) as { flows: { steps: { service: string }[] }[] }).flows;
    assert.deepEqual(
      flow?.steps.map(step => step.service),
      ['a', 'b'],
    );
  });

  for (const [status, state] of [
    [200, 'SUCCEEDED'],
    [404, 'DECLINED'],
    [500, 'FAILED'],
  ] as const) {
    it(`ends as ${state} with its entry's ${status}`, () => {
      const world = new World();
      world.rows('a', { ...join, event: '1', start: 0, duration: 1000, flags: ENTRY, status });
      assert.equal(world.get(KEY).state, `TRANSACTION_STATE_${state}`);
    });
  }

  it('takes the word of the last entry when there are several', () => {
    const world = new World();
    world.rows('a', { ...join, event: '2', start: 5000, duration: 1000, flags: ENTRY, operation: 'POST /again' });
    world.rows('a', {
      ...join,
      event: '1',
      start: 0,
      duration: 1000,
      flags: ENTRY,
      status: 503,
      operation: 'POST /first',
    });
    assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_SUCCEEDED');
    assert.equal(world.get(KEY).entries, 2);
    assert.equal(world.get(KEY).kind, 'a POST /first');
    assert.equal(microseconds(world.get(KEY).duration), 6000);
  });

  it('without an entry waits for one, then ends as its first call did', () => {
    const world = new World();
    world.rows('cron', {
      ...join,
      event: '2',
      start: 0,
      duration: 100,
      flags: CALL,
      status: 503,
      peerService: 'b.x.svc.cluster.local',
    });
    assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_RUNNING');
    world.pass(5);
    assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_UNSPECIFIED');
    world.pass(6);
    assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_FAILED');
    assert.equal(world.get(KEY).kind, '');
    assert.equal(world.get(KEY).events[0]?.callOnly, true);
    assert.equal(world.get(KEY).events[0]?.service, 'b.x');
  });
});

describe('transactions in flight', () => {
  const half = { keyHi: KEY.slice(0, 16), keyLo: KEY.slice(16) };

  it('run while their entry is listed, and end with its row', () => {
    const world = new World();
    const from = instance('a');
    world.clock.advanceMs(6000);
    world.transactions.inFlight(from, [
      {
        producer: 1n,
        omitted: 0,
        items: [running('1', { ...half, flags: ENTRY | (2 << 20), operation: 'POST /slow' })],
      },
    ]);
    assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_RUNNING');
    assert.equal(world.get(KEY).kind, 'a POST /slow');
    assert.deepEqual(
      world.list({ states: ['TRANSACTION_STATE_RUNNING'], olderThan: { seconds: '5' } }).transactions.map(t => t.key),
      [KEY],
    );
    assert.deepEqual(world.list({ olderThan: { seconds: '7' } }).transactions, []);
    world.rows('a', { key: KEY, event: '1', start: 0, duration: 6_500_000, flags: ENTRY, operation: 'POST /slow' });
    assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_SUCCEEDED');
    assert.equal(world.get(KEY).entries, 1);
    assert.equal(world.get(KEY).events.length, 1);
    assert.equal(microseconds(world.get(KEY).duration), 6_500_000);
  });

  it('are not begun anew by a list that comes after the end', () => {
    const world = new World();
    const list = [{ producer: 1n, omitted: 0, items: [running('1', { ...half, flags: ENTRY | (2 << 20) })] }];
    world.rows('a', { key: KEY, event: '1', start: 0, duration: 6_500_000, flags: ENTRY });
    world.transactions.inFlight(instance('a'), list);
    assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_SUCCEEDED');
  });

  it('are of unknown end when they vanish from the lists without a row, and when the lists end', () => {
    for (const vanish of [true, false]) {
      const world = new World();
      const list = [{ producer: 1n, omitted: 0, items: [running('1', { ...half, flags: ENTRY | (2 << 20) })] }];
      world.transactions.inFlight(instance('a'), list);
      if (vanish) world.transactions.inFlight(instance('a'), [{ producer: 1n, omitted: 0, items: [] }]);
      world.pass(12);
      assert.equal(world.get(KEY).state, vanish ? 'TRANSACTION_STATE_UNSPECIFIED' : 'TRANSACTION_STATE_RUNNING');
      world.pass(20);
      assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_UNSPECIFIED');
      assert.match(world.explain(KEY).summary, /how it ended was not reported/);
      world.rows('a', { key: KEY, event: '1', start: 0, duration: 60_000_000, flags: ENTRY });
      assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_SUCCEEDED', 'a late row still tells');
    }
  });

  it('stay listed as long as a slow reporter renews its list', () => {
    const world = new World();
    const list = (ageMs: number): void =>
      world.transactions.inFlight(instance('a', { reportInFlightMs: 60_000 }), [
        { producer: 1n, omitted: 0, items: [running('1', { ...half, ageMs, flags: ENTRY })] },
      ]);
    for (let age = 60_000; age <= 240_000; age += 60_000) {
      list(age);
      world.pass(60);
      assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_RUNNING');
    }
    world.pass(140);
    assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_UNSPECIFIED');
  });

  it('are believed for three of the periods that their proxy tells, however old they are', () => {
    const world = new World();
    const items = [running('1', { ...half, ageMs: 300_000, flags: ENTRY })];
    world.transactions.inFlight(instance('a', { reportInFlightMs: 5000 }), [{ producer: 1n, omitted: 0, items }]);
    world.pass(15);
    assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_RUNNING');
    world.pass(12);
    assert.equal(world.get(KEY).state, 'TRANSACTION_STATE_UNSPECIFIED');
  });
});

describe('transactions are bounded', () => {
  const key = (n: number): string => (n + 1).toString(16).padStart(32, '0');
  const one = (n: number, more: Partial<TestRow> = {}): TestRow => ({
    key: key(n),
    event: (n + 1).toString(16),
    start: n * 10,
    duration: 5,
    flags: ENTRY,
    ...more,
  });

  it('in number: the oldest that succeeded go before the failed', () => {
    const world = new World({ transactionsMax: 10 });
    for (let n = 0; n < 3; n++) world.rows('a', one(n, { status: 500 }));
    for (let n = 3; n < 10; n++) world.rows('a', one(n));
    world.pass(11);
    for (let n = 10; n < 15; n++) world.rows('a', one(n));
    assert.equal(world.transactions.size, 10);
    assert.equal(world.transactions.counters['evicted'], 5);
    for (let n = 0; n < 3; n++) assert.equal(world.get(key(n)).state, 'TRANSACTION_STATE_FAILED');
    assert.throws(() => world.get(key(3)), NotFound);
    assert.equal(world.get(key(14)).entries, 1);
    const listed = world.list({ since: { seconds: '0' } });
    assert.equal(listed.truncated, true);
    assert.ok(microseconds(listed.coveredSince) >= 1_700_000_000_000_070);
  });

  it('in age: failed ones stay longer', () => {
    const world = new World();
    world.rows('a', one(1), one(2, { status: 500 }), one(3, { flags: ENTRY | PROBE }));
    world.pass(16 * 60);
    assert.equal(world.transactions.size, 1);
    assert.equal(world.get(key(2)).state, 'TRANSACTION_STATE_FAILED');
    world.clock.advanceMs(24 * 3_600_000);
    world.pass(1);
    assert.equal(world.transactions.size, 0);
    assert.equal(world.transactions.counters['expired'], 3);
  });

  it('in events: 512 are kept, the rest is counted, and the entry still ends it', () => {
    const world = new World();
    for (let n = 0; n < 1500; n++) {
      world.rows('b', { key: KEY, event: (n + 10).toString(16), start: n * 10, duration: 5, peerCuid: 'cuid-a' });
    }
    world.rows('a', { key: KEY, event: '1', start: -5, duration: 20_000, flags: ENTRY });
    const shown = world.get(KEY);
    assert.equal(shown.events.length, 512);
    assert.equal(shown.eventsOmitted, 1501 - 512);
    assert.equal(shown.state, 'TRANSACTION_STATE_SUCCEEDED');
  });

  it('a request id that everyone shares does not make all of them one', () => {
    const world = new World({ transactionsMax: 500 });
    for (let n = 0; n < 400; n++) world.rows('a', one(n, { request: REQUEST }));
    assert.ok(world.transactions.size > 1);
    assert.ok(world.transactions.counters['mergesRefused']! > 0);
  });

  it('nothing is left when all of it is gone', () => {
    const world = new World({ transactionsMax: 50 });
    for (let n = 0; n < 300; n++) world.rows('a', one(n, { operation: `GET /${n}` }));
    world.pass(25 * 60);
    assert.equal(world.transactions.size, 0);
    const { table } = world.transactions as unknown as {
      table: {
        rows: { size: number; texts: { size: number }; instances: { size: number } };
        slots: { kinds: { size: number }; rare: { size: number } };
        keys: { size: number };
        requests: { size: number };
        events: { size: number };
      };
    };
    assert.deepEqual([table.rows.size, table.rows.texts.size, table.rows.instances.size], [0, 0, 0]);
    assert.deepEqual(
      [table.keys, table.requests, table.events, table.slots.rare].map(({ size }) => size),
      [0, 0, 0, 0],
    );
  });
});

describe('lists of transactions', () => {
  const key = (n: number): string => (n + 1).toString(16).padStart(32, '0');
  function filled(): World {
    const world = new World();
    for (let n = 0; n < 25; n++) {
      world.rows(n % 2 === 0 ? 'even.x' : 'odd.y', {
        key: key(n),
        event: (n + 1).toString(16),
        start: n * 1000,
        duration: 500,
        flags: ENTRY,
        status: n % 5 === 0 ? 500 : 200,
      });
    }
    return world;
  }

  it('are newest first, page by page, each transaction once', () => {
    const world = filled();
    const seen: string[] = [];
    let pageToken = '';
    do {
      const page = world.list({ pageSize: 7, pageToken });
      seen.push(...page.transactions.map(transaction => transaction.key));
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    assert.deepEqual(
      seen,
      Array.from({ length: 25 }, (_, n) => key(24 - n)),
    );
  });

  it('can be narrowed by state, service and namespace', () => {
    const world = filled();
    const keys = (request: object): number => world.list(request).transactions.length;
    assert.equal(keys({ states: ['TRANSACTION_STATE_FAILED'] }), 5);
    assert.equal(keys({ service: 'even.x' }), 13);
    assert.equal(keys({ namespace: 'y' }), 12);
    assert.equal(keys({ service: 'nobody' }), 0);
  });

  it('leave out probes and our own requests, which an id still finds', () => {
    const world = new World();
    world.rows('a', { key: KEY, event: '1', start: 0, duration: 5, flags: ENTRY | PROBE });
    assert.deepEqual(world.list().transactions, []);
    assert.deepEqual(world.get(KEY).events[0]?.labels, ['probe']);
  });

  it('refuse a page token of somebody else', () => {
    for (const pageToken of ['x', 'W10', Buffer.from('[1,"a"]').toString('base64url')]) {
      assert.throws(
        () => filled().list({ pageToken }),
        /^InvalidArgument: page_token is ".*", must be a next_page_token of this list$/,
      );
    }
  });

  it('say when they reach further back than what is kept', () => {
    const world = filled();
    world.pass(3600);
    const since = { seconds: String(1_700_000_000) };
    assert.equal(world.list({ since }).truncated, true);
    assert.equal(world.list({ since, states: ['TRANSACTION_STATE_FAILED'] }).truncated, false);
    assert.equal(world.list({ since: { seconds: String(1_700_000_000 + 3000) } }).truncated, false);
  });
});

describe('watching transactions', () => {
  it('tells when they start, when they end, and nothing twice', () => {
    const world = new World();
    const told: string[] = [];
    const stop = world.transactions.watch({}, transaction => told.push((transaction as { state: string }).state));
    const from = instance('a');
    const half = { keyHi: KEY.slice(0, 16), keyLo: KEY.slice(16) };
    const list = [{ producer: 1n, omitted: 0, items: [running('1', { ...half, flags: ENTRY })] }];
    world.transactions.inFlight(from, list);
    world.transactions.inFlight(from, list);
    world.rows('b', { key: KEY, event: '2', start: 5, duration: 5, peerCuid: 'cuid-a' });
    world.transactions.ingest(
      batch(from, [{ key: KEY, event: '1', start: 0, duration: 7_000_000, flags: ENTRY, status: 500 }]),
    );
    world.pass(12);
    assert.deepEqual(told, ['TRANSACTION_STATE_RUNNING', 'TRANSACTION_STATE_FAILED']);
    stop();
    world.rows('a', { key: '1', event: '9', start: 5, duration: 5, flags: ENTRY });
    assert.equal(told.length, 2);
  });

  it('tells only what the filter wants', () => {
    const world = new World();
    const told: string[] = [];
    world.transactions.watch({ service: 'a', states: ['TRANSACTION_STATE_FAILED'] }, transaction =>
      told.push((transaction as { key: string }).key),
    );
    world.rows('a', { key: '1', event: '1', start: 0, duration: 5, flags: ENTRY });
    world.rows('b', { key: '2', event: '2', start: 0, duration: 5, flags: ENTRY, status: 500 });
    world.rows('a', { key: '3', event: '3', start: 0, duration: 5, flags: ENTRY, status: 500 });
    assert.deepEqual(told, ['3'.padStart(32, '0')]);
  });
});

describe('transactions that an application tore apart', () => {
  it('are counted: a call outside of any transaction, from a life that serves requests', () => {
    const world = new World();
    world.rows('a', { key: '1', event: '1', start: 0, duration: 1000, flags: ENTRY });
    world.rows('a', { key: '2', event: '2', start: 100, duration: 200, flags: CALL, peerCuid: 'cuid-b' });
    world.rows('b', { key: '2', event: '2', start: 120, duration: 100, peerCuid: 'cuid-a' });
    assert.equal(world.transactions.unlinked, 0, 'not before the grace is over');
    world.pass(11);
    assert.equal(world.transactions.unlinked, 1);
    assert.equal(world.get('2').unlinked, 1);
    assert.equal(world.get('1').unlinked, 0);
  });

  it('are not the calls of a life that nobody calls, nor linked ones', () => {
    const world = new World();
    world.rows('cron', { key: '2', event: '2', start: 100, duration: 200, flags: CALL, peerCuid: 'cuid-b' });
    world.rows('b', { key: '2', event: '2', start: 120, duration: 100, peerCuid: 'cuid-cron' });
    for (const [name, row] of checkout()) world.rows(name, row);
    world.pass(11);
    assert.equal(world.transactions.unlinked, 0);
  });

  it('count an event whose caller did not report, until its row comes', () => {
    const world = new World();
    world.rows('b', { key: '2', event: '2', start: 120, duration: 100, peerCuid: 'cuid-a' });
    world.pass(11);
    assert.equal(world.get('2').unlinked, 1);
    assert.equal(world.transactions.unlinked, 1);
    world.rows('a', { key: '2', event: '1', start: 0, duration: 1000, flags: ENTRY });
    world.rows('a', { key: '2', event: '2', start: 100, duration: 200, flags: CALL, peerCuid: 'cuid-b' });
    world.pass(11);
    assert.equal(world.get('2').unlinked, 0);
    assert.equal(world.transactions.unlinked, 1, 'a counter does not go back');
  });
});

describe('explaining a transaction', () => {
  it('tells each step and each retry in order of cause, with evidence', () => {
    const world = new World();
    for (const [name, row] of checkout()) world.rows(name, row);
    const told = world.explain(KEY);
    assert.match(
      told.summary,
      /^gateway POST \/checkout failed after 100 ms: payment POST \/charge failed with 503, 2 attempts\.$/,
    );
    const texts = told.lines.map(line => `${' '.repeat(line.depth)}${line.text}`);
    assert.deepEqual(texts, [
      'POST /checkout came in at gateway; it failed with 503 after 100 ms',
      ' gateway called shop POST /checkout; it failed with 503 after 99.0 ms',
      '  shop called stock POST /reserve; it answered 200 after 5.0 ms',
      '  shop called payment POST /charge; it failed with 503 after 80.0 ms',
      '  the proxy of shop tried 2 times, 2 arrived; none helped',
      '  the call waited 20.0 ms for a connection to payment',
      '   an attempt at payment failed with 503 after 20.0 ms',
      '   an attempt at payment failed with 503 after 30.0 ms',
      '  shop called stock POST /release; it answered 200 after 3.0 ms',
      'most time: payment itself, in POST /charge, 30.0 ms of 100 ms',
      'state: failed',
    ]);
    assert.ok(told.lines[3]?.evidence.includes('attempts=2'));
    assert.ok(told.lines[3]?.evidence.includes('connection_wait_ms=20.000'));
  });

  it('says what runs now', () => {
    const world = new World();
    const half = { keyHi: KEY.slice(0, 16), keyLo: KEY.slice(16) };
    world.clock.advanceMs(6000);
    world.transactions.inFlight(instance('a'), [
      {
        producer: 1n,
        omitted: 0,
        items: [
          running('1', { ...half, flags: ENTRY, operation: 'POST /slow' }),
          running('2', {
            ...half,
            flags: CALL,
            ageMs: 5500,
            operation: 'POST /export',
            peerService: 'b.x.svc.cluster.local',
          }),
        ],
      },
    ]);
    assert.equal(world.explain(KEY).summary, 'a POST /slow is still running after 5.50 s, now at b.x POST /export.');
    assert.match(
      world.explain(KEY).lines[1]!.text,
      /^a called b\.x \(outside the mesh\) POST \/export; it is still running after 5\.50 s$/,
    );
  });
});
