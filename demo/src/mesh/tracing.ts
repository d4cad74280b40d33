import type { Address } from './address.js';
import { format } from './address.js';
import { any, type Json } from './json.js';

export interface Tracing {
  provider: 'opentelemetry' | 'zipkin';
  /** Where spans go by HTTP: OTLP at /v1/traces, Zipkin at /api/v2/spans. */
  sink: Address;
  /** Percent of new traces that are sampled, 0..100; default 100. */
  samplingPercent?: number;
  /** Report spans, but leave the trace context in requests alone (Envoy >= 1.38). */
  noContextPropagation?: boolean;
}

export const TRACE_CLUSTER = 'trace-sink';

/** Headers that the providers write; registered inline they are changed in place, not appended. */
export const INLINE_TRACE_HEADERS: Json[] = [
  'traceparent',
  'tracestate',
  'x-b3-traceid',
  'x-b3-spanid',
  'x-b3-parentspanid',
  'x-b3-sampled',
].map(name => ({ inline_header_name: name, inline_header_type: 'REQUEST_HEADER' }));

/** The connection manager's `tracing`. `operation` is the service name in spans. */
export function tracingOf(tracing: Tracing, service: string): Json {
  return {
    random_sampling: { value: tracing.samplingPercent ?? 100 },
    // Istio's default of spans for both directions comes from the listener's traffic direction.
    provider: tracing.provider === 'zipkin' ? zipkin(tracing.sink) : openTelemetry(tracing.sink, service),
    ...(tracing.noContextPropagation ? { no_context_propagation: true } : {}),
  };
}

function openTelemetry(sink: Address, service: string): Json {
  return {
    name: 'envoy.tracers.opentelemetry',
    typed_config: any('envoy.config.trace.v3.OpenTelemetryConfig', {
      http_service: {
        http_uri: { uri: `http://${format(sink)}/v1/traces`, cluster: TRACE_CLUSTER, timeout: '1s' },
      },
      service_name: service,
    }),
  };
}

function zipkin(sink: Address): Json {
  return {
    name: 'envoy.tracers.zipkin',
    typed_config: any('envoy.config.trace.v3.ZipkinConfig', {
      collector_cluster: TRACE_CLUSTER,
      collector_endpoint: '/api/v2/spans',
      collector_hostname: format(sink),
      collector_endpoint_version: 'HTTP_JSON',
      shared_span_context: false,
    }),
  };
}
