/** A sidecar with the filter in both directions, and the requests that pass it. */
import type { Exchange } from '../support/proxy-wasm-host.js';
import {
  ProxyProcess,
  struct,
  type Pair,
  type Plugin,
  type PluginOptions,
  type PropertyTree,
  type ProxyOptions,
} from '../support/proxy-wasm-host.js';
import { FakeCollector } from './fake-collector.js';
import { filterModule } from './guests.js';

export const COLLECTOR_CLUSTER = 'outbound|50051||collector.mesh.svc.cluster.local';
export const PEER_CUID = '0f6d7c1a-3b52-4b6e-9b0e-1f2a3c4d5e6f';
export const TRACE_ID = '4bf92f3577b34da6a3ce929d0e0e4736';
export const TRACEPARENT = `00-${TRACE_ID}-00f067aa0ba902b7-01`;
export const REQUEST_ID = '3f0d8a1e-6c1b-4d5e-8f90-123456789abc';

export const SHOP_NODE: PropertyTree = {
  id: 'sidecar~10.0.0.7~shop-7c9d-abcde.shop~shop.svc.cluster.local',
  cluster: 'shop.shop',
  metadata: struct({
    NAME: 'shop-7c9d-abcde',
    NAMESPACE: 'shop',
    WORKLOAD_NAME: 'shop',
    CLUSTER_ID: 'east',
    NETWORK: 'net1',
    NODE_NAME: 'node-1',
    LABELS: { app: 'shop', 'service.istio.io/canonical-name': 'shop' },
  }),
};

export interface SidecarOptions extends Partial<ProxyOptions> {
  /** pluginConfig beyond collector and trust; `null` = no collector. */
  readonly config?: Readonly<Record<string, unknown>> | null;
  readonly node?: PropertyTree;
  readonly plugin?: Omit<PluginOptions, 'configuration'>;
  /** Also installs the `role: order` plugin. */
  readonly order?: boolean;
  /** Runs before the plugins are configured, e.g. to make host calls fail from the start. */
  readonly prepare?: (proxy: ProxyProcess) => void;
}

export interface RequestOptions {
  readonly worker?: number;
  readonly headers?: readonly Pair[];
  /** Replaces all request headers. */
  readonly rawHeaders?: readonly Pair[];
  readonly properties?: PropertyTree;
  readonly protocol?: string;
}

export interface ReplyOptions {
  readonly status?: number;
  readonly headers?: readonly Pair[];
  readonly trailers?: readonly Pair[];
  /** How long the answer takes. Default 0. */
  readonly afterMs?: number;
  readonly details?: string;
  readonly flags?: number;
}

const PSEUDO: readonly Pair[] = [
  [':authority', 'shop.shop'],
  [':path', '/orders/17?debug=1'],
  [':method', 'GET'],
  [':scheme', 'http'],
];

export class Sidecar {
  readonly proxy: ProxyProcess;
  readonly collector = new FakeCollector();
  inbound: Plugin;
  outbound: Plugin;
  readonly order: Plugin | undefined;
  private readonly options: SidecarOptions;

  constructor(options: SidecarOptions = {}) {
    const { config, node, order, prepare, ...proxyOptions } = options;
    this.options = options;
    const properties = { xds: { node: node ?? SHOP_NODE } };
    this.proxy = new ProxyProcess({ wasm: filterModule(), properties, ...proxyOptions });
    this.proxy.grpcClusters.set(COLLECTOR_CLUSTER, this.collector);
    prepare?.(this.proxy);
    [this.inbound, this.outbound] = this.install(config);
    this.order = order === true ? this.add('meshpulse-order', 2, JSON.stringify({ role: 'order' })) : undefined;
  }

  /** Adds both directions with another configuration; the former stay until they are removed. */
  replace(config: SidecarOptions['config']): void {
    [this.inbound, this.outbound] = this.install(config);
  }

  private install(config: SidecarOptions['config']): [Plugin, Plugin] {
    const collector = config === null ? {} : { collector: { cluster: COLLECTOR_CLUSTER } };
    const configuration = JSON.stringify({ ...collector, ...config });
    return [this.add('meshpulse-in', 1, configuration), this.add('meshpulse-out', 2, configuration)];
  }

  private add(name: string, direction: number, configuration: string): Plugin {
    return this.proxy.addPlugin({
      name,
      rootId: 'meshpulse',
      ...this.options.plugin,
      configuration,
      properties: { xds: { node: this.options.node ?? SHOP_NODE, listener_direction: direction } },
    });
  }

  /** A request from an in-mesh peer to the local application; ready for `requestHeaders()`. */
  receive(options: RequestOptions = {}): Exchange {
    const connection = { mtls: true, uri_san_peer_certificate: 'spiffe://cluster.local/ns/web/sa/front' };
    return this.exchange(this.inbound, options, {
      xds: { listener_direction: 1, cluster_name: 'inbound|8080||' },
      connection,
      source: { address: '10.0.0.3:40000', port: 40000 },
      destination: { address: '10.0.0.7:8080', port: 8080 },
    });
  }

  /** A request from the local application to an in-mesh service. */
  call(options: RequestOptions = {}): Exchange {
    return this.exchange(this.outbound, options, {
      xds: { listener_direction: 2, cluster_name: 'outbound|80||pay.shop.svc.cluster.local' },
      connection: { mtls: false },
      source: { address: '10.0.0.7:50000', port: 50000 },
      destination: { address: '10.96.0.4:80', port: 80 },
      upstream: {
        address: '10.0.0.9:8080',
        port: 8080,
        request_attempt_count: 1,
        uri_san_peer_certificate: 'spiffe://cluster.local/ns/shop/sa/pay',
      },
    });
  }

  /** A whole request: headers, answer, end. */
  serve(request: RequestOptions = {}, reply: ReplyOptions = {}): Exchange {
    return this.finish(this.receive(request), reply);
  }

  /** A whole call. */
  callOut(request: RequestOptions = {}, reply: ReplyOptions = {}): Exchange {
    return this.finish(this.call(request), reply);
  }

  finish(exchange: Exchange, reply: ReplyOptions = {}): Exchange {
    if (exchange.requestHeaders() === 'continue') this.answer(exchange, reply);
    else exchange.finish();
    return exchange;
  }

  answer(exchange: Exchange, reply: ReplyOptions = {}): Exchange {
    if (reply.afterMs !== undefined) this.proxy.clock.advance(reply.afterMs);
    if (reply.flags !== undefined) exchange.info.flags |= reply.flags;
    if (reply.details !== undefined) exchange.info.details = reply.details;
    const trailers = reply.trailers ?? [];
    const status: Pair = [':status', String(reply.status ?? 200)];
    exchange.responseHeaders([status, ...(reply.headers ?? [])], trailers.length === 0);
    if (trailers.length > 0) exchange.responseTrailers(trailers);
    exchange.finish();
    return exchange;
  }

  /** Turns time until the stream is up and said hello. */
  connect(): void {
    this.proxy.clock.advance(3000);
  }

  advance(ms: number): void {
    this.proxy.clock.advance(ms);
  }

  private exchange(plugin: Plugin, options: RequestOptions, defaults: PropertyTree): Exchange {
    const headers = options.rawHeaders ?? [...PSEUDO, ...(options.headers ?? [])];
    const properties = merge(defaults, options.properties ?? {});
    const protocol = options.protocol === undefined ? {} : { protocol: options.protocol };
    return this.proxy.exchange(options.worker ?? 0, plugin, { headers, properties, ...protocol });
  }
}

function isTree(value: unknown): value is PropertyTree {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}

function merge(base: PropertyTree, over: PropertyTree): PropertyTree {
  const result: Record<string, PropertyTree[string]> = { ...base };
  for (const [name, value] of Object.entries(over)) {
    const present = result[name];
    result[name] = isTree(present) && isTree(value) ? merge(present, value) : value;
  }
  return result;
}

/** Fails with the trap's stack when any VM of the sidecar died. */
export function assertAlive(sidecar: Sidecar): void {
  const failures = [sidecar.inbound, sidecar.outbound].flatMap(plugin => sidecar.proxy.failures(plugin));
  if (failures.length > 0) throw new Error(`trapped: ${failures.join('\n')}`);
}

/** Requests in flight as the next response tells it, without that request itself. */
export function inFlightOf(sidecar: Sidecar): number {
  return Number(/inflight=(\d+)/.exec(sidecar.serve().response?.get('x-mp-status') ?? '')?.[1] ?? -1) - 1;
}
