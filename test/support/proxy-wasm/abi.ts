/**
 * Names and numbers of the proxy-wasm ABI 0.2.1, as Envoy links them.
 *
 * Signatures are written `parameters:result` with `i` = i32, `I` = i64 and nothing for no result. Envoy
 * refuses a module whose import or callback differs in a single letter, so the emulator compares them too.
 */

export const Status = {
  Ok: 0,
  NotFound: 1,
  BadArgument: 2,
  SerializationFailure: 3,
  ParseFailure: 4,
  BadExpression: 5,
  InvalidMemoryAccess: 6,
  Empty: 7,
  CasMismatch: 8,
  ResultMismatch: 9,
  InternalFailure: 10,
  BrokenConnection: 11,
  Unimplemented: 12,
} as const;
export type Status = (typeof Status)[keyof typeof Status];

/** Every status a host call can answer with, except Ok. */
export const ERROR_STATUSES: readonly Status[] = Object.values(Status).filter(status => status !== Status.Ok);

export const MapType = {
  RequestHeaders: 0,
  RequestTrailers: 1,
  ResponseHeaders: 2,
  ResponseTrailers: 3,
  GrpcReceiveInitialMetadata: 4,
  GrpcReceiveTrailingMetadata: 5,
  HttpCallResponseHeaders: 6,
  HttpCallResponseTrailers: 7,
} as const;
export const MAP_TYPE_MAX = 7;

export const BufferType = {
  HttpRequestBody: 0,
  HttpResponseBody: 1,
  NetworkDownstreamData: 2,
  NetworkUpstreamData: 3,
  HttpCallResponseBody: 4,
  GrpcReceiveBuffer: 5,
  VmConfiguration: 6,
  PluginConfiguration: 7,
  CallData: 8,
} as const;
export const BUFFER_TYPE_MAX = 8;

export const MetricType = { Counter: 0, Gauge: 1, Histogram: 2 } as const;
/** Ids of one kind step by this much; the low bits are the kind. */
export const METRIC_ID_STEP = 4;
export const CalloutType = { HttpCall: 0, GrpcCall: 1, GrpcStream: 2 } as const;
export const CALLOUT_ID_STEP = 4;

/** What a header callback's return value means to the filter chain. */
export type Action = 'continue' | 'stop';

/** Largest pairs buffer that the host reads, bytes; a larger one is read as no pairs at all. */
export const PAIRS_BYTES_MAX = 1024 * 1024;
/** Most pairs that the host reads; more are read as no pairs at all. */
export const PAIRS_COUNT_MAX = 1024;
/** Largest single random_get, bytes. */
export const RANDOM_BYTES_MAX = 64 * 1024;

export const ABI_MARKERS = ['proxy_abi_version_0_1_0', 'proxy_abi_version_0_2_0', 'proxy_abi_version_0_2_1'] as const;

/** Host functions of module `env` that Envoy 1.40 offers to an ABI 0.2.1 module. */
export const ENV_IMPORTS: Readonly<Record<string, string>> = {
  proxy_log: 'iii:i',
  proxy_get_log_level: 'i:i',
  proxy_get_status: 'iii:i',
  proxy_set_property: 'iiii:i',
  proxy_get_property: 'iiii:i',
  proxy_send_local_response: 'iiiiiiii:i',
  proxy_continue_stream: 'i:i',
  proxy_close_stream: 'i:i',
  proxy_get_shared_data: 'iiiii:i',
  proxy_set_shared_data: 'iiiii:i',
  proxy_register_shared_queue: 'iii:i',
  proxy_resolve_shared_queue: 'iiiii:i',
  proxy_dequeue_shared_queue: 'iii:i',
  proxy_enqueue_shared_queue: 'iii:i',
  proxy_get_header_map_value: 'iiiii:i',
  proxy_add_header_map_value: 'iiiii:i',
  proxy_replace_header_map_value: 'iiiii:i',
  proxy_remove_header_map_value: 'iii:i',
  proxy_get_header_map_pairs: 'iii:i',
  proxy_set_header_map_pairs: 'iii:i',
  proxy_get_header_map_size: 'ii:i',
  proxy_get_buffer_status: 'iii:i',
  proxy_get_buffer_bytes: 'iiiii:i',
  proxy_set_buffer_bytes: 'iiiii:i',
  proxy_http_call: 'iiiiiiiiii:i',
  proxy_grpc_call: 'iiiiiiiiiiii:i',
  proxy_grpc_stream: 'iiiiiiiii:i',
  proxy_grpc_close: 'i:i',
  proxy_grpc_cancel: 'i:i',
  proxy_grpc_send: 'iiii:i',
  proxy_set_tick_period_milliseconds: 'i:i',
  proxy_get_current_time_nanoseconds: 'i:i',
  proxy_define_metric: 'iiii:i',
  proxy_increment_metric: 'iI:i',
  proxy_record_metric: 'iI:i',
  proxy_get_metric: 'ii:i',
  proxy_set_effective_context: 'i:i',
  proxy_done: ':i',
  proxy_call_foreign_function: 'iiiiii:i',
  pthread_equal: 'ii:i',
  emscripten_notify_memory_growth: 'i:',
};

/** The WASI functions that the emulator has; Envoy has more, nearly all of them stubs. */
export const WASI_IMPORTS: Readonly<Record<string, string>> = {
  fd_write: 'iiii:i',
  fd_read: 'iiii:i',
  fd_seek: 'iIii:i',
  fd_close: 'i:i',
  fd_fdstat_get: 'ii:i',
  environ_get: 'ii:i',
  environ_sizes_get: 'ii:i',
  args_get: 'ii:i',
  args_sizes_get: 'ii:i',
  clock_time_get: 'iIi:i',
  random_get: 'ii:i',
  sched_yield: ':i',
  proc_exit: 'i:',
};
export const WASI_MODULES: readonly string[] = ['wasi_snapshot_preview1', 'wasi_unstable'];

/** Callbacks the host looks for among the exports. */
export const CALLBACKS: Readonly<Record<string, string>> = {
  proxy_validate_configuration: 'ii:i',
  proxy_on_vm_start: 'ii:i',
  proxy_on_configure: 'ii:i',
  proxy_on_tick: 'i:',
  proxy_on_context_create: 'ii:',
  proxy_on_new_connection: 'i:i',
  proxy_on_downstream_data: 'iii:i',
  proxy_on_upstream_data: 'iii:i',
  proxy_on_downstream_connection_close: 'ii:',
  proxy_on_upstream_connection_close: 'ii:',
  proxy_on_request_headers: 'iii:i',
  proxy_on_request_body: 'iii:i',
  proxy_on_request_trailers: 'ii:i',
  proxy_on_request_metadata: 'ii:i',
  proxy_on_response_headers: 'iii:i',
  proxy_on_response_body: 'iii:i',
  proxy_on_response_trailers: 'ii:i',
  proxy_on_response_metadata: 'ii:i',
  proxy_on_http_call_response: 'iiiii:',
  proxy_on_grpc_receive_initial_metadata: 'iii:',
  proxy_on_grpc_receive: 'iii:',
  proxy_on_grpc_receive_trailing_metadata: 'iii:',
  proxy_on_grpc_close: 'iii:',
  proxy_on_queue_ready: 'ii:',
  proxy_on_foreign_function: 'iii:',
  proxy_on_done: 'i:i',
  proxy_on_log: 'i:',
  proxy_on_delete: 'i:',
  proxy_on_memory_allocate: 'i:i',
  malloc: 'i:i',
  _initialize: ':',
  _start: ':',
};

/** What may be called while `_initialize` or `_start` runs; anything else is a trap. */
export const ALLOWED_IN_INITIALIZE: ReadonlySet<string> = new Set([
  'proxy_log',
  'emscripten_notify_memory_growth',
  ...['fd_write', 'args_sizes_get', 'args_get', 'environ_sizes_get', 'environ_get', 'clock_time_get', 'random_get'],
  'fd_fdstat_get',
]);
/** What may be called while the host allocates guest memory; anything else is a trap. */
export const ALLOWED_IN_MALLOC: ReadonlySet<string> = new Set(['proxy_log', 'fd_write', 'clock_time_get']);
