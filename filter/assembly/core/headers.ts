// One header map as the proxy hands it over, parsed once and in place.
//
// The proxy's layout (little-endian): count u32, then count x (name size u32, value size u32), then
// for each pair: name, NUL, value, NUL. `parse` fills a table of pointers into that buffer and
// notes where the headers are that the filter cares about; `write` makes the buffer for
// set_header_map_pairs. A malformed buffer given to the proxy erases every header, so `write` takes
// its sizes from the parsed table only.
import { copy, same, Text } from '../bytes';
import { Pattern } from '../config';
import { scratch } from '../host';

/** Pairs that can cross between proxy and VM. */
export const PAIRS_MAX: u32 = 1024;
/** Fields past which the next proxy may answer 431. */
export const FIELDS_MAX: u32 = 100;
/** Usual limits of a header block; a stamp must not carry a request across one. Bytes. */
const LIMITS: StaticArray<u32> = [8192, 16384, 32768, 61440];

const ROW: usize = 20;
const TABLE: usize = memory.data(20480, 16); // PAIRS_MAX rows: name, name size, value, value size, kind
const ORDER: usize = memory.data(4096, 16); // PAIRS_MAX + 16 entries of u16
const STAMPS: usize = memory.data(128, 16); // 8 x (name, name size, value, value size)
export const STAMPS_MAX: u32 = 8;

export const K_OTHER: u32 = 0;
export const K_PSEUDO: u32 = 1;
export const K_OWN: u32 = 2;
/** An own name with `_` for `-`, or a repeated own name: nobody honest sends that. */
export const K_HOSTILE: u32 = 3;
/** Trace context: K_TRACE + position in trace.headers. */
export const K_TRACE: u32 = 16;

const REPEATED: i32 = -2;

export let count: u32 = 0;
/** Of all fields: sum of name and value sizes, as Envoy counts a header block. */
export let bytes: u32 = 0;
/** Of those, of the pseudo headers other than :authority, which HTTP/1 writes as a field. */
let lineBytes: u32 = 0;

export let iMethod: i32 = -1;
export let iPath: i32 = -1;
export let iAuthority: i32 = -1;
export let iStatus: i32 = -1;
export let iRequestId: i32 = -1;
export let iContentType: i32 = -1;
export let iUserAgent: i32 = -1;
export let iUpgrade: i32 = -1;
export let iAttempt: i32 = -1;
export let iOrca: i32 = -1;
/** REPEATED when there is more than one: by W3C's word such a context is none. */
export let iTraceparent: i32 = -1;
export let iB3: i32 = -1;
export let iXB3Trace: i32 = -1;
export let iXB3Span: i32 = -1;
export let iUber: i32 = -1;
export let iSw8: i32 = -1;
export let iCloud: i32 = -1;
export let iDatadog: i32 = -1;
export let iDatadogParent: i32 = -1;
export let iTransaction: i32 = -1;
export let iCuid: i32 = -1;
export let iMpStatus: i32 = -1;
export let iMpProgress: i32 = -1;
export let iMpRollback: i32 = -1;
export let ownCount: u32 = 0;
export let hostileCount: u32 = 0;
/** Trace headers are there, but not directly behind the pseudo headers in their order. */
export let disordered: bool = false;

let stampCount: u32 = 0;

const T_TRACEPARENT = new Text('traceparent');
const T_X_B3_SPANID = new Text('x-b3-spanid');
const T_X_B3_TRACEID = new Text('x-b3-traceid');
const T_UBER = new Text('uber-trace-id');
const T_CLOUD = new Text('x-cloud-trace-context');
const T_DATADOG = new Text('x-datadog-trace-id');
const T_DATADOG_PARENT = new Text('x-datadog-parent-id');
const T_REQUEST_ID = new Text('x-request-id');
const T_CONTENT_TYPE = new Text('content-type');
const T_USER_AGENT = new Text('user-agent');
const T_UPGRADE = new Text('upgrade');
export const T_ATTEMPT = new Text('x-envoy-attempt-count');
const T_ORCA = new Text('endpoint-load-metrics');
const T_METHOD = new Text(':method');
const T_PATH = new Text(':path');
const T_AUTHORITY = new Text(':authority');
const T_STATUS = new Text(':status');
export const T_CUID = new Text('x-cuid');
export const T_MP_STATUS = new Text('x-mp-status');
export const T_MP_PROGRESS = new Text('x-mp-progress');
export const T_MP_ROLLBACK = new Text('x-mp-rollback');

// @ts-ignore: decorator
@inline
export function namePtr(i: i32): usize { return load<u32>(TABLE + (i as usize) * ROW); }
// @ts-ignore: decorator
@inline
export function nameSize(i: i32): u32 { return load<u32>(TABLE + (i as usize) * ROW, 4); }
// @ts-ignore: decorator
@inline
export function valuePtr(i: i32): usize { return load<u32>(TABLE + (i as usize) * ROW, 8); }
// @ts-ignore: decorator
@inline
export function valueSize(i: i32): u32 { return load<u32>(TABLE + (i as usize) * ROW, 12); }
// @ts-ignore: decorator
@inline
export function kind(i: i32): u32 { return load<u32>(TABLE + (i as usize) * ROW, 16); }
// @ts-ignore: decorator
@inline
function setKind(i: i32, k: u32): void { store<u32>(TABLE + (i as usize) * ROW, k, 16); }

// trace.headers, compiled: 256 bytes that say which first characters occur, then the number of
// patterns, then 12 bytes each: text, size, kind (0 exact, 1 prefix, 2 suffix or anything with `*` in front).
const COMPILED_ROW: u32 = 12;

/** Bytes that `compile` needs for `n` patterns. */
export function compiledSize(n: u32): u32 {
  return 260 + n * COMPILED_ROW;
}

export function compile(patterns: Pattern[], to: usize): void {
  memory.fill(to, 0, 256);
  store<u32>(to, patterns.length, 256);
  for (let i = 0; i < patterns.length; i++) {
    const pattern = patterns[i];
    const row = to + 260 + (i as u32) * COMPILED_ROW;
    store<u32>(row, changetype<usize>(pattern) as u32);
    store<u32>(row, pattern.text.size, 4);
    store<u32>(row, pattern.head ? 2 : pattern.tail ? 1 : 0, 8);
    if (pattern.head) memory.fill(to, 1, 256);
    else store<u8>(to + load<u8>(pattern.text.ptr), 1);
  }
}

function traceKind(trace: usize, name: usize, size: u32): u32 {
  const n = load<u32>(trace, 256);
  for (let i: u32 = 0; i < n; i++) {
    const row = trace + 260 + i * COMPILED_ROW;
    const ps = load<u32>(row, 4);
    const how = load<u32>(row, 8);
    if (how == 0 ? size != ps : size < ps) continue;
    const pattern = changetype<Pattern>(load<u32>(row) as usize);
    if (how == 2 ? pattern.matches(name, size) : same(name, pattern.text.ptr, ps)) return K_TRACE + i;
  }
  return K_OTHER;
}

/**
 * Parses the proxy's buffer. False when it is not a well-formed pair list: then touch nothing.
 * `trace` is what `compile` made of trace.headers.
 */
export function parse(ptr: usize, size: u32, trace: usize, transactionHeader: Text): bool {
  reset();
  if (size < 4) return false;
  const n = load<u32>(ptr);
  if (n > PAIRS_MAX || (n as u64) * 8 + 4 > (size as u64)) return false;
  const end = ptr + size;
  let sizes = ptr + 4;
  let data = ptr + 4 + n * 8;
  let rank: u32 = 0; // highest trace position so far
  let plainSeen = false;
  const custom = transactionHeader.size > 0;
  let total: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const ns = load<u32>(sizes);
    const vs = load<u32>(sizes, 4);
    sizes += 8;
    if ((data as u64) + (ns as u64) + (vs as u64) + 2 > (end as u64)) return false;
    const name = data;
    const value = data + ns + 1;
    data = value + vs + 1;
    total += ns + vs;
    const row = TABLE + (i as usize) * ROW;
    store<u32>(row, name as u32);
    store<u32>(row, ns, 4);
    store<u32>(row, value as u32, 8);
    store<u32>(row, vs, 12);
    const c = ns > 0 ? load<u8>(name) : 0;
    let k = K_OTHER;
    if (c == 0x3a) {
      k = K_PSEUDO;
      pseudo(i, name, ns);
      if (iAuthority != i) lineBytes += ns + vs;
    } else if (ns > 1) {
      k = classify(i, name, ns, c);
      if (k == K_OTHER && load<u8>(trace + c) != 0) k = traceKind(trace, name, ns);
      if (custom && iTransaction < 0 && transactionHeader.is(name, ns)) iTransaction = i;
    }
    store<u32>(row, k, 16);
    if (k >= K_TRACE) {
      if (plainSeen || k < rank) disordered = true;
      rank = k;
    } else if (k != K_PSEUDO) plainSeen = true;
  }
  count = n;
  bytes = total;
  return true;
}

function reset(): void {
  count = 0; bytes = 0; lineBytes = 0; stampCount = 0; ownCount = 0; hostileCount = 0; disordered = false;
  iMethod = -1; iPath = -1; iAuthority = -1; iStatus = -1; iRequestId = -1; iContentType = -1; iUserAgent = -1; iUpgrade = -1;
  iAttempt = -1; iOrca = -1; iTraceparent = -1; iB3 = -1; iXB3Trace = -1; iXB3Span = -1; iUber = -1; iSw8 = -1;
  iCloud = -1; iDatadog = -1; iDatadogParent = -1; iTransaction = -1; iCuid = -1; iMpStatus = -1; iMpProgress = -1; iMpRollback = -1;
}

function pseudo(i: i32, name: usize, size: u32): void {
  if (size == 5) {
    if (T_PATH.is(name, size)) iPath = i;
  } else if (size == 7) {
    if (T_METHOD.is(name, size)) iMethod = i;
    else if (T_STATUS.is(name, size)) iStatus = i;
  } else if (T_AUTHORITY.is(name, size)) iAuthority = i;
}

/** Notes known names; returns K_OWN, K_HOSTILE or K_OTHER. Of repeated fields the first is noted. */
function classify(i: i32, name: usize, size: u32, c: u8): u32 {
  switch (size) {
    case 2: if (iB3 < 0 && load<u16>(name) == 0x3362) iB3 = i; break;
    case 3: if (iSw8 < 0 && load<u16>(name) == 0x7773 && load<u8>(name, 2) == 0x38) iSw8 = i; break;
    case 6: return c == 0x78 ? own(i, name, T_CUID) : K_OTHER;
    case 7: if (iUpgrade < 0 && T_UPGRADE.is(name, size)) iUpgrade = i; break;
    case 10: if (iUserAgent < 0 && T_USER_AGENT.is(name, size)) iUserAgent = i; break;
    case 11:
      if (c == 0x74) { if (T_TRACEPARENT.is(name, size)) iTraceparent = iTraceparent == -1 ? i : REPEATED; }
      else if (c == 0x78) {
        if (iXB3Span < 0 && T_X_B3_SPANID.is(name, size)) iXB3Span = i;
        else return own(i, name, T_MP_STATUS);
      }
      break;
    case 12:
      if (c == 0x78) {
        if (iRequestId < 0 && T_REQUEST_ID.is(name, size)) iRequestId = i;
        else if (iXB3Trace < 0 && T_X_B3_TRACEID.is(name, size)) iXB3Trace = i;
      } else if (c == 0x63 && iContentType < 0 && T_CONTENT_TYPE.is(name, size)) iContentType = i;
      break;
    case 13:
      if (c == 0x78) {
        const k = own(i, name, T_MP_PROGRESS);
        return k != K_OTHER ? k : own(i, name, T_MP_ROLLBACK);
      }
      if (iUber < 0 && T_UBER.is(name, size)) iUber = i;
      break;
    case 18: if (iDatadog < 0 && T_DATADOG.is(name, size)) iDatadog = i; break;
    case 19: if (iDatadogParent < 0 && T_DATADOG_PARENT.is(name, size)) iDatadogParent = i; break;
    case 21:
      if (c == 0x78) {
        if (iCloud < 0 && T_CLOUD.is(name, size)) iCloud = i;
        else if (iAttempt < 0 && T_ATTEMPT.is(name, size)) iAttempt = i;
      } else if (iOrca < 0 && T_ORCA.is(name, size)) iOrca = i;
      break;
    default: break;
  }
  return K_OTHER;
}

function own(i: i32, name: usize, text: Text): u32 {
  let twin = false;
  for (let j: u32 = 0; j < text.size; j++) {
    const a = load<u8>(name + j);
    const b = load<u8>(text.ptr + j);
    if (a == b) continue;
    if (b == 0x2d && a == 0x5f) twin = true;
    else return K_OTHER;
  }
  ownCount++;
  let known = -1;
  if (text === T_CUID) known = iCuid;
  else if (text === T_MP_STATUS) known = iMpStatus;
  else if (text === T_MP_PROGRESS) known = iMpProgress;
  else known = iMpRollback;
  if (twin || known >= 0) {
    hostileCount++;
    return K_HOSTILE;
  }
  if (text === T_CUID) iCuid = i;
  else if (text === T_MP_STATUS) iMpStatus = i;
  else if (text === T_MP_PROGRESS) iMpProgress = i;
  else iMpRollback = i;
  return K_OWN;
}

/** Position of the first field of that name in whatever case, or -1. `name` is lower case. */
export function indexOf(name: usize, size: u32): i32 {
  for (let i: u32 = 0; i < count; i++) if (nameSize(i) == size && alike(namePtr(i), name, size)) return i;
  return -1;
}

/** Position of the first field that is neither pseudo header nor trace context; `count` when there is none. */
export function firstPlain(): i32 {
  let i: u32 = 0;
  while (i < count && (kind(i) == K_PSEUDO || kind(i) >= K_TRACE)) i++;
  return i as i32;
}

function alike(a: usize, b: usize, size: u32): bool {
  for (let i: u32 = 0; i < size; i++) {
    const c = load<u8>(a + i);
    if ((c >= 65 && c <= 90 ? c | 0x20 : c) != load<u8>(b + i)) return false;
  }
  return true;
}

/**
 * Adds an empty trace header, to be moved to its place by `write`. `name` is followed by two NULs. False
 * when trace.headers does not have it.
 */
export function addTrace(trace: usize, name: usize, size: u32): bool {
  const k = count < PAIRS_MAX ? traceKind(trace, name, size) : K_OTHER;
  if (k == K_OTHER) return false;
  const row = TABLE + (count as usize) * ROW;
  store<u32>(row, name as u32);
  store<u32>(row, size, 4);
  store<u32>(row, (name + size + 1) as u32, 8);
  store<u32>(row, 0, 12);
  store<u32>(row, k, 16);
  count++;
  bytes += size;
  disordered = true;
  return true;
}

/** Adds a header to what `write` appends. */
export function stamp(name: Text, value: usize, size: u32): void {
  if (stampCount >= STAMPS_MAX || size == 0) return;
  const at = STAMPS + stampCount * 16;
  store<u32>(at, name.ptr as u32);
  store<u32>(at, name.size, 4);
  store<u32>(at, value as u32, 8);
  store<u32>(at, size, 12);
  stampCount++;
}

export function stampsPending(): u32 {
  return stampCount;
}

export function stampAt(i: u32): usize {
  return STAMPS + i * 16;
}

export function clearStamps(): void {
  stampCount = 0;
}

/** What Envoy's router adds behind a downstream filter: attempt count, expected timeout, original path, trace context. */
const ROUTER_FIELDS: u32 = 8;
const ROUTER_BYTES: u32 = 400;
/** `:authority` is longer than `host`, bytes. */
const AUTHORITY_BYTES: u32 = 6;
/** Request line beside the pseudo headers' bytes. */
const LINE_BYTES: u32 = 16;

/**
 * Could the pending stamps push the request past 100 fields or across a usual size limit? Servers count
 * names and values with or without `: ` and CRLF, and the request line or not, and with `later` the router still adds its own, so
 * the answer is yes when a limit lies anywhere between the least and the most.
 */
export function stampsBreak(later: bool): bool {
  if (count + stampCount + (later ? ROUTER_FIELDS : 0) > FIELDS_MAX) return true;
  let added: u32 = 0;
  for (let i: u32 = 0; i < stampCount; i++) added += load<u32>(STAMPS + i * 16, 4) + load<u32>(STAMPS + i * 16, 12);
  const most = bytes + added + (count + stampCount) * 4 + LINE_BYTES + (later ? ROUTER_BYTES : 0);
  for (let l = 0; l < 4; l++) {
    const limit = unchecked(LIMITS[l]);
    if (bytes - lineBytes <= limit + AUTHORITY_BYTES && most > limit) return true;
  }
  return false;
}

export let outPtr: usize = 0;
export let outSize: u32 = 0;

/**
 * Writes the map anew: pseudo headers, trace context in its order, all others as they were, stamps.
 * `dropOwn` leaves out every own name, `dropHostile` twins and repeats; `move` orders trace context.
 * False when the arena has no room.
 */
export function write(move: bool, dropOwn: bool, dropHostile: bool): bool {
  let n: u32 = 0;
  let size: u32 = 4;
  let traced: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const k = kind(i);
    if ((k == K_OWN && dropOwn) || (k == K_HOSTILE && (dropHostile || dropOwn))) continue;
    if (move && k != K_PSEUDO) {
      if (k >= K_TRACE) traced++;
      continue;
    }
    size += put(n++, i);
  }
  if (move) {
    // Selection by position in trace.headers; there are few, and most often one pass finds them all.
    let rank: u32 = K_TRACE;
    while (traced > 0) {
      let next: u32 = u32.MAX_VALUE;
      for (let i: u32 = 0; i < count; i++) {
        const k = kind(i);
        if (k == rank) {
          size += put(n++, i);
          traced--;
        } else if (k > rank && k < next) next = k;
      }
      rank = next;
    }
    for (let i: u32 = 0; i < count; i++) {
      const k = kind(i);
      if (k == K_PSEUDO || k >= K_TRACE) continue;
      if ((k == K_OWN && dropOwn) || (k == K_HOSTILE && (dropHostile || dropOwn))) continue;
      size += put(n++, i);
    }
  }
  for (let i: u32 = 0; i < stampCount; i++) size += 10 + load<u32>(STAMPS + i * 16, 4) + load<u32>(STAMPS + i * 16, 12);
  const out = scratch(size);
  if (out == 0) return false;
  store<u32>(out, n + stampCount);
  let sizes = out + 4;
  let data = sizes + (n + stampCount) * 8;
  // Name, NUL, value and NUL lie together in the proxy's buffer, and so do neighbouring fields: what
  // stays together is copied together.
  let from: usize = 0;
  let run: u32 = 0;
  for (let j: u32 = 0; j < n; j++) {
    const row = TABLE + (load<u16>(ORDER + j * 2) as usize) * ROW;
    const ns = load<u32>(row, 4);
    const vs = load<u32>(row, 12);
    store<u32>(sizes, ns);
    store<u32>(sizes, vs, 4);
    sizes += 8;
    const name = load<u32>(row) as usize;
    if (name == from + run) run += ns + vs + 2;
    else {
      data = copy(data, from, run);
      from = name;
      run = ns + vs + 2;
    }
  }
  data = copy(data, from, run);
  for (let j: u32 = 0; j < stampCount; j++) {
    const at = STAMPS + j * 16;
    const ns = load<u32>(at, 4);
    const vs = load<u32>(at, 12);
    store<u32>(sizes, ns);
    store<u32>(sizes, vs, 4);
    sizes += 8;
    copy(data, load<u32>(at), ns);
    store<u8>(data + ns, 0);
    copy(data + ns + 1, load<u32>(at, 8), vs);
    store<u8>(data + ns + 1 + vs, 0);
    data += ns + vs + 2;
  }
  outPtr = out;
  outSize = size;
  return true;
}

// @ts-ignore: decorator
@inline
function put(n: u32, i: u32): u32 {
  store<u16>(ORDER + n * 2, i as u16);
  return nameSize(i) + valueSize(i) + 10;
}

/** Marks an own header to be left out by `write(…, dropHostile)`, keeping the others. */
export function dropField(i: i32): void {
  if (i >= 0 && kind(i) == K_OWN) {
    setKind(i, K_HOSTILE);
    hostileCount++;
  }
}

export function valueIs(i: i32, text: Text): bool {
  return i >= 0 && text.is(valuePtr(i), valueSize(i));
}

export function valueStarts(i: i32, text: Text): bool {
  return i >= 0 && text.starts(valuePtr(i), valueSize(i));
}
