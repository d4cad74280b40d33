// The arms of the comparison: one sidecar each, alike but for the filter in both of its chains.
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { format, type Address } from '../../demo/src/mesh/address.js';
import { bootstrap, type ProxyOptions, type ProxySpec } from '../../demo/src/mesh/bootstrap.js';
import { Envoy, ROOT } from '../../demo/src/mesh/envoy.js';
import { luaFilter } from '../../demo/src/mesh/http-filters.js';
import type { Json } from '../../demo/src/mesh/json.js';
import { COLLECTOR_CLUSTER } from '../../demo/src/mesh/mesh.js';
import { NAMESPACE, SERVICE } from './messages.js';
import { pin } from './process-clock.js';

export type Direction = 'outbound' | 'inbound';
export const DIRECTIONS: Direction[] = ['outbound', 'inbound'];

export interface Arm {
  name: string;
  /** For the table. */
  title: string;
  proxy: ProxyOptions;
}

/** The proxy's core; load generator, application and collector share the other one. */
export const PROXY_CORE = 0;
export const LOAD_CORE = 1;

export const LUA_SOURCE = join(ROOT, 'bench/filter/lua/stamp.lua');

/** The same proxy twice: how far two measurements of one thing lie apart. */
export const NONE = 'none';
export const NONE_AGAIN = 'none-again';
export const EMPTY = 'empty';
export const OURS = 'ours';
export const LUA = 'lua';

/** @param modules absolute paths of the empty module and of ours */
export function standardArms(modules: { empty: string; ours: string }): Arm[] {
  return [
    { name: NONE, title: 'no filter', proxy: {} },
    { name: NONE_AGAIN, title: 'no filter, again', proxy: {} },
    { name: EMPTY, title: 'empty Wasm filter', proxy: { wasm: { file: modules.empty } } },
    { name: OURS, title: 'meshpulse, reports on', proxy: { wasm: { file: modules.ours } } },
    { name: LUA, title: 'Lua, same headers, no reports', proxy: luaProxy() },
  ];
}

function luaProxy(): ProxyOptions {
  const source = readFileSync(LUA_SOURCE, 'utf8');
  const filter = (direction: Direction) => luaFilter(`local DIRECTION = "${direction}"\n${source}`);
  return { inboundFiltersBefore: [filter('inbound')], outboundFiltersBefore: [filter('outbound')] };
}

/** What stands around every sidecar. */
export interface Surroundings {
  /** First two numbers of the addresses. */
  subnet: string;
  dir: string;
  collector: Address;
  /** The own application behind the inbound listener. */
  app: Address;
  /** The callee behind the outbound listener. */
  peer: Address;
}

/** One arm's proxy for one round. */
export class Sidecar {
  private constructor(
    readonly arm: Arm,
    private readonly envoy: Envoy,
    private readonly listeners: Record<Direction, Address>,
  ) {}

  /**
   * @param index      tells sidecars that run side by side apart
   * @param accessLog  with a log of the stored CUID; timing goes without
   */
  static async start(arm: Arm, index: number, around: Surroundings, accessLog = false): Promise<Sidecar> {
    const dir = join(around.dir, arm.name);
    await mkdir(dir, { recursive: true });
    const ip = `${around.subnet}.${10 + index}.1`;
    const listeners = { inbound: { host: ip, port: 8080 }, outbound: { host: ip, port: 15001 } };
    const spec = specOf(arm, listeners, around, dir, accessLog);
    const envoy = await Envoy.start({
      name: arm.name,
      dir,
      bootstrap: bootstrap(spec),
      adminSocket: spec.adminSocket,
      concurrency: 1,
      ...(spec.accessLogFile ? { accessLogFile: spec.accessLogFile } : {}),
    });
    await envoy.ready();
    pin(envoy.pid, PROXY_CORE);
    return new Sidecar(arm, envoy, listeners);
  }

  get pid(): number {
    return this.envoy.pid;
  }

  listener(direction: Direction): Address {
    return this.listeners[direction];
  }

  residentBytes(): Promise<number> {
    return this.envoy.residentBytes();
  }

  accessLog() {
    return this.envoy.accessLog();
  }

  async stop(): Promise<void> {
    await this.envoy.kill();
  }
}

function specOf(
  arm: Arm,
  listeners: Record<Direction, Address>,
  around: Surroundings,
  dir: string,
  accessLog: boolean,
): ProxySpec {
  return {
    identity: {
      kind: 'sidecar',
      ip: listeners.inbound.host,
      pod: `shop-6d4cf56db6-${arm.name}`,
      service: 'shop',
      namespace: NAMESPACE,
      cluster: 'bench',
    },
    options: { ...arm.proxy, ...(accessLog ? { patch: logStoredCuid } : {}) },
    adminSocket: join(dir, 'admin.sock'),
    ...(accessLog ? { accessLogFile: join(dir, `access-${format(listeners.inbound)}.log`) } : {}),
    inbound: { address: listeners.inbound, app: around.app, appProtocol: 'http1' },
    outbound: {
      address: listeners.outbound,
      destinations: [
        { service: SERVICE, namespace: NAMESPACE, port: 8080, endpoints: [around.peer], protocol: 'http1', tls: false },
      ],
      externals: [],
    },
    collector: { address: around.collector, cluster: COLLECTOR_CLUSTER },
  };
}

/** The Lua arm stores its CUID as dynamic metadata: the log's `cuid` shows whichever there is. */
function logStoredCuid(config: Json): void {
  const text = JSON.stringify(config).replaceAll(
    '%FILTER_STATE(wasm.cuid:PLAIN)%',
    '%FILTER_STATE(wasm.cuid:PLAIN)%%DYNAMIC_METADATA(envoy.filters.http.lua:cuid)%',
  );
  Object.assign(config, JSON.parse(text));
}
