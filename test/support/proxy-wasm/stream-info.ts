/** The attributes that the proxy derives from a stream by itself. */
import type { Exchange } from './exchange.js';
import type { PropertyTree, PropertyValue } from './properties.js';

export interface StreamInfo {
  /** Nanoseconds since 1970. */
  readonly startNs: bigint;
  /** Set at the end of the stream. */
  endNs: bigint | undefined;
  readonly protocol: string;
  readonly connectionId: number;
  responseCode: number | undefined;
  details: string | undefined;
  flags: number;
  requestBytes: number;
  responseBytes: number;
}

/** Envoy derives a gRPC status from any HTTP status, so that `response.grpc_status` exists for plain HTTP too. */
function grpcStatusOfHttp(code: number): number {
  const known: Readonly<Record<number, number>> = {
    400: 13,
    401: 16,
    403: 7,
    404: 12,
    429: 14,
    502: 14,
    503: 14,
    504: 14,
  };
  return known[code] ?? 2;
}

function grpcStatus(exchange: Exchange): number | undefined {
  const text = exchange.responseTrailersMap?.get('grpc-status') ?? exchange.response?.get('grpc-status');
  if (text !== undefined && /^\d+$/.test(text)) return Number(text);
  const code = exchange.info.responseCode;
  return code === undefined ? undefined : grpcStatusOfHttp(code);
}

function split(path: string | undefined, want: 'path' | 'query'): string | undefined {
  if (path === undefined) return undefined;
  const at = path.indexOf('?');
  if (want === 'path') return at < 0 ? path : path.slice(0, at);
  return at < 0 ? '' : path.slice(at + 1);
}

/** Each leaf is read when the guest asks for it. */
export function defaultProperties(exchange: Exchange): PropertyTree {
  const { info, request } = exchange;
  const header = (name: string) => (): PropertyValue => request.get(name);
  return {
    request: {
      headers: request,
      method: header(':method'),
      path: header(':path'),
      url_path: () => split(request.get(':path'), 'path'),
      query: () => split(request.get(':path'), 'query'),
      host: header(':authority'),
      scheme: header(':scheme'),
      useragent: header('user-agent'),
      referer: header('referer'),
      id: header('x-request-id'),
      protocol: info.protocol,
      time: info.startNs,
      size: () => info.requestBytes,
      total_size: () => info.requestBytes + request.byteSize(),
      duration: () => (info.endNs === undefined ? undefined : info.endNs - info.startNs),
    },
    response: {
      headers: () => exchange.response,
      trailers: () => exchange.responseTrailersMap,
      code: () => info.responseCode,
      code_details: () => info.details,
      flags: () => info.flags,
      grpc_status: () => grpcStatus(exchange),
      size: () => info.responseBytes,
      total_size: () => info.responseBytes + (exchange.response?.byteSize() ?? 0),
    },
    connection: { id: info.connectionId, mtls: false },
    connection_id: info.connectionId,
    filter_state: () => Object.fromEntries(exchange.filterState),
  };
}
