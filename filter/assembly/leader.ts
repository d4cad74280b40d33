// One VM of the process leads: it holds the connection to the collector and forwards what all VMs put
// into the shared queue. The lead is a lease in the shared table, so it moves when the leader traps.
//
// A connection fails in many ways, and none may reach a request: nothing here runs on the request path,
// what is unacknowledged is bounded per VM. How to connect and when to try again is told in link.ts, how
// a message that is refused is dealt with in suspects.ts.
import * as batches from './batches';
import { nowMs, nowNs, wallAt } from './clock';
import * as wire from './core/wire';
import * as directives from './directives';
import * as host from './host';
import * as identity from './identity';
import * as jobs from './jobs';
import * as link from './link';
import { Root } from './roots';
import * as session from './session';
import * as shares from './shares';
import { own } from './shares';
import * as status from './status';
import * as suspects from './suspects';

const HEARTBEAT_MS: u64 = 10000;
/** A VM that serves requests leaves a free lead to the others for so long, ms. */
const YIELD_MS: u64 = 700;
/** A message is sent when it has grown to this size, bytes. */
const MESSAGE_BYTES: u32 = 64 * 1024;
/** So small that hello, status and the largest batch still fit behind it, bytes. */
const UNARY_BYTES: u32 = 16 * 1024;
/** Fragments of one message. */
const PARTS_MAX: u32 = 128;
/** Messages sent in one callback. */
const MESSAGES_MAX: u32 = 256;
const REPLY_BYTES_MAX: u32 = 64 * 1024;
/** Calls that are sent at the end without waiting for each other. */
const LAST_CALLS_MAX: u32 = 16;
/** A wish of the collector holds for so long, ms. */
const WISH_MS: u64 = 60000;
/** First byte of a fragment with `progress`: field 5. */
const PROGRESS_TAG: u8 = (5 << 3) | 2;
/** First byte of a fragment with `began`. */
const BEGAN_TAG: u8 = (9 << 3) | 2;
const INVALID_ARGUMENT: u32 = 3;

/** The root context that speaks while this VM leads; null = it does not. */
let speaker: Root | null = null;
let lastStatusMs: u64 = 0;
/** `sent_unix_us` of the last message: no two are alike. */
let lastSentUs: u64 = 0;
let goodbyeSaid: bool = false;

/** On each tick of a VM that reports. */
export function lead(root: Root): void {
  if (!holdsLease()) return;
  begin(root);
  link.watch();
  if (link.streamDue()) connect(root);
  drain();
  report(root);
}

/** Takes the lead when it is free, and keeps it. Two may write at once: the next tick reads who it is. */
function holdsLease(): bool {
  const ms = nowMs();
  if (shares.leader != own.id) {
    if (speaker !== null) stepDown(true);
    // The main thread's VM serves no requests and so cannot trap on one: it goes first.
    const free = shares.leader == 0 || shares.leaseMs < ms;
    if (!free || shares.crowded || (status.seenRequest && shares.leaseMs + YIELD_MS > ms)) return false;
    takeLease();
    return false;
  }
  takeLease();
  return shares.leader == own.id;
}

function begin(root: Root): void {
  session.attach(root);
  if (speaker === null) link.start();
  speaker = root;
}

function takeLease(): void {
  const ms = nowMs();
  shares.wantLease(own.id, ms + shares.LEASE_MS);
  shares.sync(ms);
}

/** Another VM leads, or nobody has to. */
function stepDown(abruptly: bool): void {
  speaker = null;
  link.close(abruptly);
  session.detach();
}

function connect(root: Root): void {
  if (!link.open(root)) return;
  directives.newStream();
  greet(root);
}

function greet(root: Root): void {
  goodbyeSaid = false;
  wire.start();
  identity.putHello(root);
  putStatus();
  send(root);
}

function putStatus(): void {
  status.putStatus();
  lastStatusMs = nowMs();
}

/** Says what is due beside the batches: the state, or that we are alive. */
function report(root: Root): void {
  if (!link.ready() || !suspects.mayGreet()) return;
  const ms = nowMs();
  const news = status.statusChanged() && ms - lastStatusMs >= status.intervalMs();
  const idleMs = root.config.idleMs as u64;
  wire.start();
  if (link.unary()) {
    if (!suspects.isCareful() && (news || link.wonders() || ms - link.sentMs >= idleMs)) send(root);
  } else if (identity.helloDue(root)) {
    greet(root);
  } else if (news || ms - lastStatusMs >= idleMs) {
    putStatus();
    send(root);
  } else if (ms - link.sentMs >= HEARTBEAT_MS) {
    wire.close(wire.open(6));
    send(root);
  }
}

/** Sends what `wire` holds. A call carries hello and status behind it: order means nothing in protobuf. */
function send(root: Root): void {
  if (link.unary()) {
    // Each call may be answered by another collector, and each numbers by its own clock.
    directives.newStream();
    identity.putHello(root);
    if (!suspects.isCareful() || !suspects.maySend()) putStatus();
  }
  const us = wallAt(nowNs);
  lastSentUs = us == lastSentUs ? us + 1 : us;
  wire.putFixed64(8, lastSentUs);
  suspects.sent(lastSentUs);
  link.send(root);
}

/** Forwards what the VMs have put into the queue. True when nothing is left in it. */
export function drain(): bool {
  const root = speaker;
  if (root === null) return true;
  for (let i: u32 = 0; i < MESSAGES_MAX && link.ready(); i++) {
    if (!suspects.maySend()) {
      // A stream has greeted when it was opened, a call does it now.
      if (link.unary() && suspects.mayGreet()) {
        wire.start();
        send(root);
      }
      return false;
    }
    if (!fill()) {
      suspects.drained();
      return true;
    }
    send(root);
  }
  return false;
}

/** Puts fragments into `wire` until the message is full; false when there was none. Nothing is sent meanwhile. */
function fill(): bool {
  const most: u32 = suspects.isCareful() ? 1 : PARTS_MAX;
  const full = link.unary() ? UNARY_BYTES : MESSAGE_BYTES;
  let parts: u32 = 0;
  let lists = false;
  wire.start();
  while (parts < most && wire.outSize() < full) {
    const m = host.mark();
    if (!session.take()) {
      host.release(m);
      break;
    }
    const first: u8 = session.size > 0 ? load<u8>(session.ptr) : 0;
    const listed = first == PROGRESS_TAG || first == BEGAN_TAG;
    // One VM's jobs fill a message's share of them, and so do the requests that it tells as begun.
    const fits = session.size <= wire.room() && !(listed && lists);
    if (!fits && parts > 0 && session.putBack()) {
      host.release(m);
      break;
    }
    // No VM makes one that does not fit into an empty message.
    if (session.size > 0 && session.size <= wire.room() && !suspects.isMuted(session.ptr)) {
      suspects.note(session.ptr, session.size);
      wire.putRaw(session.ptr, session.size);
      lists = lists || listed;
      parts++;
    }
    host.release(m);
  }
  return parts > 0;
}

class Reply extends wire.ReplySink {
  ack(producer: u64, seq: u64): void {
    shares.wantAck(producer, seq);
  }
  echo(sentUs: u64): void {
    suspects.answered(sentUs);
    if (sentUs == lastSentUs) link.caughtUp();
  }
  directive(ptr: usize, size: u32): void {
    directives.accept(ptr, size);
  }
  hints(ms: u32, drainMs: u32, retryAfterMs: u32, sampleRatio: f64): void {
    if (ms >= 100 && ms <= 60000) shares.wantInterval(ms, nowMs() + WISH_MS);
    if (sampleRatio >= 0 && sampleRatio <= 1) shares.wantRatio(sampleRatio as f32, nowMs() + WISH_MS);
    if (drainMs > 0) link.move(drainMs);
    if (retryAfterMs > 0) link.hold(retryAfterMs);
  }
}

const reply = new Reply();

export function onMessage(token: u32, size: u32): void {
  if (!link.isOurs(token)) return;
  if (size > REPLY_BYTES_MAX || host.getGrpcMessage(size) != host.OK) return link.unreadable();
  directives.beginReply();
  const understood = wire.readReply(host.dataPtr, host.dataSize, reply);
  directives.endReply();
  if (!understood) return link.unreadable();
  link.answered();
  shares.sync(nowMs());
  batches.offer();
  drain();
}

export function onClose(token: u32, status: u32): void {
  const found = status == INVALID_ARGUMENT && link.isOurs(token) && suspects.refused();
  link.closed(token);
  if (found) link.forgive();
}

export function onQueue(token: u32): void {
  if (session.isQueue(token)) drain();
}

/** A root context ends, and the stream with it: `next` opens another at once, for there may be no more ticks. */
export function leaveRoot(id: u32, next: Root): void {
  if (speaker === null) return;
  speaker = next;
  session.attach(next);
  if (link.leaveRoot(id)) connect(next);
}

/**
 * The VM ends, without another tick: what can be said is said now.
 *
 * The goodbye of the process is for the last one: a leader that goes while others still hold something
 * leaves it to them. They find it gone when they end, and take over.
 */
export function finish(root: Root): void {
  shares.sync(nowMs());
  if (speaker === null && !takeOver(root)) return;
  if (link.mayOpen()) connect(root);
  batches.offer();
  jobs.tellProgress();
  for (let i: u32 = 0; i < LAST_CALLS_MAX && !drain(); i++) link.letGo();
  if (shares.othersIdle()) sayGoodbye(root);
}

/** When there is something to say and nobody to say it. */
function takeOver(root: Root): bool {
  const alone = shares.leader == 0 || shares.gone(shares.leader);
  if (!alone || shares.crowded || (shares.leader == 0 && own.holds == 0 && batches.settled())) return false;
  takeLease();
  if (shares.leader != own.id) return false;
  begin(root);
  return true;
}

/** The filter is taken out of this VM, which lives on: true when all is said, or `late`. */
export function retire(late: bool): bool {
  const root = speaker;
  if (root === null) return batches.settled() || late;
  link.stay();
  link.watch();
  const empty = drain();
  const over = empty && batches.settled() && shares.othersIdle();
  if (!over && !late) return false;
  if (over) sayGoodbye(root);
  release();
  stepDown(false);
  return true;
}

function sayGoodbye(root: Root): void {
  if (!goodbyeSaid) {
    link.letGo();
    if (!link.ready()) return;
    goodbyeSaid = true;
    wire.start();
    const mark = wire.open(7);
    wire.putText(1, 'filter removed or proxy stopped');
    wire.close(mark);
    send(root);
  }
  release();
}

function release(): void {
  shares.wantLease(0, 0);
  shares.wantSession(0);
  shares.sync(nowMs());
}
