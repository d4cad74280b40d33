// The only file that calls the proxy.
//
// AssemblyScript cannot catch, and a trap costs every request of the worker thread. So each wrapper
// returns one of four answers and never throws: OK, ABSENT (the host has no such thing), PHASE (not
// in this phase of the request) or FAILED. Data that the host hands over lands in one arena that is
// reused by every callback: no garbage, and the memory of a VM stays flat.
import {
  proxy_add_header_map_value,
  proxy_call_foreign_function,
  proxy_define_metric,
  proxy_dequeue_shared_queue,
  proxy_done,
  proxy_enqueue_shared_queue,
  proxy_get_buffer_bytes,
  proxy_get_header_map_pairs,
  proxy_get_header_map_value,
  proxy_get_property,
  proxy_get_shared_data,
  proxy_grpc_cancel,
  proxy_grpc_close,
  proxy_grpc_send,
  proxy_http_call,
  proxy_increment_metric,
  proxy_log,
  proxy_register_shared_queue,
  proxy_remove_header_map_value,
  proxy_resolve_shared_queue,
  proxy_send_local_response,
  proxy_set_effective_context,
  proxy_set_header_map_pairs,
  proxy_set_property,
  proxy_set_shared_data,
  proxy_set_tick_period_milliseconds,
} from '@gcoredev/proxy-wasm-sdk-as/assembly/imports';

// The SDK declares both with fewer parameters than the host has; a wrong type fails the load.
// @ts-ignore: decorator
@external('env', 'proxy_grpc_call')
declare function proxy_grpc_call(
  service: usize, serviceSize: usize, name: usize, nameSize: usize, method: usize, methodSize: usize,
  metadata: usize, metadataSize: usize, request: usize, requestSize: usize, timeoutMs: u32, token: usize,
): u32;
// @ts-ignore: decorator
@external('env', 'proxy_grpc_stream')
declare function proxy_grpc_stream(
  service: usize, serviceSize: usize, name: usize, nameSize: usize, method: usize, methodSize: usize,
  metadata: usize, metadataSize: usize, token: usize,
): u32;
// @ts-ignore: decorator
@external('wasi_snapshot_preview1', 'random_get')
declare function wasi_random_get(ptr: usize, size: usize): u32;
// @ts-ignore: decorator
@external('wasi_snapshot_preview1', 'clock_time_get')
declare function wasi_clock_time_get(id: u32, precision: u64, time: usize): u32;

export const OK: u32 = 0;
export const ABSENT: u32 = 1;
export const PHASE: u32 = 2;
export const FAILED: u32 = 3;
/** Only from setShared: somebody else was first. */
export const CONFLICT: u32 = 4;

export const REQUEST_HEADERS: i32 = 0;
export const RESPONSE_HEADERS: i32 = 2;
export const CALL_RESPONSE_HEADERS: i32 = 6;

const BUFFER_REQUEST_BODY: i32 = 0;
const BUFFER_RESPONSE_BODY: i32 = 1;
const BUFFER_CALL_RESPONSE: i32 = 4;
const BUFFER_GRPC: i32 = 5;
const BUFFER_PLUGIN_CONFIG: i32 = 7;

/** Most bytes the proxy can hand over during one callback: a 60 KiB header map and its neighbours. */
const ARENA_BYTES: usize = 320 * 1024;
const ARENA: usize = memory.data(320 * 1024, 16);
let arenaTop: usize = 0;
let depth: u32 = 0;

/** Where the last host call that returns data left it; valid until the outermost callback ends. */
export let dataPtr: usize = 0;
export let dataSize: u32 = 0;
export let dataCas: u32 = 0;

const OUT: usize = memory.data(32, 16);

/** Every exported callback starts here. Callbacks nest: a failing grpc_stream calls back at once. */
export function enter(): void {
  if (depth == 0) arenaTop = 0;
  depth++;
}

export function leave(): void {
  depth--;
}

/** The host allocates here. 0 makes the host call fail; it never grows the memory. */
export function allocate(size: usize): usize {
  const start = (arenaTop + 7) & ~(7 as usize);
  if (size > ARENA_BYTES || start + size > ARENA_BYTES) return 0;
  arenaTop = start + size;
  return ARENA + start;
}

/** Scratch memory for the guest, from the same arena; 0 when it is full. */
export function scratch(size: usize): usize {
  return allocate(size);
}

function answer(result: u32): u32 {
  if (result == 0) return OK;
  if (result == 1) return ABSENT;
  if (result == 2) return PHASE; // BadArgument: this header map is not there in this phase
  if (result == 8) return CONFLICT;
  return FAILED;
}

function taken(result: u32): u32 {
  if (result == 0) {
    dataPtr = load<u32>(OUT);
    dataSize = load<u32>(OUT, 4);
    // The host does not allocate for empty values: both words stay what they were set to, 0.
    if (dataPtr == 0) dataSize = 0;
    return OK;
  }
  dataPtr = 0;
  dataSize = 0;
  return answer(result);
}

function clearOut(): void {
  store<u64>(OUT, 0);
}

export function log(level: u32, ptr: usize, size: usize): void {
  proxy_log(level, ptr, size);
}

/** Cold paths only: encodes the text on each call. Levels: 2 info, 3 warn, 4 error. */
export function logText(level: u32, text: string): void {
  const bytes = String.UTF8.encode(text);
  proxy_log(level, changetype<usize>(bytes), bytes.byteLength);
}

export function onAbort(message: string | null, file: string | null, line: u32, column: u32): void {
  const text = 'meshpulse: abort ' + (message !== null ? message : '') + ' at ' + (file !== null ? file : '?') + ':' + line.toString();
  logText(4, text);
  unreachable();
}

/** Nanoseconds of the host's monotonic clock. */
export function monotonicNs(): u64 {
  store<u64>(OUT, 0);
  wasi_clock_time_get(1, 1, OUT);
  return load<u64>(OUT);
}

/** Microseconds since 1970. */
export function wallUs(): u64 {
  store<u64>(OUT, 0);
  wasi_clock_time_get(0, 1, OUT);
  return load<u64>(OUT) / 1000;
}

let weakState: u64 = 0;
const TURN: usize = memory.data(24, 8);

/** How many VMs of this process have asked before: two that start in one moment must not be alike. */
function turn(): u64 {
  store<u64>(TURN, 0x6c75706873656d2e); // a key of eight bytes
  for (let i = 0; i < 8; i++) {
    const m = mark();
    const n: u64 = getShared(TURN, 8) == OK && dataSize == 8 ? load<u64>(dataPtr) + 1 : 1;
    release(m);
    store<u64>(TURN, n, 8);
    if (setShared(TURN, 8, TURN + 8, 8, dataCas) != CONFLICT) return n;
  }
  return 0;
}

/** Fills [ptr, ptr + size). Falls back to a clock-seeded generator: ids must be distinct, not secret. */
export function random(ptr: usize, size: usize): void {
  if (wasi_random_get(ptr, size) == 0) return;
  if (weakState == 0) weakState = (wallUs() ^ (monotonicNs() << 20) ^ 0x9e3779b97f4a7c15) + turn() * 0xbf58476d1ce4e5b9;
  for (let i: usize = 0; i < size; i++) {
    weakState ^= weakState << 13;
    weakState ^= weakState >> 7;
    weakState ^= weakState << 17;
    store<u8>(ptr + i, (weakState >> 24) as u8);
  }
}

export function getPairs(map: i32): u32 {
  clearOut();
  return taken(proxy_get_header_map_pairs(map, OUT, OUT + 4));
}

export function setPairs(map: i32, ptr: usize, size: usize): u32 {
  return answer(proxy_set_header_map_pairs(map, ptr, size));
}

export function getHeader(map: i32, name: usize, nameSize: usize): u32 {
  clearOut();
  return taken(proxy_get_header_map_value(map, name, nameSize, OUT, OUT + 4));
}

export function addHeader(map: i32, name: usize, nameSize: usize, value: usize, valueSize: usize): u32 {
  return answer(proxy_add_header_map_value(map, name, nameSize, value, valueSize));
}

export function removeHeader(map: i32, name: usize, nameSize: usize): u32 {
  return answer(proxy_remove_header_map_value(map, name, nameSize));
}

/** `path`: parts separated by NUL. */
export function getProperty(path: usize, size: usize): u32 {
  clearOut();
  return taken(proxy_get_property(path, size, OUT, OUT + 4));
}

/** An integer, boolean or duration property; `missing` when it is not there. */
export function getNumber(path: usize, size: usize, missing: u64): u64 {
  if (getProperty(path, size) != OK) return missing;
  if (dataSize == 8) return load<u64>(dataPtr);
  if (dataSize == 1) return load<u8>(dataPtr) as u64;
  return missing;
}

export function setProperty(path: usize, size: usize, value: usize, valueSize: usize): u32 {
  return answer(proxy_set_property(path, size, value, valueSize));
}

export function getShared(key: usize, size: usize): u32 {
  clearOut();
  store<u32>(OUT, 0, 8);
  const result = taken(proxy_get_shared_data(key, size, OUT, OUT + 4, OUT + 8));
  dataCas = load<u32>(OUT, 8);
  return result;
}

/** cas 0 writes whatever is there. */
export function setShared(key: usize, size: usize, value: usize, valueSize: usize, cas: u32): u32 {
  return answer(proxy_set_shared_data(key, size, value, valueSize, cas));
}

/** Queue token, or 0. */
export function registerQueue(name: usize, size: usize): u32 {
  store<u32>(OUT, 0);
  return proxy_register_shared_queue(name, size, OUT) == 0 ? load<u32>(OUT) : 0;
}

export function resolveQueue(vmId: usize, vmIdSize: usize, name: usize, size: usize): u32 {
  store<u32>(OUT, 0);
  return proxy_resolve_shared_queue(vmId, vmIdSize, name, size, OUT) == 0 ? load<u32>(OUT) : 0;
}

export function enqueue(token: u32, ptr: usize, size: usize): u32 {
  return answer(proxy_enqueue_shared_queue(token, ptr, size));
}

export function dequeue(token: u32): u32 {
  clearOut();
  return taken(proxy_dequeue_shared_queue(token, OUT, OUT + 4));
}

export function getBody(response: bool, start: u32, size: u32): u32 {
  clearOut();
  return taken(proxy_get_buffer_bytes(response ? BUFFER_RESPONSE_BODY : BUFFER_REQUEST_BODY, start, size, OUT, OUT + 4));
}

/** Of the answer to an httpCall, from its beginning. */
export function getCallBody(size: u32): u32 {
  clearOut();
  return taken(proxy_get_buffer_bytes(BUFFER_CALL_RESPONSE, 0, size, OUT, OUT + 4));
}

export function getGrpcMessage(size: u32): u32 {
  clearOut();
  return taken(proxy_get_buffer_bytes(BUFFER_GRPC, 0, size, OUT, OUT + 4));
}

export function getPluginConfig(size: u32): u32 {
  clearOut();
  return taken(proxy_get_buffer_bytes(BUFFER_PLUGIN_CONFIG, 0, size, OUT, OUT + 4));
}

export function sendLocalResponse(
  status: u32, details: usize, detailsSize: usize, body: usize, bodySize: usize, pairs: usize, pairsSize: usize, grpcStatus: i32,
): u32 {
  return answer(proxy_send_local_response(status, details, detailsSize, body, bodySize, pairs, pairsSize, grpcStatus));
}

export function setTickPeriod(ms: u32): void {
  proxy_set_tick_period_milliseconds(ms);
}

/** The call's token, or 0. A failure may call onGrpcClose with a token nobody has seen. */
export function grpcCall(
  service: usize, serviceSize: usize, name: usize, nameSize: usize, method: usize, methodSize: usize,
  request: usize, requestSize: usize, timeoutMs: u32,
): u32 {
  const out = OUT + 16;
  store<u32>(out, 0);
  const result = proxy_grpc_call(service, serviceSize, name, nameSize, method, methodSize, 0, 0, request, requestSize, timeoutMs, out);
  return result == 0 ? load<u32>(out) : 0;
}

export function grpcStream(service: usize, serviceSize: usize, name: usize, nameSize: usize, method: usize, methodSize: usize): u32 {
  const out = OUT + 16;
  store<u32>(out, 0);
  const result = proxy_grpc_stream(service, serviceSize, name, nameSize, method, methodSize, 0, 0, out);
  return result == 0 ? load<u32>(out) : 0;
}

export function grpcSend(token: u32, ptr: usize, size: usize, end: bool): u32 {
  return answer(proxy_grpc_send(token, ptr, size, end ? 1 : 0));
}

export function grpcClose(token: u32): void {
  proxy_grpc_close(token);
}

export function grpcCancel(token: u32): void {
  proxy_grpc_cancel(token);
}

/** Of the last httpCall that was OK; 0 is a token like any other. */
export let callToken: u32 = 0;

/** A request to a cluster. The answer comes to proxy_on_http_call_response with `callToken`. */
export function httpCall(cluster: usize, clusterSize: usize, pairs: usize, pairsSize: usize, body: usize, bodySize: usize, timeoutMs: u32): u32 {
  const out = OUT + 16;
  store<u32>(out, 0);
  const result = answer(proxy_http_call(cluster, clusterSize, pairs, pairsSize, body, bodySize, 0, 0, timeoutMs, out));
  callToken = load<u32>(out);
  return result;
}

export function setEffectiveContext(context: u32): u32 {
  return answer(proxy_set_effective_context(context));
}

export function done(): void {
  proxy_done();
}

/** Metric id, or 0xffffffff. Type 0 counter, 1 gauge. */
export function defineMetric(type: i32, name: usize, size: usize): u32 {
  store<u32>(OUT, 0);
  return proxy_define_metric(type, name, size, OUT) == 0 ? load<u32>(OUT) : 0xffffffff;
}

export function addMetric(id: u32, delta: i64): void {
  if (id != 0xffffffff) proxy_increment_metric(id, delta);
}

/** Position of the arena; give it back to `release` what was allocated since. */
export function mark(): usize {
  return arenaTop;
}

export function release(to: usize): void {
  arenaTop = to;
}

/** A function of the proxy's own, by name; ABSENT where it has none of that name. */
export function callForeign(name: usize, nameSize: usize, args: usize, argsSize: usize): u32 {
  clearOut();
  return taken(proxy_call_foreign_function(name, nameSize, args, argsSize, OUT, OUT + 4));
}
