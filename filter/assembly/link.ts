// The leader's connection to the collector, and when to try what.
//
//   IDLE     no connection; a stream is opened when it is due
//   STREAM   a stream is open
//   UNARY    streams have failed: messages go as calls, one at a time, the next when it is due
//   CALLING  a call is under way
//   PROBING  calls work, and a stream is open on trial: nothing has been answered on it yet
//
//   IDLE    -- due, stream starts --> STREAM      IDLE, STREAM -- failure ------------> IDLE
//   PROBING -- reply ---------------> STREAM      IDLE, STREAM -- third in a minute --> UNARY
//   UNARY   -- message is sent -----> CALLING     CALLING -- reply or failure --------> UNARY
//   UNARY   -- due, stream starts --> PROBING     PROBING -- failure -----------------> UNARY
//   any     -- close, move ---------> IDLE        IDLE -- the leader before had calls --> UNARY
//
// A failure is: a start that fails, a close by the other side, an answer that is none, silence where an
// answer is due. Each ends the session (IDLE) or begins another one (UNARY), and puts the next attempt
// off: by a random part of a pause that doubles from failure to failure, and at least for as long as
// the collector has asked for. No attempt of either kind comes sooner after a failure than half the
// smallest pause.
//
// The proxy chooses an endpoint of the collector's cluster for each stream, so a stream stays with one
// replica for as long as it lives. It moves when the collector asks for it, and after an hour at the
// latest: otherwise replicas that were added or restarted would never get their share. A move loses and
// repeats nothing: no more is sent, what was sent is answered, and then the stream ends.
import { copy, Text } from './bytes';
import { jitter, nowMs, spread } from './clock';
import * as wire from './core/wire';
import * as host from './host';
import { Root } from './roots';
import * as session from './session';

enum State {
  IDLE,
  STREAM,
  UNARY,
  CALLING,
  PROBING,
}

/** Without any reply for so long although we spoke, the stream is given up. */
const SILENCE_MS: u64 = 25000;
const ACK_MS: u64 = 15000;
/** First pause after a failure: half of it to all of it. */
const BACKOFF_MIN_MS: u64 = 1000;
const BACKOFF_MAX_MS: u64 = 30000;
/** Three failures within a minute: unary calls until the stream works again. */
const FALLBACK_FAILURES: u32 = 3;
const FALLBACK_WINDOW_MS: u64 = 60000;
const FALLBACK_RETRY_MS: u64 = 60000;
/** So much sooner at random, so that a fleet whose collector was away does not come back at once. */
const FALLBACK_SPREAD_MS: u64 = 8000;
/** Calls that failed work again: then the collector was away, and streams may work too. */
const RECOVERED_MS: u64 = 2000;
const UNARY_TIMEOUT_MS: u32 = 5000;
/** Past its timeout by so much, a call was lost by the proxy itself. */
const UNARY_OVERDUE_MS: u64 = 10000;
/** Longest time that the collector may ask us to stay away. */
const HOLD_MAX_MS: u32 = 600000;
/** Longest time that it may give us to leave. */
const MOVE_MAX_MS: u32 = 60000;
/** A stream that moves waits for its last answers, at most. */
const LEAVE_MS: u64 = 2000;
/** A stream lives for half of this to all of it. */
const AGE_MAX_MS: u64 = 3600000;
const T_SERVICE = new Text('meshpulse.v1.Ingest');
const T_REPORT = new Text('Report');
const T_REPORT_ONCE = new Text('ReportOnce');

let state: State = State.IDLE;
/** Of the stream or call; 0 = none. */
let token: u32 = 0;
/** The root context it belongs to, and ends with. */
let owner: u32 = 0;
/** A close for a token that is not known yet: a start can fail before it returns. */
let strayToken: u32 = 0;
/** Next attempt: of a stream when IDLE, of a call when UNARY. */
let dueMs: u64 = 0;
/** Next trial of a stream while calls work. */
let probeMs: u64 = 0;
/** The collector has asked not to come before. */
let holdMs: u64 = 0;
/** When to look for another collector: by age, or as asked; 0 = never. */
let moveMs: u64 = 0;
/** The collector has asked for it: that the stream ends is then no failure of streams. */
let asked: bool = false;
/** A message was sent on this stream that has no answer yet. */
let owed: bool = false;
/** Calls since the last failure, or since streams were given up, have not been answered. */
let unanswered: bool = false;
/** A call has failed since the last one that did not. */
let away: bool = false;
let backoffMs: u64 = BACKOFF_MIN_MS;
let failures: u32 = 0;
let failuresSinceMs: u64 = 0;
/** Last message, last reply, and the first message without a reply; 0 = none. */
export let sentMs: u64 = 0;
let heardMs: u64 = 0;
let waitingMs: u64 = 0;

export function unary(): bool {
  return state == State.UNARY || state == State.CALLING;
}

function streaming(): bool {
  return state == State.STREAM || state == State.PROBING;
}

/** A message may be sent now. */
export function ready(): bool {
  const ms = nowMs();
  if (streaming()) return moveMs == 0 || ms < moveMs;
  return state == State.UNARY && ms >= dueMs && ms >= holdMs;
}

/** Whether calls work is not known: one should go even if there is no news. */
export function wonders(): bool {
  return state == State.UNARY && unanswered;
}

/** There is no connection, and none that the collector has asked us not to open. */
export function mayOpen(): bool {
  return state == State.IDLE && nowMs() >= holdMs;
}

/** A stream should be opened now. */
export function streamDue(): bool {
  const ms = nowMs();
  return ms >= holdMs && ((state == State.IDLE && ms >= dueMs) || (state == State.UNARY && ms >= probeMs));
}

/** This VM leads from now on. */
export function start(): void {
  if (session.wasCalls()) fallBack();
  dueMs = nowMs();
}

/** Opens a stream; false when it cannot start. */
export function open(root: Root): bool {
  const probe = state == State.UNARY;
  putService(root);
  const size = wire.outSize();
  const bytes = host.scratch(size);
  if (bytes == 0) return false;
  copy(bytes, wire.outPtr(), size);
  owner = root.id;
  host.setEffectiveContext(owner);
  strayToken = 0;
  token = host.grpcStream(bytes, size, T_SERVICE.ptr, T_SERVICE.size, T_REPORT.ptr, T_REPORT.size);
  if (token == strayToken) token = 0;
  state = probe ? State.PROBING : State.STREAM;
  if (token == 0) {
    failed();
    return false;
  }
  heardMs = nowMs();
  waitingMs = 0;
  moveMs = heardMs + jitter(AGE_MAX_MS);
  asked = false;
  owed = false;
  session.renew(false);
  return true;
}

/** Serialized envoy.config.core.v3.GrpcService: a bare cluster name would become an invalid authority. */
function putService(root: Root): void {
  wire.start();
  const mark = wire.open(1);
  wire.putText(1, root.config.collectorCluster);
  wire.putText(2, root.config.collectorAuthority);
  wire.close(mark);
}

/** Sends what `wire` holds. The proxy may call back before it returns: look at the state afterwards. */
export function send(root: Root): void {
  const ms = nowMs();
  sentMs = ms;
  if (streaming()) {
    if (waitingMs == 0) waitingMs = ms;
    owed = true;
    host.setEffectiveContext(owner);
    host.grpcSend(token, wire.outPtr(), wire.outSize(), false);
    return;
  }
  if (state != State.UNARY) return;
  state = State.CALLING;
  const size = wire.outSize();
  const request = host.scratch(size);
  if (request == 0) return failed();
  copy(request, wire.outPtr(), size);
  putService(root);
  owner = root.id;
  host.setEffectiveContext(owner);
  strayToken = 0;
  token = host.grpcCall(wire.outPtr(), wire.outSize(), T_SERVICE.ptr, T_SERVICE.size, T_REPORT_ONCE.ptr, T_REPORT_ONCE.size, request, size, UNARY_TIMEOUT_MS);
  if (token == strayToken) token = 0;
  if (token == 0) failed();
}

/** True when the message is for the stream or call that runs. */
export function isOurs(handle: u32): bool {
  return handle != 0 && handle == token;
}

/** A reply that could be read. */
export function answered(): void {
  heardMs = nowMs();
  waitingMs = 0;
  backoffMs = BACKOFF_MIN_MS;
  if (state == State.PROBING) state = State.STREAM;
  if (state != State.CALLING) return;
  state = State.UNARY;
  token = 0;
  unanswered = false;
  const soonMs = heardMs + jitter(RECOVERED_MS);
  if (away && soonMs < probeMs) probeMs = soonMs;
  away = false;
}

/** The last message has its answer, and so has every one before it. */
export function caughtUp(): void {
  owed = false;
}

/** A reply that could not: a call is over with it, a stream is not. */
export function unreadable(): void {
  if (state == State.CALLING) token = 0;
  giveUp();
}

/** The last words are due: no move any more. */
export function stay(): void {
  moveMs = 0;
}

/** Does not wait for the answer of a call any longer, nor for a move. */
export function letGo(): void {
  stay();
  if (state != State.CALLING) return;
  token = 0;
  state = State.UNARY;
  dueMs = nowMs();
}

/** Silence, or worse. */
function giveUp(): void {
  cancel(true);
  failed();
}

/** The other side, or the proxy, has closed. */
export function closed(handle: u32): void {
  // The host keeps its side until the guest closes too.
  if (handle != 0) host.grpcClose(handle);
  if (!isOurs(handle)) {
    strayToken = handle;
    return;
  }
  token = 0;
  failed();
}

function failed(): void {
  const ms = nowMs();
  token = 0;
  if (state == State.CALLING) {
    state = State.UNARY;
    dueMs = ms + pause();
    if (probeMs < dueMs) probeMs = dueMs;
    unanswered = true;
    away = true;
    session.renew(true);
    return;
  }
  if (state == State.PROBING) return fallBack();
  state = State.IDLE;
  dueMs = ms + pause();
  if (asked) {
    asked = false;
    return session.end();
  }
  if (failures == 0 || ms - failuresSinceMs > FALLBACK_WINDOW_MS) {
    failures = 0;
    failuresSinceMs = ms;
  }
  failures++;
  if (failures >= FALLBACK_FAILURES) fallBack();
  else session.end();
}

/** To calls after a pause, and a stream again in a minute. */
function fallBack(): void {
  const ms = nowMs();
  if (state == State.PROBING) dueMs = ms + pause();
  state = State.UNARY;
  failures = 0;
  unanswered = true;
  probeMs = ms + FALLBACK_RETRY_MS - spread(FALLBACK_SPREAD_MS);
  session.renew(true);
}

/** How long to wait after a failure; the next one waits twice as long. */
function pause(): u64 {
  const ms = jitter(backoffMs);
  backoffMs = backoffMs * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : backoffMs * 2;
  return ms;
}

/** The last failure was put right: it is none that counts. */
export function forgive(): void {
  failures = 0;
  backoffMs = BACKOFF_MIN_MS;
  dueMs = nowMs() + pause();
}

/** The collector asks not to come before `ms` from now. Never earlier; a fleet comes spread over a quarter more. */
export function hold(ms: u32): void {
  const asked = (ms > HOLD_MAX_MS ? HOLD_MAX_MS : ms) as u64;
  holdMs = nowMs() + asked + spread(asked / 4);
}

/**
 * The collector leaves: reconnect within `ms`; the proxy then chooses an endpoint anew. It says so with every
 * reply, but a time once chosen stays unless it would be too late. A quarter is kept for a second attempt:
 * the endpoint chosen may be the same again.
 */
export function move(ms: u32): void {
  if (!streaming()) return;
  const within = (ms > MOVE_MAX_MS ? MOVE_MAX_MS : ms) as u64;
  const now = nowMs();
  if (!asked || moveMs > now + within) moveMs = now + spread(within - within / 4);
  asked = true;
}

/** What time brings: silence, calls without end, and a move. */
export function watch(): void {
  const ms = nowMs();
  if (state == State.CALLING && ms - sentMs > UNARY_OVERDUE_MS) return giveUp();
  if (!streaming()) return;
  if ((waitingMs != 0 && ms - waitingMs > ACK_MS) || (sentMs > heardMs && ms - heardMs > SILENCE_MS)) return giveUp();
  if (moveMs != 0 && ms >= moveMs && (!owed || ms - moveMs >= LEAVE_MS)) close(true);
}

/** To IDLE, on purpose; a stream may be opened again at once. */
export function close(abruptly: bool): void {
  cancel(abruptly);
  if (state != State.IDLE) session.end();
  state = State.IDLE;
  dueMs = nowMs();
  moveMs = 0;
  asked = false;
}

function cancel(abruptly: bool): void {
  if (token == 0) return;
  const handle = token;
  token = 0;
  if (host.setEffectiveContext(owner) != host.OK) return;
  if (abruptly) host.grpcCancel(handle);
  else host.grpcClose(handle);
}

/** The root context `id` ends, and with it, without a word, what it owns: true when there was something. */
export function leaveRoot(id: u32): bool {
  if (token == 0 || owner != id) return false;
  const stream = streaming();
  cancel(true);
  if (stream) close(true);
  else failed();
  return stream;
}
