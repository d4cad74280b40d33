import { envoyAddress, type Address } from './address.js';
import { any, duration, type Json } from './json.js';

/** Route settings of one destination; what is not given is Istio's default. */
export interface RoutePolicy {
  /** 0 = none, the default. */
  timeoutMs?: number;
  retries?: {
    /** Default Istio's list. */
    on?: string;
    /** Default 2. */
    attempts?: number;
    statusCodes?: number[];
    perTryTimeoutMs?: number;
    /** Start another attempt when one exceeds perTryTimeoutMs, and keep both. */
    hedge?: boolean;
  };
}

const ISTIO_RETRY_ON = 'connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes';
const ISTIO_RETRIES = 2;
const HOST_SELECTION_RETRIES = 5;

export interface VirtualHost {
  name: string;
  domains: string[];
  routes: Json[];
}

/** A route for everything below `prefix`. */
export function route(cluster: string, policy: RoutePolicy = {}, prefix = '/'): Json {
  return { match: { prefix }, route: { cluster, ...routeAction(policy) } };
}

/** What a route action says besides its destination. */
export function routeAction(policy: RoutePolicy): Json {
  const { retries } = policy;
  return {
    timeout: duration(policy.timeoutMs ?? 0),
    retry_policy: {
      retry_on: retries?.on ?? ISTIO_RETRY_ON,
      num_retries: retries?.attempts ?? ISTIO_RETRIES,
      ...(retries?.statusCodes ? { retriable_status_codes: retries.statusCodes } : {}),
      ...(retries?.perTryTimeoutMs ? { per_try_timeout: duration(retries.perTryTimeoutMs) } : {}),
      // Another attempt prefers another instance, as in Istio.
      retry_host_predicate: [
        {
          name: 'envoy.retry_host_predicates.previous_hosts',
          typed_config: any('envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate'),
        },
      ],
      host_selection_retry_max_attempts: HOST_SELECTION_RETRIES,
      // A short first pause keeps tests of retries quick.
      retry_back_off: { base_interval: '0.025s', max_interval: '0.25s' },
    },
    ...(retries?.hedge ? { hedge_policy: { hedge_on_per_try_timeout: true } } : {}),
  };
}

export interface HttpListener {
  name: string;
  address: Address;
  direction: 'INBOUND' | 'OUTBOUND';
  virtualHosts: VirtualHost[];
  /** In order; the router is the last. */
  filters: Json[];
  tracing?: Json;
  /** File for one JSON object a line. */
  accessLogFile?: string;
  transportSocket?: Json;
  maxRequestHeadersKb?: number;
  maxHeadersCount?: number;
  /** The first proxy of the mesh: new x-request-id, x-forwarded-for from the connection. */
  edge?: boolean;
}

/** A listener with one HTTP connection manager that takes HTTP/1.1 and HTTP/2. */
export function httpListener(spec: HttpListener): Json {
  return {
    name: spec.name,
    address: envoyAddress(spec.address),
    traffic_direction: spec.direction,
    filter_chains: [
      {
        filters: [{ name: 'envoy.filters.network.http_connection_manager', typed_config: connectionManager(spec) }],
        ...(spec.transportSocket ? { transport_socket: spec.transportSocket } : {}),
      },
    ],
  };
}

function connectionManager(spec: HttpListener): Json {
  return any('envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager', {
    codec_type: 'AUTO',
    stat_prefix: spec.name,
    server_name: 'istio-envoy',
    use_remote_address: spec.edge === true,
    // Callers of the edge learn under which id their request is known.
    always_set_request_id_in_response: spec.edge === true,
    normalize_path: true,
    stream_idle_timeout: '0s',
    upgrade_configs: [{ upgrade_type: 'websocket' }],
    ...(spec.direction === 'INBOUND' && spec.transportSocket
      ? {
          forward_client_cert_details: 'APPEND_FORWARD',
          set_current_client_cert_details: { subject: true, dns: true, uri: true },
        }
      : {}),
    ...(spec.maxRequestHeadersKb ? { max_request_headers_kb: spec.maxRequestHeadersKb } : {}),
    ...(spec.maxHeadersCount ? { common_http_protocol_options: { max_headers_count: spec.maxHeadersCount } } : {}),
    ...(spec.tracing ? { tracing: spec.tracing } : {}),
    ...(spec.accessLogFile ? { access_log: [accessLog(spec.accessLogFile)] } : {}),
    route_config: {
      name: spec.name,
      virtual_hosts: spec.virtualHosts.map(host => ({ ...host, include_request_attempt_count: true })),
    },
    http_filters: spec.filters,
  });
}

/** What a line of the access log holds; `cuid` is what the filter stored. */
export interface AccessLogLine {
  time: string;
  method: string | null;
  path: string | null;
  code: number;
  flags: string;
  details: string | null;
  duration_ms: number;
  request_id: string | null;
  cuid: string | null;
  attempts: number | null;
  upstream: string | null;
  cluster: string | null;
  authority: string | null;
  protocol: string | null;
  grpc_status: string | null;
}

function accessLog(file: string): Json {
  return {
    name: 'envoy.access_loggers.file',
    typed_config: any('envoy.extensions.access_loggers.file.v3.FileAccessLog', {
      path: file,
      log_format: {
        json_format: {
          time: '%START_TIME%',
          method: '%REQ(:METHOD)%',
          path: '%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%',
          code: '%RESPONSE_CODE%',
          flags: '%RESPONSE_FLAGS%',
          details: '%RESPONSE_CODE_DETAILS%',
          duration_ms: '%DURATION%',
          request_id: '%REQ(X-REQUEST-ID)%',
          cuid: '%FILTER_STATE(wasm.cuid:PLAIN)%',
          attempts: '%UPSTREAM_REQUEST_ATTEMPT_COUNT%',
          upstream: '%UPSTREAM_HOST%',
          cluster: '%UPSTREAM_CLUSTER%',
          authority: '%REQ(:AUTHORITY)%',
          protocol: '%PROTOCOL%',
          grpc_status: '%GRPC_STATUS_NUMBER%',
        },
      },
    }),
  };
}
