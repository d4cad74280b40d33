// Early rollback, where requests pass: refuse what is forward work of a transaction that cannot succeed
// any more. All doubts pass: what is not on the directive's list, entry requests, what compensates, what
// the budget does not cover. In `observe` everything is decided and counted alike, and nothing done.
import { copy, Text, writeDecimal, writeHex64 } from './bytes';
import * as budget from './budget';
import { nowMs } from './clock';
import { ROLLBACK_ENFORCE, ROLLBACK_OFF } from './config';
import * as directive from './core/directive';
import * as h from './core/headers';
import * as names from './core/names';
import * as trace from './core/trace';
import { callee, callOf, grpcRequest, nature } from './describe';
import * as doomed from './doomed';
import { Doom } from './doomed';
import * as downs from './downs';
import * as host from './host';
import { Pairs } from './pairs';
import { reporter, Root } from './roots';
import * as running from './running';
import * as signals from './signals';
import { B_REFUSED, F_ENTRY, F_GRPC, F_NO_RETRIES, F_OWN, F_PROBE, F_RETRY_REFUSED, F_SHADOW, F_STREAM, F_WITHHELD, F_WOULD_REFUSE, INBOUND, Stream } from './streams';

const T_MAX_RETRIES = new Text('x-envoy-max-retries');
const T_PASSTHROUGH = new Text('PassthroughCluster');
const T_ZERO = new Text('0');
/** No business requests, or too long for a verdict to be about them. */
const ALWAYS_PASS: u32 = F_SHADOW | F_PROBE | F_STREAM | F_OWN;
const P_ATTEMPTS = new Text('upstream\0request_attempt_count');

/** Answers the request itself when it has to be refused; true = it goes no further. */
export function refused(s: Stream, root: Root): bool {
  if (doomed.held == 0 || root.config.rollbackMode == ROLLBACK_OFF) return false;
  const ms = nowMs();
  const callee: u32 = s.side == INBOUND ? 0 : s.peerService;
  budget.request(callee, ms);
  const doom = doomed.doomOf(s.keyHi, s.keyLo, s.requestHi, s.requestLo, ms);
  if (doom === null) return false;
  if ((s.flags & F_ENTRY) != 0) {
    // A second business request under this id: nobody knows whose the failure was.
    doomed.remove(doom);
    running.tellSecond(s);
    return false;
  }
  if ((s.flags & ALWAYS_PASS) != 0 || !forward(doom, s.side, s) || signals.compensates()) return false;
  if (!budget.take(callee, doom.budgetPpm, doom.budgetMin, ms)) {
    s.flags |= F_WITHHELD;
    return false;
  }
  if (!enforced(doom, root)) {
    s.flags |= F_WOULD_REFUSE;
    return false;
  }
  s.bits |= B_REFUSED;
  answer(doom, root, (s.flags & F_GRPC) != 0);
  return true;
}

function enforced(doom: Doom, root: Root): bool {
  return doom.mode == directive.ENFORCE && root.config.rollbackMode == ROLLBACK_ENFORCE;
}

/** Is it on the list? A gateway's request is judged as the call that it becomes. */
function forward(doom: Doom, side: i32, s: Stream): bool {
  if (side == INBOUND) {
    if (doom.refuseInSize == 0 || s.operation == names.OTHER) return false;
    return directive.contains(doom.refuseIn(), doom.refuseInSize, directive.nameHash(0, 0, names.namePtr(s.operation), names.nameSize(s.operation)));
  }
  return forwardCall(doom, names.hostOf(s.peerService), s.callOperation);
}

/** A destination that stands for many hosts says nothing of who is called. */
function forwardCall(doom: Doom, callee: u32, operation: u32): bool {
  if (doom.refuseSize == 0 || operation == names.OTHER || callee == names.OTHER || callee == 0) return false;
  if (T_PASSTHROUGH.is(names.namePtr(callee), names.nameSize(callee))) return false;
  return directive.contains(doom.refuse(), doom.refuseSize, directive.nameHash(names.namePtr(callee), names.nameSize(callee), names.namePtr(operation), names.nameSize(operation)));
}

// Retries that `order` refused, until the call that they belonged to ends in the same VM.
const RETRIES_MAX: u32 = 64;
const RETRY: u32 = 40; // key, request id u64 x 2 each, operation u32, flags u32 (0 = free)
const RETRIES: usize = memory.data(2560, 8);
let retryAt: u32 = 0;
/** Rows in use: 0 spares every call's end the search. */
let retries: u32 = 0;

/** `role: order`, attempts behind the first: the first one's failure may have doomed the transaction. */
export function retryRefused(): bool {
  if (doomed.held == 0) return false;
  const full = reporter();
  if (full === null || full.config.rollbackMode == ROLLBACK_OFF) return false;
  const doom = doomed.doomOf(trace.keyHi, trace.keyLo, trace.requestHi, trace.requestLo, nowMs());
  if (doom === null || host.getNumber(P_ATTEMPTS.ptr, P_ATTEMPTS.size, 0) < 2) return false;
  if ((nature() & ALWAYS_PASS) != 0 || signals.compensates()) return false;
  const call = callOf();
  if (!forwardCall(doom, callee, call)) return false;
  if (!budget.take(callee, doom.budgetPpm, doom.budgetMin, nowMs())) {
    remember(call, F_WITHHELD);
    return false;
  }
  const enforce = enforced(doom, full);
  remember(call, enforce ? F_RETRY_REFUSED : F_RETRY_REFUSED | F_WOULD_REFUSE);
  if (enforce) answer(doom, full, grpcRequest());
  return enforce;
}

/** For the row of the call that the parsed attempt belongs to. */
function remember(call: u32, flags: u32): void {
  const at = RETRIES + retryAt * RETRY;
  retryAt = (retryAt + 1) % RETRIES_MAX;
  if (load<u32>(at, 36) == 0) retries++;
  store<u64>(at, trace.keyHi);
  store<u64>(at, trace.keyLo, 8);
  store<u64>(at, trace.requestHi, 16);
  store<u64>(at, trace.requestLo, 24);
  store<u32>(at, call, 32);
  store<u32>(at, flags, 36);
}

/** What `order` did to a call that ends now. */
export function retryFlags(s: Stream): u32 {
  if (retries == 0 || s.side == INBOUND) return 0;
  let flags: u32 = 0;
  for (let i: u32 = 0; i < RETRIES_MAX; i++) {
    const at = RETRIES + i * RETRY;
    if (load<u32>(at, 36) == 0 || load<u32>(at, 32) != s.callOperation) continue;
    // Either id alone may be missing, and then is that of many.
    if (load<u64>(at) != s.keyHi || load<u64>(at, 8) != s.keyLo || load<u64>(at, 16) != s.requestHi || load<u64>(at, 24) != s.requestLo) continue;
    flags |= load<u32>(at, 36);
    store<u32>(at, 0, 36);
    retries--;
  }
  return flags;
}

/** Calls to a service that is down for all get no retries. Behind `rewrite`: the map is as it will go. */
export function spareRetries(s: Stream, root: Root): void {
  if (downs.down == 0 || s.side == INBOUND || root.config.rollbackMode != ROLLBACK_ENFORCE) return;
  if ((s.flags & ALWAYS_PASS) != 0 || signals.compensates()) return;
  if (!downs.pointless(names.hostOf(s.peerService), s.callOperation, nowMs())) return;
  host.removeHeader(host.REQUEST_HEADERS, T_MAX_RETRIES.ptr, T_MAX_RETRIES.size);
  if (host.addHeader(host.REQUEST_HEADERS, T_MAX_RETRIES.ptr, T_MAX_RETRIES.size, T_ZERO.ptr, T_ZERO.size) == host.OK) s.flags |= F_NO_RETRIES;
}

// The answer.
const T_DETAILS = new Text('meshpulse_refused');
const T_RATELIMITED = new Text('x-envoy-ratelimited');
const T_TRUE = new Text('true');
const T_PUSHBACK = new Text('grpc-retry-pushback-ms');
const T_NEVER = new Text('-1');
const T_CONTENT_TYPE = new Text('content-type');
const T_PROBLEM = new Text('application/problem+json');
const T_BODY_1 = new Text('{"type":"urn:meshpulse:doomed","title":"The transaction cannot succeed any more","status":');
const T_BODY_2 = new Text(',"transaction":"');
const T_BODY_3 = new Text('","step":"');
const T_BODY_4 = new Text('","signal":"');
const T_BODY_5 = new Text('"}\n');
const T_MESSAGE_1 = new Text('meshpulse: transaction ');
const T_MESSAGE_2 = new Text(' cannot succeed any more: ');
const T_MESSAGE_3 = new Text(' failed');
const BODY: usize = memory.data(640, 8);
const KEY_ID: usize = memory.data(32, 8);

/** HTTP: a problem document. gRPC: the proxy makes a trailers-only answer with the text as its message. */
function answer(doom: Doom, root: Root, grpc: bool): void {
  const body = grpc ? message(doom) : problem(doom, root.config.rollbackHttpStatus);
  const pairs = headers(doom, grpc);
  const size = pairs.write();
  host.sendLocalResponse(root.config.rollbackHttpStatus, T_DETAILS.ptr, T_DETAILS.size, BODY, body, pairs.ptr, size, grpc ? (root.config.rollbackGrpcStatus as i32) : -1);
}

function put(at: usize, text: Text): usize {
  return copy(at, text.ptr, text.size);
}

/** The transaction as the tools name it: its first key, or the request id where it has none. */
function transaction(at: usize, doom: Doom): usize {
  const id = doom.block;
  writeHex64(KEY_ID, load<u64>(id));
  writeHex64(KEY_ID + 16, load<u64>(id, 8));
  return copy(at, KEY_ID, 32);
}

function problem(doom: Doom, status: u32): u32 {
  let at = writeDecimal(put(BODY, T_BODY_1), status as u64);
  at = transaction(put(at, T_BODY_2), doom);
  at = copy(put(at, T_BODY_3), doom.step(), doom.stepSize);
  at = copy(put(at, T_BODY_4), doom.id(), doom.idSize);
  return (put(at, T_BODY_5) - BODY) as u32;
}

function message(doom: Doom): u32 {
  let at = transaction(put(BODY, T_MESSAGE_1), doom);
  at = copy(put(at, T_MESSAGE_2), doom.step(), doom.stepSize);
  return (put(at, T_MESSAGE_3) - BODY) as u32;
}

function headers(doom: Doom, grpc: bool): Pairs {
  const pairs = new Pairs();
  pairs.add(h.T_MP_ROLLBACK, doom.id(), doom.idSize);
  pairs.add(T_RATELIMITED, T_TRUE.ptr, T_TRUE.size);
  if (grpc) pairs.add(T_PUSHBACK, T_NEVER.ptr, T_NEVER.size);
  else pairs.add(T_CONTENT_TYPE, T_PROBLEM.ptr, T_PROBLEM.size);
  return pairs;
}
