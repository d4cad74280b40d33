// What the VMs of one proxy process know of each other: one table in the proxy's shared data.
//
// Every worker thread has a VM of its own, and so has the main thread. Each keeps one entry fresh:
// its share of the requests in flight, its counters, its batch numbers. An entry that is not
// refreshed for 4 s belongs to a VM that trapped or ended, and its share is gone with it; a gauge
// that all VMs increment would keep such a share for ever.
//
// The table is read and written whole, by compare-and-set. Layout, little-endian:
//   0   session u64    of the leader, 0 = none; a new number asks every VM to send again. Bit 1: unary calls
//   8   leader u64     producer id
//   16  lease u64      monotonic ms at which the leader's lease ends
//   24  interval u32   the collector's wish, ms; 0 = none
//   28  ratio f32      its wish for the share of transactions with rows
//   32  until u64      monotonic ms at which the wish for an interval ends
//   40  ports u16 x 16: where the instance was seen to listen
//   72  counters u64 x 6: what all VMs, also those that are gone, could not do; see doubts.ts
//   120 until u64      monotonic ms at which the wish for a share ends
//   128 entries, 128 bytes each:
//       0 id u64 · 8 stamp (monotonic ms) u64 · 16 next seq u64 · 24 acked seq u64 · 32 dropped u64
//       40 batched u64 · 48 in flight u32 · 52 calls u32 · 56 streams u32 · 60 requests u32
//       64 failures u32 · 68 wait p50 ms u32 · 72 duration p50 us u32 · 76 queue u32 · 80 queue stamp u64
//       88 cpu f32 · 92 memory f32 · 96 resource stamp u64 · 104 active u32 · 108 holds u16 · 110 slot u16
//       112 settled seq u64 · 120 settled rows u64: what the VM knows to be acknowledged
import { Text } from './bytes';
import * as host from './host';

/** What doubts.ts counts. */
export const COUNTERS: u32 = 6;
const COUNTERS_AT: u32 = 72;
const RATIO_UNTIL_AT: u32 = COUNTERS_AT + COUNTERS * 8;
const HEADER: u32 = RATIO_UNTIL_AT + 8;
const ENTRY: u32 = 128;
/** VMs of one process that take part; further ones stamp and count only for themselves, and report nothing. */
export const VMS_MAX: u32 = 128;
const TABLE_BYTES: u32 = HEADER + ENTRY * VMS_MAX;
/** A VM that has been silent for so long is dead. */
const DEAD_MS: u64 = 4000;
export const LEASE_MS: u64 = 3000;
export const UNKNOWN: u32 = 0xffffffff;
/** An application's word about itself is believed for so long. */
export const APP_FRESH_MS: u64 = 30000;

/** The number is that of the layout: another version of the filter keeps a table of its own. */
const KEY = new Text('meshpulse.vms.3');
const TABLE: usize = memory.data(16512, 16);
const CAS_TRIES: u32 = 8;

// Bits of Share.holds: what the VM has not handed over.
/** Rows that wait for their batch, or batches that wait for the leader. */
export const H_ROWS: u16 = 1;
/** What an application said of a job. */
export const H_JOBS: u16 = 2;
/** Nothing any more: the VM is about to go. */
export const H_GONE: u16 = 4;

@unmanaged
export class Share {
  id: u64;
  stampMs: u64;
  nextSeq: u64;
  acked: u64;
  dropped: u64;
  batched: u64;
  inFlight: u32;
  calls: u32;
  streams: u32;
  requests: u32;
  failures: u32;
  waitMs: u32;
  durationUs: u32;
  queue: u32;
  queueMs: u64;
  cpu: f32;
  memory: f32;
  resourceMs: u64;
  active: u32;
  holds: u16;
  /** Number of the VM's own queue, 1..VMS_MAX, different for all that live; 0 = none yet. */
  slot: u16;
  settledSeq: u64;
  settledEvents: u64;
}

const OWN: usize = memory.data(128, 16);
/** This VM's entry: written here, published by `sync`. */
export const own: Share = changetype<Share>(OWN);

/** What the other VMs hold together, as of the last sync. */
export let othersInFlight: u32 = 0;
export let othersCalls: u32 = 0;
export let othersStreams: u32 = 0;
export let othersStampMs: u64 = 0;
export let others: u32 = 0;
export let session: u64 = 0;
export let leader: u64 = 0;
export let leaseMs: u64 = 0;
/** The interval that the collector wishes, ms, and until when. */
export let wish: u32 = 0;
export let wishUntilMs: u64 = 0;
/** The share of transactions whose rows it wishes, 0..1, and until when. */
export let ratio: f32 = 1;
export let ratioUntilMs: u64 = 0;
/** Best-known word of the application, from any VM. */
export let queue: u32 = UNKNOWN;
export let queueMs: u64 = 0;
export let cpu: f32 = -1;
export let memoryShare: f32 = -1;
export let resourceMs: u64 = 0;
export let waitMs: u32 = UNKNOWN;
let waitRequests: u32 = 0;

/** The table has no place left for this VM. */
export let crowded: bool = false;

// Of this VM, since its start; and how much of it the table has.
const COUNTED: usize = memory.data(48, 8);
const MERGED: usize = memory.data(48, 8);

export function count(counter: u32): void {
  store<u64>(COUNTED + counter * 8, counted(counter) + 1);
}

/** Of this VM. */
export function counted(counter: u32): u64 {
  return load<u64>(COUNTED + counter * 8);
}

/** Of the whole process, as of the last sync. */
export function total(counter: u32): u64 {
  return size < HEADER ? counted(counter) : load<u64>(TABLE + COUNTERS_AT + counter * 8);
}

let size: u32 = 0;

/** Number of entries in the table read last. */
export function vmCount(): u32 {
  return size < HEADER ? 0 : (size - HEADER) / ENTRY;
}

export function vm(i: u32): Share {
  return changetype<Share>(TABLE + HEADER + i * ENTRY);
}

/** True unless the proxy could not say what is there: then nothing may be written over it. */
let readable: bool = true;

function readTable(): u32 {
  const m = host.mark();
  const result = host.getShared(KEY.ptr, KEY.size);
  if (result == host.OK && host.dataSize >= HEADER && host.dataSize <= TABLE_BYTES && (host.dataSize - HEADER) % ENTRY == 0) {
    size = host.dataSize;
    memory.copy(TABLE, host.dataPtr, size);
    readable = true;
  } else {
    readable = result == host.OK || result == host.ABSENT;
    if (readable) {
      size = HEADER;
      memory.fill(TABLE, 0, HEADER);
    }
  }
  host.release(m);
  return host.dataCas;
}

/** Header edits that `sync` carries along. */
let setSession: bool = false;
let newSession: u64 = 0;
let setLease: bool = false;
let newLeader: u64 = 0;
let newLeaseMs: u64 = 0;

export function wantSession(value: u64): void {
  setSession = true;
  newSession = value;
}

export function wantLease(id: u64, untilMs: u64): void {
  setLease = true;
  newLeader = id;
  newLeaseMs = untilMs;
}

/** Ports remembered of one instance. */
export const PORTS_MAX: u32 = 16;
const SEEN_PORTS: usize = memory.data(32, 8);
let seenPorts: u32 = 0;

/** Adds a port to what all VMs know. */
export function wantPort(port: u32): void {
  if (port == 0 || port > 65535 || seenPorts >= PORTS_MAX) return;
  for (let i: u32 = 0; i < seenPorts; i++) if (load<u16>(SEEN_PORTS + i * 2) == port) return;
  store<u16>(SEEN_PORTS + seenPorts++ * 2, port as u16);
}

/** Says that there is something to hand over, at once: a leader that ends must know that more is to come. */
export function hold(bit: u16, nowMs: u64): void {
  if ((own.holds & bit) != 0) return;
  own.holds |= bit;
  sync(nowMs);
}

function mergePorts(): void {
  for (let s: u32 = 0; s < seenPorts; s++) {
    const port = load<u16>(SEEN_PORTS + s * 2);
    for (let i: u32 = 0; i < PORTS_MAX; i++) {
      const known = portAt(i);
      if (known == port) break;
      if (known != 0) continue;
      store<u16>(TABLE + 40 + i * 2, port);
      break;
    }
  }
}

/** The `i`-th port, 0 = none. */
export function portAt(i: u32): u32 {
  return load<u16>(TABLE + 40 + i * 2) as u32;
}

let setWish: bool = false;
let newWish: u32 = 0;
let newWishUntilMs: u64 = 0;

export function wantInterval(ms: u32, untilMs: u64): void {
  setWish = true;
  newWish = ms;
  newWishUntilMs = untilMs;
}

let setRatio: bool = false;
let newRatio: f32 = 1;
let newRatioUntilMs: u64 = 0;

export function wantRatio(value: f32, untilMs: u64): void {
  setRatio = true;
  newRatio = value;
  newRatioUntilMs = untilMs;
}

// Acks that the leader passes on: producer id, seq.
const ACKS: usize = memory.data(2048, 16);
let ackCount: u32 = 0;

export function wantAck(producer: u64, seq: u64): void {
  for (let i: u32 = 0; i < ackCount; i++) {
    if (load<u64>(ACKS + i * 16) == producer) {
      if (load<u64>(ACKS + i * 16, 8) < seq) store<u64>(ACKS + i * 16, seq, 8);
      return;
    }
  }
  if (ackCount >= VMS_MAX) return;
  store<u64>(ACKS + ackCount * 16, producer);
  store<u64>(ACKS + ackCount * 16, seq, 8);
  ackCount++;
}

/** Publishes the own entry, drops the dead, carries header edits and acks, and reads everybody's. */
export function sync(nowMs: u64): void {
  own.stampMs = nowMs;
  for (let attempt: u32 = 0; attempt < CAS_TRIES; attempt++) {
    const cas = readTable();
    if (!readable) return;
    merge(nowMs);
    const result = host.setShared(KEY.ptr, KEY.size, TABLE, size, cas);
    if (result == host.CONFLICT) continue;
    if (result == host.OK) {
      setSession = false;
      setLease = false;
      setWish = false;
      setRatio = false;
      ackCount = 0;
      memory.copy(MERGED, COUNTED, COUNTERS * 8);
    }
    break;
  }
  digest(nowMs);
}

function merge(nowMs: u64): void {
  mergeEntries(nowMs);
  mergeAcks();
  mergeLease(nowMs);
  mergePorts();
  mergeCounters();
  if (setWish) {
    store<u32>(TABLE, newWish, 24);
    store<u64>(TABLE, newWishUntilMs, 32);
  }
  if (setRatio) {
    store<f32>(TABLE, newRatio, 28);
    store<u64>(TABLE + RATIO_UNTIL_AT, newRatioUntilMs);
  }
  if (setSession && load<u64>(TABLE, 8) == own.id) store<u64>(TABLE, newSession);
}

/** The own entry goes in, those of the dead go out. */
function mergeEntries(nowMs: u64): void {
  let n = vmCount();
  let found = false;
  for (let i: u32 = 0; i < n; ) {
    const entry = vm(i);
    if (entry.id == own.id) {
      found = true;
      if (entry.acked > own.acked && entry.acked < own.nextSeq) own.acked = entry.acked;
      memory.copy(changetype<usize>(entry), OWN, ENTRY);
    } else if (entry.stampMs + DEAD_MS < nowMs) {
      // Dead: the last entry moves into its place.
      n--;
      if (i < n) memory.copy(changetype<usize>(entry), changetype<usize>(vm(n)), ENTRY);
      size -= ENTRY;
      continue;
    }
    i++;
  }
  crowded = !found && n >= VMS_MAX;
  if (!found && n < VMS_MAX) {
    own.slot = freeSlot(n) as u16;
    memory.copy(changetype<usize>(vm(n)), OWN, ENTRY);
    size += ENTRY;
  }
}

function mergeAcks(): void {
  const n = vmCount();
  for (let a: u32 = 0; a < ackCount; a++) {
    const id = load<u64>(ACKS + a * 16);
    const seq = load<u64>(ACKS + a * 16, 8);
    for (let i: u32 = 0; i < n; i++) {
      const entry = vm(i);
      if (entry.id != id) continue;
      // Nobody can have what was never made: such an ack is no ack.
      if (seq >= entry.nextSeq) continue;
      if (entry.acked < seq) entry.acked = seq;
      if (id == own.id && own.acked < seq) own.acked = seq;
    }
  }
}

function mergeLease(nowMs: u64): void {
  if (!setLease) return;
  const holder = load<u64>(TABLE, 8);
  const until = load<u64>(TABLE, 16);
  if (holder == own.id || holder == 0 || until < nowMs || gone(holder)) {
    store<u64>(TABLE, newLeader, 8);
    store<u64>(TABLE, newLeaseMs, 16);
  }
}

/** Adds what is new since the table was last written. */
function mergeCounters(): void {
  for (let i: u32 = 0; i < COUNTERS * 8; i += 8) {
    const at = TABLE + COUNTERS_AT + i;
    store<u64>(at, load<u64>(at) + load<u64>(COUNTED + i) - load<u64>(MERGED + i));
  }
}

/** The VM has said that it goes, or is not in the table. */
export function gone(id: u64): bool {
  for (let i: u32 = 0; i < vmCount(); i++) if (vm(i).id == id) return (vm(i).holds & H_GONE) != 0;
  return true;
}

/** No other VM works on a request or has something that it did not hand over. */
export function othersIdle(): bool {
  for (let i: u32 = 0; i < vmCount(); i++) {
    const entry = vm(i);
    if (entry.id != own.id && (entry.holds & H_GONE) == 0 && (entry.holds != 0 || entry.active != 0)) return false;
  }
  return true;
}

/** The lowest number that none of the `n` entries has. */
function freeSlot(n: u32): u32 {
  let slot: u32 = 1;
  for (let i: u32 = 0; i < n; i++) {
    if (vm(i).slot != slot) continue;
    slot++;
    i = u32.MAX_VALUE; // from the start: entries are in no order
  }
  return slot;
}

function digest(nowMs: u64): void {
  session = load<u64>(TABLE);
  leader = load<u64>(TABLE, 8);
  leaseMs = load<u64>(TABLE, 16);
  wish = load<u32>(TABLE, 24);
  wishUntilMs = load<u64>(TABLE, 32);
  ratio = load<f32>(TABLE, 28);
  ratioUntilMs = load<u64>(TABLE + RATIO_UNTIL_AT);
  othersInFlight = 0;
  othersCalls = 0;
  othersStreams = 0;
  othersStampMs = nowMs;
  others = 0;
  queue = own.queue;
  queueMs = own.queueMs;
  cpu = own.cpu;
  memoryShare = own.memory;
  resourceMs = own.resourceMs;
  waitMs = own.waitMs;
  waitRequests = own.waitMs == UNKNOWN ? 0 : own.requests;
  const n = vmCount();
  for (let i: u32 = 0; i < n; i++) {
    const entry = vm(i);
    if (entry.id == own.id) continue;
    others++;
    othersInFlight += entry.inFlight;
    othersCalls += entry.calls;
    othersStreams += entry.streams;
    // An idle VM's entry says all there is to say, however old: only a working one can be stale.
    if (entry.active != 0 && entry.stampMs < othersStampMs) othersStampMs = entry.stampMs;
    if (entry.queue != UNKNOWN && entry.queueMs > queueMs) {
      queue = entry.queue;
      queueMs = entry.queueMs;
    }
    if (entry.resourceMs > resourceMs) {
      cpu = entry.cpu;
      memoryShare = entry.memory;
      resourceMs = entry.resourceMs;
    }
    if (entry.waitMs != UNKNOWN && entry.requests >= waitRequests) {
      waitMs = entry.waitMs;
      waitRequests = entry.requests;
    }
  }
}

/** The request path's short cut: a newer word of the application counts at once in this VM. */
export function adoptQueue(value: u32, ms: u64): void {
  queue = value;
  queueMs = ms;
}

export function adoptResources(cpuShare: f32, memory: f32, ms: u64): void {
  cpu = cpuShare;
  memoryShare = memory;
  resourceMs = ms;
}
