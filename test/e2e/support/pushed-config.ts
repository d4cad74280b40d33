// Configuration that a proxy is given while it runs, from a file that Envoy watches.
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../../../demo/src/mesh/child.js';
import type { Envoy } from '../../../demo/src/mesh/envoy.js';
import { any, type Json } from '../../../demo/src/mesh/json.js';

/** `filter`: the filter alone (ECDS, as Istio does). `listener`: whole listeners (LDS); the old ones drain. */
export type PushBy = 'filter' | 'listener';

const WASM_TYPE = 'type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm';
const STATS = {
  filter: { taken: 'extension_config_discovery.http_filter.meshpulse.config_reload', refused: 'config_fail' },
  listener: { taken: 'listener_manager.lds.update_success', refused: 'listener_manager.lds.update_rejected' },
};
const TAKEN_MS = 60_000;
/** The value of `report.inFlightMs`, which changes with each push, before the first one. */
const IN_FLIGHT_FIRST_MS = 5000;

export class PushedConfig {
  private readonly file: string;
  private pushes = 0;
  /** What goes into the file, with the filters' settings as they were first. */
  private resources: Json[] = [];

  /** @param dir  a directory of its own: what Envoy watches is its change */
  constructor(
    private readonly by: PushBy,
    dir: string,
  ) {
    mkdirSync(dir, { recursive: true });
    this.file = join(dir, 'pushed.json');
  }

  /** Moves the filter, or the listeners, from a bootstrap to the file. */
  takeOver(bootstrap: Json): void {
    const statics = bootstrap['static_resources'] as { listeners?: Json[] };
    const listeners = statics.listeners ?? [];
    if (this.by === 'listener') {
      delete statics.listeners;
      bootstrap['dynamic_resources'] = { lds_config: this.source() };
      this.resources = listeners.map(listener => any('envoy.config.listener.v3.Listener', listener));
    } else {
      const filters = filtersOf(listeners).filter(({ typed_config }) => isWasm(typed_config));
      // Both directions have the same settings here, so one resource serves them.
      const [filter] = filters;
      if (!filter) throw new Error('no filter to push');
      this.resources = [any('envoy.config.core.v3.TypedExtensionConfig', { ...filter })];
      for (const place of filters) {
        delete place['typed_config'];
        place['config_discovery'] = { config_source: this.source(), type_urls: [WASM_TYPE] };
      }
    }
    this.write();
  }

  /** Another configuration; resolves when Envoy has taken it. */
  async push(envoy: Envoy): Promise<void> {
    const before = await this.taken(envoy);
    this.pushes++;
    this.write();
    await until(`push ${this.pushes} taken`, TAKEN_MS, async () =>
      (await this.taken(envoy)) > before ? true : undefined,
    );
  }

  /** Configurations that Envoy has refused. */
  async refused(envoy: Envoy): Promise<number> {
    return sum(await envoy.stats(`(${STATS[this.by].refused}|update_failure|conflict)$`), /lds|extension_config/);
  }

  private async taken(envoy: Envoy): Promise<number> {
    return envoy.stat(STATS[this.by].taken);
  }

  private source(): Json {
    return { path_config_source: { path: this.file }, resource_api_version: 'V3' };
  }

  /** In one step, as Envoy's watch wants it. */
  private write(): void {
    const resources = structuredClone(this.resources);
    renewSettings(resources, IN_FLIGHT_FIRST_MS + this.pushes);
    writeFileSync(`${this.file}.new`, JSON.stringify({ version_info: String(this.pushes), resources }));
    renameSync(`${this.file}.new`, this.file);
  }
}

function sum(stats: Map<string, number>, of: RegExp): number {
  return [...stats].reduce((total, [name, value]) => (of.test(name) ? total + value : total), 0);
}

function isWasm(config: unknown): config is Json {
  return (config as Json | undefined)?.['@type'] === WASM_TYPE;
}

/** The HTTP filters of all connection managers. */
function filtersOf(listeners: Json[]): Json[] {
  return every(listeners).flatMap(object => (object['http_filters'] as Json[] | undefined) ?? []);
}

/** pluginConfig is JSON in a protobuf string. */
function renewSettings(resources: Json[], inFlightMs: number): void {
  for (const filter of every(resources).filter(isWasm)) {
    const { configuration } = filter['config'] as { configuration: { value: string } };
    const settings = JSON.parse(configuration.value) as { report?: Json };
    configuration.value = JSON.stringify({ ...settings, report: { ...settings.report, inFlightMs } });
  }
}

/** Every object inside, at any depth. */
function every(value: unknown): Json[] {
  if (typeof value !== 'object' || value === null) return [];
  const inside = Object.values(value).flatMap(every);
  return Array.isArray(value) ? inside : [value as Json, ...inside];
}
