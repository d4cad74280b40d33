// A proxied service whose collector can fail, and one like it whose collector is well.
import { strict as assert } from 'node:assert';
import type { Address } from '../../../demo/src/mesh/address.js';
import { until } from '../../../demo/src/mesh/child.js';
import { FaultProxy } from '../../../demo/src/mesh/fault-proxy.js';
import type { Json } from '../../../demo/src/mesh/json.js';
import { Load, total, type LoadReport } from '../../../demo/src/mesh/load.js';
import { COLLECTOR_CLUSTER } from '../../../demo/src/mesh/mesh.js';
import { logEntry, rowEntry, tally } from './ledger.js';
import { OddMesh } from './odd-mesh.js';
import { Recorder, type Life } from './recorder.js';

/** Requests per second to each proxy. */
export const RATE = 200;
/** Requests of one phase to each proxy. */
export const PHASE = 300;
export const RECOVERY_MS = 40_000;

export class Stage {
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

export function allAnswered(report: LoadReport): LoadReport {
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
