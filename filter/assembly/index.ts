// What the proxy calls. Each callback brackets its work with enter and leave, so that data handed
// over by the proxy lives in one arena that is empty again afterwards.
//
// Not exported on purpose: gRPC metadata callbacks (they re-enter the VM inside a failing call), and
// stats updates (the host miscounts their size).
import { body } from './body';
import { clock } from './clock';
import * as directives from './directives';
import { log } from './end';
import * as host from './host';
import * as leader from './leader';
import { requestHeaders } from './request';
import { responseHeaders } from './response';
import { createRoot, rootOf } from './roots';
import { tellBegan, tellInFlight } from './running';
import * as signals from './signals';
import * as spread from './spread';
import * as streams from './streams';
import * as vm from './vm';

export function proxy_abi_version_0_2_1(): void {}

export function proxy_on_memory_allocate(size: usize): usize {
  return host.allocate(size);
}

export function proxy_on_vm_start(root: u32, size: u32): u32 {
  return 1;
}

export function proxy_on_configure(root: u32, size: u32): u32 {
  host.enter();
  vm.configure(root, size);
  host.leave();
  return 1;
}

export function proxy_on_context_create(context: u32, parent: u32): void {
  if (parent == 0) createRoot(context);
  else streams.create(context, parent);
}

export function proxy_on_tick(root: u32): void {
  host.enter();
  if (vm.tickDue()) {
    vm.tick();
    tellInFlight();
  }
  tellBegan(vm.TICK_MS as u32);
  host.leave();
}

export function proxy_on_queue_ready(root: u32, token: u32): void {
  host.enter();
  clock();
  if (spread.isOwn(token)) directives.takeSpread();
  else leader.onQueue(token);
  host.leave();
}

export function proxy_on_grpc_receive(root: u32, token: u32, size: u32): void {
  host.enter();
  clock();
  leader.onMessage(token, size);
  host.leave();
}

export function proxy_on_grpc_close(root: u32, token: u32, status: u32): void {
  host.enter();
  clock();
  leader.onClose(token, status);
  host.leave();
}

export function proxy_on_http_call_response(root: u32, token: u32, headers: u32, body: u32, trailers: u32): void {
  host.enter();
  clock();
  signals.answered(token, body);
  host.leave();
}

export function proxy_on_request_headers(context: u32, count: u32, end: u32): u32 {
  host.enter();
  const action = requestHeaders(context);
  host.leave();
  return action;
}

export function proxy_on_request_body(context: u32, size: u32, end: u32): u32 {
  host.enter();
  body(context, size, false);
  host.leave();
  return 0;
}

export function proxy_on_response_headers(context: u32, count: u32, end: u32): u32 {
  host.enter();
  responseHeaders(context);
  host.leave();
  return 0;
}

export function proxy_on_response_body(context: u32, size: u32, end: u32): u32 {
  host.enter();
  body(context, size, true);
  host.leave();
  return 0;
}

export function proxy_on_log(context: u32): void {
  host.enter();
  log(context);
  host.leave();
}

export function proxy_on_done(context: u32): u32 {
  if (streams.find(context) != 0 || rootOf(context) === null) return 1;
  host.enter();
  clock();
  const done = vm.rootDone(context);
  host.leave();
  return done ? 1 : 0;
}

export function proxy_on_delete(context: u32): void {
  host.enter();
  if (!streams.remove(context)) vm.rootDeleted(context);
  host.leave();
}
