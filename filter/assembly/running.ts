// What runs now: requests older than report.inFlightMs are told while they run.
import * as batches from './batches';
import { nowMs, nowNs } from './clock';
import { ROLLBACK_OFF } from './config';
import * as directive from './core/directive';
import * as names from './core/names';
import * as wire from './core/wire';
import * as host from './host';
import { reporting, Root } from './roots';
import { own } from './shares';
import * as thinning from './thinning';
import { B_BEGAN, B_CALL, B_EVENT, B_LISTED, F_CALL, F_ENTRY, oldest, Stream } from './streams';

const LIST_MAX: u32 = 256;
const LIST_PERIOD_MS: u64 = 1000;
let lastListMs: u64 = 0;
let lastFullListMs: u64 = 0;
let listed: bool = false;

/** Tells the collector what has been running for longer than report.inFlightMs. */
export function tellInFlight(): void {
  const ms = nowMs();
  if (!reporting || ms - lastListMs < LIST_PERIOD_MS) return;
  lastListMs = ms;
  let any = false;
  let fresh = false;
  let soonest: u64 = u64.MAX_VALUE;
  for (let p = oldest; p != 0; p = changetype<Stream>(p).next) {
    const s = changetype<Stream>(p);
    const limit = changetype<Root>(s.root).config.inFlightMs as u64;
    if (limit < soonest) soonest = limit;
    if ((s.bits & (B_EVENT | B_CALL)) == 0) continue;
    if (nowNs < s.startNs + limit * 1000000) continue; // limits differ from settings to settings
    any = true;
    if ((s.bits & B_LISTED) == 0) fresh = true;
  }
  if (!any) {
    if (listed) write(false);
    listed = false;
    return;
  }
  if (!fresh && ms - lastFullListMs < soonest) return;
  lastFullListMs = ms;
  listed = true;
  write(true);
}

function write(withItems: bool): void {
  wire.start();
  const mark = wire.open(4);
  wire.putFixed64(1, own.id);
  let n: u32 = 0;
  let omitted: u32 = 0;
  for (let p = oldest; withItems && p != 0; p = changetype<Stream>(p).next) {
    const s = changetype<Stream>(p);
    const root = changetype<Root>(s.root);
    if ((s.bits & (B_EVENT | B_CALL)) == 0) continue;
    if (nowNs < s.startNs + (root.config.inFlightMs as u64) * 1000000) continue;
    if (n >= LIST_MAX || wire.room() < 1024) {
      omitted++;
      continue;
    }
    n++;
    s.bits |= B_LISTED;
    item(2, s);
  }
  wire.putVarint(3, omitted);
  wire.close(mark);
  batches.tell();
}

/** `InFlight` of one request. */
function item(field: u32, s: Stream): void {
  const call = (s.bits & B_CALL) != 0;
  const operation = call ? s.callOperation : s.operation;
  const inner = wire.open(field);
  wire.putFixed64(1, call ? s.callEvent : s.event);
  wire.putFixed64(2, s.keyHi);
  wire.putFixed64(3, s.keyLo);
  wire.putFixed64(4, s.requestHi);
  wire.putFixed64(5, s.requestLo);
  wire.putBytes(6, names.namePtr(operation), names.nameSize(operation));
  wire.putVarint(7, ((s.flags & (call ? ~F_ENTRY : 0xffffffff)) | (call ? F_CALL : 0) | (s.source << 20)) as u64);
  wire.putVarint(8, (nowNs - s.startNs) / 1000000);
  const peer = call ? names.hostOf(s.peerService) : 0;
  wire.putBytes(9, names.namePtr(peer), names.nameSize(peer));
  wire.putUuid(10, call ? s.calleeHi : s.peerHi, call ? s.calleeLo : s.peerLo);
  wire.close(inner);
}

// Requests told before report.inFlightMs, so that a verdict knows what kind of transaction fails: entry
// requests once they are older than most, and whatever the collector asks for.

/** Entry requests that are over sooner tell of themselves soon enough. */
const BEGAN_NS: u64 = 20000000;
/** Of one fragment. */
const BEGAN_MAX: u32 = 32;
const BEGAN: u32 = 9;
/** How often a VM with young entry requests looks at them, and one without, ms. */
const QUICK_MS: u32 = 20;
/** The root context whose ticks come more often; 0 = none. */
let quickRoot: u32 = 0;

/** Where rows are thinned nothing is decided, and who is told of a begin may never hear of the end. */
function ends(s: Stream): bool {
  return thinning.complete(changetype<Root>(s.root).config);
}

/** An entry request has begun: from now on ticks come more often, until it is told or over. */
export function entryBegan(root: Root): void {
  if (quickRoot != 0 || !reporting || root.config.rollbackMode == ROLLBACK_OFF || !thinning.complete(root.config)) return;
  quickRoot = root.id;
  host.setTickPeriod(QUICK_MS);
}

/** With every tick. `usualMs`: the period when nothing is young. */
export function tellBegan(usualMs: u32): void {
  if (quickRoot == 0) return;
  wire.start();
  let n: u32 = 0;
  let young = false;
  for (let p = oldest; p != 0; p = changetype<Stream>(p).next) {
    const s = changetype<Stream>(p);
    if ((s.flags & F_ENTRY) == 0 || (s.bits & (B_BEGAN | B_EVENT)) != B_EVENT || !ends(s)) continue;
    if (nowNs < s.startNs + BEGAN_NS || n >= BEGAN_MAX) {
      young = true;
      break; // in the order in which they began
    }
    s.bits |= B_BEGAN;
    item(BEGAN, s);
    n++;
  }
  if (n > 0) batches.tell();
  if (young) return;
  host.setEffectiveContext(quickRoot);
  quickRoot = 0;
  host.setTickPeriod(usualMs);
}

/** A second entry request under a doomed id: the collector should know at once. */
export function tellSecond(s: Stream): void {
  if (!reporting) return;
  s.bits |= B_BEGAN;
  wire.start();
  item(BEGAN, s);
  batches.tell();
}

/** All that runs under the ids of the directive read last. */
export function tellAsked(): void {
  wire.start();
  let n: u32 = 0;
  for (let p = oldest; p != 0 && n < BEGAN_MAX; p = changetype<Stream>(p).next) {
    const s = changetype<Stream>(p);
    if ((s.bits & (B_EVENT | B_CALL)) == 0 || !ends(s) || !directive.names(s.keyHi, s.keyLo, s.requestHi, s.requestLo)) continue;
    if ((s.bits & B_EVENT) != 0) s.bits |= B_BEGAN;
    item(BEGAN, s);
    n++;
  }
  if (n > 0) batches.tell();
}
