// What the instance says of its queue and resources: requests in flight, waits, rates, and the
// application's own word. Rendered into x-mp-status, and sent as `Status`.
import { copy, Text, writeDecimal, writeShare } from './bytes';
import { nowMs } from './clock';
import * as wire from './core/wire';
import * as shares from './shares';
import { own, UNKNOWN } from './shares';

/** Publish the in-flight share at most this often outside ticks, ms. */
const SHARE_MS: u64 = 20;
// How often to report: as configured, or as the collector wishes for a while.
let interval: u32 = 1000;

export function setInterval(ms: u32): void {
  interval = ms;
}

export function intervalMs(): u64 {
  const wish = shares.wish;
  return (wish >= 100 && wish <= 60000 && nowMs() < shares.wishUntilMs ? wish : interval) as u64;
}

// Window statistics of this VM.
const BUCKETS: u32 = 128;
const WAITS: usize = memory.data(512, 8);
const DURATIONS: usize = memory.data(512, 8);
let windowRequests: u32 = 0;
let windowFailures: u32 = 0;
let windowCalls: u32 = 0;
let windowStartMs: u64 = 0;
/** Mix of what was told last; 0 = nothing yet. */
let toldSignature: u64 = 0;
export let seenRequest: bool = false;

export function count(inFlight: i32, calls: i32, streams: i32): void {
  own.inFlight += inFlight;
  own.calls += calls;
  own.streams += streams;
  own.active = own.inFlight + own.calls;
  seenRequest = true;
  const ms = nowMs();
  if (ms - own.stampMs >= SHARE_MS) shares.sync(ms);
}

export function inFlightTotal(): u32 {
  return own.inFlight + shares.othersInFlight;
}

/** Waits are read of every request up to WAITS_ALL in a window, then of one in WAITS_STEP. */
const WAITS_ALL: u32 = 32;
const WAITS_STEP: u32 = 8;

export function sampleWait(): bool {
  const seen = windowRequests + windowCalls;
  return seen < WAITS_ALL || seen % WAITS_STEP == 0;
}

export function observe(failed: bool, streamed: bool, durationUs: u32, waitUs: u32, hasWait: bool): void {
  windowRequests++;
  if (failed) windowFailures++;
  if (!streamed) bump(DURATIONS, durationUs);
  if (hasWait) bump(WAITS, waitUs);
}

export function observeCall(): void {
  windowCalls++;
}

function bump(table: usize, value: u32): void {
  const at = table + bucket(value) * 4;
  store<u32>(at, load<u32>(at) + 1);
}

/** Of one VM, in quarter powers of two of the unit. */
function bucket(value: u32): u32 {
  if (value < 4) return value;
  const log = 31 - clz<u32>(value);
  return ((log - 1) << 2) + ((value >> (log - 2)) & 3);
}

function bucketValue(b: u32): u32 {
  if (b < 4) return b;
  const log = (b >> 2) + 1;
  return (4 + (b & 3)) << (log - 2);
}

function median(table: usize): u32 {
  let total: u32 = 0;
  for (let i: u32 = 0; i < BUCKETS; i++) total += load<u32>(table + i * 4);
  if (total == 0) return UNKNOWN;
  let seen: u32 = 0;
  for (let i: u32 = 0; i < BUCKETS; i++) {
    seen += load<u32>(table + i * 4);
    if (seen * 2 >= total) return bucketValue(i);
  }
  return UNKNOWN;
}

export function closeWindow(ms: u64): void {
  own.requests = windowRequests;
  own.failures = windowFailures;
  if (windowRequests > 0 || own.waitMs != UNKNOWN) {
    const wait = median(WAITS);
    own.waitMs = wait == UNKNOWN ? UNKNOWN : wait / 1000;
    own.durationUs = median(DURATIONS);
  }
  memory.fill(WAITS, 0, BUCKETS * 4);
  memory.fill(DURATIONS, 0, BUCKETS * 4);
  windowRequests = 0;
  windowCalls = 0;
  windowFailures = 0;
  windowStartMs = ms;
}

/** The application's own word; published with the next share. */
export function appQueue(value: u64): void {
  own.queue = value > 0x7fffffff ? 0x7fffffff : (value as u32);
  own.queueMs = nowMs();
  shares.adoptQueue(own.queue, own.queueMs);
}

export function appResources(cpu: f64, mem: f64): void {
  if (cpu >= 0) own.cpu = cpu as f32;
  if (mem >= 0) own.memory = mem as f32;
  own.resourceMs = nowMs();
  shares.adoptResources(own.cpu, own.memory, own.resourceMs);
}

const STATUS: usize = memory.data(160, 8);
const T_INFLIGHT = new Text('inflight=');
const T_QUEUE_KEY = new Text(', queue=');
const T_QSRC_APP = new Text(', qsrc=app');
const T_WAIT = new Text(', wait=');
const T_CPU = new Text(', cpu=');
const T_MEM = new Text(', mem=');
const T_AGE = new Text(', age=');

export function statusPtr(): usize {
  return STATUS;
}

/** Renders x-mp-status, at most `max` bytes: keys that do not fit are left out from the right. */
export function status(max: u32): u32 {
  const ms = nowMs();
  let at = copy(STATUS, T_INFLIGHT.ptr, T_INFLIGHT.size);
  at = writeDecimal(at, (own.inFlight + shares.othersInFlight) as u64);
  if ((at - STATUS) as u32 > max) return 0;
  let kept = at;
  if (shares.queue != UNKNOWN && ms - shares.queueMs <= shares.APP_FRESH_MS) {
    at = writeDecimal(copy(at, T_QUEUE_KEY.ptr, T_QUEUE_KEY.size), shares.queue as u64);
    at = copy(at, T_QSRC_APP.ptr, T_QSRC_APP.size);
    if ((at - STATUS) as u32 > max) return (kept - STATUS) as u32;
    kept = at;
  }
  if (shares.waitMs != UNKNOWN) {
    at = writeDecimal(copy(at, T_WAIT.ptr, T_WAIT.size), shares.waitMs as u64);
    if ((at - STATUS) as u32 > max) return (kept - STATUS) as u32;
    kept = at;
  }
  const resources = shares.resourceMs != 0 && ms - shares.resourceMs <= shares.APP_FRESH_MS;
  if (resources && shares.cpu >= 0) {
    at = writeShare(copy(at, T_CPU.ptr, T_CPU.size), shares.cpu as f64);
    if ((at - STATUS) as u32 > max) return (kept - STATUS) as u32;
    kept = at;
  }
  if (resources && shares.memoryShare >= 0) {
    at = writeShare(copy(at, T_MEM.ptr, T_MEM.size), shares.memoryShare as f64);
    if ((at - STATUS) as u32 > max) return (kept - STATUS) as u32;
    kept = at;
  }
  at = writeDecimal(copy(at, T_AGE.ptr, T_AGE.size), ageMs());
  if ((at - STATUS) as u32 > max) return (kept - STATUS) as u32;
  return (at - STATUS) as u32;
}

/** Age of the oldest part of the reading, ms: the own share is always fresh. */
function ageMs(): u64 {
  const ms = nowMs();
  return shares.othersStampMs != 0 && shares.others > 0 && ms > shares.othersStampMs ? ms - shares.othersStampMs : 0;
}

/** `Status` of the whole proxy. */
export function putStatus(): void {
  const ms = nowMs();
  const mark = wire.open(3);
  wire.always(1, (own.inFlight + shares.othersInFlight) as u64);
  if (shares.queue != UNKNOWN && ms - shares.queueMs <= shares.APP_FRESH_MS) {
    wire.always(2, shares.queue as u64);
    wire.putVarint(3, 1);
  }
  if (shares.waitMs != UNKNOWN) wire.always(4, shares.waitMs as u64);
  if (shares.resourceMs != 0 && ms - shares.resourceMs <= shares.APP_FRESH_MS) {
    if (shares.cpu >= 0) wire.putDouble(5, shares.cpu as f64);
    if (shares.memoryShare >= 0) wire.putDouble(6, shares.memoryShare as f64);
  }
  wire.putVarint(7, ageMs());
  wire.always(8, (own.calls + shares.othersCalls) as u64);
  wire.always(9, (own.streams + shares.othersStreams) as u64);
  wire.putVarint(10, intervalMs());
  let requests: u32 = 0;
  let failed: u32 = 0;
  let duration = UNKNOWN;
  let most: u32 = 0;
  for (let i: u32 = 0; i < shares.vmCount(); i++) {
    const share = shares.vm(i);
    requests += share.requests;
    failed += share.failures;
    if (share.durationUs != UNKNOWN && share.requests >= most) {
      most = share.requests;
      duration = share.durationUs;
    }
  }
  wire.putVarint(11, requests);
  wire.putVarint(12, failed);
  if (duration != UNKNOWN) wire.always(13, duration as u64);
  wire.close(mark);
  toldSignature = signature();
}

/** Differs from what was told: an idle proxy says nothing but heartbeats. */
export function statusChanged(): bool {
  return signature() != toldSignature;
}

function signature(): u64 {
  let mix: u64 = 1;
  mix = step(mix, (own.inFlight + shares.othersInFlight) as u64);
  mix = step(mix, (own.calls + shares.othersCalls) as u64);
  mix = step(mix, (own.streams + shares.othersStreams) as u64);
  mix = step(mix, shares.queueMs);
  mix = step(mix, shares.resourceMs);
  for (let i: u32 = 0; i < shares.vmCount(); i++) {
    const share = shares.vm(i);
    // A window with requests is news even when it looks like the one before.
    if (share.requests != 0) mix = step(mix, share.batched + share.nextSeq);
    mix = step(mix, ((share.requests as u64) << 32) | share.waitMs);
    mix = step(mix, ((share.failures as u64) << 32) | share.durationUs);
  }
  return mix;
}

function step(mix: u64, value: u64): u64 {
  return rotl<u64>((mix ^ value) * 0xff51afd7ed558ccd, 31);
}

export function startWindow(ms: u64): void {
  windowStartMs = ms;
}

export function windowDue(ms: u64): bool {
  return ms - windowStartMs >= intervalMs();
}
