// Signals: what the application has to undo. The leader posts each to it by `rollback.callback` and tells
// the collector how it answered; every VM knows which signals are live, for requests that carry one's
// id compensate and are never refused.
import { copy, hash, parsed, parseDecimal, Text } from './bytes';
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
const POST: u32 = 80; // token u32, size of the id u32 (0 = free), begun ms u64, id 64
const POSTS: usize = memory.data(5120, 8);
const POST_ID: u32 = 16;
const TIMEOUT_MS: u32 = 5000;
/** Past its timeout by so much, a post was lost with the root context that it belonged to. */
const OVERDUE_MS: u64 = 10000;
const SEED: u64 = 17;

const T_METHOD = new Text(':method');
const T_POST = new Text('POST');
const T_PATH = new Text(':path');
const T_AUTHORITY = new Text(':authority');
const T_LOCAL = new Text('localhost');
const T_CONTENT_TYPE = new Text('content-type');
const T_JSON = new Text('application/json');
const T_STATUS = new Text(':status');

/** What the proxy itself answers for an application that does not, by how the text begins. */
const NO_ANSWER: Text[] = [new Text('upstream connect error'), new Text('upstream request timeout'), new Text('no healthy upstream')];
const NO_ANSWER_BYTES: u32 = 24;

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
  const at = freePost();
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
  store<u64>(at, nowMs(), 8);
  copy(at + POST_ID, directive.idPtr, directive.idSize);
}

function freePost(): usize {
  const ms = nowMs();
  for (let i: u32 = 0; i < POSTS_MAX; i++) {
    const at = POSTS + i * POST;
    if (load<u32>(at, 4) == 0 || load<u64>(at, 8) + OVERDUE_MS <= ms) return at;
  }
  return 0;
}

/** The answer to a post, with a body of `bodySize` bytes. No headers: there was none. */
export function answered(token: u32, bodySize: u32): void {
  for (let i: u32 = 0; i < POSTS_MAX; i++) {
    const at = POSTS + i * POST;
    const size = load<u32>(at, 4);
    if (size == 0 || load<u32>(at) != token) continue;
    store<u32>(at, 0, 4);
    const m = host.mark();
    const status = statusOf(bodySize);
    host.release(m);
    tell(at + POST_ID, size, status);
    return;
  }
}

/** Of the application's answer, 0 = it gave none. */
function statusOf(bodySize: u32): u32 {
  if (host.getHeader(host.CALL_RESPONSE_HEADERS, T_STATUS.ptr, T_STATUS.size) != host.OK) return 0;
  const status: u32 = parseDecimal(host.dataPtr, host.dataSize) && parsed < 1000 ? (parsed as u32) : 0;
  return (status == 503 || status == 504) && byProxy(bodySize) ? 0 : status;
}

/** Nothing but its text tells an answer of the proxy's own from the application's. */
function byProxy(bodySize: u32): bool {
  if (bodySize == 0 || host.getCallBody(bodySize < NO_ANSWER_BYTES ? bodySize : NO_ANSWER_BYTES) != host.OK) return false;
  for (let i = 0; i < NO_ANSWER.length; i++) if (unchecked(NO_ANSWER[i]).starts(host.dataPtr, host.dataSize)) return true;
  return false;
}

function tell(id: usize, size: u32, status: u32): void {
  wire.start();
  const mark = wire.open(11);
  wire.putBytes(1, id, size);
  wire.putVarint(2, status);
  wire.close(mark);
  batches.tell();
}
