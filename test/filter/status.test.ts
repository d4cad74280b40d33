/** What an instance says of itself: in headers, in reports, and what an application says of its jobs. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Pair } from '../support/proxy-wasm-host.js';
import { own, ownBytes } from './headers.js';
import type { Sidecar } from './sidecar.js';
import { postProgress, PROGRESS_PATH, sidecars } from './suite.js';
import { parseDictionary, type Item } from './structured-fields.js';
import { RowFlag } from './wire.js';

const KEYS = ['inflight', 'queue', 'qsrc', 'wait', 'cpu', 'mem', 'age'];

describe('status', () => {
  const start = sidecars(false);

  const stampOf = (sidecar: Sidecar): Map<string, Item> =>
    parseDictionary(sidecar.callOut().request.get('x-mp-status') ?? '');
  const value = (members: Map<string, Item>, key: string): unknown => members.get(key)?.value;

  describe('x-mp-status', () => {
    it('knows nothing but in-flight and age at first: unknown keys are absent, never 0', () => {
      assert.deepEqual([...stampOf(start()).keys()], ['inflight', 'age']);
    });

    it('counts requests in work, over all VMs of the process', () => {
      const sidecar = start({ workers: 3 });
      const open = [0, 0, 1, 2].map(worker => {
        const exchange = sidecar.receive({ worker });
        exchange.requestHeaders();
        return exchange;
      });
      sidecar.advance(500);
      assert.equal(value(stampOf(sidecar), 'inflight'), 4);
      for (const exchange of open) sidecar.answer(exchange);
      sidecar.advance(500);
      assert.equal(value(stampOf(sidecar), 'inflight'), 0);
    });

    it('says 20 for 20 concurrent requests, in each of their responses too', () => {
      const sidecar = start();
      const open = Array.from({ length: 20 }, () => {
        const exchange = sidecar.receive();
        exchange.requestHeaders();
        return exchange;
      });
      open[0]?.responseHeaders([[':status', '200']], false);
      assert.match(open[0]?.response?.get('x-mp-status') ?? '', /^inflight=20,/);
      open[0]?.finish();
      assert.equal(value(stampOf(sidecar), 'inflight'), 19);
    });

    it('takes queue, CPU and memory from ORCA, with their source, and forgets them when they are stale', () => {
      const sidecar = start();
      sidecar.serve(
        {},
        {
          headers: [
            ['endpoint-load-metrics', 'TEXT cpu_utilization=0.42, mem_utilization=0.61, named_metrics.queue=7'],
          ],
        },
      );
      const members = stampOf(sidecar);
      assert.deepEqual(
        ['queue', 'qsrc', 'cpu', 'mem'].map(key => value(members, key)),
        [7, 'app', 0.42, 0.61],
      );
      assert.equal(members.get('qsrc')?.kind, 'token');
      sidecar.advance(120_000);
      assert.equal(value(stampOf(sidecar), 'queue'), undefined);
    });

    it('takes the queue from the application’s progress', () => {
      const sidecar = start();
      sidecar.serve({}, { headers: [['x-mp-progress', 'job="a", queue=9']] });
      assert.equal(value(stampOf(sidecar), 'queue'), 9);
    });

    it('says how long requests wait for a connection, p50 of the last window', () => {
      const sidecar = start();
      sidecar.connect();
      for (const ms of [2, 10, 50]) {
        const properties = { upstream: { cx_pool_ready_duration: BigInt(ms) * 1_000_000n } };
        sidecar.serve({ properties }, { afterMs: ms + 1 });
      }
      sidecar.advance(1500);
      const wait = Number(value(stampOf(sidecar), 'wait'));
      assert.ok(wait >= 8 && wait <= 12, `wait=${String(wait)}`);
      assert.equal(sidecar.collector.lastStatus?.waitMs, wait);
    });

    it('is a dictionary of known keys in the contract’s order, whatever was said before', () => {
      const sidecar = start({ workers: 2 });
      sidecar.connect();
      const orca = fc.tuple(
        fc.double({ min: 0, max: 3, noNaN: true }),
        fc.double({ min: 0, max: 3, noNaN: true }),
        fc.nat(),
      );
      const text = fc.oneof(
        orca.map(
          ([cpu, mem, queue]) =>
            `TEXT cpu_utilization=${cpu.toFixed(4)},mem_utilization:${mem.toFixed(3)}, named_metrics.queue=${String(queue)}`,
        ),
        fc.string({ unit: 'binary-ascii', maxLength: 60 }).map(tail => `TEXT ${tail}`),
        fc.string({ unit: 'binary-ascii', maxLength: 60 }),
      );
      fc.assert(
        fc.property(text, fc.nat({ max: 5000 }), fc.nat({ max: 1 }), (header, ms, worker) => {
          sidecar.serve({ worker }, { headers: [['endpoint-load-metrics', header]] });
          sidecar.advance(ms);
          const exchange = sidecar.callOut({ worker });
          const members = parseDictionary(exchange.request.get('x-mp-status') ?? '');
          const keys = [...members.keys()];
          assert.deepEqual(
            keys,
            KEYS.filter(key => keys.includes(key)),
          );
          for (const key of ['inflight', 'queue', 'wait', 'age']) {
            if (members.has(key)) assert.equal(members.get(key)?.kind, 'integer', key);
            assert.ok(Number(value(members, key) ?? 0) >= 0, key);
          }
          for (const key of ['cpu', 'mem']) {
            const share = Number(value(members, key) ?? 0);
            assert.ok(share >= 0 && share <= 1, `${key}=${String(share)}`);
          }
          assert.equal(members.has('queue'), members.has('qsrc'));
        }),
        { numRuns: 500 },
      );
    });

    it('is left out with status.request off; CUID and call id stay', () => {
      const after = own(
        start({ config: { status: { request: false } } })
          .callOut()
          .request.pairs(),
      );
      assert.deepEqual(
        after.map(([name]) => name),
        ['x-cuid', 'x-mp-progress'],
      );
    });
  });

  it('keeps own headers under 256 bytes however much the application says: its job goes first, then status from the right', () => {
    const sidecar = start();
    sidecar.serve(
      {},
      {
        headers: [
          ['endpoint-load-metrics', 'TEXT cpu_utilization=0.42, mem_utilization=0.61, named_metrics.queue=1234567'],
        ],
      },
    );
    const outcomes = new Set<string>();
    for (let job = 1; job <= 64; job++) {
      for (const rollback of [0, 20, 40, 64]) {
        const headers: Pair[] = [['x-mp-progress', `job="${'j'.repeat(job)}", done=1, of=100, queue=3, state=packing`]];
        if (rollback > 0) headers.push(['x-mp-rollback', 'r'.repeat(rollback)]);
        const after = sidecar.callOut({ headers }).request;
        assert.ok(ownBytes(after.pairs()) < 256, String(ownBytes(after.pairs())));
        const progress = parseDictionary(after.get('x-mp-progress') ?? '');
        assert.ok(progress.has('event'));
        assert.notEqual(after.get('x-cuid'), undefined);
        const status = after.get('x-mp-status');
        const keys = status === undefined ? [] : [...parseDictionary(status).keys()];
        const cut = keys.length < 5 || !keys.includes('age');
        if (cut) assert.ok(!progress.has('job'), 'status is cut only when the job is gone');
        outcomes.add(`${progress.has('job') ? 'job' : 'no job'}, ${cut ? 'cut' : 'whole'}`);
      }
    }
    assert.ok(outcomes.has('job, whole') && outcomes.has('no job, whole'), [...outcomes].join('; '));
  });

  describe('x-mp-progress', () => {
    const keep = (text: string): string | undefined =>
      start()
        .callOut({ headers: [['x-mp-progress', text]] })
        .request.get('x-mp-progress');
    const VALID: readonly (readonly [string, Record<string, unknown>])[] = [
      [
        'job="invoice-42", done=30, of=100, queue=7, state=packing',
        { job: 'invoice-42', done: 30, of: 100, queue: 7, state: 'packing' },
      ],
      ['done=0', { done: 0 }],
      ['job=token;a=1;b, queue=0', { job: 'token', queue: 0 }],
      ['job="a",done=5\t,\tof=5', { job: 'a', done: 5, of: 5 }],
      ['job="a", unknown=(1 2), done=1', {}],
      ['job="a", other=?1, x=1.5, y=-3, done=1', { job: 'a', done: 1 }],
    ];
    for (const [text, expected] of VALID.filter(([, members]) => Object.keys(members).length > 0)) {
      it(`keeps the application’s valid keys: ${text}`, () => {
        const members = parseDictionary(keep(text) ?? '');
        assert.match(String(value(members, 'event')), /^[0-9a-f]{16}$/);
        members.delete('event');
        assert.deepEqual(Object.fromEntries([...members].map(([key, item]) => [key, item.value])), expected);
      });
    }

    const INVALID = [
      '',
      'done=thirty',
      'job=, done=1',
      'job="a', // no end
      'job="a", done=1,',
      'job="a" done=1',
      'JOB="a"',
      'done=1234567890123456', // 16 digits
      'done=-1',
      'done=1.5',
      `job="${'j'.repeat(65)}"`,
      `job="a", state=${'s'.repeat(33)}`,
      'job="\x01"',
      'job="\xff"',
      'job="a", done=1\r\nx-evil: 1',
      `${'k=1, '.repeat(200)}done=1`,
    ];
    for (const text of INVALID) {
      it(`keeps nothing of ${JSON.stringify(text).slice(0, 60)}`, () => {
        assert.match(keep(text) ?? '', /^event="[0-9a-f]{16}"$/);
      });
    }

    it('gives every call an event id of its own, the one its row has', () => {
      const sidecar = start();
      sidecar.connect();
      const ids = Array.from({ length: 50 }, () =>
        String(value(parseDictionary(sidecar.callOut().request.get('x-mp-progress') ?? ''), 'event')),
      );
      sidecar.advance(2500);
      assert.equal(new Set(ids).size, ids.length);
      assert.deepEqual(
        sidecar.collector.rows().map(row => row.event),
        ids,
      );
    });

    it('writes valid dictionaries only, whatever the application wrote', () => {
      const sidecar = start();
      const piece = fc.oneof(
        fc.constantFrom(
          'job=',
          'done=',
          'of=',
          'queue=',
          'state=',
          'event=',
          ', ',
          ',',
          '"',
          '\\',
          ';',
          '=',
          '?1',
          '1',
          '9'.repeat(15),
          'x',
          '(',
          ')',
          ':QQ==:',
          '%"a"',
          '@1',
        ),
        fc.string({ unit: 'binary-ascii', maxLength: 6 }),
      );
      const text = fc.array(piece, { maxLength: 24 }).map(pieces => pieces.join(''));
      fc.assert(
        fc.property(text, header => {
          const request = sidecar.callOut({ headers: [['x-mp-progress', header]] }).request;
          const members = parseDictionary(request.get('x-mp-progress') ?? '');
          assert.match(String(value(members, 'event')), /^[0-9a-f]{16}$/);
          assert.deepEqual(
            [...members.keys()].filter(
              key => !['event', 'job', 'done', 'of', 'queue', 'state', 'step', 'steps'].includes(key),
            ),
            [],
          );
          assert.ok(ownBytes(request.pairs()) < 256);
        }),
        { numRuns: 20_000 },
      );
    });
  });

  describe('the progress endpoint', () => {
    const REPORT: Pair = ['x-mp-progress', 'job="nightly", done=30, of=100, queue=7, state=packing'];

    it('answers 204, forwards nothing, and the report is with the collector within 2 s', () => {
      const sidecar = start({ config: { report: { plainIds: true } } });
      sidecar.connect();
      assert.deepEqual(postProgress(sidecar, [REPORT]), { action: 'stop', code: 204 });
      sidecar.advance(1900);
      const [progress] = sidecar.collector.requests.flatMap(({ request }) => request.progress);
      assert.deepEqual(
        {
          job: progress?.job,
          done: progress?.done,
          of: progress?.of,
          queue: progress?.queue,
          state: progress?.state,
          event: progress?.event,
        },
        { job: 'nightly', done: '30', of: '100', queue: '7', state: 'packing', event: '' },
      );
      assert.equal(sidecar.collector.lastStatus?.queue, 7);
      assert.equal(sidecar.collector.lastStatus.queueSource, 'QUEUE_SOURCE_APP');
    });

    it('hashes the job’s name unless report.plainIds is on', () => {
      const sidecar = start();
      sidecar.connect();
      postProgress(sidecar, [REPORT]);
      sidecar.advance(1900);
      const [progress] = sidecar.collector.requests.flatMap(({ request }) => request.progress);
      assert.match(progress?.job ?? '', /^[0-9a-f]{16}$/);
    });

    it('tells the latest word of each job, at most 64 of them', () => {
      const sidecar = start({ config: { report: { plainIds: true } } });
      sidecar.connect();
      for (let i = 0; i < 200; i++)
        postProgress(sidecar, [['x-mp-progress', `job="j${String(i % 100)}", done=${String(i)}`]]);
      sidecar.advance(3000);
      for (const { request } of sidecar.collector.requests)
        assert.ok(request.progress.length <= 64, String(request.progress.length));
      const last = sidecar.collector.requests
        .flatMap(({ request }) => request.progress)
        .findLast(item => item.job === 'j99');
      assert.equal(last?.done, '199');
    });

    it('refuses what it cannot read, and other methods and paths', () => {
      const sidecar = start();
      const rows: readonly (readonly [readonly Pair[], string, string, number])[] = [
        [[], PROGRESS_PATH, 'POST', 400],
        [[['x-mp-progress', 'done=x']], PROGRESS_PATH, 'POST', 400],
        [[REPORT], PROGRESS_PATH, 'GET', 405],
        [[REPORT], `${PROGRESS_PATH}?x=1`, 'POST', 204],
        [[REPORT], `${PROGRESS_PATH}/more`, 'POST', 404],
        [[REPORT], '/.well-known/meshpulse/other', 'POST', 404],
      ];
      for (const [headers, path, method, code] of rows)
        assert.equal(postProgress(sidecar, headers, { path, method }).code, code, `${method} ${path}`);
    });

    it('does not count as a call of the application', () => {
      const sidecar = start();
      sidecar.connect();
      postProgress(sidecar, [REPORT]);
      sidecar.advance(2500);
      for (const row of sidecar.collector.rows()) assert.equal(row.flags & RowFlag.Own, RowFlag.Own);
      assert.equal(sidecar.collector.lastStatus?.callsInFlight, 0);
    });
  });
});
