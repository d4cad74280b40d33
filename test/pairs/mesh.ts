/**
 * Services behind their sidecars. Each sidecar runs the real filter module on both sides; what lies between
 * them (routes, networks, timeouts) is as short as can be.
 */
import {
  ProxyProcess,
  ResponseFlag,
  seededRandom,
  struct,
  type Exchange,
  type Pair,
  type Plugin,
  type PropertyTree,
} from '../support/proxy-wasm-host.js';
import type { GrpcRemote } from '../support/proxy-wasm-host.js';
import { filterModule } from '../filter/guests.js';
import { COLLECTOR_CLUSTER } from '../filter/sidecar.js';
import type { Simulator } from './simulator.js';

/** One way between two sidecars, ms. */
const WAY_MS = 0.3;
/** Until streams to the collector are up, ms. */
const CONNECT_MS = 5000;
const PORT = 8080;

/** What applications forward. */
export type Trace = readonly Pair[];

export interface Answer {
  readonly status: number;
  /** A filter has refused the request: the caller's own, or the callee's. */
  readonly refused: 'outbound' | 'inbound' | undefined;
}

export interface Call {
  readonly service: string;
  /** `METHOD /path`. */
  readonly operation: string;
  readonly trace: Trace;
  /** Which of the instances answers: 0 to 1. */
  readonly share: number;
  /** The route's timeout; undefined = none. */
  readonly timeoutMs?: number | undefined;
}

/** An application's side of a request: settles with the status it answers. */
export type Serve = (instance: Instance) => Promise<number>;

const hostOf = (service: string): string => `${service}.shop.svc.cluster.local`;
const spiffe = (service: string): string => `spiffe://cluster.local/ns/shop/sa/${service}`;

/** One life of a service with its proxy. */
export class Instance {
  readonly proxy: ProxyProcess;
  private readonly inbound: Plugin;
  private readonly outbound: Plugin;
  /** By the other side. */
  private readonly inboundProperties = new Map<string, PropertyTree>();
  private readonly outboundProperties = new Map<Instance, PropertyTree>();

  constructor(
    simulator: Simulator,
    readonly service: string,
    private readonly ip: string,
    seed: number,
    config: object,
    remote: GrpcRemote,
  ) {
    const node = nodeOf(service, ip);
    const { clock } = simulator;
    const properties = { xds: { node } };
    this.proxy = new ProxyProcess({
      wasm: filterModule(),
      clock,
      random: seededRandom(seed),
      properties,
      canary: false,
      logLevel: 3,
    });
    this.proxy.grpcClusters.set(COLLECTOR_CLUSTER, remote);
    const configuration = JSON.stringify({ collector: { cluster: COLLECTOR_CLUSTER }, ...config });
    const add = (name: string, direction: number): Plugin =>
      this.proxy.addPlugin({
        name,
        rootId: 'meshpulse',
        configuration,
        properties: { xds: { node, listener_direction: direction } },
      });
    this.inbound = add('meshpulse-in', 1);
    this.outbound = add('meshpulse-out', 2);
  }

  receive(headers: readonly Pair[], from: string | undefined): Exchange {
    const key = from ?? '';
    let properties = this.inboundProperties.get(key);
    if (properties === undefined) {
      properties = {
        xds: { listener_direction: 1, cluster_name: `inbound|${String(PORT)}||` },
        connection: from === undefined ? { mtls: false } : { mtls: true, uri_san_peer_certificate: spiffe(from) },
        destination: { address: `${this.ip}:${String(PORT)}`, port: PORT },
      };
      this.inboundProperties.set(key, properties);
    }
    return this.proxy.exchange(0, this.inbound, { headers, properties });
  }

  send(headers: readonly Pair[], to: Instance): Exchange {
    let properties = this.outboundProperties.get(to);
    if (properties === undefined) {
      const uri = spiffe(to.service);
      properties = {
        xds: { listener_direction: 2, cluster_name: `outbound|80||${hostOf(to.service)}` },
        connection: { mtls: false },
        upstream: {
          address: `${to.ip}:${String(PORT)}`,
          port: PORT,
          request_attempt_count: 1,
          uri_san_peer_certificate: uri,
        },
      };
      this.outboundProperties.set(to, properties);
    }
    return this.proxy.exchange(0, this.outbound, { headers, properties });
  }

  /** The end of a request, and what its filter tells other threads because of it. */
  finish(exchange: Exchange): void {
    exchange.finish();
    this.proxy.settle();
  }

  /** @throws Error with the trap's stack when a VM died */
  assertAlive(): void {
    const failures = [this.inbound, this.outbound].flatMap(plugin => this.proxy.failures(plugin));
    if (failures.length > 0) throw new Error(`${this.service} trapped: ${failures.join('\n')}`);
  }
}

export interface MeshOptions {
  readonly services: readonly string[];
  /** Instances of each service. */
  readonly instances: number;
  /** pluginConfig beyond the collector. */
  readonly config: object;
  readonly collector: GrpcRemote;
}

export class Mesh {
  private readonly byService: ReadonlyMap<string, readonly Instance[]>;

  constructor(
    private readonly simulator: Simulator,
    { services, instances, config, collector }: MeshOptions,
  ) {
    const make = (service: string, at: number, number: number): Instance => {
      const ip = `10.0.${String(at)}.${String(number + 1)}`;
      return new Instance(simulator, service, ip, at * instances + number + 1, config, collector);
    };
    this.byService = new Map(
      services.map((service, at) => [service, Array.from({ length: instances }, (_, n) => make(service, at, n))]),
    );
    const proxies = this.all().map(({ proxy }) => proxy);
    simulator.clock.afterEach = () => {
      for (const proxy of proxies) proxy.settle();
    };
  }

  all(): Instance[] {
    return [...this.byService.values()].flat();
  }

  /** Waits until all streams to the collector are up. */
  async connect(): Promise<void> {
    let up = false;
    this.simulator.after(CONNECT_MS, () => (up = true));
    await this.simulator.run(() => up);
  }

  /** @throws RangeError when there is no such service */
  pick(service: string, share: number): Instance {
    const instances = this.byService.get(service) ?? [];
    const instance = instances[Math.floor(share * instances.length)];
    if (instance === undefined) throw new RangeError(`no service ${service}`);
    return instance;
  }

  /** A request from outside the mesh. Its client leaves after `leavesMs`; that is status 0. */
  async enter(call: Call, serve: Serve, leavesMs?: number): Promise<Answer> {
    const callee = this.pick(call.service, call.share);
    const exchange = callee.receive(headersOf(call), undefined);
    const left = (): Answer => {
      exchange.reset();
      callee.proxy.settle();
      return { status: 0, refused: undefined };
    };
    const served = this.serve(callee, exchange, serve).then(status => answerOf(status, exchange));
    return leavesMs === undefined ? served : Promise.race([served, this.simulator.sleep(leavesMs).then(left)]);
  }

  /** A request of an application to a service of the mesh. */
  async call(from: Instance, call: Call, serve: Serve): Promise<Answer> {
    const callee = this.pick(call.service, call.share);
    const outbound = from.send(headersOf(call), callee);
    if (outbound.requestHeaders() === 'stop') {
      from.finish(outbound);
      return { status: outbound.info.responseCode ?? 0, refused: 'outbound' };
    }
    const flight: Flight = { from, callee, outbound, inbound: undefined };
    const upstream = this.pass(flight, serve);
    const { timeoutMs } = call;
    if (timeoutMs === undefined) return upstream;
    return Promise.race([upstream, this.simulator.sleep(timeoutMs).then(() => this.timeOut(flight))]);
  }

  private async pass(flight: Flight, serve: Serve): Promise<Answer> {
    const { from, callee, outbound } = flight;
    await this.simulator.sleep(WAY_MS);
    const inbound = callee.receive(outbound.request.pairs(), from.service);
    flight.inbound = inbound;
    const status = await this.serve(callee, inbound, serve);
    await this.simulator.sleep(WAY_MS);
    if (!outbound.finished) {
      outbound.responseHeaders(inbound.response?.pairs() ?? [[':status', String(status)]]);
      from.finish(outbound);
    }
    return answerOf(status, inbound);
  }

  private async serve(callee: Instance, inbound: Exchange, serve: Serve): Promise<number> {
    if (inbound.requestHeaders() === 'stop') {
      callee.finish(inbound);
      return inbound.info.responseCode ?? 0;
    }
    const status = await serve(callee);
    if (inbound.finished) return status;
    inbound.responseHeaders([[':status', String(status)]]);
    callee.finish(inbound);
    return status;
  }

  /** The caller's proxy gives up, and the callee's sees its client leave; the application goes on. */
  private timeOut({ from, callee, outbound, inbound }: Flight): Answer {
    if (outbound.finished) return TIMED_OUT;
    outbound.proxyReply(TIMED_OUT.status, 'response_timeout', ResponseFlag.UpstreamRequestTimeout);
    from.finish(outbound);
    inbound?.reset();
    callee.proxy.settle();
    return TIMED_OUT;
  }
}

/** One request on its way: the sidecars it passes, and its two sides. */
interface Flight {
  readonly from: Instance;
  readonly callee: Instance;
  readonly outbound: Exchange;
  inbound: Exchange | undefined;
}

const TIMED_OUT: Answer = { status: 504, refused: undefined };

const answerOf = (status: number, inbound: Exchange): Answer => ({
  status,
  refused: inbound.localReply === undefined ? undefined : 'inbound',
});

function headersOf({ service, operation, trace }: Call): Pair[] {
  const [method = '', path = ''] = operation.split(' ');
  return [[':authority', hostOf(service)], [':path', path], [':method', method], [':scheme', 'http'], ...trace];
}

function nodeOf(service: string, ip: string): PropertyTree {
  const pod = `${service}-${ip.replaceAll('.', '-')}`;
  return {
    id: `sidecar~${ip}~${pod}.shop~shop.svc.cluster.local`,
    cluster: `${service}.shop`,
    metadata: struct({
      NAME: pod,
      NAMESPACE: 'shop',
      WORKLOAD_NAME: service,
      CLUSTER_ID: 'east',
      NETWORK: 'net1',
      NODE_NAME: 'node-1',
      LABELS: { app: service, 'service.istio.io/canonical-name': service },
    }),
  };
}
