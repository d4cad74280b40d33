// Several collectors behind one Envoy cluster, and the load on the sidecars that report to them.
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { envoyAddress, type Address } from '../../../demo/src/mesh/address.js';
import { until } from '../../../demo/src/mesh/child.js';
import type { Json } from '../../../demo/src/mesh/json.js';
import { Load, total, type LoadReport } from '../../../demo/src/mesh/load.js';
import { COLLECTOR_CLUSTER, type Mesh } from '../../../demo/src/mesh/mesh.js';
import { INTERVAL_MS, OddMesh } from './odd-mesh.js';
import { Recorder } from './recorder.js';

export type LbPolicy = 'ROUND_ROBIN' | 'LEAST_REQUEST';

/** After a failure: 0.5 to 1 s, then up to 2 s when the same replica was chosen again; and slack. */
const ELSEWHERE_MS = 15_000;
const ARRIVAL_MS = 30_000;
/** How often a replica that leaves says so. */
const SAY_AGAIN_MS = 100;

/** As docs/filter.md advises: an endpoint that cannot be reached is not chosen again for a while. */
const OUTLIERS: Json = {
  consecutive_5xx: 1,
  interval: '1s',
  base_ejection_time: '10s',
  max_ejection_time: '30s',
  max_ejection_percent: 50,
};

/** Changes a proxy's bootstrap: its collector's cluster has these endpoints, as a Service with several pods does. */
export function replicated(
  endpoints: readonly Address[],
  lbPolicy: LbPolicy,
  { outliers = false } = {},
): (bootstrap: Json) => void {
  return bootstrap => {
    const { clusters } = bootstrap['static_resources'] as { clusters: Json[] };
    const cluster = clusters.find(({ name }) => name === COLLECTOR_CLUSTER);
    if (cluster === undefined) throw new Error(`no cluster ${COLLECTOR_CLUSTER}`);
    cluster['type'] = 'STRICT_DNS';
    cluster['lb_policy'] = lbPolicy;
    if (outliers) cluster['outlier_detection'] = OUTLIERS;
    cluster['load_assignment'] = {
      cluster_name: COLLECTOR_CLUSTER,
      endpoints: [{ lb_endpoints: endpoints.map(address => ({ endpoint: { address: envoyAddress(address) } })) }],
    };
  };
}

/** Requests to each of these services, at `rate` a second each, until stopped. */
export class Pressure {
  private readonly loads: Load[];

  constructor(mesh: Mesh, services: readonly string[], rate: number) {
    this.loads = services.map(service =>
      Load.start({
        targets: [mesh.proxy(service).inbound],
        host: service,
        rate,
        next: () => ({ operation: 'GET /x', method: 'GET', path: '/x' }),
      }),
    );
  }

  /** How many were sent to each service. @throws Error when one was not answered 200 */
  async stop(): Promise<number[]> {
    const reports = await Promise.all(this.loads.map(load => load.stop()));
    return reports.map(answered);
  }
}

function answered(report: LoadReport): number {
  const fine = total(report, status => status === 200);
  if (fine !== report.sent) {
    throw new Error(`${fine} of ${report.sent} requests answered 200\n${report.errors.join('\n')}`);
  }
  return fine;
}

/** Two recorders with one store, as it were, and sidecars that report to both. */
export class Replicas {
  private constructor(
    private readonly services: readonly string[],
    readonly replicas: readonly [Recorder, Recorder],
    readonly world: OddMesh,
  ) {}

  static async start(
    services: readonly string[],
    lbPolicy: LbPolicy,
    { outliers = false, prepare = (_: Recorder): void => undefined } = {},
  ): Promise<Replicas> {
    const first = await Recorder.start();
    const second = await Recorder.start(first);
    for (const replica of [first, second]) prepare(replica);
    const world = await OddMesh.start(
      services.map(name => ({ name })),
      { recorder: first, proxy: { patch: replicated([first.address, second.address], lbPolicy, { outliers }) } },
    );
    await first.greeted(...services);
    return new Replicas(services, [first, second], world);
  }

  pressure(rate: number): Pressure {
    return new Pressure(this.world.mesh, this.services, rate);
  }

  /**
   * A replica leaves as the collector does: it says what is left of its time. Settles when no stream is there and
   * each sidecar has one elsewhere; the replica itself goes on.
   *
   * @throws Error when they are not within `drainMs` and `slackMs`
   */
  async leave(index: number, drainMs: number, slackMs: number): Promise<void> {
    const replica = this.replicas[index]!;
    const endMs = Date.now() + drainMs;
    const timer = setInterval(() => replica.tell({ drainMs: Math.max(1, endMs - Date.now()) }), SAY_AGAIN_MS);
    replica.tell({ drainMs });
    try {
      await until('all elsewhere', drainMs + slackMs, () =>
        replica.openStreams === 0 && this.connections === this.services.length ? true : undefined,
      ).catch((error: unknown) => {
        throw new Error(`streams: ${this.streams.join(' and ')}`, { cause: error });
      });
    } finally {
      clearInterval(timer);
      replica.hints = undefined;
    }
  }

  private get connections(): number {
    return this.streams.reduce((sum, count) => sum + count, 0);
  }

  /** Each sidecar has one stream, wherever. */
  async connected(): Promise<void> {
    await until('a stream of each', ELSEWHERE_MS, () =>
      this.connections === this.services.length ? true : undefined,
    ).catch((error: unknown) => {
      throw new Error(`streams: ${this.streams.join(' and ')}`, { cause: error });
    });
  }

  get streams(): number[] {
    return this.replicas.map(replica => replica.openStreams);
  }

  /** Every request has come as a row, once; no number is missing. */
  async assertExact(sent: readonly number[], replays?: number): Promise<void> {
    const [recorder] = this.replicas;
    for (const [i, service] of this.services.entries()) {
      const life = recorder.life(service);
      await until(`rows of ${service}`, ARRIVAL_MS, () => (life.rows.length >= sent[i]! ? true : undefined)).catch(
        (error: unknown) => {
          throw new Error(`${service}: ${life.rows.length} rows of ${sent[i]!}`, { cause: error });
        },
      );
    }
    await sleep(5 * INTERVAL_MS);
    for (const [i, service] of this.services.entries()) {
      const life = recorder.life(service);
      assert.equal(life.rows.length, sent[i], service);
      assert.deepEqual(life.lost, { batches: 0, rows: 0 }, service);
      if (replays !== undefined) assert.ok(life.replays <= replays, `${service}: ${life.replays} batches came again`);
    }
  }

  async stop(): Promise<void> {
    await this.world.stop();
    for (const replica of this.replicas) replica.stop();
  }
}
