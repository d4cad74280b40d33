// Envoy's hot restart: a second process takes over the sockets of the first, which drains and ends. Both run
// on one address, with one node id, at one time: two lives, and every request belongs to one of them.
import { strict as assert } from 'node:assert';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { App } from '../../demo/src/mesh/app.js';
import { bootstrap } from '../../demo/src/mesh/bootstrap.js';
import { until } from '../../demo/src/mesh/child.js';
import { Collector, CollectorClient } from '../../demo/src/mesh/collector.js';
import { Envoy, FILTER_WASM } from '../../demo/src/mesh/envoy.js';
import { Load, total } from '../../demo/src/mesh/load.js';
import { Mesh } from '../../demo/src/mesh/mesh.js';

const RATE = 200;
/** Requests that each process must have had before the next thing happens. */
const SHARE = 300;
/** The first process drains for 1 s and is then told to end. */
const PARENT_SHUTDOWN_S = '3';
const LATE_MS = 30_000;

interface Instance {
  cuid: string;
  proxy_id: string;
  ip: string;
  state: string;
  unclean: boolean;
  events: string;
  events_lost: string;
  reports_lost: string;
  status: { in_flight: number };
}

interface WhoHad {
  intervals: { cuid: string }[];
}

class Stage {
  private readonly processes: Envoy[] = [];

  private constructor(
    private readonly dir: string,
    private readonly mesh: Mesh,
    readonly collector: Collector,
    readonly client: CollectorClient,
    private readonly app: App,
  ) {}

  static async start(): Promise<Stage> {
    const dir = await mkdtemp(join(tmpdir(), 'hot-restart-'));
    const collector = await Collector.start({ dir, args: ['--log-level', 'warn'] });
    const mesh = await Mesh.create({
      services: [{ name: 'back' }],
      collector: collector.grpc,
      proxy: { wasm: { file: FILTER_WASM }, concurrency: 2 },
    });
    const app = await App.start(mesh.proxy('back').app, undefined, () => ({ status: 200 }));
    return new Stage(dir, mesh, collector, new CollectorClient(collector.grpc), app);
  }

  /** The process of this restart epoch, with files of its own. */
  async process(epoch: number): Promise<Envoy> {
    const proxy = this.mesh.proxy('back');
    const dir = join(this.mesh.dir, `epoch-${epoch}`);
    await mkdir(dir);
    const spec = proxy.proxySpec(dir);
    const envoy = await Envoy.start({
      name: `back, epoch ${epoch}`,
      dir,
      bootstrap: bootstrap(spec),
      adminSocket: spec.adminSocket,
      concurrency: 2,
      hotRestart:
        epoch === 0
          ? ['--use-dynamic-base-id', '--base-id-path', this.baseIdFile]
          : [
              ...['--base-id', await this.baseId(), '--restart-epoch', String(epoch)],
              ...['--parent-shutdown-time-s', PARENT_SHUTDOWN_S],
            ],
      ...(spec.accessLogFile ? { accessLogFile: spec.accessLogFile } : {}),
    });
    this.processes.push(envoy);
    await envoy.ready();
    return envoy;
  }

  load(): Load {
    return Load.start({
      targets: [this.mesh.proxy('back').inbound],
      host: 'back',
      rate: RATE,
      // A connection of its own each: whoever listens then serves it.
      next: () => ({ operation: 'GET /x', method: 'GET', path: '/x', headers: { connection: 'close' } }),
    });
  }

  async instances(): Promise<Instance[]> {
    return (await this.client.call<{ instances: Instance[] }>('Registry', 'ListInstances')).instances;
  }

  async stop(): Promise<void> {
    for (const envoy of this.processes) await envoy.kill();
    // What Envoy shares between epochs stays behind it.
    await rm(`/dev/shm/envoy_shared_memory_${await this.baseId()}0`, { force: true });
    this.client.close();
    await this.mesh.stop('kill');
    await this.app.stop();
    await this.collector.stop();
    await rm(this.dir, { recursive: true, force: true });
  }

  private get baseIdFile(): string {
    return join(this.mesh.dir, 'base-id');
  }

  private async baseId(): Promise<string> {
    return (await readFile(this.baseIdFile, 'utf8')).trim();
  }
}

describe('hot restart', function () {
  this.timeout(120_000);

  it(`at ${RATE} requests/s: no request fails, both processes are lives of their own, and nothing of either is lost`, async () => {
    const stage = await Stage.start();
    try {
      const first = await stage.process(0);
      await until('the first life', LATE_MS, async () => (await stage.instances()).length === 1 || undefined);
      const load = stage.load();
      await until('requests before', LATE_MS, () => load.soFar.sent > SHARE || undefined);
      const second = await stage.process(1);
      await until('the first process ended', LATE_MS, () => !first.running || undefined);
      const { sent } = load.soFar;
      await until('requests after', LATE_MS, () => load.soFar.sent > sent + SHARE || undefined);
      const report = await load.stop();
      assert.equal(
        total(report, status => status === 200),
        report.sent,
        report.errors.join('\n'),
      );
      const logged = await until('every request logged', LATE_MS, async () => {
        const lines = await Promise.all([first, second].map(async envoy => (await envoy.accessLog()).length));
        return lines.reduce((sum, n) => sum + n, 0) === report.sent ? lines : undefined;
      });
      assert.ok(
        logged.every(lines => lines >= SHARE),
        `${logged.join(' and ')} requests`,
      );
      const lives = await until('both lives told to the end', LATE_MS, async () => {
        const both = await stage.instances();
        const events = both.reduce((sum, life) => sum + Number(life.events), 0);
        return events === report.sent && both[0]?.status.in_flight === 0 ? both : undefined;
      });
      const [after, before] = lives; // newest first
      assert.equal(lives.length, 2);
      assert.ok(after && before);
      assert.deepEqual([before.events, after.events].map(Number), logged);
      assert.deepEqual([before.state, after.state], ['INSTANCE_STATE_GONE', 'INSTANCE_STATE_LIVE']);
      for (const life of lives) {
        assert.deepEqual([life.unclean, life.events_lost, life.reports_lost], [false, '0', '0']);
        assert.deepEqual([life.proxy_id, life.ip], [after.proxy_id, after.ip]);
      }
      const { intervals } = await stage.client.call<WhoHad>('Registry', 'WhoHad', { ip: after.ip });
      assert.deepEqual(
        intervals.map(({ cuid }) => cuid),
        [after.cuid],
      );
    } finally {
      await stage.stop();
    }
  });
});
