// Host functions: the name of this file is the name of the module that they are imported from.
export declare function proxy_log(level: i32, at: usize, size: usize): i32;
export declare function proxy_get_buffer_bytes(type: i32, start: i32, length: i32, at: usize, size: usize): i32;
export declare function proxy_get_header_map_pairs(type: i32, at: usize, size: usize): i32;
export declare function proxy_set_header_map_pairs(type: i32, at: usize, size: usize): i32;
export declare function proxy_get_header_map_value(type: i32, key: usize, keySize: usize, at: usize, size: usize): i32;
export declare function proxy_replace_header_map_value(
  type: i32,
  key: usize,
  keySize: usize,
  value: usize,
  valueSize: usize,
): i32;
export declare function proxy_get_property(path: usize, pathSize: usize, at: usize, size: usize): i32;
export declare function proxy_set_property(path: usize, pathSize: usize, value: usize, size: usize): i32;
export declare function proxy_send_local_response(
  code: i32,
  details: usize,
  detailsSize: usize,
  body: usize,
  bodySize: usize,
  pairs: usize,
  size: usize,
  grpc: i32,
): i32;
export declare function proxy_set_tick_period_milliseconds(ms: i32): i32;
export declare function proxy_get_shared_data(key: usize, keySize: usize, at: usize, size: usize, cas: usize): i32;
export declare function proxy_set_shared_data(key: usize, keySize: usize, value: usize, size: usize, cas: i32): i32;
export declare function proxy_register_shared_queue(name: usize, size: usize, token: usize): i32;
export declare function proxy_enqueue_shared_queue(token: i32, value: usize, size: usize): i32;
export declare function proxy_dequeue_shared_queue(token: i32, at: usize, size: usize): i32;
export declare function proxy_grpc_stream(
  service: usize,
  serviceSize: usize,
  name: usize,
  nameSize: usize,
  method: usize,
  methodSize: usize,
  metadata: usize,
  metadataSize: usize,
  token: usize,
): i32;
export declare function proxy_grpc_call(
  service: usize,
  serviceSize: usize,
  name: usize,
  nameSize: usize,
  method: usize,
  methodSize: usize,
  metadata: usize,
  metadataSize: usize,
  request: usize,
  requestSize: usize,
  timeout: i32,
  token: usize,
): i32;
export declare function proxy_grpc_send(token: i32, at: usize, size: usize, end: i32): i32;
export declare function proxy_grpc_close(token: i32): i32;
export declare function proxy_define_metric(type: i32, name: usize, size: usize, id: usize): i32;
export declare function proxy_increment_metric(id: i32, offset: i64): i32;
export declare function proxy_http_call(
  uri: usize,
  uriSize: usize,
  headers: usize,
  headersSize: usize,
  body: usize,
  bodySize: usize,
  trailers: usize,
  trailersSize: usize,
  timeout: i32,
  token: usize,
): i32;
