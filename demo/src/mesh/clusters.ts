import { envoyAddress, type Address } from './address.js';
import { any, duration, type Json } from './json.js';

/** How a proxy speaks to an upstream. `downstream` repeats what the request came in with. */
export type Protocol = 'http1' | 'http2' | 'downstream';

export interface ClusterSpec {
  name: string;
  endpoints: Address[];
  protocol: Protocol;
  transportSocket?: Json;
  /** Default 2000. */
  connectTimeoutMs?: number;
  /** Limits for tests of overflow; default: none, as in Istio. */
  maxPendingRequests?: number;
  maxConnections?: number;
}

const CONNECT_TIMEOUT_MS = 2000;
/** Istio's "no limit". */
const UNLIMITED = 4294967295;

/** A static cluster, round robin. */
export function cluster(spec: ClusterSpec): Json {
  return {
    name: spec.name,
    type: 'STATIC',
    connect_timeout: duration(spec.connectTimeoutMs ?? CONNECT_TIMEOUT_MS),
    lb_policy: 'ROUND_ROBIN',
    circuit_breakers: {
      thresholds: [
        {
          max_connections: spec.maxConnections ?? UNLIMITED,
          max_pending_requests: spec.maxPendingRequests ?? UNLIMITED,
          max_requests: UNLIMITED,
          max_retries: UNLIMITED,
          track_remaining: true,
        },
      ],
    },
    load_assignment: {
      cluster_name: spec.name,
      endpoints: [{ lb_endpoints: spec.endpoints.map(address => ({ endpoint: { address: envoyAddress(address) } })) }],
    },
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': any(
        'envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
        protocolOptions(spec.protocol),
      ),
    },
    ...(spec.transportSocket ? { transport_socket: spec.transportSocket } : {}),
  };
}

function protocolOptions(protocol: Protocol): Json {
  const http1 = { http_protocol_options: {} };
  const http2 = { http2_protocol_options: {} };
  if (protocol === 'http1') return { explicit_http_config: http1 };
  if (protocol === 'http2') return { explicit_http_config: http2 };
  return { use_downstream_protocol_config: { ...http1, ...http2 } };
}
