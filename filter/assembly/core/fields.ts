// The small texts inside headers: RFC 9651 dictionaries (x-mp-progress) and ORCA TEXT. Both come
// from applications and from strangers, so each reader is bounded and refuses what it does not know.
import { isDigit, parsed, parseDecimal, parseHex, Text } from '../bytes';

export const JOB_MAX: u32 = 64;
export const STATE_MAX: u32 = 32;
/** Longest dictionary that is read, bytes. */
const DICTIONARY_MAX: u32 = 512;
const MEMBERS_MAX: u32 = 16;

/** The last dictionary read: bit set of the members that were there. */
export const HAS_EVENT: u32 = 1;
export const HAS_JOB: u32 = 2;
export const HAS_DONE: u32 = 4;
export const HAS_OF: u32 = 8;
export const HAS_QUEUE: u32 = 16;
export const HAS_STATE: u32 = 32;

export let has: u32 = 0;
export let event: u64 = 0;
export let jobPtr: usize = 0;
export let jobSize: u32 = 0;
export let done: u64 = 0;
export let total: u64 = 0;
export let queue: u64 = 0;
export let statePtr: usize = 0;
export let stateSize: u32 = 0;

const K_EVENT = new Text('event');
const K_JOB = new Text('job');
const K_DONE = new Text('done');
const K_OF = new Text('of');
const K_QUEUE = new Text('queue');
const K_STATE = new Text('state');

let itemKind: i32 = 0; // 1 integer, 2 text (string or token), 3 other
let itemPtr: usize = 0;
let itemSize: u32 = 0;
let itemNumber: u64 = 0;

/** x-mp-progress. As the RFC says, one fault spoils the whole field. Unknown members are passed over. */
export function readProgress(p: usize, n: u32): bool {
  has = 0;
  event = 0;
  if (n == 0 || n > DICTIONARY_MAX) return false;
  const end = p + n;
  let at = blanks(p, end);
  for (let members: u32 = 0; members < MEMBERS_MAX; members++) {
    const key = at;
    while (at < end && isKeyChar(load<u8>(at), at == key)) at++;
    const keySize = (at - key) as u32;
    if (keySize == 0) return spoil();
    itemKind = 3;
    if (at < end && load<u8>(at) == 0x3d) {
      at = item(at + 1, end);
      if (at == 0) return spoil();
    }
    at = parameters(at, end);
    if (at == 0) return spoil();
    if (!member(key, keySize)) return spoil();
    at = blanks(at, end);
    if (at >= end) return true;
    if (load<u8>(at) != 0x2c) return spoil();
    at = blanks(at + 1, end);
    if (at >= end) return spoil(); // a trailing comma
  }
  return spoil();
}

function spoil(): bool {
  has = 0;
  return false;
}

/** False when a known member has a value of the wrong type or size. */
function member(key: usize, size: u32): bool {
  if (K_EVENT.is(key, size)) {
    if (itemKind != 2 || itemSize != 16 || !parseHex(itemPtr, 16) || parsed == 0) return false;
    event = parsed;
    has |= HAS_EVENT;
  } else if (K_JOB.is(key, size)) {
    if (itemKind != 2 || itemSize == 0 || itemSize > JOB_MAX) return false;
    jobPtr = itemPtr;
    jobSize = itemSize;
    has |= HAS_JOB;
  } else if (K_STATE.is(key, size)) {
    if (itemKind != 2 || itemSize == 0 || itemSize > STATE_MAX) return false;
    statePtr = itemPtr;
    stateSize = itemSize;
    has |= HAS_STATE;
  } else if (K_DONE.is(key, size)) {
    if (itemKind != 1) return false;
    done = itemNumber;
    has |= HAS_DONE;
  } else if (K_OF.is(key, size)) {
    if (itemKind != 1) return false;
    total = itemNumber;
    has |= HAS_OF;
  } else if (K_QUEUE.is(key, size)) {
    if (itemKind != 1) return false;
    queue = itemNumber;
    has |= HAS_QUEUE;
  }
  return true;
}

function blanks(at: usize, end: usize): usize {
  while (at < end && (load<u8>(at) == 32 || load<u8>(at) == 9)) at++;
  return at;
}

function isKeyChar(c: u8, first: bool): bool {
  if ((c >= 97 && c <= 122) || c == 0x2a) return true;
  if (first) return false;
  return isDigit(c) || c == 0x5f || c == 0x2d || c == 0x2e;
}

/** A bare item; returns where it ends, 0 on a fault. */
function item(at: usize, end: usize): usize {
  if (at >= end) return 0;
  const c = load<u8>(at);
  if (c == 0x22) {
    const start = ++at;
    while (at < end && load<u8>(at) != 0x22) {
      const d = load<u8>(at);
      // Escapes are legal, but no value of ours needs them; such a string is passed over.
      if (d < 0x20 || d > 0x7e) return 0;
      if (d == 0x5c) return 0;
      at++;
    }
    if (at >= end) return 0;
    itemKind = 2;
    itemPtr = start;
    itemSize = (at - start) as u32;
    return at + 1;
  }
  if (isDigit(c)) {
    const start = at;
    while (at < end && isDigit(load<u8>(at))) at++;
    if (at - start > 15) return 0;
    itemKind = 1;
    parseDecimal(start, (at - start) as u32);
    itemNumber = parsed;
    if (at < end && load<u8>(at) == 0x2e) {
      itemKind = 3; // decimal
      at++;
      while (at < end && isDigit(load<u8>(at))) at++;
    }
    return at;
  }
  if (c == 0x2d) {
    itemKind = 3; // a negative number is never ours
    at++;
    while (at < end && (isDigit(load<u8>(at)) || load<u8>(at) == 0x2e)) at++;
    return at;
  }
  if (c == 0x3f) {
    itemKind = 3;
    return at + 2 <= end ? at + 2 : 0;
  }
  if ((c | 0x20) >= 97 && (c | 0x20) <= 122 || c == 0x2a) {
    const start = at;
    while (at < end && isTokenChar(load<u8>(at))) at++;
    itemKind = 2;
    itemPtr = start;
    itemSize = (at - start) as u32;
    return at;
  }
  return 0;
}

function isTokenChar(c: u8): bool {
  if (isDigit(c) || ((c | 0x20) >= 97 && (c | 0x20) <= 122)) return true;
  return c == 0x21 || (c >= 0x23 && c <= 0x27) || c == 0x2a || c == 0x2b || c == 0x2d || c == 0x2e || c == 0x2f || c == 0x3a || c == 0x5e || c == 0x5f || c == 0x60 || c == 0x7c || c == 0x7e;
}

/** Parameters of a member are legal and mean nothing here. */
function parameters(at: usize, end: usize): usize {
  const kind = itemKind, ptr = itemPtr, size = itemSize, number = itemNumber;
  while (at < end && load<u8>(at) == 0x3b) {
    at = blanks(at + 1, end);
    const key = at;
    while (at < end && isKeyChar(load<u8>(at), at == key)) at++;
    if (at == key) return 0;
    if (at < end && load<u8>(at) == 0x3d) {
      at = item(at + 1, end);
      if (at == 0) return 0;
    }
  }
  itemKind = kind;
  itemPtr = ptr;
  itemSize = size;
  itemNumber = number;
  return at;
}

// ORCA TEXT: `TEXT cpu_utilization=0.3, named_metrics.queue=7`, `:` is allowed for `=`.

export const ORCA_CPU: u32 = 1;
export const ORCA_MEMORY: u32 = 2;
export const ORCA_QUEUE: u32 = 4;
export let orcaHas: u32 = 0;
export let orcaCpu: f64 = 0;
export let orcaMemory: f64 = 0;
export let orcaQueue: f64 = 0;

const ORCA_MAX: u32 = 1024;
const T_TEXT = new Text('TEXT ');
const T_CPU = new Text('cpu_utilization');
const T_MEM = new Text('mem_utilization');
const T_QUEUE = new Text('named_metrics.queue');

export function readOrca(p: usize, n: u32): bool {
  orcaHas = 0;
  if (n > ORCA_MAX || !T_TEXT.starts(p, n)) return false;
  const end = p + n;
  let at = p + T_TEXT.size;
  while (at < end) {
    at = blanks(at, end);
    const key = at;
    while (at < end && load<u8>(at) != 0x3d && load<u8>(at) != 0x3a && load<u8>(at) != 0x2c) at++;
    const keySize = (at - key) as u32;
    if (at >= end || load<u8>(at) == 0x2c) return orcaHas != 0;
    at++;
    const number = at;
    while (at < end && load<u8>(at) != 0x2c && load<u8>(at) != 32) at++;
    if (decimal(number, (at - number) as u32)) {
      if (T_CPU.is(key, keySize)) {
        orcaHas |= ORCA_CPU;
        orcaCpu = decimalValue;
      } else if (T_MEM.is(key, keySize)) {
        orcaHas |= ORCA_MEMORY;
        orcaMemory = decimalValue;
      } else if (T_QUEUE.is(key, keySize)) {
        orcaHas |= ORCA_QUEUE;
        orcaQueue = decimalValue;
      }
    }
    at = blanks(at, end);
    if (at < end && load<u8>(at) == 0x2c) at++;
  }
  return orcaHas != 0;
}

let decimalValue: f64 = 0;

/** Digits with at most one point. */
function decimal(p: usize, n: u32): bool {
  if (n == 0 || n > 20) return false;
  let v: f64 = 0;
  let unit: f64 = 0;
  let digits = 0;
  for (let i: u32 = 0; i < n; i++) {
    const c = load<u8>(p + i);
    if (c == 0x2e && unit == 0) {
      unit = 1;
      continue;
    }
    if (!isDigit(c)) return false;
    digits++;
    if (unit == 0) v = v * 10 + ((c - 48) as f64);
    else {
      unit /= 10;
      v += ((c - 48) as f64) * unit;
    }
  }
  decimalValue = v;
  return digits > 0;
}
