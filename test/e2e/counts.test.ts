// Exact equality of three books: what the client saw, what Envoy logged, what the filter reported.
import { strict as assert } from 'node:assert';
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { TraceSink } from '../../demo/src/mesh/trace-sink.js';
import { RowFlag } from '../filter/wire.js';
import { logEntry, rowEntry, rowStory, tally } from './support/ledger.js';
import { Http1OddClient, Http2OddClient, type OddClient } from './support/odd-client.js';
import { OddMesh } from './support/odd-mesh.js';
import { oddServices, scenarios, SILENT, type Wire } from './support/scenarios.js';

const CALLEES = ['back', 'late', 'early', 'guard', 'dead'];

const times = (n: number, texts: string[]) => texts.flatMap(text => Array<string>(n).fill(text));

/** One scenario after the other, so that a failure names one; its repetitions at once. */
async function play(world: OddMesh, wire: Wire, traced: boolean): Promise<string[]> {
  const to = world.mesh.proxy('front').outbound;
  const client = wire.client === 'http1' ? new Http1OddClient(to) : new Http2OddClient(to);
  const seen: string[] = [];
  for (const { name, request, times: n, service = 'back' } of scenarios(wire)) {
    const sent = Array.from({ length: n }, () => {
      const headers = { ...(traced ? { traceparent: traceparent() } : {}), ...request.headers };
      return client.send({ host: service, ...request, headers, path: `/${name}` });
    });
    seen.push(...(await Promise.all(sent)).map(({ status }) => `${name} ${status}`));
  }
  client.close();
  return seen;
}

function traceparent(): string {
  return `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-01`;
}

/** Rows and access log agree, nothing is lost, nothing is left in flight. */
async function booksAgree(world: OddMesh, services: string[]): Promise<void> {
  for (const service of services) {
    const log = await world.log(service);
    assert.deepEqual(tally(world.recorder.rows(service).map(rowEntry)), tally(log.map(logEntry)), service);
    nothingLost(world, service);
  }
}

function nothingLost(world: OddMesh, service: string): void {
  const life = world.recorder.life(service);
  assert.deepEqual(life.lost, { batches: 0, rows: 0 }, service);
  assert.deepEqual(world.recorder.faults, []);
  const last = life.statuses.at(-1)?.status;
  assert.deepEqual([last?.inFlight, last?.callsInFlight, last?.streamsOpen], [0, 0, 0], `in flight at ${service}`);
}

describe('every kind of end is counted', function () {
  this.timeout(60_000);

  for (const [mtls, traced] of [
    [false, false],
    [true, false],
    [true, true],
  ] as const) {
    for (const client of traced ? (['http2'] as const) : (['http1', 'http2'] as const)) {
      const wire: Wire = { client, between: mtls ? 'http2' : 'http1' };
      const list = scenarios(wire);
      const between = mtls ? 'HTTP/2 with mTLS' : 'plain HTTP/1.1';

      describe(`${client} client, ${between} between proxies, two workers${traced ? ', tracing and role order' : ''}`, () => {
        let world: OddMesh;
        let sink: TraceSink;
        let seen: string[];
        before(async () => {
          sink = await TraceSink.start();
          const tracing = { provider: 'opentelemetry' as const, sink: sink.address };
          const proxy = { concurrency: 2, ...(traced ? { tracing } : {}) };
          world = await OddMesh.start(oddServices(wire.between), { mtls, without: SILENT, proxy });
          await world.recorder.greeted('front', ...CALLEES);
          seen = await play(world, wire, traced);
          await world.settled('front', ...CALLEES);
        });
        after(async () => {
          await world.stop();
          await sink.stop();
        });

        it('the client sees what the scenarios say', () => {
          assert.deepEqual(
            tally(seen),
            tally(list.flatMap(({ name, client: s, times: n }) => times(n, [`${name} ${s}`]))),
          );
        });

        it('rows equal the access log, none is lost, none stays in flight', () =>
          booksAgree(world, ['front', ...CALLEES]));

        for (const { name, call, events, times: n, service = 'back' } of list) {
          it(`${name}: ${n} x ${call}`, () => {
            const stories = (at: string) =>
              tally(
                world.recorder.rows(at).flatMap(row => (row.operation.endsWith(` /${name}`) ? [rowStory(row)] : [])),
              );
            assert.deepEqual(stories('front'), tally(times(n, [call])), 'calls');
            if (CALLEES.includes(service)) assert.deepEqual(stories(service), tally(times(n, events)), 'events');
          });
        }
      });
    }
  }
});

const LOAD_COUNT = 5000;
/** Requests of one protocol that are in work at a time: as fast as the machine is, and no faster. */
const LOAD_AT_ONCE = 12;
/** Primes, so that each operation and status has a count of its own. */
const MIX = [
  { every: 101, operation: 'POST /checkout', method: 'POST', path: '/checkout', status: 500 },
  { every: 37, operation: 'GET /missing', method: 'GET', path: '/missing', status: 404 },
  { every: 13, operation: 'PUT /items/*', method: 'PUT', path: '/items/4711', status: 201 },
  { every: 1, operation: 'GET /shop', method: 'GET', path: '/shop', status: 200 },
];

describe('load is counted', function () {
  this.timeout(60_000);

  it(`${2 * LOAD_COUNT} requests over HTTP/1.1 and h2c, by operation and status, through two workers each`, async () => {
    const world = await OddMesh.start(
      [
        { name: 'front', outboundOnly: true },
        { name: 'back', protocol: 'downstream' },
      ],
      { mtls: false, proxy: { concurrency: 2 } },
    );
    try {
      await world.recorder.greeted('front', 'back');
      const to = world.mesh.proxy('front').outbound;
      const seen = await Promise.all([load(new Http1OddClient(to)), load(new Http2OddClient(to))]);
      await world.settled('front', 'back');
      const expected = tally(seen.flat());
      assert.deepEqual(expected, tally(Array.from({ length: 2 * LOAD_COUNT }, (_, n) => shotOf(n % LOAD_COUNT).story)));
      for (const service of ['front', 'back']) {
        const rows = world.recorder.rows(service);
        assert.deepEqual(tally(rows.map(row => `${row.operation} ${row.httpStatus}`)), expected, service);
        nothingLost(world, service);
        assert.ok(world.recorder.life(service).batches.size >= 2, 'both workers report');
      }
      joined(world);
    } finally {
      await world.stop();
    }
  });

  it('a request that breaks off in its headers disturbs no other count', async () => {
    const world = await OddMesh.start([{ name: 'front', outboundOnly: true }, { name: 'back' }]);
    try {
      await world.recorder.greeted('front');
      const { outbound } = world.mesh.proxy('front');
      const half = ['', 'GET', 'GET /half HTTP/1.1\r\n', 'GET /half HTTP/1.1\r\nhost: back\r\nx-a'];
      for (const text of half) {
        const socket = connect({ ...outbound, noDelay: true });
        socket.write(text);
        await sleep(50);
        socket.resetAndDestroy();
      }
      const client = new Http1OddClient(outbound);
      for (let i = 0; i < 7; i++) assert.equal((await client.send({ host: 'back', path: '/whole' })).status, 200);
      await world.idle();
      await world.recorder.rowsOf('front', 7);
      await world.atRest('front');
      const rows = world.recorder.rows('front');
      assert.equal(rows.filter(row => row.operation === 'GET /whole' && row.httpStatus === 200).length, 7);
      // Whatever is told of the others says that the filter never saw them.
      const others = rows.filter(row => row.operation !== 'GET /whole');
      assert.ok(others.length <= half.length);
      for (const row of others) assert.equal(row.flags & RowFlag.Unseen, RowFlag.Unseen, rowStory(row));
      nothingLost(world, 'front');
    } finally {
      await world.stop();
    }
  });
});

function shotOf(n: number) {
  const shot = MIX.find(({ every }) => n % every === 0);
  if (!shot) throw new Error('the last of the mix takes every n');
  return { ...shot, story: `${shot.operation} ${shot.status}` };
}

/** What came of LOAD_COUNT requests: `operation status`. */
async function load(client: OddClient): Promise<string[]> {
  const seen: string[] = [];
  let next = 0;
  const worker = async () => {
    while (next < LOAD_COUNT) {
      const { operation, method, path, status } = shotOf(next++);
      const answer = await client.send({ host: 'back', method, path, deed: { status } });
      seen.push(`${operation} ${answer.status}`);
    }
  };
  await Promise.all(Array.from({ length: LOAD_AT_ONCE }, worker));
  client.close();
  return seen;
}

/** Each call and the event that it caused share their id, and name each other. */
function joined(world: OddMesh): void {
  const [front, back] = ['front', 'back'].map(service => world.recorder.life(service).hello.cuid);
  const events = new Map(world.recorder.rows('back').map(row => [row.event, row]));
  const calls = world.recorder.rows('front');
  assert.equal(events.size, calls.length, 'ids are unique');
  for (const call of calls) {
    const event = events.get(call.event);
    assert.ok(event, `no event for call ${call.event}`);
    assert.deepEqual([call.peerCuid, event.peerCuid, event.operation], [back, front, call.operation]);
    assert.equal(event.requestId, call.requestId);
    assert.equal(event.flags & RowFlag.Entry, 0);
  }
}
