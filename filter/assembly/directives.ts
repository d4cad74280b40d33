// What the collector tells this proxy to do. The leader takes it from its own stream or its own unary
// reply, and from nowhere else; all VMs of the process hold it until its TTL. What is malformed, older
// than what came before, or unknown is passed over.
import * as batches from './batches';
import { nowMs, nowNs } from './clock';
import { ROLLBACK_OFF } from './config';
import * as directive from './core/directive';
import * as wire from './core/wire';
import * as doomed from './doomed';
import * as doubts from './doubts';
import * as downs from './downs';
import * as host from './host';
import { reporter, Root } from './roots';
import * as running from './running';
import * as signals from './signals';
import * as spread from './spread';

/** Of one message of the collector. */
const PER_MESSAGE_MAX: u32 = 64;
let lastVersion: u64 = 0;
let seen: u32 = 0;
const ACKED: usize = memory.data(512, 8); // versions applied, u64 x PER_MESSAGE_MAX
let acked: u32 = 0;

/** A new stream begins anew, and so does each call; what is held stays until its TTL. */
export function newStream(): void {
  lastVersion = 0;
}

/** Before the reply of the collector is read, and after it. */
export function beginReply(): void {
  seen = 0;
  acked = 0;
}

export function endReply(): void {
  if (acked == 0) return;
  const now = host.monotonicNs();
  const heldUs = now > nowNs ? (now - nowNs) / 1000 : 0; // a clock that failed says 0
  wire.start();
  for (let i: u32 = 0; i < acked; i++) {
    const mark = wire.open(10);
    wire.putVarint(1, load<u64>(ACKED + i * 8));
    wire.putVarint(2, heldUs);
    wire.close(mark);
  }
  batches.tell();
}

/** The leader's: one directive of a reply. */
export function accept(ptr: usize, size: u32): void {
  const root = reporter();
  if (++seen > PER_MESSAGE_MAX || root === null || !directive.read(ptr, size) || directive.version <= lastVersion) {
    doubts.countIgnored();
    return;
  }
  lastVersion = directive.version;
  if (root.config.rollbackMode == ROLLBACK_OFF && directive.kind != directive.CLEAR) return;
  const untilMs = nowMs() + directive.ttlMs;
  // The posting is the leader's alone; that the signal lives is for all.
  if (directive.kind == directive.SIGNAL) signals.post(root);
  spread.tell(ptr, size, untilMs);
  apply(untilMs);
  store<u64>(ACKED + acked++ * 8, lastVersion);
}

/** What the leader has passed on. */
export function takeSpread(): void {
  spread.begin();
  while (true) {
    const m = host.mark();
    const more = spread.take();
    if (more && spread.messageEndsMs > nowMs() && directive.read(spread.messagePtr, spread.messageSize)) apply(spread.messageEndsMs);
    host.release(m);
    if (!more) return;
  }
}

/** The directive read last. */
function apply(untilMs: u64): void {
  switch (directive.kind) {
    case directive.DOOM:
      if (directive.mode >= directive.OBSERVE) doomed.hold(untilMs);
      else doomed.end();
      break;
    case directive.END: doomed.end(); break;
    case directive.CLEAR:
      doomed.clear();
      downs.clear();
      break;
    case directive.FLUSH:
      running.tellAsked();
      batches.flush();
      break;
    case directive.DOWN: downs.hold(untilMs); break;
    case directive.UP: downs.lift(); break;
    case directive.SIGNAL: signals.hold(untilMs); break;
    default: break;
  }
}

/** With every tick. */
export function tick(root: Root): void {
  spread.listen(root);
  takeSpread();
  doomed.sweep(nowMs());
  downs.sweep(nowMs());
}
