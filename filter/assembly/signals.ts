// Signals: what the application has to undo. The leader posts each to it by `rollback.callback` and tells
// the collector how it answered; every VM knows which signals are live, for requests that carry one's
// id compensate and are never refused.
import { copy, hash, Text } from './bytes';
import { nowMs } from './clock';
import * as batches from './batches';
import * as directive from './core/directive';
import * as h from './core/headers';
import * as wire from './core/wire';
import * as host from './host';
import { Pairs } from './pairs';
import { Root } from './roots';

/** Live signals known; past it the oldest is forgotten, and its requests are judged like others. */
const LIVE_MAX: u32 = 256;
const LIVE: usize = memory.data(4096, 8); // hash of the id u64, expires ms u64
let next: u32 = 0;
let live: u32 = 0;

/** Posts under way; further ones are answered for with status 0, and the collector repeats them. */
const POSTS_MAX: u32 = 64;
const POST: u32 = 72; // token u32, size of the id u32 (0 = free), id 64
const POSTS: usize = memory.data(4608, 8);
const TIMEOUT_MS: u32 = 5000;
const SEED: u64 = 17;

const T_METHOD = new Text(':method');
const T_POST = new Text('POST');
const T_PATH = new Text(':path');
const T_AUTHORITY = new Text(':authority');
const T_LOCAL = new Text('localhost');
const T_CONTENT_TYPE = new Text('content-type');
const T_JSON = new Text('application/json');
const T_STATUS = new Text(':status');

/** The signal read last is live until then. */
export function hold(expiresMs: u64): void {
  const id = hash(directive.idPtr, directive.idSize, SEED);
  let at: usize = 0;
  for (let i: u32 = 0; i < live; i++) if (load<u64>(LIVE + i * 16) == id) at = LIVE + i * 16;
  if (at == 0) {
    at = LIVE + next * 16;
    next = (next + 1) % LIVE_MAX;
    if (live < LIVE_MAX) live++;
  }
  store<u64>(at, id);
  store<u64>(at, expiresMs, 8);
}

export function clear(): void {
  live = 0;
  next = 0;
}

/** Does the parsed request carry the id of a live signal? */
export function compensates(): bool {
  if (live == 0 || h.iMpRollback < 0) return false;
  const id = hash(h.valuePtr(h.iMpRollback), h.valueSize(h.iMpRollback), SEED);
  const ms = nowMs();
  for (let i: u32 = 0; i < live; i++) if (load<u64>(LIVE + i * 16) == id) return load<u64>(LIVE + i * 16, 8) > ms;
  return false;
}

/** The leader's part: hands the signal read last to the application. */
export function post(root: Root): void {
  if (root.config.callbackCluster.length == 0 || root.config.callbackPath.length == 0) return;
  let at: usize = 0;
  for (let i: u32 = 0; i < POSTS_MAX && at == 0; i++) if (load<u32>(POSTS + i * POST, 4) == 0) at = POSTS + i * POST;
  if (at == 0) return tell(directive.idPtr, directive.idSize, 0);
  const pairs = new Pairs();
  pairs.add(T_METHOD, T_POST.ptr, T_POST.size);
  const path = String.UTF8.encode(root.config.callbackPath);
  pairs.add(T_PATH, changetype<usize>(path), path.byteLength);
  pairs.add(T_AUTHORITY, T_LOCAL.ptr, T_LOCAL.size);
  pairs.add(T_CONTENT_TYPE, T_JSON.ptr, T_JSON.size);
  pairs.add(h.T_MP_ROLLBACK, directive.idPtr, directive.idSize);
  const size = pairs.write();
  const cluster = String.UTF8.encode(root.config.callbackCluster);
  host.setEffectiveContext(root.id);
  if (size == 0 || host.httpCall(changetype<usize>(cluster), cluster.byteLength, pairs.ptr, size, directive.bodyPtr, directive.bodySize, TIMEOUT_MS) != host.OK) {
    return tell(directive.idPtr, directive.idSize, 0);
  }
  store<u32>(at, host.callToken);
  store<u32>(at, directive.idSize, 4);
  copy(at + 8, directive.idPtr, directive.idSize);
}

/** No headers: the application did not answer. */
export function answered(token: u32): void {
  for (let i: u32 = 0; i < POSTS_MAX; i++) {
    const at = POSTS + i * POST;
    const size = load<u32>(at, 4);
    if (size == 0 || load<u32>(at) != token) continue;
    store<u32>(at, 0, 4);
    const m = host.mark();
    let status: u32 = 0;
    if (host.getHeader(host.CALL_RESPONSE_HEADERS, T_STATUS.ptr, T_STATUS.size) == host.OK) {
      for (let j: u32 = 0; j < host.dataSize && j < 3; j++) status = status * 10 + (load<u8>(host.dataPtr + j) - 48);
    }
    host.release(m);
    tell(at + 8, size, status);
    return;
  }
}

function tell(id: usize, size: u32, status: u32): void {
  wire.start();
  const mark = wire.open(11);
  wire.putBytes(1, id, size);
  wire.putVarint(2, status);
  wire.close(mark);
  batches.tell();
}
