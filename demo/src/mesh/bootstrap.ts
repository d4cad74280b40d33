// A proxy's whole configuration as one object. Pure: addresses and files come in, JSON comes out.
import type { Address } from './address.js';
import { cluster, type Protocol } from './clusters.js';
import { routerFilter, wasmFilter, type FilterSettings, type WasmModule } from './http-filters.js';
import type { Json } from './json.js';
import { httpListener, route, type RoutePolicy, type VirtualHost } from './listeners.js';
import { nodeOf, outboundCluster, serviceHost, type Identity } from './node.js';
import { downstreamTls, upstreamTls, type Certificate } from './tls.js';
import { INLINE_TRACE_HEADERS, TRACE_CLUSTER, tracingOf, type Tracing } from './tracing.js';

/** What can differ from proxy to proxy besides its place in the mesh. */
export interface ProxyOptions {
  /** Without it the proxy runs no filter of ours. */
  wasm?: WasmModule | undefined;
  /** pluginConfig of both directions; `role`, `direction`, `edge` and `collector` are filled in. */
  settings?: FilterSettings;
  inboundSettings?: FilterSettings;
  outboundSettings?: FilterSettings;
  /** Also run the module with `role: order` in the router's upstream chain. Default: if tracing is on. */
  orderRole?: boolean;
  tracing?: Tracing | undefined;
  /** Register the trace headers as inline headers in the bootstrap. */
  inlineTraceHeaders?: boolean;
  /** Certificate of this proxy: with it, inbound wants mTLS and calls to peers use it. */
  certificate?: Certificate | undefined;
  /** Accept callers without a certificate too (TLS without client identity). Needs `certificate`. */
  permissive?: boolean;
  maxRequestHeadersKb?: number;
  maxHeadersCount?: number;
  /** Filters before ours, e.g. a Lua filter that chooses a route. */
  inboundFiltersBefore?: Json[];
  outboundFiltersBefore?: Json[];
  /** Filters between ours and the router. */
  inboundFiltersAfter?: Json[];
  outboundFiltersAfter?: Json[];
  /** Envoy worker threads, default 1. */
  concurrency?: number;
  /** A last change to the finished bootstrap, for set-ups that nothing above describes. */
  patch?: (bootstrap: Json) => void;
}

/** Another service of the mesh, as a caller's proxy knows it. */
export interface Destination {
  service: string;
  namespace: string;
  port: number;
  endpoints: Address[];
  protocol: Protocol;
  /** Its inbound listener wants mTLS. */
  tls: boolean;
  policy?: RoutePolicy;
  /** Routes before the default one, e.g. by header; `cluster` names come from `outboundCluster`. */
  routes?: Json[];
}

/** A destination outside the mesh: its cluster bears its plain name. */
export interface External {
  host: string;
  address: Address;
  policy?: RoutePolicy;
}

export interface ProxySpec {
  identity: Identity;
  options: ProxyOptions;
  /** Unix socket of the admin interface; at most 107 bytes. */
  adminSocket: string;
  accessLogFile?: string;
  /** Absent for a gateway and for a workload that nobody calls. */
  inbound?: { address: Address; app: Address; appProtocol: Protocol };
  outbound: { address: Address; destinations: Destination[]; externals: External[] };
  /** A gateway's public host names lead to this service. */
  gateway?: { to: string; namespace: string };
  collector?: { address: Address; cluster: string };
}

/** Every in-mesh cluster's name begins with it; the filter's `mesh.clusters` for plain Envoy. */
const MESH_CLUSTERS = ['outbound|*'];

export function bootstrap(spec: ProxySpec): Json {
  const { options } = spec;
  const result: Json = {
    node: nodeOf(spec.identity),
    admin: { address: { pipe: { path: spec.adminSocket } } },
    static_resources: { listeners: listeners(spec), clusters: clusters(spec) },
    ...(options.inlineTraceHeaders ? { inline_headers: INLINE_TRACE_HEADERS } : {}),
    // Stats of a stopped test are read at once, so nothing may wait for a flush.
    stats_flush_interval: '1s',
  };
  options.patch?.(result);
  return result;
}

function listeners(spec: ProxySpec): Json[] {
  const result = [outboundListener(spec)];
  if (spec.inbound) result.push(inboundListener(spec, spec.inbound));
  return result;
}

function inboundListener(spec: ProxySpec, inbound: { address: Address }): Json {
  const { options } = spec;
  const { port } = inbound.address;
  const name = inboundCluster(port);
  return httpListener({
    ...common(spec),
    name: `inbound_${port}`,
    address: inbound.address,
    direction: 'INBOUND',
    virtualHosts: [{ name: `inbound|http|${port}`, domains: ['*'], routes: [route(name, INBOUND_POLICY)] }],
    filters: chain(spec, options.inboundFiltersBefore, options.inboundFiltersAfter, options.inboundSettings),
    ...(options.certificate
      ? { transportSocket: downstreamTls(options.certificate, options.permissive !== true) }
      : {}),
  });
}

/** Istio repeats no request between a sidecar and its own application. */
const INBOUND_POLICY: RoutePolicy = { retries: { on: 'reset-before-request', attempts: 0 } };

function outboundListener(spec: ProxySpec): Json {
  const { options, outbound, gateway } = spec;
  return httpListener({
    ...common(spec),
    name: gateway ? `gateway_${outbound.address.port}` : `outbound_${outbound.address.port}`,
    address: outbound.address,
    direction: 'OUTBOUND',
    virtualHosts: gateway ? [gatewayHost(spec, gateway)] : virtualHosts(spec),
    filters: chain(spec, options.outboundFiltersBefore, options.outboundFiltersAfter, options.outboundSettings),
    edge: gateway !== undefined,
  });
}

function common(spec: ProxySpec) {
  const { options, identity } = spec;
  return {
    ...(options.tracing ? { tracing: tracingOf(options.tracing, `${identity.service}.${identity.namespace}`) } : {}),
    ...(spec.accessLogFile ? { accessLogFile: spec.accessLogFile } : {}),
    ...(options.maxRequestHeadersKb ? { maxRequestHeadersKb: options.maxRequestHeadersKb } : {}),
    ...(options.maxHeadersCount ? { maxHeadersCount: options.maxHeadersCount } : {}),
  };
}

/** before, ours, after, router (with ours again in its upstream chain if trace headers need it). */
function chain(spec: ProxySpec, before: Json[] = [], after: Json[] = [], extra: FilterSettings = {}): Json[] {
  const { wasm, orderRole, tracing } = spec.options;
  if (!wasm) return [...before, ...after, routerFilter()];
  const settings = settingsOf(spec, extra);
  const order = (orderRole ?? tracing !== undefined) ? [wasmFilter(wasm, { ...settings, role: 'order' })] : [];
  return [...before, wasmFilter(wasm, settings), ...after, routerFilter(order)];
}

function settingsOf(spec: ProxySpec, extra: FilterSettings): FilterSettings {
  return {
    ...(spec.collector ? { collector: { cluster: spec.collector.cluster } } : {}),
    mesh: { clusters: MESH_CLUSTERS },
    // Without certificates nobody in the mesh could prove who he is.
    trust: spec.options.certificate ? 'mtls' : 'all',
    ...(spec.gateway ? { edge: true } : {}),
    ...spec.options.settings,
    ...extra,
  };
}

function gatewayHost(spec: ProxySpec, to: { to: string; namespace: string }): VirtualHost {
  const destination = spec.outbound.destinations.find(d => d.service === to.to && d.namespace === to.namespace);
  if (!destination) throw new Error(`gateway: no destination ${to.to}.${to.namespace}`);
  return { name: 'public', domains: ['*'], routes: routesOf(destination) };
}

function virtualHosts(spec: ProxySpec): VirtualHost[] {
  const { destinations, externals } = spec.outbound;
  return [
    ...destinations.map(d => ({ name: serviceHost(d.service, d.namespace), domains: domains(d), routes: routesOf(d) })),
    ...externals.map(e => ({ name: e.host, domains: [e.host, `${e.host}:*`], routes: [route(e.host, e.policy)] })),
  ];
}

function domains(d: Destination): string[] {
  const names = [d.service, `${d.service}.${d.namespace}`, serviceHost(d.service, d.namespace)];
  return names.flatMap(name => [name, `${name}:${d.port}`]);
}

function routesOf(d: Destination): Json[] {
  return [...(d.routes ?? []), route(outboundCluster(d.service, d.namespace, d.port), d.policy)];
}

function clusters(spec: ProxySpec): Json[] {
  const { inbound, outbound, collector, options } = spec;
  const result = [
    ...outbound.destinations.map(d => destinationCluster(d, options.certificate)),
    ...outbound.externals.map(e => cluster({ name: e.host, endpoints: [e.address], protocol: 'http1' })),
  ];
  if (inbound) {
    const name = inboundCluster(inbound.address.port);
    result.push(cluster({ name, endpoints: [inbound.app], protocol: inbound.appProtocol }));
  }
  if (collector) result.push(cluster({ name: collector.cluster, endpoints: [collector.address], protocol: 'http2' }));
  if (options.tracing) {
    result.push(cluster({ name: TRACE_CLUSTER, endpoints: [options.tracing.sink], protocol: 'http1' }));
  }
  return result;
}

function inboundCluster(port: number): string {
  return `inbound|${port}||`;
}

function destinationCluster(d: Destination, certificate: Certificate | undefined): Json {
  const name = outboundCluster(d.service, d.namespace, d.port);
  const base = { name, endpoints: d.endpoints, protocol: d.protocol };
  if (!d.tls || !certificate) return cluster(base);
  const alpn = d.protocol === 'http1' ? ['http/1.1'] : ['h2'];
  return cluster({ ...base, transportSocket: upstreamTls(certificate, serviceHost(d.service, d.namespace), alpn) });
}
