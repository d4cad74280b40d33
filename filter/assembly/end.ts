// The end of a request: judged, counted, made into rows.
import { parsed, parseDecimal, Text } from './bytes';
import * as batches from './batches';
import { clock, nowMs, nowNs, wallAt } from './clock';
import { ROLE_FULL } from './config';
import * as h from './core/headers';
import * as names from './core/names';
import * as trace from './core/trace';
import { Row } from './core/wire';
import { describe } from './describe';
import * as doomed from './doomed';
import * as doubts from './doubts';
import * as host from './host';
import * as identity from './identity';
import { learn } from './injected';
import { parsePairs } from './own-headers';
import { retryFlags } from './refuse';
import { orderExpected, reporting, Root, sideOf } from './roots';
import * as status from './status';
import {
  B_BEGAN, B_IN_MESH, B_LOGGED, B_ORDERED, B_PRIVATE, B_REFUSED, B_REFUSED_BEHIND, B_ROUTER_COUNTS, B_SEEN, B_STAMP, EDGE, F_CALL, F_ENTRY, F_EXTERNAL, F_GRPC, F_LOCAL_REPLY, F_NO_RETRIES, F_RETRY_REFUSED, F_STREAM, F_UNSEEN, F_WITHHELD, F_WOULD_REFUSE, find, INBOUND, OUTBOUND, settle, Stream,
} from './streams';
import * as thinning from './thinning';

const O_OK: u32 = 1;
const O_FAILED: u32 = 2;
const O_DECLINED: u32 = 3;
const O_CANCELLED: u32 = 4;
const O_REFUSED: u32 = 5;

// Envoy's response flags that decide an outcome.
/** The client left: DC (HTTP/1, connection closed) or DR (HTTP/2 reset). */
const RF_CLIENT_LEFT: u64 = (1 << 14) | (1 << 28);
/** The response was broken off after it had begun: LR UR UC SI UMSDR DT UPE. */
const RF_BROKEN: u64 = (1 << 3) | (1 << 4) | (1 << 6) | (1 << 16) | (1 << 19) | (1 << 22) | (1 << 23);

const P_CODE = new Text('response\0code');
const P_FLAGS = new Text('response\0flags');
const P_GRPC_STATUS = new Text('response\0grpc_status');
const P_DETAILS = new Text('response\0code_details');
const P_ATTEMPTS = new Text('upstream\0request_attempt_count');
const P_WAIT = new Text('upstream\0cx_pool_ready_duration');
const P_REQUEST_BYTES = new Text('request\0total_size');
const P_RESPONSE_BYTES = new Text('response\0total_size');
const P_CUID = new Text('cuid');
const T_VIA_UPSTREAM = new Text('via_upstream');

export function log(context: u32): void {
  const at = find(context);
  if (at == 0) return;
  const s = changetype<Stream>(at);
  const root = changetype<Root>(s.root);
  if (root.config.role != ROLE_FULL || (s.bits & B_LOGGED) != 0) return;
  s.bits |= B_LOGGED;
  if (s.side == 0) s.side = sideOf(root);
  clock();
  host.setProperty(P_CUID.ptr, P_CUID.size, identity.CUID, 36);
  if ((s.bits & B_SEEN) == 0) {
    // Rejected before us: only now do we hear of it.
    s.startNs = nowNs;
    if (parsePairs(host.REQUEST_HEADERS, root)) {
      trace.read();
      describe(s, root);
    }
    s.flags |= F_UNSEEN;
  }
  settle(s);
  if ((s.bits & B_PRIVATE) != 0) return; // calls nobody
  finish(s, root);
}

function finish(s: Stream, root: Root): void {
  const responseFlags = host.getNumber(P_FLAGS.ptr, P_FLAGS.size, 0);
  if (s.status == 0) s.status = host.getNumber(P_CODE.ptr, P_CODE.size, 0) as u32;
  let statusBits = s.status & 0xffff;
  let grpc: i64 = -1;
  if ((s.flags & F_GRPC) != 0) {
    grpc = host.getNumber(P_GRPC_STATUS.ptr, P_GRPC_STATUS.size, u64.MAX_VALUE) as i64;
    if (grpc >= 0 && grpc < 200) statusBits |= ((grpc as u32) + 1) << 16;
    else grpc = -1;
  }
  const broken = s.status < 400 && (responseFlags & RF_BROKEN) != 0;
  const attempts = s.side != INBOUND ? attemptsOf(s) : 1;
  let local = attempts == 0 && s.status != 0;
  // What ended before the router tells nothing of what the router's side adds.
  if (s.lacked != 0 && (s.side != INBOUND ? attempts : attemptsOf(s)) != 0) learn(s, root);
  let details: u32 = 0;
  const unordered = (s.bits & (B_SEEN | B_ORDERED)) == B_SEEN && orderExpected(root, s.side);
  if (responseFlags != 0 || s.status == 0 || s.status >= 400 || local || unordered) {
    const m = host.mark();
    if (host.getProperty(P_DETAILS.ptr, P_DETAILS.size) == host.OK && host.dataSize > 0) {
      if (!T_VIA_UPSTREAM.is(host.dataPtr, host.dataSize)) {
        details = names.detail(host.dataPtr, host.dataSize);
        local = s.status != 0 && !broken && (responseFlags & RF_CLIENT_LEFT) == 0;
      } else if (unordered) {
        // It went upstream and `order` was not there: from now on `full` writes the headers again.
        root.orderSeen &= ~(1 << s.side);
        root.orderMissed |= 1 << s.side;
        if ((s.bits & B_STAMP) != 0) doubts.countUnstamped();
      }
    }
    host.release(m);
  }
  // Of a gRPC refusal, a 200, the details have not been read.
  if (local || (s.bits & B_REFUSED) != 0) s.flags |= F_LOCAL_REPLY;
  s.flags |= retryFlags(s);
  let outcome = judge(s.status, grpc, responseFlags, broken);
  if ((outcome == O_FAILED || outcome == O_DECLINED) && refusedCall(s)) outcome = O_REFUSED;
  const elapsed = nowNs > s.startNs ? (nowNs - s.startNs) / 1000 : 0;
  const streamed = (s.flags & F_STREAM) != 0;
  const duration: u32 = streamed ? 0 : saturate(elapsed);
  const waitNs = waitOf(elapsed, local);
  const hasWait = waitNs != u64.MAX_VALUE;
  const wait: u32 = hasWait ? saturate(waitNs / 1000) : 0;
  if (s.side != OUTBOUND) status.observe(outcome == O_FAILED, streamed, duration, wait, hasWait);
  else status.observeCall();
  if (!reporting) return;
  const tries: u32 = attempts > 255 ? 255 : (attempts as u32);
  if (s.side != OUTBOUND) row(s, root, false, outcome, statusBits, responseFlags as u32, duration, wait, details, tries);
  if (s.side == OUTBOUND || (s.side == EDGE && s.peerService != 0)) row(s, root, true, outcome, statusBits, responseFlags as u32, duration, wait, details, tries);
}

/** How long it waited for a connection, ns; u64.MAX_VALUE = not known, or not asked: under load a sample tells as much. */
function waitOf(elapsedUs: u64, local: bool): u64 {
  if (!status.sampleWait()) return u64.MAX_VALUE;
  // Status tells milliseconds: of a request that took less than one, the wait is known to be 0.
  return elapsedUs < 1000 && !local ? 0 : host.getNumber(P_WAIT.ptr, P_WAIT.size, u64.MAX_VALUE);
}

/** How often the router tried; 0 = never. It most often says so in a header, which is cheaper to read than a property. */
function attemptsOf(s: Stream): u64 {
  if ((s.bits & B_ROUTER_COUNTS) != 0 && host.getHeader(host.REQUEST_HEADERS, h.T_ATTEMPT.ptr, h.T_ATTEMPT.size) == host.OK && parseDecimal(host.dataPtr, host.dataSize)) return parsed;
  return host.getNumber(P_ATTEMPTS.ptr, P_ATTEMPTS.size, 0);
}

/** Refused by a filter of the mesh, this one or the callee's: no failure of anybody. */
function refusedCall(s: Stream): bool {
  return (s.bits & (B_REFUSED | B_REFUSED_BEHIND)) != 0 || (s.flags & (F_RETRY_REFUSED | F_WOULD_REFUSE)) == F_RETRY_REFUSED;
}

/** What the outcome means, as the contract's "Early rollback" defines it. */
function judge(status: u32, grpc: i64, responseFlags: u64, broken: bool): u32 {
  // A client that leaves makes Envoy infer all sorts of statuses; none is the callee's.
  if ((responseFlags & RF_CLIENT_LEFT) != 0) return O_CANCELLED;
  if (status == 0) return responseFlags != 0 ? O_FAILED : O_CANCELLED;
  if (broken) return O_FAILED;
  if (grpc > 0) {
    if (grpc == 1) return O_CANCELLED;
    if (grpc == 2 || grpc == 4 || grpc == 8 || grpc == 13 || grpc == 14 || grpc == 15) return O_FAILED;
    return O_DECLINED;
  }
  if (status >= 500) return O_FAILED;
  if (status >= 400) return O_DECLINED;
  return O_OK;
}

function row(s: Stream, root: Root, call: bool, outcome: u32, status: u32, responseFlags: u32, duration: u32, wait: u32, details: u32, attempts: u32): void {
  let flags = s.flags;
  if (call) {
    flags = (flags & ~F_ENTRY) | F_CALL;
    if ((s.bits & B_IN_MESH) == 0 && s.peerService != 0) flags |= F_EXTERNAL;
  } else if (s.side == EDGE && s.peerService != 0) {
    // The call's row tells of it: what is refused at a gateway is refused once.
    flags &= ~(F_WOULD_REFUSE | F_WITHHELD | F_NO_RETRIES | F_RETRY_REFUSED);
    if (outcome == O_REFUSED) flags &= ~F_LOCAL_REPLY;
  }
  const operation = call ? s.callOperation : s.operation;
  const bits = flags | (outcome << 16) | (s.source << 20) | ((call ? attempts : 0) << 24);
  const config = root.config;
  // The end of a doomed transaction's entry ends its directives: the next request under its id is another one.
  const ends = !call && (flags & F_ENTRY) != 0 && doomed.doomOf(s.keyHi, s.keyLo, s.requestHi, s.requestLo, nowMs()) !== null;
  let weight: u32 = 0;
  const thins = thinning.thins();
  batches.thin(thins);
  if (thins) {
    // Exact counts leave out the attempts: a total per (operation, status, flags) must stay small.
    batches.countExactly(operation, status, responseFlags, bits & 0x000fffff, duration);
    weight = thinning.weigh(s.keyHi ^ s.keyLo, config, outcome == O_FAILED, ends || (s.bits & B_BEGAN) != 0);
    if (weight == 0) return;
  }
  const at = batches.newRow();
  if (at == 0) return;
  const r = changetype<Row>(at);
  r.endUs = wallAt(nowNs);
  r.keyHi = s.keyHi;
  r.keyLo = s.keyLo;
  r.requestHi = s.requestHi;
  r.requestLo = s.requestLo;
  r.event = call ? s.callEvent : s.event;
  r.spanIn = s.spanIn;
  r.spanOut = s.spanOut;
  r.peerHi = call ? s.calleeHi : s.peerHi;
  r.peerLo = call ? s.calleeLo : s.peerLo;
  r.durationUs = duration;
  r.operation = operation;
  r.peerService = call ? names.hostOf(s.peerService) : 0;
  r.status = status;
  r.responseFlags = responseFlags;
  r.flags = bits;
  r.waitUs = wait;
  r.details = details;
  r.weight = weight;
  if ((flags & F_STREAM) != 0) {
    r.requestBytes = saturate(host.getNumber(P_REQUEST_BYTES.ptr, P_REQUEST_BYTES.size, 0));
    r.responseBytes = saturate(host.getNumber(P_RESPONSE_BYTES.ptr, P_RESPONSE_BYTES.size, 0));
  }
  if (config.plainIds && s.source == trace.KEY_HEADER && host.getHeader(host.REQUEST_HEADERS, root.transactionHeader.ptr, root.transactionHeader.size) == host.OK) batches.rowText(r, host.dataPtr, host.dataSize);
  batches.commit(outcome == O_FAILED || ends);
}

function saturate(value: u64): u32 {
  return value > 0xffffffff ? 0xffffffff : (value as u32);
}
