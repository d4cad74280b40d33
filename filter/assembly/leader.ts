// One VM of the process leads: it holds the stream to the collector and forwards what all VMs put
// into the shared queue. The lead is a lease in the shared table, so it moves when the leader traps.
//
// Streams fail in many ways, and none may reach a request: nothing here runs on the request path,
// what is unacknowledged is bounded per VM, and a stream that gives no sign of life is given up.
// Three failures within a minute, and the same messages go as unary calls until a stream works.
import { copy, Text } from './bytes';
import * as batches from './batches';
import { jitter, nowMs, nowNs, wallAt } from './clock';
import * as wire from './core/wire';
import * as host from './host';
import * as identity from './identity';
import { reporter, Root } from './roots';
import * as shares from './shares';
import { own } from './shares';
import * as status from './status';

const HEARTBEAT_MS: u64 = 10000;
/** Without any reply for so long although we spoke, the stream is given up. */
const SILENCE_MS: u64 = 25000;
const ACK_MS: u64 = 15000;
const BACKOFF_MIN_MS: u64 = 500;
const BACKOFF_MAX_MS: u64 = 30000;
/** Three failures within a minute: unary calls until the stream works again. */
const FALLBACK_FAILURES: u32 = 3;
const FALLBACK_WINDOW_MS: u64 = 60000;
const FALLBACK_RETRY_MS: u64 = 60000;
const UNARY_TIMEOUT_MS: u32 = 5000;
/** A message is sent when it has grown to this size, bytes. */
const MESSAGE_BYTES: u32 = 64 * 1024;
/** So small that hello, status and the largest batch still fit behind it, bytes. */
const UNARY_BYTES: u32 = 16 * 1024;
/** Fragments of one message. */
const PARTS_MAX: u32 = 128;
/** Fragments forwarded in one callback. */
const FORWARD_MAX: u32 = 4096;
const REPLY_BYTES_MAX: u32 = 64 * 1024;
/** A wish of the collector holds for so long, ms. */
const WISH_MS: u64 = 60000;
/** First byte of a fragment with `progress`. */
const PROGRESS_TAG: u8 = (5 << 3) | 2;
const T_SERVICE = new Text('meshpulse.v1.Ingest');
const T_REPORT = new Text('Report');
const T_REPORT_ONCE = new Text('ReportOnce');
// Leader.
let leading: bool = false;
let queueToken: u32 = 0;
let queueRoot: u32 = 0;
let stream: u32 = 0;
let streamRoot: u32 = 0;
let unary: u32 = 0;
let unaryMode: bool = false;
let unaryBusy: bool = false;
let unaryRetryMs: u64 = 0;
/** A stream is tried while unary calls work: until it has answered, one failure is enough to go back. */
let probing: bool = false;
let connecting: bool = false;
let retryAtMs: u64 = 0;
let streamRetryAtMs: u64 = 0;
let drainAtMs: u64 = 0;
let holdUntilMs: u64 = 0;
let backoffMs: u64 = BACKOFF_MIN_MS;
let failures: u32 = 0;
let failuresSinceMs: u64 = 0;
let lastSendMs: u64 = 0;
let lastReplyMs: u64 = 0;
let awaitingSinceMs: u64 = 0;
const ID: usize = memory.data(32, 8);
let lastStatusMs: u64 = 0;

export function lead(root: Root): void {
  const ms = nowMs();
  const mine = shares.leader == own.id;
  const free = shares.leader == 0 || shares.leaseMs < ms;
  if (!mine && free) {
    // The main thread's VM serves no requests and so cannot trap on one: it goes first.
    if (status.seenRequest && shares.leaseMs + 700 > ms) return;
    shares.wantLease(own.id, ms + shares.LEASE_MS);
    shares.sync(ms);
    return; // Two may have written at once: the next tick reads who it is.
  }
  if (!mine) {
    if (leading) stepDown(true);
    return;
  }
  if (!leading) {
    leading = true;
    retryAtMs = ms;
  }
  // A queue calls back into the root context that registered it, so it moves with the reporting root.
  if (queueToken == 0 || queueRoot != root.id) register(root);
  shares.wantLease(own.id, ms + shares.LEASE_MS);
  shares.sync(ms);
  if (stream != 0 || unaryMode) {
    watchStream(root);
    if (stream != 0 || unaryMode) {
      drain();
      report(root);
    }
  }
  if (stream == 0 && ms >= (unaryMode ? streamRetryAtMs : retryAtMs)) connect(root);
  maybeMove();
}

function register(root: Root): void {
  host.setEffectiveContext(root.id);
  queueToken = host.registerQueue(batches.T_QUEUE.ptr, batches.T_QUEUE.size);
  queueRoot = root.id;
}

/** Another VM leads, or nobody has to. */
export function stepDown(cancel: bool): void {
  leading = false;
  endStream(cancel);
  unaryMode = false;
  unaryBusy = false;
  unary = 0;
  queueToken = 0;
}

function connect(root: Root): void {
  const ms = nowMs();
  probing = unaryMode;
  service(root);
  const size = wire.outSize();
  const bytes = host.scratch(size);
  if (bytes == 0) return;
  copy(bytes, wire.outPtr(), size);
  host.setEffectiveContext(root.id);
  streamRoot = root.id;
  connecting = true;
  const token = host.grpcStream(bytes, size, T_SERVICE.ptr, T_SERVICE.size, T_REPORT.ptr, T_REPORT.size);
  connecting = false;
  if (token == 0) {
    streamFailed();
    return;
  }
  stream = token;
  lastReplyMs = ms;
  awaitingSinceMs = 0;
  unaryMode = false;
  unaryBusy = false;
  unary = 0;
  drainAtMs = 0;
  newSession();
  greet(root);
}

/** Serialized envoy.config.core.v3.GrpcService: a bare cluster name would become an invalid authority. */
function service(root: Root): void {
  wire.start();
  const mark = wire.open(1);
  wire.putText(1, root.config.collectorCluster);
  wire.putText(2, root.config.collectorAuthority);
  wire.close(mark);
}

function greet(root: Root): void {
  goodbyeSaid = false;
  wire.start();
  identity.putHello(root);
  status.putStatus();
  lastStatusMs = nowMs();
  send();
}

function endStream(cancel: bool): void {
  if (stream == 0) return;
  const token = stream;
  stream = 0;
  if (host.setEffectiveContext(streamRoot) == host.OK) {
    if (cancel) host.grpcCancel(token);
    else host.grpcClose(token);
  }
}

/** What waits in the queue belongs to an older session and will be offered again. */
function newSession(): void {
  if (!leading) return;
  const ms = nowMs();
  drop();
  host.random(ID, 8);
  shares.wantSession(load<u64>(ID) | 1);
  shares.sync(ms);
}

function noSession(): void {
  shares.wantSession(0);
  shares.sync(nowMs());
}

function drop(): void {
  for (let i = 0; i < 100000; i++) {
    const m = host.mark();
    const result = host.dequeue(queueToken);
    host.release(m);
    if (result != host.OK) return;
  }
}

function streamFailed(): void {
  const ms = nowMs();
  noSession();
  if (probing) return fallBack(ms);
  if (failures == 0 || ms - failuresSinceMs > FALLBACK_WINDOW_MS) {
    failures = 0;
    failuresSinceMs = ms;
  }
  failures++;
  retryAtMs = ms + pause();
  if (failures >= FALLBACK_FAILURES) fallBack(ms);
}

/** How long to wait after a failure; the next one waits twice as long. */
function pause(): u64 {
  const ms = jitter(backoffMs);
  backoffMs = backoffMs * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : backoffMs * 2;
  return ms;
}

/** To unary calls, and a stream again in a minute. */
function fallBack(ms: u64): void {
  probing = false;
  unaryMode = true;
  unaryBusy = false;
  unaryRetryMs = ms;
  streamRetryAtMs = ms + FALLBACK_RETRY_MS;
  failures = 0;
  newSession();
}

function watchStream(root: Root): void {
  if (stream == 0) return;
  const ms = nowMs();
  const silent = awaitingSinceMs != 0 && ms - awaitingSinceMs > ACK_MS;
  if (silent || (lastSendMs > lastReplyMs && ms - lastReplyMs > SILENCE_MS)) {
    endStream(true);
    streamFailed();
  }
}

function report(root: Root): void {
  const ms = nowMs();
  if (unaryMode) {
    if (!unaryBusy && ms >= unaryRetryMs && (status.statusChanged() && ms - lastStatusMs >= status.intervalMs() || ms - lastSendMs >= (root.config.idleMs as u64))) {
      wire.start();
      send();
    }
    return;
  }
  if (identity.helloDue(root)) {
    greet(root);
    return;
  }
  if ((status.statusChanged() && ms - lastStatusMs >= status.intervalMs()) || ms - lastStatusMs >= (root.config.idleMs as u64)) {
    wire.start();
    status.putStatus();
  lastStatusMs = nowMs();
    send();
  } else if (ms - lastSendMs >= HEARTBEAT_MS) {
    wire.start();
    const mark = wire.open(6);
    wire.close(mark);
    send();
  }
}

/** Sends what `wire` holds on the stream, or as a unary call. */
function send(): void {
  const ms = nowMs();
  wire.putFixed64(8, wallAt(nowNs));
  lastSendMs = ms;
  if (stream != 0) {
    host.setEffectiveContext(streamRoot);
    host.grpcSend(stream, wire.outPtr(), wire.outSize(), false);
    if (awaitingSinceMs == 0) awaitingSinceMs = ms;
    return;
  }
  const root = reporter();
  if (!unaryMode || root === null) return;
  // A unary request carries hello and status behind whatever it has: order means nothing in protobuf.
  identity.putHello(root);
  status.putStatus();
  lastStatusMs = nowMs();
  const size = wire.outSize();
  const request = host.scratch(size);
  if (request == 0) return unaryFailed();
  copy(request, wire.outPtr(), size);
  service(root);
  streamRoot = root.id;
  host.setEffectiveContext(root.id);
  unaryBusy = true;
  connecting = true;
  unary = host.grpcCall(wire.outPtr(), wire.outSize(), T_SERVICE.ptr, T_SERVICE.size, T_REPORT_ONCE.ptr, T_REPORT_ONCE.size, request, size, UNARY_TIMEOUT_MS);
  connecting = false;
  if (unary == 0) unaryFailed();
}

function unaryFailed(): void {
  unaryBusy = false;
  unary = 0;
  unaryRetryMs = nowMs() + pause();
  newSession();
}

/** Forwards what the VMs have put into the queue. */
export function drain(): void {
  if (!leading || (stream == 0 && !unaryMode)) return;
  if (unaryMode && (unaryBusy || nowMs() < unaryRetryMs)) return;
  const full = unaryMode ? UNARY_BYTES : MESSAGE_BYTES;
  let parts: u32 = 0;
  let hasProgress = false;
  wire.start();
  for (let i: u32 = 0; i < FORWARD_MAX; i++) {
    const m = host.mark();
    if (host.dequeue(queueToken) != host.OK) {
      host.release(m);
      break;
    }
    const progress = host.dataSize > 0 && load<u8>(host.dataPtr) == PROGRESS_TAG;
    // One VM's jobs fill a message's share of them.
    if (parts > 0 && ((progress && hasProgress) || host.dataSize > wire.room())) {
      if (unaryMode) {
        host.release(m);
        continue; // only jobs can be here, and they are told again when they change
      }
      send();
      wire.start();
      parts = 0;
      hasProgress = false;
    }
    wire.putRaw(host.dataPtr, host.dataSize);
    host.release(m);
    hasProgress = hasProgress || progress;
    parts++;
    if (wire.outSize() >= full || parts >= PARTS_MAX) {
      send();
      if (unaryMode) return;
      wire.start();
      parts = 0;
      hasProgress = false;
    }
  }
  if (parts > 0) send();
}

class Reply extends wire.ReplySink {
  ack(producer: u64, seq: u64): void {
    shares.wantAck(producer, seq);
  }
  hints(ms: u32, drainMs: u32, retryAfterMs: u32): void {
    const now = nowMs();
    if (ms >= 100 && ms <= 60000) shares.wantInterval(ms, now + WISH_MS);
    if (drainMs > 0) drainAtMs = now + jitter((drainMs > 60000 ? 60000 : drainMs) as u64);
    if (retryAfterMs > 0) holdUntilMs = now + (retryAfterMs > 60000 ? 60000 : (retryAfterMs as u64));
  }
}

const reply = new Reply();

export function onMessage(token: u32, size: u32): void {
  if (token != stream && token != unary) return;
  const ms = nowMs();
  if (size > REPLY_BYTES_MAX || host.getGrpcMessage(size) != host.OK) return garbage(token);
  if (!wire.readReply(host.dataPtr, host.dataSize, reply)) return garbage(token);
  if (token == stream) probing = false;
  lastReplyMs = ms;
  awaitingSinceMs = 0;
  backoffMs = BACKOFF_MIN_MS;
  shares.sync(ms);
  if (token == unary) {
    unaryBusy = false;
    unary = 0;
  }
  batches.offer();
  drain();
}

function garbage(token: u32): void {
  if (token == stream) {
    endStream(true);
    streamFailed();
  } else unaryFailed();
}

export function onClose(token: u32): void {
  // The host keeps its side until the guest closes too.
  if (token != 0) host.grpcClose(token);
  if (connecting) return; // the failed start has been seen by its result
  if (token == unary && token != 0) {
    unaryFailed();
    return;
  }
  if (token != stream || token == 0) return;
  stream = 0;
  if (holdUntilMs > nowMs()) backoffMs = holdUntilMs - nowMs();
  streamFailed();
}

export function onQueue(token: u32): void {
  if (token == queueToken) drain();
}

/** A collector that leaves asks for a reconnect; the connection pool then finds another one. */
function maybeMove(): void {
  if (drainAtMs == 0 || nowMs() < drainAtMs || stream == 0) return;
  drainAtMs = 0;
  endStream(true);
  noSession();
  retryAtMs = nowMs();
}

let goodbyeSaid: bool = false;

/** The process ends, or the filter is taken out of it. */
export function sayGoodbye(): void {
  if (goodbyeSaid || !leading || stream == 0) return;
  goodbyeSaid = true;
  wire.start();
  const mark = wire.open(7);
  wire.putText(1, 'filter removed or proxy stopped');
  wire.close(mark);
  send();
}

export function isLeading(): bool {
  return leading;
}

/** The stream's root context ends and the stream with it: `next` opens another at once, for there may be no more ticks. */
export function leaveRoot(id: u32, next: Root): void {
  if (leading && queueRoot == id) register(next);
  if (streamRoot != id) return;
  if (unaryBusy) unaryFailed(); // the call dies with its root context, without a word
  if (stream == 0) return;
  endStream(true);
  noSession();
  connect(next);
}
