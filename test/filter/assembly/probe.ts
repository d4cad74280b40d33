// A guest that does what its configuration says: the host's own tests run on it.
//
// Every command is a header or a configuration text; every answer is a log line, so that a test sees exactly
// what the host told the guest.

import {
  proxy_log,
  proxy_get_buffer_bytes,
  proxy_get_header_map_pairs,
  proxy_set_header_map_pairs,
  proxy_get_header_map_value,
  proxy_replace_header_map_value,
  proxy_get_property,
  proxy_set_property,
  proxy_send_local_response,
  proxy_set_tick_period_milliseconds,
  proxy_get_shared_data,
  proxy_set_shared_data,
  proxy_register_shared_queue,
  proxy_enqueue_shared_queue,
  proxy_dequeue_shared_queue,
  proxy_grpc_stream,
  proxy_grpc_call,
  proxy_grpc_send,
  proxy_grpc_close,
  proxy_define_metric,
  proxy_increment_metric,
  proxy_http_call,
} from './env';
import { random_get, clock_time_get } from './wasi_snapshot_preview1';

const out = memory.data(16); // where the host writes pointer, size and numbers
let configuration: string = '';
let streamToken: i32 = 0;
let gauge: i32 = -1;
let inQueueReady: i32 = 0;

class Bytes {
  constructor(
    public at: usize,
    public size: usize,
  ) {}
}

function utf8(text: string): Bytes {
  const buffer = String.UTF8.encode(text);
  __pin(changetype<usize>(buffer)); // a probe never frees
  return new Bytes(changetype<usize>(buffer), buffer.byteLength);
}

function say(text: string): void {
  const bytes = utf8(text);
  proxy_log(2, bytes.at, bytes.size);
}

function result(): string {
  return String.UTF8.decodeUnsafe(load<usize>(out), load<usize>(out, 4));
}

function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  unreachable();
}

export function proxy_abi_version_0_2_1(): void {}

export function malloc(size: i32): usize {
  return __pin(__new(size, idof<ArrayBuffer>()));
}

export function proxy_on_context_create(id: i32, root: i32): void {
  say(`create ${id} of ${root}`);
}

export function proxy_on_vm_start(root: i32, size: i32): i32 {
  say(`vm start ${root}`);
  return 1;
}

export function proxy_on_configure(root: i32, size: i32): i32 {
  const status = proxy_get_buffer_bytes(7, 0, size, out, out + 4);
  configuration = result();
  say(`configure ${root} status ${status} "${configuration}"`);
  if (configuration == 'refuse') return 0;
  if (configuration == 'trap in configure') unreachable();
  if (configuration.startsWith('tick ')) proxy_set_tick_period_milliseconds(I32.parseInt(configuration.substring(5)));
  const name = utf8('inflight');
  proxy_define_metric(1, name.at, name.size, out);
  gauge = load<i32>(out);
  const queue = utf8('queue');
  proxy_register_shared_queue(queue.at, queue.size, out);
  inQueueReady = load<i32>(out);
  return 1;
}

export function proxy_on_tick(root: i32): void {
  clock_time_get(1, 0, out);
  say(`tick ${root} at ${load<u64>(out) / 1000000}`);
}

export function proxy_on_request_headers(id: i32, count: i32, end: i32): i32 {
  const key = utf8('x-command');
  const status = proxy_get_header_map_value(0, key.at, key.size, out, out + 4);
  const command = status == 0 ? result() : '';
  proxy_increment_metric(gauge, 1);
  return run(command);
}

function run(command: string): i32 {
  if (command == 'trap') unreachable();
  if (command == 'pause') return 1;
  if (command == 'refuse') {
    const body = utf8('no'),
      details = utf8('by probe'),
      pairs = utf8('\x01\0\0\0\x01\0\0\0\x01\0\0\0a\0b\0');
    proxy_send_local_response(418, details.at, details.size, body.at, body.size, pairs.at, pairs.size, -1);
  }
  if (command == 'same pairs') {
    proxy_get_header_map_pairs(0, out, out + 4);
    say(`set ${proxy_set_header_map_pairs(0, load<usize>(out), load<usize>(out, 4))}`);
  }
  if (command == 'bad pairs') {
    proxy_get_header_map_pairs(0, out, out + 4);
    proxy_set_header_map_pairs(0, load<usize>(out), load<usize>(out, 4) - 1);
  }
  if (command.startsWith('replace ')) {
    const name = utf8(command.substring(8)),
      value = utf8('new');
    proxy_replace_header_map_value(0, name.at, name.size, value.at, value.size);
  }
  if (command.startsWith('property ')) {
    const path = utf8(command.substring(9).replaceAll('.', '\0'));
    const status = proxy_get_property(path.at, path.size, out, out + 4);
    let hex = '';
    if (status == 0) {
      for (let i: usize = 0; i < load<usize>(out, 4); i++) {
        hex += load<u8>(load<usize>(out) + i)
          .toString(16)
          .padStart(2, '0');
      }
    }
    say(`property ${status} ${hex}`);
  }
  if (command == 'state') {
    const path = utf8('cuid'),
      value = utf8('abc');
    proxy_set_property(path.at, path.size, value.at, value.size);
  }
  if (command.startsWith('cas ')) {
    const key = utf8('key'),
      value = utf8(command);
    store<u32>(out, 0, 8);
    const found = proxy_get_shared_data(key.at, key.size, out, out + 4, out + 8);
    const cas = command == 'cas stale' ? load<i32>(out, 8) + 1000 : load<i32>(out, 8);
    say(`cas ${found} ${proxy_set_shared_data(key.at, key.size, value.at, value.size, cas)}`);
  }
  if (command.startsWith('enqueue ')) {
    const value = utf8(command.substring(8));
    say(`enqueue ${proxy_enqueue_shared_queue(inQueueReady, value.at, value.size)}`);
  }
  if (command.startsWith('stream ')) {
    const service = utf8(command.substring(7)),
      name = utf8('p.S'),
      method = utf8('M');
    const status = proxy_grpc_stream(service.at, service.size, name.at, name.size, method.at, method.size, 0, 0, out);
    if (status == 0) streamToken = load<i32>(out);
    say(`stream ${status}`);
  }
  if (command.startsWith('call ')) {
    const service = utf8(command.substring(5)),
      name = utf8('p.S'),
      method = utf8('M'),
      request = utf8('hello');
    const status = proxy_grpc_call(
      service.at,
      service.size,
      name.at,
      name.size,
      method.at,
      method.size,
      0,
      0,
      request.at,
      request.size,
      1000,
      out,
    );
    say(`call ${status}`);
  }
  if (command.startsWith('send ')) {
    const message = utf8(command.substring(5));
    say(`send ${proxy_grpc_send(streamToken, message.at, message.size, 0)}`);
  }
  if (command == 'close') say(`close ${proxy_grpc_close(streamToken)}`);
  if (command == 'random') {
    say(`random ${random_get(out, 8)} ${load<u64>(out)} too much ${random_get(out, 65537)}`);
  }
  if (command.startsWith('http ')) {
    const cluster = utf8(command.substring(5));
    proxy_get_header_map_pairs(0, out, out + 4);
    const at = load<usize>(out),
      size = load<usize>(out, 4);
    say(`http ${proxy_http_call(cluster.at, cluster.size, at, size, 0, 0, 0, 0, 500, out)}`);
  }
  return 0;
}

export function proxy_on_request_body(id: i32, size: i32, end: i32): i32 {
  proxy_get_buffer_bytes(0, 0, size, out, out + 4);
  say(`request body "${result()}" end ${end}`);
  return 0;
}

export function proxy_on_response_headers(id: i32, count: i32, end: i32): i32 {
  const key = utf8('x-command');
  const request = proxy_get_header_map_value(0, key.at, key.size, out, out + 4);
  const status = proxy_get_header_map_value(2, key.at, key.size, out, out + 4);
  const command = status == 0 ? result() : '';
  say(`response headers ${count} end ${end}, request headers ${request}`);
  if (command == 'trap') unreachable();
  return 0;
}

export function proxy_on_log(id: i32): void {
  const key = utf8('x-command');
  const request = proxy_get_header_map_value(0, key.at, key.size, out, out + 4);
  const missing = proxy_get_header_map_value(2, key.at, key.size, out, out + 4);
  say(`log ${id} request ${request} response ${missing}`);
}

export function proxy_on_done(id: i32): i32 {
  say(`done ${id}`);
  return 1;
}

export function proxy_on_delete(id: i32): void {
  say(`delete ${id}`);
}

export function proxy_on_queue_ready(root: i32, token: i32): void {
  const status = proxy_dequeue_shared_queue(token, out, out + 4);
  say(`queue ready ${root} ${status} "${status == 0 ? result() : ''}"`);
}

export function proxy_on_grpc_receive(root: i32, token: i32, size: i32): void {
  proxy_get_buffer_bytes(5, 0, size, out, out + 4);
  say(`receive ${token == streamToken} "${result()}"`);
}

export function proxy_on_grpc_close(root: i32, token: i32, status: i32): void {
  say(`closed ${token == streamToken} ${status}`);
}

export function proxy_on_http_call_response(root: i32, token: i32, headers: i32, body: i32, trailers: i32): void {
  say(`http response ${headers} ${body} ${trailers}`);
}
