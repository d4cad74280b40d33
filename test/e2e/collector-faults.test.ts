// A collector that is gone, hangs, is slow, talks nonsense or hangs up: no request notices, and what is lost
// is a number.
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Address } from '../../demo/src/mesh/address.js';
import { until } from '../../demo/src/mesh/child.js';
import { FaultProxy } from '../../demo/src/mesh/fault-proxy.js';
import type { Json } from '../../demo/src/mesh/json.js';
import { Load, quantile, total, type LoadReport } from '../../demo/src/mesh/load.js';
import { COLLECTOR_CLUSTER } from '../../demo/src/mesh/mesh.js';
import { logEntry, rowEntry, tally } from './support/ledger.js';
import { OddMesh } from './support/odd-mesh.js';
import { Recorder, type Life } from './support/recorder.js';

/** Requests per second to each proxy. */
const RATE = 200;
/** Requests of one phase to each proxy. */
/** More rows than the windows of two workers hold, 256 KiB each, however evenly they share the requests. */
const WINDOW_FILLED = 14_000;
const PHASE = 300;
/** The fault comes and goes so many times. */
const ROUNDS = 3;
/**
 * Latency is compared with an identical proxy that has a healthy collector and serves the same load at the
 * same time: 1 % of its requests take longer than its p99, and no more than this share of ours may exceed
 * that by the allowance. A quantile of each alone would measure who else uses the machine.
 */
const LATE_RATIO_MAX = 0.025;
const P99_ADDED_MS = 1;
/** What a fault costs shows each time; what a busy machine costs falls on one of the two at random. */
const MEASUREMENTS = 3;
const RECOVERY_MS = 40_000;
/** A stream that fails is tried again after at most so long (backoff), when it had failed before. */
const FALLBACK_AFTER_MS = 30_000;
const STREAM_AGAIN_MS = 60_000;
const SLACK_MS = 10_000;
/** A unary call that was under way when the stream opened has come by then. */
const UNARY_ENDED_MS = 3000;
/** Without an answer for 15 s although we spoke, a stream counts as dead. */
const GIVEN_UP_MS = 40_000;

class Stage {
  private constructor(
    readonly world: OddMesh,
    readonly recorder: Recorder,
    readonly link: FaultProxy,
    private readonly calm: Recorder,
  ) {}

  /** Two proxied services: the collector of `back` is behind a link that can fail, that of `calm` is well. */
  static async start(): Promise<Stage> {
    const recorder = await Recorder.start();
    const link = await FaultProxy.start(recorder.address);
    const calm = await Recorder.start();
    const elsewhere = (bootstrap: Json) => redirect(bootstrap, link.address, calm.address);
    const services = [{ name: 'back' }, { name: 'calm', proxy: { patch: elsewhere } }];
    const world = await OddMesh.start(services, { recorder, collector: link.address });
    await recorder.greeted('back');
    await calm.greeted('calm');
    return new Stage(world, recorder, link, calm);
  }

  get life(): Life {
    return this.recorder.life('back');
  }

  load(count = PHASE, rate = RATE, service = 'back'): Promise<LoadReport> {
    return Load.start({
      targets: [this.world.mesh.proxy(service).inbound],
      host: service,
      rate,
      count,
      next: n => ({ operation: 'GET /x', method: 'GET', path: n % 7 === 0 ? '/seventh' : '/x' }),
    }).ended();
  }

  /** Waits until every request in the access log is a row or a number in the account of losses. */
  async accounted(): Promise<{ logged: number; rows: number; lost: number }> {
    await this.world.idle();
    const logged = (await this.world.log('back')).length;
    return until('every event accounted for', RECOVERY_MS, () => {
      const { life } = this;
      const rows = life.rows.length;
      return rows + life.lost.rows === logged ? { logged, rows, lost: life.lost.rows } : undefined;
    }).catch((error: unknown) => {
      const { life } = this;
      throw new Error(`${logged} logged, ${life.rows.length} rows, ${life.lost.rows} known to be lost`, {
        cause: error,
      });
    });
  }

  async nothingLost(): Promise<void> {
    const { lost } = await this.accounted();
    assert.equal(lost, 0);
    const log = await this.world.log('back');
    assert.deepEqual(tally(this.life.rows.map(rowEntry)), tally(log.map(logEntry)));
  }

  async stop(): Promise<void> {
    await this.world.stop();
    await this.link.stop();
    this.recorder.stop();
    this.calm.stop();
  }
}

function allAnswered(report: LoadReport): LoadReport {
  assert.equal(
    total(report, status => status === 200),
    report.sent,
    report.errors.join('\n'),
  );
  return report;
}

/** Lets one proxy report to another collector than the mesh's. */
function redirect(bootstrap: Json, from: Address, to: Address): void {
  const { clusters } = bootstrap['static_resources'] as { clusters: Json[] };
  const index = clusters.findIndex(({ name }) => name === COLLECTOR_CLUSTER);
  const text = JSON.stringify(clusters[index]);
  clusters[index] = JSON.parse(text.replace(`"port_value":${from.port}`, `"port_value":${to.port}`)) as Json;
}

const shown = (ascending: number[]) => [0.5, 0.99, 1].map(q => quantile(ascending, q).toFixed(1)).join(' ');

interface Fault {
  name: string;
  begin: (stage: Stage) => Promise<void> | void;
  end: (stage: Stage) => Promise<void> | void;
}

const FAULTS: Fault[] = [
  { name: 'killed', begin: ({ recorder }) => recorder.stop(), end: ({ recorder }) => recorder.resume() },
  {
    name: 'behind a blackhole',
    begin: ({ link }) => link.set({ kind: 'blackhole' }),
    end: ({ link }) => link.set({ kind: 'none' }, true),
  },
  {
    name: 'slow by 5 s',
    begin: ({ recorder }) => void (recorder.stream = recorder.unary = { kind: 'slow', ms: 5000 }),
    end: ({ recorder }) => void (recorder.stream = recorder.unary = { kind: 'ack' }),
  },
  {
    name: 'answering nonsense',
    begin: ({ recorder }) => void (recorder.stream = recorder.unary = { kind: 'garbage' }),
    end: ({ recorder }) => void (recorder.stream = recorder.unary = { kind: 'ack' }),
  },
  {
    name: 'answering bytes that are no HTTP/2',
    begin: ({ link }) => link.set({ kind: 'garbage' }, true),
    end: ({ link }) => link.set({ kind: 'none' }, true),
  },
  {
    name: 'resetting every stream',
    begin: ({ recorder }) => void (recorder.stream = recorder.unary = { kind: 'reset' }),
    end: ({ recorder }) => void (recorder.stream = recorder.unary = { kind: 'ack' }),
  },
];

/** The share of requests that are late by the fault, which comes and goes in mid-load. */
async function measure(stage: Stage, fault: Fault): Promise<{ late: number; text: string }> {
  const ours: number[] = [];
  const calm: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const loads = [stage.load(), stage.load(PHASE, RATE, 'calm')];
    await sleep(200);
    await fault.begin(stage);
    const [report, other] = await Promise.all(loads);
    await fault.end(stage);
    assert.ok(report && other);
    ours.push(...allAnswered(report).latencies);
    calm.push(...allAnswered(other).latencies);
  }
  for (const list of [ours, calm]) list.sort((a, b) => a - b);
  const limit = quantile(calm, 0.99) + P99_ADDED_MS;
  const late = ours.filter(ms => ms > limit).length / ours.length;
  return { late, text: `${late} late; p50, p99, max: ${shown(ours)}; with a healthy one ${shown(calm)}` };
}

describe('a faulty collector', function () {
  this.timeout(180_000);

  for (const fault of FAULTS) {
    it(`${fault.name}: no request fails or waits, and afterwards nothing is missing`, async () => {
      const stage = await Stage.start();
      try {
        await stage.load(100);
        const measured: string[] = [];
        for (let i = 0; i < MEASUREMENTS; i++) {
          const { late, text } = await measure(stage, fault);
          if (late <= LATE_RATIO_MAX) break;
          measured.push(text);
        }
        assert.ok(measured.length < MEASUREMENTS, measured.join('\n'));
        await stage.nothingLost();
      } finally {
        await stage.stop();
      }
    });
  }

  it('a stream that swallows everything is given up, and what it swallowed is sent again', async () => {
    const stage = await Stage.start();
    try {
      const { envoy } = stage.world.mesh.proxy('back');
      const resets = () => envoy.stat(`cluster.${COLLECTOR_CLUSTER}.upstream_rq_tx_reset`);
      await stage.load(50);
      stage.link.set({ kind: 'blackhole' });
      allAnswered(await stage.load(200));
      await until('the stream given up', GIVEN_UP_MS, async () => ((await resets()) > 0 ? true : undefined));
      stage.link.set({ kind: 'none' }, true);
      await stage.nothingLost();
    } finally {
      await stage.stop();
    }
  });

  it('gone for longer than the window holds: the oldest rows go, and their number is told', async () => {
    const stage = await Stage.start();
    try {
      await stage.load(50);
      stage.recorder.stop();
      allAnswered(await stage.load(WINDOW_FILLED, 800));
      await stage.recorder.resume();
      const { logged, rows, lost } = await stage.accounted();
      assert.ok(lost > 0, `${rows} rows of ${logged} fitted`);
      assert.ok(rows > 1000, `${rows} rows of ${logged}, ${lost} lost`);
      // From here on reports flow again.
      allAnswered(await stage.load(50));
      assert.equal((await stage.accounted()).lost, lost);
    } finally {
      await stage.stop();
    }
  });

  it('a collector that starts with nothing is told what its predecessor had', async () => {
    const stage = await Stage.start();
    try {
      await stage.load(200);
      await stage.accounted();
      const stored = stage.life.rows.length;
      stage.recorder.stop();
      const lifeBefore = stage.life;
      stage.recorder.lives.clear();
      await stage.recorder.resume();
      await stage.recorder.greeted('back');
      const producers = stage.life.hello.producers as (Life['hello']['producers'][number] & { ackedEvents?: string })[];
      const acked = producers.reduce((sum, producer) => sum + Number(producer.ackedEvents ?? 0), 0);
      assert.ok(acked > 0, 'the predecessor has acknowledged');
      // An acknowledgement that was under way when the predecessor died is as good as none: those rows come again.
      await until('every row acknowledged or sent again', RECOVERY_MS, () =>
        acked + stage.life.rows.length >= stored ? true : undefined,
      );
      assert.equal(acked + stage.life.rows.length, stored);
      assert.equal(stage.life.hello.cuid, lifeBefore.hello.cuid);
      assert.equal(stage.life.hello.bootEpoch, lifeBefore.hello.bootEpoch);
    } finally {
      await stage.stop();
    }
  });

  it('three failed streams within a minute: unary calls carry everything, and a minute later a stream again', async () => {
    const stage = await Stage.start();
    try {
      const { recorder } = stage;
      recorder.stream = { kind: 'reset' };
      const failedSince = Date.now();
      await stage.load(100);
      await until('unary calls', FALLBACK_AFTER_MS, () => (recorder.calls > 0 ? true : undefined));
      const unarySince = Date.now();
      await stage.load(200);
      await stage.nothingLost();
      const streams = recorder.streamsOpened;
      recorder.stream = { kind: 'ack' };
      await until('a stream again', STREAM_AGAIN_MS + SLACK_MS, () =>
        recorder.streamsOpened > streams ? true : undefined,
      );
      assert.ok(Date.now() - unarySince > STREAM_AGAIN_MS - SLACK_MS, 'not before its time');
      assert.ok(unarySince - failedSince < FALLBACK_AFTER_MS);
      await sleep(UNARY_ENDED_MS);
      const calls = recorder.calls;
      await stage.load(100);
      await stage.nothingLost();
      assert.equal(recorder.calls, calls, 'no more unary calls');
    } finally {
      await stage.stop();
    }
  });
});
