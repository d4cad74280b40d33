import assert from 'node:assert/strict';
import { CALL, ENTRY, EXTERNAL, type TestRow } from '../collector/transactions/rows.js';
import { cuidOf, ipOf, Mesh, until } from './support.js';

const KEY = '4bf92f3577b34da6a3ce929d0e0e4736';
const REQUEST = '3f0d8a1e-6c1b-4d5e-8f90-123456789abc';

/** Transaction number `n` of the shop: gateway -> payment (-> bank, outside). */
function buy(n: number, status = 200): Map<string, TestRow[]> {
  const key = n === 0 ? KEY : (n + 1).toString(16).padStart(32, '0');
  const ids = { key, ...(n === 0 ? { request: REQUEST } : {}) };
  const id = (at: number): string => (0x1000 + n * 16 + at).toString(16);
  const charge = { operation: 'POST /charge', status };
  return new Map([
    [
      'gateway.store',
      [
        { ...ids, event: id(1), start: 0, duration: 50_000, operation: 'POST /buy', flags: ENTRY, status },
        {
          ...ids,
          ...charge,
          event: id(2),
          start: 1000,
          duration: 45_000,
          flags: CALL,
          peerCuid: cuidOf('payment.store'),
          attempts: status === 200 ? 1 : 2,
        },
      ],
    ],
    [
      'payment.store',
      [
        { ...ids, ...charge, event: id(2), start: 2000, duration: 40_000, peerCuid: cuidOf('gateway.store') },
        {
          ...ids,
          event: id(3),
          start: 3000,
          duration: 5000,
          operation: 'POST /authorise',
          flags: CALL | EXTERNAL,
          peerService: 'bank.example.com:443',
          attempts: 1,
        },
      ],
    ],
  ]);
}

describe('asking a collector about what never reported', function () {
  this.timeout(60_000);

  it('status shows whom callers speak with and nobody hears from', async () => {
    const mesh = await Mesh.start();
    try {
      const call = { start: 0, duration: 10, flags: CALL, operation: 'GET /' };
      const [byName, byCuid] = [{ peerService: 'stock.store.svc.cluster.local' }, { peerCuid: cuidOf('mail.store') }];
      await mesh.report(
        'gateway.store',
        [
          { ...call, ...byName },
          { ...call, ...byCuid, peerService: 'mail.store:80' },
        ],
        Date.now(),
      );
      const lines = (text: string): string[] =>
        text
          .trimEnd()
          .split('\n')
          .map(line => line.replace(/ {3,}/g, ' '));
      assert.deepEqual(lines((await mesh.ask('status')).out), [
        'SERVICE LIVE SILENT GONE EXPECTED IN_FLIGHT QUEUE EVENTS FAILED',
        'gateway.store 1 0 0 0 - - 0 0',
        'mail.store 0 0 0 1 - - 0 0',
        'stock.store external - - 1 - - 1 0',
      ]);
      assert.match((await mesh.ask('status', 'stock')).out, /\n- .* expected\n$/);
      await mesh.report('mail.store', [], Date.now());
      await mesh.report('stock.store', [], Date.now());
      assert.doesNotMatch((await mesh.ask('status')).out, /EXPECTED/);
    } finally {
      await mesh.stop();
    }
  });
});

describe('asking a collector', function () {
  this.timeout(60_000);
  let mesh: Mesh;
  const began = Date.now();

  before(async () => {
    mesh = await Mesh.start();
    for (let n = 0; n < 6; n++) {
      for (const [service, rows] of buy(n, n === 0 ? 503 : 200))
        await mesh.report(service, rows, began - 10_000 + n * 100);
    }
    await mesh.report('payment.store', [], began, {
      status: {
        inFlight: 3,
        queue: 7,
        queueSource: 'QUEUE_SOURCE_APP',
        waitMs: 4,
        cpuRatio: 0.42,
        ageMs: 10,
        windowMs: 1000,
      },
      progress: [{ job: 'invoices', done: '30', of: '100', queue: '70', state: 'sending' }],
    });
  });
  after(() => mesh.stop());

  const rowsOf = (out: string): string[][] =>
    out
      .trimEnd()
      .split('\n')
      .map(line => line.split(/ {3,}/));

  it('status: services with exact counts, external ones marked', async () => {
    const { code, out, err } = await mesh.ask('status');
    assert.deepEqual(rowsOf(out), [
      ['SERVICE', 'LIVE', 'SILENT', 'GONE', 'IN_FLIGHT', 'QUEUE', 'EVENTS', 'FAILED'],
      ['bank.example.com', 'external', '-', '-', '-', '-', '6', '0'],
      ['gateway.store', '1', '0', '0', '-', '-', '6', '1'],
      ['payment.store', '1', '0', '0', '3', '7', '6', '1'],
    ]);
    assert.deepEqual([code, err], [0, '']);
    const json = JSON.parse((await mesh.ask('status', '-o', 'json')).out) as {
      services: { name: string; events: string }[];
    };
    assert.deepEqual(
      json.services.map(({ name, events }) => [name, events]),
      [
        ['bank.example.com', '6'],
        ['gateway.store', '6'],
        ['payment.store', '6'],
      ],
    );
    assert.equal(rowsOf((await mesh.ask('status', '-n', 'store')).out).length, 3);
  });

  it('status SERVICE: instances and jobs, by full or short name', async () => {
    for (const name of ['payment.store', 'payment']) {
      const { code, out } = await mesh.ask('status', name);
      assert.equal(code, 0);
      const [headers, instance, , jobHeaders, job] = rowsOf(out);
      assert.deepEqual(headers, [
        'CUID',
        'IP',
        'NODE',
        'IN_FLIGHT',
        'QUEUE',
        'WAIT',
        'CPU',
        'MEM',
        'READ',
        'AGE',
        'STATE',
      ]);
      const [cuid, ip, , ...rest] = instance!;
      assert.deepEqual(
        [cuid, ip, ...rest.slice(0, 5)],
        [cuidOf('payment.store'), ipOf('payment.store'), '3', '7(app)', '4ms', '42%', '-'],
      );
      assert.equal(rest.at(-1), 'live');
      assert.deepEqual(jobHeaders?.slice(0, 2), ['JOB', 'DONE']);
      assert.deepEqual(job?.slice(0, 5), ['invoices', '30', '100', '70', 'sending']);
    }
  });

  it('status of an unknown service: code 1, and what it could have been', async () => {
    const { code, out, err } = await mesh.ask('status', 'paymnet.store');
    assert.deepEqual(
      [code, out, err],
      [1, '', 'meshpulse: no service "paymnet.store" is known; did you mean payment.store?\n'],
    );
  });

  it('status -w: the state now, then each change', async () => {
    for (const form of ['table', 'json']) {
      const running = mesh.begin('status', 'payment', '-w', '-o', form);
      try {
        await until('first row', () => running.out().includes(cuidOf('payment.store')) || undefined);
        const inFlight = form === 'table' ? 55 : 66;
        await until('the change', async () => {
          await mesh.report('payment.store', [], began, { status: { inFlight, ageMs: 0 } });
          return running.out().includes(String(inFlight)) || undefined;
        });
      } finally {
        running.child.kill();
      }
      const { out } = await running.ended;
      if (form === 'table') assert.equal(out.split('\n').filter(line => line.startsWith('CUID')).length, 1);
      else for (const line of out.trimEnd().split('\n')) JSON.parse(line);
    }
  });

  it('observe: newest first, narrowed by state and service', async () => {
    const { code, out, err } = await mesh.ask('observe');
    const [headers, ...rows] = rowsOf(out);
    assert.deepEqual([code, err], [0, '']);
    assert.deepEqual(headers, ['TRANSACTION', 'KIND', 'STATE', 'AGE', 'DURATION']);
    assert.equal(rows.length, 6);
    assert.deepEqual(rows[5]?.slice(0, 3), [KEY, 'gateway.store POST /buy', 'failed']);
    assert.equal(rows[5]?.[4], '50ms');
    assert.equal(rowsOf((await mesh.ask('observe', '--state', 'failed')).out).length, 2);
    assert.equal(
      rowsOf(
        (
          await mesh.ask(
            'observe',
            '--state',
            'failed,succeeded',
            '--service',
            'payment.store',
            '-n',
            'store',
            '--since',
            '1h',
          )
        ).out,
      ).length,
      7,
    );
    const none = await mesh.ask('observe', '--service', 'nobody');
    assert.deepEqual(none, { code: 0, out: '', err: 'no such request is known\n' });
    const json = JSON.parse((await mesh.ask('observe', '-o', 'json', '--limit', '2')).out) as {
      transactions: { key: string }[];
      nextPageToken: string;
    };
    assert.equal(json.transactions.length, 2);
    const few = await mesh.ask('observe', '--limit', '2');
    assert.match(few.err, /there are more than these 2; --limit N shows N/);
    assert.match((await mesh.ask('observe', '--since', '5d')).err, /--since reaches further back than what is kept/);
  });

  it('observe --older-than: what has been running for so long', async () => {
    const half = { keyHi: '1', keyLo: '2' };
    const item = { ...half, eventId: '9', operation: 'POST /reports', flags: ENTRY | (2 << 20), ageMs: 6000 };
    const [producer] = [1, 2].filter(number => cuidOf('gateway.store').endsWith(String(number)));
    await mesh.report('gateway.store', [], began, { inFlight: [{ producer: String(producer), items: [item] }] });
    const { code, out } = await mesh.ask('observe', '--older-than', '5s');
    const [, ...rows] = rowsOf(out);
    assert.equal(code, 0);
    assert.deepEqual(
      rows.map(row => row.slice(0, 3)),
      [['00000000000000010000000000000002', 'gateway.store POST /reports', 'running']],
    );
    assert.equal((await mesh.ask('observe', '--older-than', '1h')).out, '');
    const note = 'requests that have run for less than 5s may be missing: proxies list them from then on\n';
    assert.equal((await mesh.ask('observe', '--older-than', '4s')).err, note);
    assert.equal((await mesh.ask('observe', '--older-than', '5s')).err, '');
    const following = mesh.begin('observe', '--older-than', '5s', '-f', '-o', 'json');
    await until('a line', () => following.out().includes('\n') || undefined);
    following.child.kill();
    const [line] = (await following.ended).out.split('\n');
    assert.equal((JSON.parse(line!) as { state: string }).state, 'TRANSACTION_STATE_RUNNING');
  });

  it('observe -f: what is there, then what comes', async () => {
    const running = mesh.begin('observe', '-f', '--state', 'succeeded', '--limit', '3');
    try {
      await until('the first ones', () => running.out().split('\n').length > 3 || undefined);
      for (const [service, rows] of buy(77)) await mesh.report(service, rows, Date.now());
      const key = (78).toString(16).padStart(32, '0');
      await until('the new one', () => running.out().includes(key) || undefined);
    } finally {
      running.child.kill();
    }
    const { out } = await running.ended;
    assert.equal(rowsOf(out).length, 5, out);
  });

  it('why: the story, by every id of a request', async () => {
    for (const id of [KEY, REQUEST, '0000000000001002']) {
      const { code, out, err } = await mesh.ask('why', id);
      assert.deepEqual([code, err], [0, '']);
      assert.match(
        out,
        /^gateway\.store POST \/buy failed after 50\.0 ms: payment\.store POST \/charge failed with 503, 2 attempts\.\n/,
      );
      assert.match(out, /^State: {8,}failed$/m);
      assert.match(out, /^\+1\.0ms {3,}gateway\.store called payment\.store POST \/charge; it failed with 503/m);
      assert.match(
        out,
        /payment\.store called bank\.example\.com \(outside the mesh\) POST \/authorise; it answered 200/,
      );
      assert.doesNotMatch(out, /attempts=2/);
    }
    assert.match((await mesh.ask('why', KEY, '-e')).out, /attempts=2/);
    const { lines } = JSON.parse((await mesh.ask('why', KEY, '-o', 'json')).out) as { lines: { evidence: string[] }[] };
    assert.ok(lines.some(line => line.evidence.includes('attempts=2')));
  });

  it('why of an unknown id: code 1, and how far back it was looked for', async () => {
    const { code, out, err } = await mesh.ask('why', 'no-such-order');
    assert.deepEqual([code, out], [1, '']);
    assert.match(err, /^meshpulse: no transaction has the id "no-such-order"; they are remembered since \d{4}-/);
  });

  it('who: the life that had an address, and code 1 where nobody known had it', async () => {
    const { code, out, err } = await mesh.ask('who', ipOf('payment.store'));
    const [headers, row] = rowsOf(out);
    assert.deepEqual([code, err], [0, '']);
    assert.deepEqual(headers, ['CUID', 'SERVICE', 'SLOT', 'NODE', 'FROM', 'TO']);
    assert.deepEqual([row?.[0], row?.[1], row?.[5]], [cuidOf('payment.store'), 'payment.store', 'now']);
    assert.equal(
      (await mesh.ask('who', ipOf('payment.store'), '--at', new Date().toISOString(), '--port', '8080')).code,
      0,
    );
    const nobody = await mesh.ask('who', '10.9.9.9');
    assert.deepEqual([nobody.code, nobody.out], [1, '']);
    assert.notEqual(nobody.err, '');
    const json = await mesh.ask('who', '10.9.9.9', '-o', 'json');
    assert.equal((JSON.parse(json.out) as { unknown: boolean }).unknown, true);
    assert.equal(json.code, 1);
  });

  it('flow: the learned graph as a tree, by whole or part of a kind', async () => {
    await until(
      'learned',
      async () =>
        (await mesh.ask('flow')).out.includes('6 transactions') ||
        (await mesh.ask('flow')).out.includes('7 transactions') ||
        undefined,
    );
    for (const kind of [['gateway.store POST /buy'], ['gateway.store', 'POST', '/buy'], ['gateway']]) {
      const { code, out } = await mesh.ask('flow', ...kind);
      assert.equal(code, 0);
      const [heading, ...lines] = out.trimEnd().split('\n');
      assert.match(heading!, /^gateway\.store POST \/buy {3}[67] transactions, last \d+s ago$/);
      assert.match(
        lines[0]!,
        /^└─ 1 payment\.store POST \/charge {3,}p50 \d+ms, p99 \d+ms {3}1\.1\d attempts, 1 failed$/,
      );
      assert.match(
        lines[1]!,
        /^ {3}└─ 1 bank\.example\.com POST \/authorise {3}p50 [\d.]+ms, p99 [\d.]+ms {3}external$/,
      );
    }
    const unknown = await mesh.ask('flow', 'gateway.store', 'POST', '/by');
    assert.equal(unknown.code, 1);
    assert.match(
      unknown.err,
      /no kind of request "gateway\.store POST \/by" has been learned; did you mean gateway\.store POST \/buy\?/,
    );
    const { flows } = JSON.parse((await mesh.ask('flow', '-o', 'json', '--window', '1h')).out) as {
      flows: { kind: string }[];
    };
    assert.deepEqual(
      flows.map(flow => flow.kind),
      ['gateway.store POST /buy'],
    );
  });
});
