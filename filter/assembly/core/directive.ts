// One meshpulse.v1.Directive, read into a place of its own. What breaks a bound or lacks what its kind
// needs is no directive: `read` then says false, and nothing of it is used.
import { copy } from '../bytes';
import * as reader from './reader';

export const DOOM: u32 = 1;
export const END: u32 = 2;
export const CLEAR: u32 = 3;
export const FLUSH: u32 = 4;
export const DOWN: u32 = 5;
export const UP: u32 = 6;
export const SIGNAL: u32 = 7;

export const OBSERVE: u32 = 2;
export const ENFORCE: u32 = 3;

/** Bounds of the contract. */
export const BYTES_MAX: u32 = 8192;
export const IDS_MAX: u32 = 8;
export const LIST_MAX: u32 = 64;
export const ID_BYTES_MAX: u32 = 64;
const STEP_BYTES_MAX: u32 = 256;
const BODY_BYTES_MAX: u32 = 4096;
const TTL_MAX_MS: u64 = 300000;
/** Where Envoy packs into a request id why it traces it. */
const REASON_BITS: u64 = 0xf000;

/** A list of numbers of the message. */
@final
export class List {
  readonly at: usize;
  readonly max: u32;
  size: u32 = 0;
  constructor(max: u32) {
    this.max = max;
    this.at = heap.alloc(max * 8);
  }
  get(i: u32): u64 {
    return load<u64>(this.at + i * 8);
  }
  ascending(): bool {
    for (let i: u32 = 1; i < this.size; i++) if (this.get(i - 1) >= this.get(i)) return false;
    return true;
  }
}

export let version: u64 = 0;
export let kind: u32 = 0;
/** 1..300000. */
export let ttlMs: u64 = 0;
export let mode: u32 = 0;
export let budgetPpm: u32 = 0;
export let budgetMin: u32 = 0;
/** High and low half of each id. */
export const keys: List = new List(2 * IDS_MAX);
export const requests: List = new List(2 * IDS_MAX);
export const refuse: List = new List(LIST_MAX);
export const refuseIn: List = new List(LIST_MAX);
export const destinations: List = new List(LIST_MAX);
export const spare: List = new List(LIST_MAX);
/** In the message itself: valid as long as that is. */
export let idPtr: usize = 0;
export let idSize: u32 = 0;
export let stepPtr: usize = 0;
export let stepSize: u32 = 0;
export let bodyPtr: usize = 0;
export let bodySize: u32 = 0;

function reset(): void {
  version = 0; kind = 0; ttlMs = 0; mode = 0; budgetPpm = 0; budgetMin = 0;
  keys.size = 0; requests.size = 0; refuse.size = 0; refuseIn.size = 0; destinations.size = 0; spare.size = 0;
  idPtr = 0; idSize = 0; stepPtr = 0; stepSize = 0; bodyPtr = 0; bodySize = 0;
}

export function read(ptr: usize, size: u32): bool {
  reset();
  if (size > BYTES_MAX) return false;
  reader.open(ptr, size);
  while (reader.more()) {
    const tag = reader.varint();
    const field = tag >> 3;
    const wire = (tag & 7) as u32;
    if (wire == 0) number(field as u32, reader.varint());
    else if (wire == 1 || wire == 2) {
      const list = listOf(field as u32);
      if (list !== null) fill(list, wire);
      else if (wire == 2) text(field as u32, reader.span());
      else reader.fixed64();
    } else reader.skip(wire);
  }
  return reader.fine() && complete();
}

function number(field: u32, value: u64): void {
  if (field == 1) version = value;
  else if (field == 2) ttlMs = value < TTL_MAX_MS ? value : TTL_MAX_MS;
  else if (field == 4) kind = value < 256 ? (value as u32) : 0;
  else if (field == 7) mode = value < 256 ? (value as u32) : 0;
  else if (field == 12) budgetPpm = value < 1000000 ? (value as u32) : 1000000;
  else if (field == 13) budgetMin = value < 1000000 ? (value as u32) : 1000000;
}

function listOf(field: u32): List | null {
  switch (field) {
    case 5: return keys;
    case 6: return requests;
    case 8: return refuse;
    case 9: return refuseIn;
    case 10: return destinations;
    case 11: return spare;
    default: return null;
  }
}

/** Packed, or one by one: both are protobuf. */
function fill(list: List, wire: u32): void {
  if (wire == 1) return append(list, reader.fixed64());
  const n = reader.span();
  if (n % 8 != 0 || n / 8 + list.size > list.max) return reader.fail();
  copy(list.at + list.size * 8, reader.spanPtr, n);
  list.size += n / 8;
}

function append(list: List, value: u64): void {
  if (list.size >= list.max) return reader.fail();
  store<u64>(list.at + list.size * 8, value);
  list.size++;
}

function text(field: u32, size: u32): void {
  const ptr = reader.spanPtr;
  if (field == 3) {
    bodyPtr = ptr;
    bodySize = size;
    if (size > BODY_BYTES_MAX) reader.fail();
  } else if (field == 14) {
    idPtr = ptr;
    idSize = size;
    if (size > ID_BYTES_MAX || !plain(ptr, size)) reader.fail();
  } else if (field == 15) {
    stepPtr = ptr;
    stepSize = size;
    if (size > STEP_BYTES_MAX || !plain(ptr, size)) reader.fail();
  }
}

/** Goes into headers and into JSON: printable ASCII without `"` and `\`. */
function plain(ptr: usize, size: u32): bool {
  for (let i: u32 = 0; i < size; i++) {
    const c = load<u8>(ptr + i);
    if (c < 0x20 || c > 0x7e || c == 0x22 || c == 0x5c) return false;
  }
  return true;
}

function complete(): bool {
  if (version == 0 || ttlMs == 0 || keys.size % 2 != 0 || requests.size % 2 != 0) return false;
  for (let i: u32 = 0; i < requests.size; i += 2) {
    const at = requests.at + i * 8;
    store<u64>(at, load<u64>(at) & ~REASON_BITS);
  }
  const ids = keys.size + requests.size > 0;
  const modes = mode >= 1 && mode <= ENFORCE;
  switch (kind) {
    case DOOM: return ids && modes && idSize > 0 && refuse.ascending() && refuseIn.ascending();
    case END:
    case FLUSH: return ids;
    case CLEAR: return !ids;
    case DOWN: return modes && destinations.size > 0 && spare.ascending();
    case UP: return destinations.size > 0;
    case SIGNAL: return idSize > 0;
    default: return false;
  }
}

/** As requests are compared. */
export function maskedRequest(hi: u64): u64 {
  return hi & ~REASON_BITS;
}

/** FNV-1a, 64 bits, of `destination LF operation`: how directives name a request. */
export function nameHash(destination: usize, destinationSize: u32, operation: usize, operationSize: u32): u64 {
  let h: u64 = 0xcbf29ce484222325;
  for (let i: u32 = 0; i < destinationSize; i++) h = (h ^ (load<u8>(destination + i) as u64)) * 0x100000001b3;
  h = (h ^ 10) * 0x100000001b3;
  for (let i: u32 = 0; i < operationSize; i++) h = (h ^ (load<u8>(operation + i) as u64)) * 0x100000001b3;
  return h;
}

/** Is the number in the ascending list of `n` numbers at `at`? */
export function contains(at: usize, n: u32, value: u64): bool {
  let low: u32 = 0;
  let high = n;
  while (low < high) {
    const middle = (low + high) >> 1;
    const v = load<u64>(at + middle * 8);
    if (v == value) return true;
    if (v < value) low = middle + 1;
    else high = middle;
  }
  return false;
}

/** Is one of these among the ids of the directive read last? Ids of 0 are none. */
export function names(keyHi: u64, keyLo: u64, requestHi: u64, requestLo: u64): bool {
  return ((keyHi | keyLo) != 0 && has(keys, keyHi, keyLo)) || ((requestHi | requestLo) != 0 && has(requests, maskedRequest(requestHi), requestLo));
}

function has(list: List, hi: u64, lo: u64): bool {
  for (let i: u32 = 0; i + 1 < list.size; i += 2) if (list.get(i) == hi && list.get(i + 1) == lo) return true;
  return false;
}
