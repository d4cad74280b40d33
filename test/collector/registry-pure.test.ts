import assert from 'node:assert/strict';
import fc from 'fast-check';
import { decodeReport } from '../../collector/src/ingest/decode-report.js';
import { groupRows } from '../../collector/src/registry/aggregate.js';
import { OffsetEstimator } from '../../collector/src/registry/clock-offset.js';
import { Counts, EXTERNAL_MAX, ROWS_PER_SERVICE_MAX, serviceOfHost } from '../../collector/src/registry/counts.js';
import { responseFlagNames } from '../../collector/src/registry/response-flags.js';
import { hostOf, PeerLimiter } from '../../collector/src/rpc/limits.js';
import { batch, encodeReport } from './ingest-support.js';

describe('clock offset', () => {
  const estimate = (differencesMs: readonly number[], stepMs = 1000): { offsetMs: number; errorMs: number } => {
    const estimator = new OffsetEstimator();
    differencesMs.forEach((difference, i) => estimator.add(1e15 + difference * 1000, 1e15, i * stepMs));
    const { offsetUs, errorUs } = estimator.current;
    return { offsetMs: offsetUs / 1000, errorMs: errorUs / 1000 };
  };

  it('rests on the message with the least delay', () => {
    assert.deepEqual(estimate([95, 99, 60, 98, 99]), { offsetMs: 99, errorMs: 1 });
  });

  it('is uncertain after one message', () => {
    assert.deepEqual(estimate([-3_600_000]), { offsetMs: -3_600_000, errorMs: 1000 });
  });

  it('follows a clock that was set, forward and back, within a few messages', () => {
    assert.equal(estimate([10, 10, 10, 10, 3_600_000, 3_600_000, 3_600_000]).offsetMs, 3_600_000);
    assert.equal(estimate([10, 10, 10, 10, -300_000, -300_000, -300_000]).offsetMs, -300_000);
  });

  it('is not moved by a few late messages', () => {
    assert.equal(estimate([10, 10, -5000, 10, -5000, -5000, 10]).offsetMs, 10);
  });

  it('forgets what is older than ten minutes', () => {
    assert.equal(estimate([50, 20, 20, 20], 400_000).offsetMs, 20);
  });
});

describe('row groups', () => {
  it('count every row once, under what sets it apart', () => {
    const row = fc.record({
      operation: fc.constantFrom('GET /a', 'GET /b', 'POST /a'),
      status: fc.constantFrom(200, 503),
      responseFlags: fc.constantFrom(0, 2),
      flags: fc.constantFrom(0, 1, 4, 129),
      outcome: fc.constantFrom(1, 2),
      peerService: fc.constantFrom('', 'x', 'y'),
      durationUs: fc.nat({ max: 1000 }),
    });
    fc.assert(
      fc.property(fc.array(row, { minLength: 1, maxLength: 300 }), rows => {
        const columns = decodeReport(encodeReport({ batches: [batch(1, rows)] })).batches[0]!.events!;
        const expected = new Map<string, [number, number]>();
        for (const { operation, status, responseFlags, flags, outcome, peerService, durationUs } of rows) {
          const peer = (flags & 1) === 0 ? '' : peerService;
          const key = [operation, status, responseFlags, (flags | (outcome << 16)) & 0xf00ff, peer].join();
          const [count, sum] = expected.get(key) ?? [0, 0];
          expected.set(key, [count + 1, sum + durationUs]);
        }
        const groups = groupRows(columns).map(group => [
          [
            columns.strings[group.operation],
            group.status,
            group.responseFlags,
            group.flags,
            columns.strings[group.peerService],
          ].join(),
          [group.count, group.durationUsSum],
        ]);
        assert.deepEqual(new Map(groups as [string, [number, number]][]), expected);
        assert.equal(groups.length, expected.size);
      }),
      { numRuns: 200 },
    );
  });
});

describe('counts', () => {
  const row = (operation: string, extra = {}): Parameters<Counts['add']>[3] => ({
    operation,
    status: 200,
    responseFlags: 0,
    flags: 0,
    count: 1,
    durationUsSum: 0,
    ...extra,
  });
  const total = (counts: Counts): number => [...counts.all()].reduce((sum, service) => sum + service.events, 0);

  it('keep their sum when a sender makes up response flags', () => {
    const counts = new Counts();
    const made = ROWS_PER_SERVICE_MAX + 1000;
    for (let i = 0; i < made; i++) counts.add('s', '', false, row('op', { responseFlags: i }));
    assert.equal(counts.get('s', '')!.rows.size, ROWS_PER_SERVICE_MAX + 1);
    assert.equal(total(counts), made);
    assert.equal(
      [...counts.get('s', '')!.rows.values()].reduce((sum, one) => sum + one.count, 0),
      made,
    );
  });

  it('keep their sum when callers make up host names', () => {
    const counts = new Counts();
    for (let i = 0; i < EXTERNAL_MAX + 50; i++) counts.add(`h${i}`, '', true, row('op'));
    assert.ok([...counts.all()].length <= EXTERNAL_MAX + 1);
    assert.equal(total(counts), EXTERNAL_MAX + 50);
    assert.equal(counts.get('other', '')?.events, 50);
  });

  it('survive being stored and given back', () => {
    const counts = new Counts();
    counts.add('s', 'c', false, row('a', { count: 3, durationUsSum: 7 }));
    counts.add('h', 'c', true, row('b', { status: 503 }));
    const again = new Counts();
    for (const { service, cluster, external, ...one } of counts.stored()) again.add(service, cluster, external, one);
    assert.deepEqual([...again.stored()], [...counts.stored()]);
  });
});

describe('names', () => {
  it('of hosts become services', () => {
    const rows = [
      'payment.shop.svc.cluster.local',
      'payment.shop.svc:8080',
      'payment.shop',
      'api.bank.example:443',
      '10.0.0.7:80',
      '',
    ];
    assert.deepEqual(rows.map(serviceOfHost), [
      'payment.shop',
      'payment.shop',
      'payment.shop',
      'api.bank.example',
      '10.0.0.7',
      '',
    ]);
  });

  it('of response flags are Envoy short names, lowest bit first', () => {
    assert.deepEqual([0, 1, 1 << 14, (1 << 2) | (1 << 15), 1 << 29, 1 << 31].map(responseFlagNames), [
      '',
      'LH',
      'DC',
      'UT,URX',
      'UDO',
      'bit31',
    ]);
  });

  it('of peers are their hosts', () => {
    assert.deepEqual(['10.0.0.7:41234', '[::1]:41234', 'unknown'].map(hostOf), ['10.0.0.7', '::1', 'unknown']);
  });
});

describe('peer limit', () => {
  it('lets a burst through, then the rate, and says when the next is allowed', () => {
    const limiter = new PeerLimiter(10);
    const burst = Array.from({ length: 20 }, () => limiter.take('a', 0));
    assert.deepEqual(burst, Array(20).fill(0));
    assert.equal(limiter.take('a', 0), 100);
    assert.equal(limiter.take('b', 0), 0);
    assert.equal(limiter.take('a', 100), 0);
    assert.equal(limiter.take('a', 100), 100);
  });
});
