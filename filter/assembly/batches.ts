// Rows wait here for their batch, and batches for their ack.
//
// Each VM numbers its own batches and keeps them in a window until the collector has acknowledged
// them. Batches travel to the leader through the proxy's shared queue; the leader only forwards.
// When the stream or the leader changes, the `session` number in the shared table changes, and every
// VM sends its whole window again: replays are idempotent, gaps are loss with a number. The window
// has a bound; past it the oldest batch goes first, and the gap tells.
import { copy, Text } from './bytes';
import { nowMs } from './clock';
import * as names from './core/names';
import * as wire from './core/wire';
import { Row } from './core/wire';
import * as doubts from './doubts';
import * as host from './host';
import { vmId } from './identity';
import { reporting } from './roots';
import * as shares from './shares';
import { own } from './shares';

const WINDOW_BYTES: u32 = 256 * 1024;
const WINDOW_ENTRIES: u32 = 256;
/** Batches of one VM that may be on their way without an ack. */
const UNACKED_MAX: u32 = 64;
const TEXT_BYTES: u32 = 16 * 1024;
const COUNTS_MAX: u32 = 128;
export const T_QUEUE = new Text('meshpulse.queue');
// Rows waiting for their batch.
const ROWS: usize = memory.data(36864, 16); // wire.ROWS_MAX x wire.ROW_BYTES
const TEXTS: usize = memory.data(16384, 8);
let rowCount: u32 = 0;
let textTop: u32 = 0;
export let lastFlushMs: u64 = 0;
// Window of batches: a ring of bytes and a ring of entries (at u32, size u32, seq u64, rows batched up to its end u64).
let window: usize = 0;
const ENTRIES: usize = memory.data(6144, 16);
const ENTRY: u32 = 24;
let firstEntry: u32 = 0;
let entryCount: u32 = 0;
let windowTop: u32 = 0;
let sentSeq: u64 = 0; // highest number given to the leader in this session
let knownSession: u64 = 0;
let queueToken: u32 = 0;
// Exact counts while rows are thinned.
const COUNTS: usize = memory.data(4096, 16); // COUNTS_MAX x 32: operation, status, responseFlags, flags u32; count, durationUs u64
let countRows: u32 = 0;
/** The rows that wait are counted exactly besides, and have weights. */
let exact: bool = false;

/** A cleared row to fill, or null when nothing is reported. Give it back with `commit`. */
export function newRow(): usize {
  if (!reporting) return 0;
  if (shares.crowded) {
    doubts.countUnreported();
    return 0;
  }
  const at = ROWS + (rowCount as usize) * wire.ROW_BYTES;
  for (let i: usize = 0; i < wire.ROW_BYTES; i += 8) store<u64>(at + i, 0);
  return at;
}

export function rowText(row: Row, ptr: usize, size: u32): void {
  if (size == 0 || size > 256 || textTop + size > TEXT_BYTES) return;
  row.textAt = textTop;
  row.textSize = size;
  for (let i: u32 = 0; i < size; i++) {
    const c = load<u8>(ptr + i);
    store<u8>(TEXTS + textTop + i, c < 0x20 || c > 0x7e ? 0x3f : c);
  }
  textTop += size;
}

/** `urgent`: the collector should know now. */
export function commit(urgent: bool): void {
  rowCount++;
  shares.hold(shares.H_ROWS, nowMs());
  if (rowCount >= wire.ROWS_MAX || textTop + 256 > TEXT_BYTES) flush();
  // When many fail at once, batches would be made faster than they are acknowledged: then the
  // ordinary rhythm carries them.
  else if (urgent && unacked() < UNACKED_MAX / 2) flush();
}

/** From now on rows are thinned, or no longer: a batch is of one kind, as its counts are those of all its events. */
export function thin(on: bool): void {
  if (on == exact) return;
  flush();
  exact = on;
}

/** While rows are thinned, each event is counted, whether it gets one or not. */
export function countExactly(operation: u32, statusBits: u32, responseFlags: u32, flags: u32, durationUs: u32): void {
  for (let i: u32 = 0; i < countRows; i++) {
    const at = COUNTS + i * 32;
    if (load<u32>(at) == operation && load<u32>(at, 4) == statusBits && load<u32>(at, 8) == responseFlags && load<u32>(at, 12) == flags) {
      store<u64>(at, load<u64>(at, 16) + 1, 16);
      store<u64>(at, load<u64>(at, 24) + durationUs, 24);
      return;
    }
  }
  if (shares.crowded) return;
  // Before, not after: a row and its count go with the same batch.
  if (countRows >= COUNTS_MAX) flush();
  const at = COUNTS + countRows * 32;
  store<u32>(at, operation);
  store<u32>(at, statusBits, 4);
  store<u32>(at, responseFlags, 8);
  store<u32>(at, flags, 12);
  store<u64>(at, 1, 16);
  store<u64>(at, durationUs, 24);
  countRows++;
  shares.hold(shares.H_ROWS, nowMs());
}

function unacked(): u64 {
  return own.nextSeq - 1 - own.acked;
}

/** Makes a batch of what waits and hands it to the leader. */
export function flush(): void {
  lastFlushMs = nowMs();
  if (rowCount == 0 && countRows == 0) return;
  wire.start();
  const mark = wire.open(2);
  wire.putFixed64(1, own.id);
  wire.putVarint(2, own.nextSeq);
  wire.putVarint(3, own.batched);
  wire.putVarint(4, own.dropped);
  if (rowCount > 0) wire.putEvents(ROWS, rowCount, TEXTS);
  for (let i: u32 = 0; i < countRows; i++) {
    const at = COUNTS + i * 32;
    const inner = wire.open(6);
    wire.putBytes(1, names.namePtr(load<u32>(at)), names.nameSize(load<u32>(at)));
    wire.putVarint(2, load<u32>(at, 4));
    wire.putVarint(3, load<u32>(at, 8));
    wire.putVarint(4, load<u32>(at, 12));
    wire.putVarint(5, load<u64>(at, 16));
    wire.putVarint(6, load<u64>(at, 24));
    wire.close(inner);
  }
  wire.close(mark);
  keep(wire.outPtr(), wire.outSize(), own.nextSeq);
  own.nextSeq++;
  own.batched += rowCount;
  rowCount = 0;
  countRows = 0;
  textTop = 0;
  shares.sync(nowMs());
  offer();
}

function entryAt(i: u32): usize {
  return ENTRIES + ((firstEntry + i) % WINDOW_ENTRIES) * ENTRY;
}

function dropOldest(counted: bool): void {
  if (counted) doubts.countWindowDrop();
  firstEntry = (firstEntry + 1) % WINDOW_ENTRIES;
  entryCount--;
}

/** Appends a batch to the window; the oldest make room. */
function keep(ptr: usize, size: u32, seq: u64): void {
  if (size > WINDOW_BYTES) {
    doubts.countWindowDrop();
    return;
  }
  forget();
  if (windowTop + size > WINDOW_BYTES) windowTop = 0;
  while (entryCount > 0) {
    let hit = entryCount >= WINDOW_ENTRIES;
    for (let i: u32 = 0; i < entryCount && !hit; i++) {
      const at = load<u32>(entryAt(i));
      const n = load<u32>(entryAt(i), 4);
      hit = at < windowTop + size && windowTop < at + n;
    }
    if (!hit) break;
    dropOldest(true);
  }
  const e = entryAt(entryCount);
  store<u32>(e, windowTop);
  store<u32>(e, size, 4);
  store<u64>(e, seq, 8);
  store<u64>(e, own.batched + (rowCount as u64), 16);
  entryCount++;
  copy(window + windowTop, ptr, size);
  windowTop += size;
}

/** Lets go of what is acknowledged. */
function forget(): void {
  while (entryCount > 0 && load<u64>(entryAt(0), 8) <= own.acked) {
    own.settledSeq = load<u64>(entryAt(0), 8);
    own.settledEvents = load<u64>(entryAt(0), 16);
    dropOldest(false);
  }
}

/** Hands batches that this session has not seen to the leader. */
export function offer(): void {
  pass();
  if (rowCount + countRows == 0 && (entryCount == 0 || sentSeq + 1 == own.nextSeq)) own.holds &= ~shares.H_ROWS;
  else own.holds |= shares.H_ROWS;
}

function pass(): void {
  if (shares.session != knownSession) {
    knownSession = shares.session;
    sentSeq = own.acked;
  }
  forget();
  if (knownSession == 0 || entryCount == 0) return;
  if (queueToken == 0) queueToken = host.resolveQueue(vmId.ptr, vmId.size, T_QUEUE.ptr, T_QUEUE.size);
  if (queueToken == 0) return;
  for (let i: u32 = 0; i < entryCount; i++) {
    const e = entryAt(i);
    const seq = load<u64>(e, 8);
    if (seq <= sentSeq) continue;
    if (seq - own.acked > UNACKED_MAX && sentSeq > own.acked) return;
    if (host.enqueue(queueToken, window + load<u32>(e), load<u32>(e, 4)) != host.OK) {
      queueToken = 0;
      return;
    }
    sentSeq = seq;
  }
}

/** Passes a finished fragment of a ReportRequest to the leader; false when there is none. */
export function tell(): bool {
  if (shares.session == 0) return false;
  if (queueToken == 0) queueToken = host.resolveQueue(vmId.ptr, vmId.size, T_QUEUE.ptr, T_QUEUE.size);
  return queueToken != 0 && host.enqueue(queueToken, wire.outPtr(), wire.outSize()) == host.OK;
}

/** The VM goes: what it could not hand over by now is lost. */
export function leave(): void {
  own.holds = shares.H_GONE;
  shares.sync(nowMs());
}

export function start(ms: u64): void {
  if (window == 0) window = heap.alloc(WINDOW_BYTES);
  lastFlushMs = ms;
}

/** Everything made has been acknowledged. */
export function settled(): bool {
  return entryCount == 0 || unacked() == 0;
}
