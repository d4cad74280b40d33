// Which fragment does the collector refuse?
//
// A stream that ends with INVALID_ARGUMENT does not say which of the fragments under way was wrong,
// and the same ones, sent again, are refused again, until the window overflows with what comes behind
// them. So after such an end the leader is careful: it greets, waits for the answer, and then sends one
// fragment at a time, the next one after the answer to the last. What is refused then is known. A batch
// is given up as if it were acknowledged, so that its VM lets go of it: the gap in the numbers tells the
// collector what is lost. Of the other kinds, which are told again and again, no more is sent.
import { nowMs } from './clock';
import * as doubts from './doubts';
import * as host from './host';
import * as shares from './shares';

/** All VMs have offered what they have by then, ms. */
const CAREFUL_MS: u64 = 2000;
/** First byte of a fragment with a batch: field 2. */
const BATCH_TAG: u8 = (2 << 3) | 2;

let careful: bool = false;
let session: u64 = 0;
let sinceMs: u64 = 0;
/** The message whose answer is awaited; 0 = none. */
let awaitedUs: u64 = 0;
/** In this session something was answered: the greeting is not what is refused. */
let greeted: bool = false;
/** The fragment in the message that is awaited; tag 0 = none. */
let tag: u8 = 0;
let producer: u64 = 0;
let seq: u64 = 0;
/** Kinds of fragments that are no longer sent, a bit for each field number. */
let muted: u32 = 0;

/** One fragment at a time, and without a status beside it. */
export function isCareful(): bool {
  if (careful && session != shares.session) {
    session = shares.session;
    sinceMs = nowMs();
    awaitedUs = 0;
    greeted = false;
    tag = 0;
  }
  return careful;
}

export function mayGreet(): bool {
  return !isCareful() || awaitedUs == 0;
}

export function maySend(): bool {
  return !isCareful() || (awaitedUs == 0 && greeted);
}

export function isMuted(fragment: usize): bool {
  return (muted & (1 << ((load<u8>(fragment) >> 3) as u32))) != 0;
}

/** `fragment` goes into the next message. A batch begins with its producer and number, see core/wire and batches. */
export function note(fragment: usize, size: u32): void {
  if (!isCareful()) return;
  tag = load<u8>(fragment);
  if (tag != BATCH_TAG) return;
  let at = fragment + 1;
  while (load<u8>(at) >= 0x80) at++;
  producer = load<u64>(at, 2);
  at += 11;
  seq = 0;
  for (let shift: u32 = 0; shift < 64; shift += 7) {
    const byte = load<u8>(at++);
    seq |= ((byte & 0x7f) as u64) << shift;
    if (byte < 0x80) break;
  }
}

export function sent(us: u64): void {
  if (isCareful()) awaitedUs = us;
}

export function answered(us: u64): void {
  if (!isCareful() || awaitedUs == 0 || us != awaitedUs) return;
  awaitedUs = 0;
  greeted = true;
  tag = 0;
}

/** The queue is empty: when everybody has had time to fill it, all that there was has been taken. */
export function drained(): void {
  if (maySend() && nowMs() - sinceMs > CAREFUL_MS) careful = false;
}

/** The collector has refused what was sent. True when that was one fragment, now given up. */
export function refused(): bool {
  if (!isCareful() || awaitedUs == 0 || tag == 0) {
    careful = true;
    return false;
  }
  careful = false;
  if (tag == BATCH_TAG) {
    doubts.countRefused();
    shares.wantAck(producer, seq);
    host.logText(3, 'meshpulse: the collector refuses a batch, number ' + seq.toString() + '; it is given up');
  } else {
    muted |= 1 << ((tag >> 3) as u32);
    host.logText(3, 'meshpulse: the collector refuses field ' + (tag >> 3).toString() + ' of ReportRequest; no more of it is sent');
  }
  return true;
}
