// A mesh with applications that do as told and a collector that listens: the stage of most suites here.
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../../demo/src/mesh/child.js';
import { FILTER_WASM } from '../../../demo/src/mesh/envoy.js';
import type { AccessLogLine } from '../../../demo/src/mesh/listeners.js';
import { Mesh, type MeshOptions, type ServiceSpec } from '../../../demo/src/mesh/mesh.js';
import { OddApp } from './odd-app.js';
import { Recorder } from './recorder.js';

/** Reports often, so that suites need not wait. */
export const INTERVAL_MS = 200;
const WORK_DONE_MS = 30_000;
/** The access log's flush, and a little. */
const LOG_FLUSH_MS = 300;

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
    for (const proxy of this.mesh.proxies.filter(p => p.hasSidecar)) {
      const what = `${proxy.pod} without requests`;
      await until(what, WORK_DONE_MS, async () => ((await proxy.envoy.requests()).active === 0 ? true : undefined));
    }
    await sleep(LOG_FLUSH_MS);
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
