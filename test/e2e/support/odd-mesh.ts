// A mesh with applications that do as told and a collector that listens: the stage of most suites here.
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../../demo/src/mesh/child.js';
import { FILTER_WASM, type Envoy } from '../../../demo/src/mesh/envoy.js';
import type { AccessLogLine } from '../../../demo/src/mesh/listeners.js';
import { Mesh, type MeshOptions, type ServiceSpec } from '../../../demo/src/mesh/mesh.js';
import { OddApp } from './odd-app.js';
import { Recorder } from './recorder.js';

/** Reports often, so that suites need not wait. */
export const INTERVAL_MS = 200;
const WORK_DONE_MS = 30_000;
/** A request that broke off in its headers can be counted and not logged: so long without a line is the end. */
const LOG_QUIET_MS = 2000;
const TOLD_MS = 30_000;
/** Several reports: what comes too much would come in them. */
const EXCESS_MS = 5 * INTERVAL_MS;

export class OddMesh {
  private constructor(
    readonly mesh: Mesh,
    readonly apps: Map<string, OddApp>,
    readonly recorder: Recorder,
    private readonly ownsRecorder: boolean,
  ) {}

  /** `without`: services whose application does not listen. */
  static async start(
    services: ServiceSpec[],
    options: Partial<MeshOptions> & { recorder?: Recorder; without?: string[] } = {},
  ): Promise<OddMesh> {
    const { recorder = await Recorder.start(), without = [], ...rest } = options;
    const report = { intervalMs: INTERVAL_MS, ...(rest.proxy?.settings?.['report'] as object | undefined) };
    const mesh = await Mesh.create({
      collector: recorder.address,
      ...rest,
      services,
      proxy: { wasm: { file: FILTER_WASM }, ...rest.proxy, settings: { ...rest.proxy?.settings, report } },
    });
    const apps = new Map<string, OddApp>();
    for (const { spec, app } of mesh.proxies) {
      if (spec.gatewayTo || spec.outboundOnly || without.includes(spec.name)) continue;
      apps.set(spec.name, await OddApp.start(app));
    }
    await mesh.start();
    return new OddMesh(mesh, apps, recorder, options.recorder === undefined);
  }

  app(service: string): OddApp {
    const app = this.apps.get(service);
    if (!app) throw new Error(`no application ${service}`);
    return app;
  }

  /** Waits until no proxy has a request in work, and then for the last lines of the access logs. */
  async idle(): Promise<void> {
    const proxies = this.mesh.proxies.filter(p => p.hasSidecar);
    for (const proxy of proxies) {
      const what = `${proxy.pod} without requests`;
      await until(what, WORK_DONE_MS, async () => ((await proxy.envoy.requests()).active === 0 ? true : undefined));
    }
    await Promise.all(proxies.map(proxy => wholeLog(proxy.envoy)));
  }

  /**
   * `idle`, and then waits until each of these services has told as many rows as its access log has lines,
   * and that nothing is in flight; and a little longer, lest more come.
   */
  async settled(...services: string[]): Promise<void> {
    await this.idle();
    for (const service of services) {
      const { length } = await this.log(service);
      await until(`${length} rows of ${service}`, TOLD_MS, () =>
        this.recorder.rows(service).length >= length ? true : undefined,
      ).catch((error: unknown) => {
        throw new Error(`${service}: ${this.recorder.rows(service).length} rows, ${length} requests`, { cause: error });
      });
    }
    await this.atRest(...services);
  }

  /** Waits until each of these services has told that nothing is in flight, and a little longer, lest it change. */
  async atRest(...services: string[]): Promise<void> {
    for (const service of services) {
      await until(`nothing in flight at ${service}`, TOLD_MS, () => {
        const last = this.recorder.life(service).statuses.at(-1)?.status;
        return last?.inFlight === 0 && last.callsInFlight === 0 && last.streamsOpen === 0 ? true : undefined;
      });
    }
    await sleep(EXCESS_MS);
  }

  log(service: string): Promise<AccessLogLine[]> {
    return this.mesh.proxy(service).envoy.accessLog();
  }

  async stop(): Promise<void> {
    await this.mesh.stop('kill');
    for (const app of this.apps.values()) await app.stop();
    if (this.ownsRecorder) this.recorder.stop();
  }
}

async function wholeLog(envoy: Envoy): Promise<void> {
  const { total } = await envoy.requests();
  let lines = -1;
  let sinceMs = Date.now();
  await until(`${envoy.name} has logged ${total} requests`, WORK_DONE_MS, async () => {
    const { length } = await envoy.accessLog();
    if (length !== lines) sinceMs = Date.now();
    lines = length;
    return lines >= total || Date.now() - sinceMs >= LOG_QUIET_MS ? true : undefined;
  });
}
