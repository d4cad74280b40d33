// The whole way: what clients did to real Envoys is what the real collector answers, through its own death.
import { strict as assert } from 'node:assert';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../demo/src/mesh/child.js';
import { Collector, CollectorClient } from '../../demo/src/mesh/collector.js';
import { tally } from './support/ledger.js';
import { Http1OddClient } from './support/odd-client.js';
import { OddMesh } from './support/odd-mesh.js';
import { oddServices, scenarios, SILENT, type Wire } from './support/scenarios.js';

const WIRE: Wire = { client: 'http1', between: 'http2' };
const CALLEES = ['back', 'late', 'early', 'guard', 'dead'];
const ARRIVAL_MS = 30_000;
const QUIET_MS = 1000;
/** Requests before, while and after the collector is down. */
const BURST = 400;
const AT_ONCE = 10;

interface OperationCount {
  operation: string;
  response_code: number;
  response_flags: string;
  outcome: string;
  labels: string[];
  count: string;
}

interface Service {
  name: string;
  events: string;
  operations: OperationCount[];
}

interface Instance {
  cuid: string;
  service: string;
  unclean: boolean;
  state: string;
  events: string;
  reports_lost: string;
  events_lost: string;
  events_lost_max: string;
}

class Stage {
  private constructor(
    readonly dir: string,
    public collector: Collector,
    readonly client: CollectorClient,
    readonly world: OddMesh,
  ) {}

  static async start(): Promise<Stage> {
    const dir = await mkdtemp(join(tmpdir(), 'e2e-collector-'));
    const collector = await Collector.start({ dir, args: ['--data-dir', join(dir, 'data'), '--log-level', 'warn'] });
    const world = await OddMesh.start(oddServices(WIRE.between), {
      mtls: true,
      without: SILENT,
      collector: collector.grpc,
      proxy: { concurrency: 2 },
    });
    return new Stage(dir, collector, new CollectorClient(collector.grpc), world);
  }

  async service(name: string): Promise<Service | undefined> {
    const answer = await this.client.call<{ services: Service[] }>('Registry', 'ListServices', {
      service: `${name}.shop`,
    });
    return answer.services[0];
  }

  async instances(name: string): Promise<Instance[]> {
    const answer = await this.client.call<{ instances: Instance[] }>('Registry', 'ListInstances', {
      service: `${name}.shop`,
    });
    return answer.instances;
  }

  /** Waits until a service has so many events, and a little longer, lest more come. */
  async events(name: string, count: number): Promise<Service> {
    let last = 0;
    await until(`${count} events of ${name}`, ARRIVAL_MS, async () => {
      last = Number((await this.service(name))?.events ?? 0);
      return last >= count ? true : undefined;
    }).catch((error: unknown) => {
      throw new Error(`${name}: ${last} events, expected ${count}`, { cause: error });
    });
    await sleep(QUIET_MS);
    const service = await this.service(name);
    assert.ok(service);
    return service;
  }

  async burst(path: string): Promise<void> {
    const client = new Http1OddClient(this.world.mesh.proxy('front').outbound);
    for (let sent = 0; sent < BURST; sent += AT_ONCE) {
      const answers = await Promise.all(Array.from({ length: AT_ONCE }, () => client.send({ host: 'back', path })));
      assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
    }
  }

  /** Sum over the lines of one metric. */
  async metric(name: string): Promise<number> {
    const page = await this.collector.get('/metrics');
    const values = page.split('\n').filter(line => line.startsWith(`meshpulse_${name}`) && !line.startsWith('#'));
    assert.ok(values.length > 0, `no metric meshpulse_${name}`);
    return values.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  }

  async stop(): Promise<void> {
    await this.world.stop();
    this.client.close();
    await this.collector.stop();
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** As `rowStory` tells an event. */
function story({ operation, response_code, response_flags, outcome, labels }: OperationCount): string {
  const flags = (response_flags || '-').split(',').sort().join(',');
  const words = labels.map(label => label.replace('-', ''));
  return `${operation.split('/')[1]}: ${response_code} ${flags} ${outcome.replace('OUTCOME_', '').toLowerCase()} [${words.join(' ')}]`;
}

describe('counts at the collector', function () {
  this.timeout(120_000);

  it('equal the scenarios by operation, status, flags, outcome and labels; nothing is lost', async () => {
    const stage = await Stage.start();
    try {
      const client = new Http1OddClient(stage.world.mesh.proxy('front').outbound);
      const list = scenarios(WIRE);
      for (const { name, request, times, service = 'back' } of list) {
        const one = () => client.send({ host: service, ...request, path: `/${name}` });
        await Promise.all(Array.from({ length: times }, one));
      }
      await stage.world.idle();
      for (const callee of CALLEES) {
        const here = list.filter(({ service = 'back' }) => service === callee);
        const expected = here.flatMap(({ name, events, times }) =>
          events.flatMap(event => Array<string>(times).fill(`${name}: ${event}`)),
        );
        const service = await stage.events(callee, expected.length);
        assert.equal(Number(service.events), expected.length);
        const told = service.operations.flatMap(count => Array<string>(Number(count.count)).fill(story(count)));
        assert.deepEqual(tally(told), tally(expected), callee);
      }
      assert.equal(await stage.metric('reports_lost_total'), 0);
      assert.equal(await stage.metric('events_lost_total'), 0);
    } finally {
      await stage.stop();
    }
  });

  it('survive kill -9 of the collector in mid-load, with its data kept', async () => {
    const stage = await Stage.start();
    try {
      await stage.burst('/before');
      const during = stage.burst('/during');
      await sleep(50);
      await stage.collector.kill();
      await during;
      await stage.burst('/down');
      stage.collector = await stage.collector.restarted();
      await stage.burst('/after');
      await stage.world.idle();
      const service = await stage.events('back', 4 * BURST);
      const counts = service.operations.map(({ operation, count }) => [operation, Number(count)] as const);
      const expected = ['after', 'before', 'down', 'during'].map(name => [`GET /${name}`, BURST] as const);
      assert.deepEqual(counts.toSorted(), expected);
      const [life] = await stage.instances('back');
      assert.deepEqual([life?.reports_lost, life?.events_lost, life?.unclean], ['0', '0', false]);
      assert.equal(await stage.metric('events_lost_total'), 0);
    } finally {
      await stage.stop();
    }
  });

  it('say what a killed sidecar can have taken with it, and that a drained one took nothing', async () => {
    const stage = await Stage.start();
    try {
      const { mesh } = stage.world;
      await stage.burst('/x');
      await mesh.proxy('guard').stopGracefully(0);
      // Its requests fail in the middle; that is not what is looked at.
      const load = Promise.allSettled([stage.burst('/y')]);
      await sleep(100);
      const log = stage.world.app('back');
      await mesh.proxy('back').kill();
      await load;
      const arrived = log.total;
      // Its successor on the address is the proof of its end; without one it would first be silent.
      await mesh.proxy('back').startNewLife();
      const back = await until('the killed life to be unclean', ARRIVAL_MS, async () =>
        (await stage.instances('back')).find(({ unclean }) => unclean),
      );
      const missing = arrived - Number(back.events);
      assert.ok(
        missing >= 0 && missing <= Number(back.events_lost_max),
        `${missing} missing, ${back.events_lost_max} stated`,
      );
      const [guard] = await stage.instances('guard');
      assert.deepEqual([guard?.state, guard?.unclean], ['INSTANCE_STATE_GONE', false]);
    } finally {
      await stage.stop();
    }
  });
});
