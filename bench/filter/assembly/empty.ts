// A filter that does nothing: the same callbacks as the real module, each returning at once. What it
// costs is the price of a Wasm context, which no filter in Wasm can go below.
const ARENA_BYTES: usize = 64 * 1024;
const ARENA: usize = memory.data(64 * 1024, 16);

export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  unreachable();
}

export function proxy_abi_version_0_2_1(): void {}

/** Nothing that the host hands over is kept, so every call may have the same place. */
export function proxy_on_memory_allocate(size: usize): usize {
  return size <= ARENA_BYTES ? ARENA : 0;
}

export function proxy_on_vm_start(root: u32, size: u32): u32 {
  return 1;
}

export function proxy_on_configure(root: u32, size: u32): u32 {
  return 1;
}

export function proxy_on_context_create(context: u32, parent: u32): void {}

export function proxy_on_tick(root: u32): void {}

export function proxy_on_queue_ready(root: u32, token: u32): void {}

export function proxy_on_grpc_receive(root: u32, token: u32, size: u32): void {}

export function proxy_on_grpc_close(root: u32, token: u32, status: u32): void {}

export function proxy_on_request_headers(context: u32, count: u32, end: u32): u32 {
  return 0;
}

export function proxy_on_request_body(context: u32, size: u32, end: u32): u32 {
  return 0;
}

export function proxy_on_response_headers(context: u32, count: u32, end: u32): u32 {
  return 0;
}

export function proxy_on_response_body(context: u32, size: u32, end: u32): u32 {
  return 0;
}

export function proxy_on_log(context: u32): void {}

export function proxy_on_done(context: u32): u32 {
  return 1;
}

export function proxy_on_delete(context: u32): void {}
