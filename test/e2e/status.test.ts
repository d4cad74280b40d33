// What an instance says of itself while it works and while it rests, and that all its voices agree: stamped
// headers, reports and access log.
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../demo/src/mesh/child.js';
import { luaFilter } from '../../demo/src/mesh/http-filters.js';
import { sha256Prefix } from './support/hash.js';
import { Http1OddClient, Http2OddClient } from './support/odd-client.js';
import { OddMesh } from './support/odd-mesh.js';
import { exchange, get, lines, RawClient, valuesOf, type Field } from './support/raw-http.js';
import { inTime } from './support/stalls.js';
import { RowFlag } from '../filter/wire.js';

/** A report later, which on a busy machine takes its time. */
const SHOWN_MS = 15_000;
/** A busy machine's delay of a report. */
const LATE_MS = 1500;
/** Requests that are looked at while they run. */
const HELD_MS = 6000;
/** A request is told of this long after it began: report.inFlightMs by default, and a tick. */
const LONG_MS = 5000;
const LONG_TOLD_MS = 7000;
/** What an application says of its job, shown. */
const PROGRESS_MS = 2000;

describe('requests in work', function () {
  this.timeout(40_000);

  it('one that takes long is told of within 7 s of its start, and no more when it has ended', async () => {
    const world = await OddMesh.start([{ name: 'front', outboundOnly: true }, { name: 'back' }]);
    try {
      await world.recorder.greeted('front', 'back');
      const client = new Http1OddClient(world.mesh.proxy('front').outbound);
      const began = Date.now();
      const answer = client.send({ host: 'back', path: '/report/2024', deed: { delayMs: LONG_TOLD_MS + 3000 } });
      for (const [service, label] of [
        ['front', RowFlag.Call],
        ['back', 0],
      ] as const) {
        const life = world.recorder.life(service);
        const list = await inTime(`${service} tells of it`, began + LONG_TOLD_MS - Date.now(), () =>
          life.inFlight.find(({ items }) => items.length > 0),
        );
        const [item] = list.items;
        assert.equal(item?.operation, 'GET /report/*');
        assert.equal((item?.flags ?? 0) & RowFlag.Call, label);
        assert.ok((item?.ageMs ?? 0) >= LONG_MS && (item?.ageMs ?? 0) <= LONG_TOLD_MS, `${item?.ageMs} ms old`);
      }
      const [front, back] = ['front', 'back'].map(service => world.recorder.life(service));
      assert.equal(front?.inFlight[0]?.items[0]?.eventId, back?.inFlight[0]?.items[0]?.eventId);
      assert.equal((await answer).status, 200);
      for (const life of [front, back]) {
        await until('an empty list', SHOWN_MS, () => (life?.inFlight.at(-1)?.items.length === 0 ? true : undefined));
      }
    } finally {
      await world.stop();
    }
  });

  it('is told of again each period while it runs', async () => {
    const world = await OddMesh.start([{ name: 'back' }], {
      proxy: { settings: { report: { intervalMs: 200, inFlightMs: 1000 } } },
    });
    try {
      await world.recorder.greeted('back');
      await new Http1OddClient(world.mesh.proxy('back').inbound).send({
        host: 'back',
        path: '/x',
        deed: { delayMs: 4500 },
      });
      const ages = world.recorder.life('back').inFlight.flatMap(({ items }) => items.map(item => item.ageMs));
      assert.ok(ages.length >= 2 && ages.length <= 5, `ages told: ${ages.join(' ')}`);
      assert.ok((ages[0] ?? 0) >= 1000 && (ages[0] ?? 0) < 3000);
    } finally {
      await world.stop();
    }
  });

  for (const concurrency of [1, 4]) {
    it(`20 at once show as 20 in reports and headers, with ${concurrency} workers`, async () => {
      const world = await OddMesh.start([{ name: 'back' }], { proxy: { concurrency } });
      try {
        await world.recorder.greeted('back');
        const { inbound } = world.mesh.proxy('back');
        const client = new Http1OddClient(inbound);
        const slow = Array.from({ length: 20 }, () =>
          client.send({ host: 'back', path: '/slow', deed: { delayMs: HELD_MS } }),
        );
        const life = world.recorder.life('back');
        await until('20 reported', HELD_MS, () => (life.statuses.at(-1)?.status.inFlight === 20 ? true : undefined));
        // One more, to see the header: it counts itself.
        const { head } = await exchange(inbound, get('back', '/probe', []));
        assert.match(valuesOf(head, 'x-mp-status')[0] ?? '', /^inflight=21(,|$)/);
        await Promise.all(slow);
        await until('0 reported', SHOWN_MS, () => (life.statuses.at(-1)?.status.inFlight === 0 ? true : undefined));
        const after = await exchange(inbound, get('back', '/probe', []));
        assert.match(valuesOf(after.head, 'x-mp-status')[0] ?? '', /^inflight=1(,|$)/);
      } finally {
        await world.stop();
      }
    });
  }
});

describe('an idle sidecar', function () {
  this.timeout(40_000);

  it('reports within its idle period, with 0 in flight', async () => {
    const idleMs = 1500;
    const world = await OddMesh.start([{ name: 'back' }], {
      proxy: { settings: { report: { intervalMs: 200, idleMs } } },
    });
    try {
      await world.recorder.greeted('back');
      await sleep(5 * idleMs);
      const { statuses } = world.recorder.life('back');
      const gaps = statuses.slice(1).map(({ atMs }, i) => atMs - (statuses[i]?.atMs ?? 0));
      assert.ok(statuses.length >= 3, `${statuses.length} statuses`);
      assert.ok(Math.max(...gaps) <= idleMs + LATE_MS, `gaps, ms: ${gaps.join(' ')}`);
      for (const { status } of statuses) assert.equal(status.inFlight, 0);
    } finally {
      await world.stop();
    }
  });
});

const ORCA = 'TEXT cpu_utilization=0.42,mem_utilization=0.61,named_metrics.queue=7';

describe('the application’s own word', function () {
  this.timeout(40_000);

  it('ORCA shows in reports and headers; what nobody says is absent', async () => {
    const world = await OddMesh.start([{ name: 'back' }]);
    try {
      await world.recorder.greeted('back');
      const { inbound } = world.mesh.proxy('back');
      const client = RawClient.open(inbound);
      const life = world.recorder.life('back');
      const silent = await client.send(get('back', '/x', []));
      assert.match(valuesOf(silent.head, 'x-mp-status')[0] ?? '', /^inflight=1(, (wait|age)=\d+)*$/);
      await until('a status', SHOWN_MS, () => (life.statuses.length > 1 ? true : undefined));
      const before = life.statuses.at(-1)?.status;
      assert.deepEqual([before?.queue, before?.cpuRatio, before?.memoryRatio], [undefined, undefined, undefined]);

      const deed = JSON.stringify({ headers: { 'endpoint-load-metrics': ORCA } });
      const spoken = await client.send(get('back', '/x', [['x-do', deed]]));
      assert.match(valuesOf(spoken.head, 'x-mp-status')[0] ?? '', /queue=7, qsrc=app,.* cpu=0\.42, mem=0\.61/);
      assert.deepEqual(valuesOf(spoken.head, 'endpoint-load-metrics'), [ORCA]);
      client.close();
      const status = await until('queue reported', SHOWN_MS, () => {
        const last = life.statuses.at(-1)?.status;
        return last?.queue === 7 ? last : undefined;
      });
      assert.equal(status.queueSource, 'QUEUE_SOURCE_APP');
      assert.ok(Math.abs((status.cpuRatio ?? 0) - 0.42) < 0.001);
      assert.ok(Math.abs((status.memoryRatio ?? 0) - 0.61) < 0.001);
    } finally {
      await world.stop();
    }
  });

  const PATH = '/.well-known/meshpulse/progress';
  const POSTS: { name: string; method: string; path: string; fields: Field[]; status: number }[] = [
    {
      name: 'progress',
      method: 'POST',
      path: PATH,
      fields: [['x-mp-progress', 'job="invoice-42", done=30, of=100, queue=7, state=packing']],
      status: 204,
    },
    {
      name: 'progress with a query',
      method: 'POST',
      path: `${PATH}?a=b`,
      fields: [['x-mp-progress', 'done=31']],
      status: 204,
    },
    { name: 'no progress at all', method: 'POST', path: PATH, fields: [], status: 400 },
    { name: 'no dictionary', method: 'POST', path: PATH, fields: [['x-mp-progress', 'job="unclosed']], status: 400 },
    { name: 'another method', method: 'GET', path: PATH, fields: [['x-mp-progress', 'done=1']], status: 405 },
    {
      name: 'another path',
      method: 'POST',
      path: '/.well-known/meshpulse/other',
      fields: [['x-mp-progress', 'done=1']],
      status: 404,
    },
  ];
  const render = ({ method, path, fields }: (typeof POSTS)[number]) =>
    `${method} ${path} HTTP/1.1\r\nhost: back\r\n${lines(fields)}content-length: 0\r\n\r\n`;

  it('progress without traffic: answered by the sidecar, shown, forwarded to nobody', async () => {
    const world = await OddMesh.start([{ name: 'consumer', outboundOnly: true }, { name: 'back' }]);
    try {
      await world.recorder.greeted('consumer', 'back');
      const { outbound } = world.mesh.proxy('consumer');
      for (const post of POSTS) assert.equal((await exchange(outbound, render(post))).status, post.status, post.name);
      const life = world.recorder.life('consumer');
      const { progress } = await inTime('progress', PROGRESS_MS, () =>
        life.progress.find(({ progress: p }) => p.state === 'packing'),
      );
      assert.deepEqual([progress.done, progress.of, progress.queue, progress.event], ['30', '100', '7', '']);
      assert.equal(progress.job, sha256Prefix('invoice-42'));
      await inTime('its queue', PROGRESS_MS, () => (life.statuses.at(-1)?.status.queue === 7 ? true : undefined));
      // Nothing went on to the host that the request named.
      assert.equal(world.app('back').total, 0);
      await sleep(500);
      assert.equal(world.recorder.rows('back').length, 0);
      for (const row of world.recorder.rows('consumer')) assert.ok(row.flags & RowFlag.Own, row.operation);
    } finally {
      await world.stop();
    }
  });

  it('from the network nobody can report progress', async () => {
    const world = await OddMesh.start([{ name: 'back' }]);
    try {
      await world.recorder.greeted('back');
      const { inbound } = world.mesh.proxy('back');
      for (const post of POSTS) assert.equal((await exchange(inbound, render(post))).status, 404, post.name);
      await sleep(1000);
      assert.equal(world.app('back').total, 0);
      assert.deepEqual(world.recorder.life('back').progress, []);
    } finally {
      await world.stop();
    }
  });
});

const REJECT =
  'function envoy_on_request(h) if h:headers():get("x-reject") then h:respond({[":status"]="401"},"no") end end';

describe('one life, one id', function () {
  this.timeout(40_000);

  it('is the same in headers, reports and every line of both access logs, for all workers', async () => {
    const world = await OddMesh.start([{ name: 'front', outboundOnly: true }, { name: 'back' }], {
      proxy: { concurrency: 4, inboundFiltersBefore: [luaFilter(REJECT)] },
    });
    try {
      await world.recorder.greeted('front', 'back');
      const [front, back] = ['front', 'back'].map(service => world.recorder.life(service).hello.cuid);
      const { outbound } = world.mesh.proxy('front');
      // A connection each, so that every worker gets some.
      const answers = await Promise.all(Array.from({ length: 40 }, () => exchange(outbound, get('back', '/x', []))));
      assert.deepEqual([...new Set(answers.flatMap(({ head }) => valuesOf(head, 'x-cuid')))], [back]);
      const keptAlive = RawClient.open(outbound);
      for (let i = 0; i < 5; i++) await keptAlive.send(get('back', '/x', []));
      keptAlive.close();
      const h2 = new Http2OddClient(outbound);
      await Promise.all([1, 2, 3, 4, 5].map(() => h2.send({ host: 'back', path: '/x' })));
      await h2.send({ host: 'back', path: '/x', reset: 'waiting', deed: { delayMs: HELD_MS } });
      await h2.send({ host: 'back', path: '/x', headers: { 'x-reject': '1' } });
      await h2.send({ host: 'nowhere', path: '/x' });
      h2.close();
      await world.idle();
      for (const [service, cuid] of [
        ['front', front],
        ['back', back],
      ] as const) {
        const log = await world.log(service);
        assert.ok(log.length >= 52, `${log.length} lines`);
        assert.deepEqual([...new Set(log.map(line => line.cuid))], [cuid], service);
      }
      const callers = new Set(world.recorder.rows('back').map(row => row.peerCuid));
      callers.delete('');
      assert.deepEqual([...callers], [front]);
    } finally {
      await world.stop();
    }
  });
});
