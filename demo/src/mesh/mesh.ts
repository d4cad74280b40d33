// A whole mesh on loopback: services, each instance with an address and a real Envoy of its own.
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { takeSubnet, type Address, type Subnet } from './address.js';
import { bootstrap, type Destination, type External, type ProxyOptions, type ProxySpec } from './bootstrap.js';
import type { Protocol } from './clusters.js';
import { Envoy } from './envoy.js';
import type { Json } from './json.js';
import type { RoutePolicy } from './listeners.js';
import { outboundCluster, type Identity } from './node.js';
import { createAuthority, type Authority, type Certificate } from './tls.js';

/** Ports of every instance, on its own address. */
export const INBOUND_PORT = 8080;
export const OUTBOUND_PORT = 15001;
export const APP_PORT = 18080;
/** Service octets: 127.x.SERVICE_FIRST.1 is the first instance of the first service. */
const SERVICE_FIRST = 10;
const SERVICES_MAX = 200;
const INSTANCES_MAX = 200;

export const COLLECTOR_CLUSTER = outboundCluster('collector', 'meshpulse', 50051);

export interface ServiceSpec {
  name: string;
  namespace?: string;
  /** Default 1. */
  instances?: number;
  /** An edge proxy without application; its public listener is at INBOUND_PORT. */
  gatewayTo?: string;
  /** Nobody calls it: no inbound listener. */
  outboundOnly?: boolean;
  /** In the mesh by name, but without a proxy: callers go straight to the application. */
  noSidecar?: boolean;
  /** Between callers' proxies and this one; default `http1`. */
  protocol?: Protocol;
  /** Between its proxy and its application; default `http1`. */
  appProtocol?: Protocol;
  /** How callers' proxies treat it. */
  policy?: RoutePolicy;
  /** Routes before the default one. */
  routes?: Json[];
  /** Differences of its proxies from the mesh's. */
  proxy?: ProxyOptions;
}

export interface MeshOptions {
  services: ServiceSpec[];
  externals?: External[];
  /** Where proxies find the collector; of several replicas, one after the other. Absent: nobody reports. */
  collector?: Address | readonly Address[] | undefined;
  namespace?: string;
  /** Mesh cluster id in node metadata, default `demo`. */
  cluster?: string;
  /** For all proxies. */
  proxy?: ProxyOptions;
  /** mTLS with certificates of an authority of the mesh's own. */
  mtls?: boolean;
  /** Addresses; default: the first free 127.N. The mesh releases it at the end. */
  subnet?: Subnet;
  logLevel?: string;
}

export class Mesh {
  readonly proxies: Proxy[] = [];
  /** Leave the directory with configurations and logs behind at `stop`. */
  keepFiles = false;

  private constructor(
    readonly options: MeshOptions,
    readonly dir: string,
    readonly subnet: Subnet,
    private readonly authority: Authority | undefined,
  ) {}

  /** Lays everything out; nothing runs yet. */
  static async create(options: MeshOptions): Promise<Mesh> {
    if (options.services.length > SERVICES_MAX) throw new RangeError(`services: at most ${SERVICES_MAX}`);
    const dir = await mkdtemp(join(tmpdir(), 'mesh-'));
    const subnet = options.subnet ?? (await takeSubnet());
    const mesh = new Mesh(options, dir, subnet, options.mtls ? await createAuthority(dir) : undefined);
    for (const spec of options.services) await mesh.layOut(spec);
    return mesh;
  }

  /** Starts every proxy and waits until all are ready. */
  async start(): Promise<void> {
    const proxies = this.proxies.filter(proxy => proxy.hasSidecar);
    await Promise.all(proxies.map(proxy => proxy.start()));
  }

  /** The `index`-th instance of a service. */
  proxy(service: string, index = 0): Proxy {
    const found = this.proxies.find(p => p.spec.name === service && p.index === index);
    if (!found) throw new Error(`no instance ${index} of ${service} in this mesh`);
    return found;
  }

  /** Where a proxy reports to. */
  collectorOf(proxy: Proxy): Address | undefined {
    const collectors: readonly Address[] = [this.options.collector ?? []].flat<(Address | readonly Address[])[]>();
    return collectors[this.proxies.indexOf(proxy) % Math.max(1, collectors.length)];
  }

  instances(service: string): Proxy[] {
    return this.proxies.filter(p => p.spec.name === service);
  }

  /** Ends every proxy, at once (`kill`) or by SIGTERM, and removes the files unless they are kept. */
  async stop(how: 'stop' | 'kill' = 'stop'): Promise<void> {
    await Promise.all(this.proxies.map(proxy => (how === 'kill' ? proxy.kill() : proxy.stop())));
    this.subnet.release();
    if (!this.keepFiles) await rm(this.dir, { recursive: true, force: true });
  }

  namespaceOf(spec: ServiceSpec): string {
    return spec.namespace ?? this.options.namespace ?? 'shop';
  }

  address(service: number, index: number, port: number): Address {
    return { host: `${this.subnet.prefix}.${SERVICE_FIRST + service}.${index + 1}`, port };
  }

  /** What a caller's proxy knows of the mesh. */
  destinations(): Destination[] {
    return this.options.services.flatMap((spec, i) => (isCallable(spec) ? [this.destination(spec, i)] : []));
  }

  private destination(spec: ServiceSpec, i: number): Destination {
    const port = spec.noSidecar ? APP_PORT : INBOUND_PORT;
    const certificate = spec.proxy && 'certificate' in spec.proxy ? spec.proxy.certificate : this.authority;
    return {
      service: spec.name,
      namespace: this.namespaceOf(spec),
      port: INBOUND_PORT,
      endpoints: Array.from({ length: spec.instances ?? 1 }, (_, index) => this.address(i, index, port)),
      protocol: spec.protocol ?? 'http1',
      tls: !spec.noSidecar && certificate !== undefined,
      ...(spec.policy ? { policy: spec.policy } : {}),
      ...(spec.routes ? { routes: spec.routes } : {}),
    };
  }

  private async layOut(spec: ServiceSpec): Promise<void> {
    const count = spec.instances ?? 1;
    if (count > INSTANCES_MAX) throw new RangeError(`${spec.name}: at most ${INSTANCES_MAX} instances`);
    const certificate = await this.authority?.issue(spec.name, this.namespaceOf(spec));
    const service = this.options.services.indexOf(spec);
    for (let index = 0; index < count; index++) this.proxies.push(new Proxy(this, spec, service, index, certificate));
  }
}

function isCallable(spec: ServiceSpec): boolean {
  return spec.gatewayTo === undefined && !spec.outboundOnly;
}

/** One instance: its application's addresses and its Envoy. */
export class Proxy {
  /** Lives on this address so far; each has a pod name of its own. */
  private life = 0;
  private running: Envoy | undefined;

  constructor(
    private readonly mesh: Mesh,
    readonly spec: ServiceSpec,
    private readonly service: number,
    readonly index: number,
    private readonly certificate: Certificate | undefined,
  ) {}

  get hasSidecar(): boolean {
    return !this.spec.noSidecar;
  }

  get ip(): string {
    return this.inbound.host;
  }

  /** What peers call; for a gateway, what the world calls. */
  get inbound(): Address {
    return this.mesh.address(this.service, this.index, INBOUND_PORT);
  }

  /** What the application calls, with the callee's name in `host`. */
  get outbound(): Address {
    return this.mesh.address(this.service, this.index, OUTBOUND_PORT);
  }

  /** Where the application must listen. */
  get app(): Address {
    return this.mesh.address(this.service, this.index, APP_PORT);
  }

  get pod(): string {
    return podName(this.spec.name, this.index, this.life);
  }

  get envoy(): Envoy {
    if (!this.running) throw new Error(`${this.pod} has no proxy running`);
    return this.running;
  }

  async start(): Promise<void> {
    const dir = join(this.mesh.dir, this.pod);
    await mkdir(dir, { recursive: true });
    const proxy = this.proxySpec(dir);
    const { logLevel } = this.mesh.options;
    this.running = await Envoy.start({
      name: this.pod,
      dir,
      bootstrap: bootstrap(proxy),
      adminSocket: proxy.adminSocket,
      concurrency: proxy.options.concurrency ?? 1,
      ...(proxy.accessLogFile ? { accessLogFile: proxy.accessLogFile } : {}),
      ...(logLevel ? { logLevel } : {}),
    });
    await this.running.ready();
  }

  /** A new life on the same address: another pod name, another Envoy. The former one must have ended. */
  async startNewLife(): Promise<void> {
    if (this.running?.running) throw new Error(`${this.pod} still runs`);
    this.life++;
    await this.start();
  }

  async stop(): Promise<void> {
    await this.running?.stop();
  }

  async stopGracefully(settleMs?: number): Promise<void> {
    await this.running?.stopGracefully(settleMs);
  }

  async kill(): Promise<void> {
    await this.running?.kill();
  }

  /** What `start` will run. */
  proxySpec(dir: string): ProxySpec {
    const { options } = this.mesh;
    const gateway = this.spec.gatewayTo;
    const namespace = this.mesh.namespaceOf(this.spec);
    const collector = this.mesh.collectorOf(this);
    return {
      identity: this.identity(),
      options: { certificate: this.certificate, ...options.proxy, ...this.spec.proxy },
      adminSocket: join(dir, 'admin.sock'),
      accessLogFile: join(dir, 'access.log'),
      outbound: {
        address: gateway ? this.inbound : this.outbound,
        destinations: this.mesh.destinations(),
        externals: options.externals ?? [],
      },
      ...(gateway ? { gateway: { to: gateway, namespace } } : {}),
      ...(isCallable(this.spec)
        ? { inbound: { address: this.inbound, app: this.app, appProtocol: this.spec.appProtocol ?? 'http1' } }
        : {}),
      ...(collector ? { collector: { address: collector, cluster: COLLECTOR_CLUSTER } } : {}),
    };
  }

  private identity(): Identity {
    return {
      kind: this.spec.gatewayTo ? 'router' : 'sidecar',
      ip: this.ip,
      pod: this.pod,
      service: this.spec.name,
      namespace: this.mesh.namespaceOf(this.spec),
      cluster: this.mesh.options.cluster ?? 'demo',
    };
  }
}

/** As a Deployment names its pods: workload, template hash, a part of its own. */
function podName(service: string, index: number, life: number): string {
  const own = (index * 7919 + life * 104729 + 46656).toString(36).slice(-5).padStart(5, 'a');
  return `${service}-6d4cf56db6-${own}`;
}
