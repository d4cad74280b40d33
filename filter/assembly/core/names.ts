// Names that come from traffic, made few: operations (path templates) and peers (callee hosts).
// Both are tables of fixed size; past it everything is `other`. An entry is never moved, so its id is
// what rows and streams carry.
import { copy, hash, isDigit, hexDigit, same, Text } from '../bytes';

/** Operations per service; then `other`. */
export const OPERATIONS_PER_SERVICE: u32 = 200;
/** Operations and peers of one VM, all services together. */
export const ENTRIES_MAX: u32 = 4096;
const SLOTS: u32 = 8192;
const TEXT_BYTES: u32 = 512 * 1024;
/** Longest operation or peer name kept, bytes. */
export const NAME_MAX: u32 = 200;
const METHOD_MAX: u32 = 16;
const SEGMENTS_MAX: u32 = 12;

/** Ids 1.. of the table; 0 is "". */
export const OTHER: u32 = 1;

const INDEX: usize = memory.data(32768, 16); // SLOTS x u32: id + 1
const HASHES: usize = memory.data(32768, 16); // ENTRIES_MAX x u64
const PTRS: usize = memory.data(16384, 16); // ENTRIES_MAX x u32
const SIZES: usize = memory.data(8192, 16); // ENTRIES_MAX x u16
const COUNTS: usize = memory.data(8192, 16); // operations of the peer with that id, u16
let entries: u32 = 0;
let text: usize = 0;
let textTop: u32 = 0;

const T_OTHER = new Text('other');

export function init(): void {
  if (text != 0) return;
  text = heap.alloc(TEXT_BYTES);
  add(0, 0, 0); // id 0: ""
  add(T_OTHER.ptr, T_OTHER.size, 7);
}

export function namePtr(id: u32): usize { return load<u32>(PTRS + id * 4); }
export function nameSize(id: u32): u32 { return load<u16>(SIZES + id * 2); }


function add(ptr: usize, size: u32, h: u64): u32 {
  const id = entries++;
  store<u64>(HASHES + id * 8, h);
  store<u32>(PTRS + id * 4, (text + textTop) as u32);
  store<u16>(SIZES + id * 2, size as u16);
  copy(text + textTop, ptr, size);
  textTop += size;
  return id;
}

/** Id of the name within its scope (0 own service, else a peer's id), or OTHER when the table is full. */
function intern(ptr: usize, size: u32, scope: u32, limit: bool): u32 {
  const h = hash(ptr, size, (scope as u64) * 0x9e3779b97f4a7c15 + (limit ? 1 : 2));
  let slot = (h as u32) & (SLOTS - 1);
  while (true) {
    const entry = load<u32>(INDEX + slot * 4);
    if (entry == 0) break;
    const id = entry - 1;
    if (load<u64>(HASHES + id * 8) == h && nameSize(id) == size && same(namePtr(id), ptr, size)) return id;
    slot = (slot + 1) & (SLOTS - 1);
  }
  if (entries >= ENTRIES_MAX || textTop + size > TEXT_BYTES) return OTHER;
  if (limit) {
    const n = load<u16>(COUNTS + scope * 2);
    if ((n as u32) >= OPERATIONS_PER_SERVICE) return OTHER;
    store<u16>(COUNTS + scope * 2, n + 1);
  }
  const id = add(ptr, size, h);
  store<u32>(INDEX + slot * 4, id + 1);
  return id;
}

export function peer(ptr: usize, size: u32): u32 {
  return size == 0 ? 0 : intern(BUILD, printable(ptr, size), 0, false);
}

/** Copies into BUILD what a protobuf string may hold: printable ASCII, the rest as `?`. */
function printable(ptr: usize, size: u32): u32 {
  const n = size < NAME_MAX ? size : NAME_MAX;
  for (let i: u32 = 0; i < n; i++) {
    const c = load<u8>(ptr + i);
    store<u8>(BUILD + i, c < 0x20 || c > 0x7e ? 0x3f : c);
  }
  return n;
}

/** Envoy's response code details and the like: few texts, kept in the same table. */
export function detail(ptr: usize, size: u32): u32 {
  return size == 0 ? 0 : intern(BUILD, printable(ptr, size), OTHER, true);
}

const BUILD: usize = memory.data(256, 8);

/** `METHOD /path/*` of a request; for gRPC the path as it is. `scope`: 0 for the own service, else the callee's peer id. */
export function operation(method: usize, methodSize: u32, path: usize, pathSize: u32, grpc: bool, scope: u32): u32 {
  let n: u32 = 0;
  if (!grpc) {
    n = printable(method, methodSize < METHOD_MAX ? methodSize : METHOD_MAX);
    if (pathSize > 0) store<u8>(BUILD + n++, 32); // CONNECT has none
  }
  if (grpc) {
    let end: u32 = 0;
    while (end < pathSize && load<u8>(path + end) != 0x3f) end++;
    n = printable(path, end);
  } else n = template(path, pathSize, n);
  return intern(BUILD, n, scope, true);
}

/** Writes the path without query, id-like segments as `*`, behind the first `n` bytes of BUILD. */
function template(path: usize, size: u32, n: u32): u32 {
  let i: u32 = 0;
  let segments: u32 = 0;
  while (i < size) {
    const c = load<u8>(path + i);
    if (c == 0x3f || c == 0x23) break;
    if (c == 0x2f) {
      if (n < NAME_MAX) store<u8>(BUILD + n++, c);
      i++;
      continue;
    }
    const start = i;
    while (i < size) {
      const d = load<u8>(path + i);
      if (d == 0x2f || d == 0x3f || d == 0x23) break;
      i++;
    }
    const length = i - start;
    segments++;
    const id = idLike(path + start, length);
    if (segments > SEGMENTS_MAX || n + (id ? 1 : length) > NAME_MAX) {
      if (n + 2 <= NAME_MAX) {
        store<u8>(BUILD + n, 0x2a);
        store<u8>(BUILD + n + 1, 0x2a);
        n += 2;
      }
      break;
    }
    if (id) store<u8>(BUILD + n++, 0x2a);
    else {
      copy(BUILD + n, path + start, length);
      n += length;
    }
  }
  return n;
}

/**
 * Does the segment name one thing rather than a kind of thing? Numbers, UUIDs, hex, names that end in
 * a number behind - _ or ., long ones with several digits, and anything that is not a plain word.
 */
function idLike(p: usize, size: u32): bool {
  if (size > 40) return true;
  let digits: u32 = 0;
  let hex: u32 = 0;
  let tail: u32 = 0; // digits at the end
  let beforeTail: u8 = 0;
  for (let i: u32 = 0; i < size; i++) {
    const c = load<u8>(p + i);
    const letter = (c | 0x20) >= 97 && (c | 0x20) <= 122;
    if (!letter && !isDigit(c) && c != 0x2d && c != 0x5f && c != 0x2e && c != 0x7e && c != 0x3a) return true;
    if (isDigit(c)) {
      digits++;
      tail++;
    } else {
      tail = 0;
      beforeTail = c;
    }
    if (hexDigit(c) != 255 || c == 0x2d) hex++;
  }
  if (digits == 0) return false;
  if (digits == size) return true;
  if (hex == size && size >= 8) return true;
  if (tail > 0 && (beforeTail == 0x2d || beforeTail == 0x5f || beforeTail == 0x2e || beforeTail == 0x3a)) return true;
  return digits >= 4 || (size >= 16 && digits >= 2);
}

/** Name id of a cluster's host: the part behind the last `|` of `outbound|8080||shop.ns.svc`. */
export function hostOf(cluster: u32): u32 {
  const ptr = namePtr(cluster);
  const size = nameSize(cluster);
  for (let i: u32 = size; i > 0; i--) {
    if (load<u8>(ptr + i - 1) == 0x7c) return peer(ptr + i, size - i);
  }
  return cluster;
}
