// Which business request is this? Reads the transaction key from the headers that `headers.parse`
// noted: the first valid one of the contract's list, as 16 bytes. An invalid value counts as absent.
import { hexDigit, isDigit, parsed, parseDecimal, parseHex } from '../bytes';
import * as h from './headers';
import { digestHi, digestLo, sha256 } from './sha256';

export const KEY_NONE: u32 = 0;
export const KEY_HEADER: u32 = 1;
export const KEY_TRACEPARENT: u32 = 2;
export const KEY_B3: u32 = 3;
export const KEY_X_B3: u32 = 4;
export const KEY_UBER: u32 = 5;
export const KEY_SW8: u32 = 6;
export const KEY_CLOUD: u32 = 7;
export const KEY_DATADOG: u32 = 8;
export const KEY_REQUEST_ID: u32 = 9;

/** Longest value of a textual id that is hashed, bytes. */
const TEXT_MAX: u32 = 1024;

export let source: u32 = 0;
export let keyHi: u64 = 0;
export let keyLo: u64 = 0;
/** Parent span id that came with the key; 0 = none. */
export let span: u64 = 0;
export let requestHi: u64 = 0;
export let requestLo: u64 = 0;

/** Fills source, key, span and request id from the parsed map. */
export function read(): void {
  source = KEY_NONE;
  keyHi = 0;
  keyLo = 0;
  span = 0;
  requestHi = 0;
  requestLo = 0;
  if (h.iRequestId >= 0) requestId(h.valuePtr(h.iRequestId), h.valueSize(h.iRequestId));
  context();
  if (source == KEY_NONE && (requestHi | requestLo) != 0) {
    source = KEY_REQUEST_ID;
    keyHi = requestHi;
    keyLo = requestLo;
  }
}

function context(): void {
  if (h.iTransaction >= 0 && text(h.valuePtr(h.iTransaction), h.valueSize(h.iTransaction))) { source = KEY_HEADER; return; }
  if (h.iTraceparent >= 0 && traceparent(h.valuePtr(h.iTraceparent), h.valueSize(h.iTraceparent))) { source = KEY_TRACEPARENT; return; }
  if (h.iB3 >= 0 && b3(h.valuePtr(h.iB3), h.valueSize(h.iB3))) { source = KEY_B3; return; }
  if (h.iXB3Trace >= 0 && hexKey(h.valuePtr(h.iXB3Trace), h.valueSize(h.iXB3Trace), true)) {
    source = KEY_X_B3;
    if (h.iXB3Span >= 0 && h.valueSize(h.iXB3Span) == 16 && parseHex(h.valuePtr(h.iXB3Span), 16)) span = parsed;
    return;
  }
  if (h.iUber >= 0 && uber(h.valuePtr(h.iUber), h.valueSize(h.iUber))) { source = KEY_UBER; return; }
  if (h.iSw8 >= 0 && sw8(h.valuePtr(h.iSw8), h.valueSize(h.iSw8))) { source = KEY_SW8; return; }
  if (h.iCloud >= 0 && cloud(h.valuePtr(h.iCloud), h.valueSize(h.iCloud))) { source = KEY_CLOUD; return; }
  if (h.iDatadog >= 0 && parseDecimal(h.valuePtr(h.iDatadog), h.valueSize(h.iDatadog)) && parsed != 0) {
    source = KEY_DATADOG;
    keyHi = 0;
    keyLo = parsed;
    if (h.iDatadogParent >= 0 && parseDecimal(h.valuePtr(h.iDatadogParent), h.valueSize(h.iDatadogParent))) span = parsed;
  }
}

/** W3C: 00-32hex-16hex-2hex, lower case, ids not zero; later versions may be longer. */
function traceparent(p: usize, n: u32): bool {
  if (n < 55 || load<u8>(p, 2) != 0x2d || load<u8>(p, 35) != 0x2d || load<u8>(p, 52) != 0x2d) return false;
  for (let i: u32 = 0; i < 55; i++) {
    if (i == 2 || i == 35 || i == 52) continue;
    const c = load<u8>(p + i);
    if (!isDigit(c) && !(c >= 97 && c <= 102)) return false;
  }
  const version = load<u16>(p);
  if (version == 0x6666) return false; // ff
  if (n > 55 && (version == 0x3030 || load<u8>(p, 55) != 0x2d)) return false;
  if (!hexKey(p + 3, 32, true)) return false;
  parseHex(p + 36, 16);
  if (parsed == 0) {
    keyHi = 0;
    keyLo = 0;
    return false;
  }
  span = parsed;
  return true;
}

/** trace-span[-sampled[-parent]]; a lone sampling decision carries no key. */
function b3(p: usize, n: u32): bool {
  let dash: u32 = 0;
  while (dash < n && load<u8>(p + dash) != 0x2d) dash++;
  if (dash + 17 > n || (dash + 17 < n && load<u8>(p + dash + 17) != 0x2d)) return false;
  if (!parseHex(p + dash + 1, 16)) return false;
  const spanId = parsed;
  if (spanId == 0 || !hexKey(p, dash, true)) return false;
  span = spanId;
  return true;
}

/** 16 or 32 hex digits; with `exact` no other length. All zero is no key. */
function hexKey(p: usize, n: u32, exact: bool): bool {
  if (exact ? n != 16 && n != 32 : n == 0 || n > 32) return false;
  let hi: u64 = 0;
  const high = n > 16 ? n - 16 : 0;
  if (high > 0) {
    if (!parseHex(p, high)) return false;
    hi = parsed;
  }
  if (!parseHex(p + high, n - high)) return false;
  if ((hi | parsed) == 0) return false;
  keyHi = hi;
  keyLo = parsed;
  return true;
}

/** trace:span:parent:flags; some clients percent-encode the colons. */
function uber(p: usize, n: u32): bool {
  let i: u32 = 0;
  while (i < n && hexDigit(load<u8>(p + i)) != 255) i++;
  const encoded = i + 3 <= n && load<u8>(p + i) == 0x25 && load<u8>(p + i + 1) == 0x33 && (load<u8>(p + i + 2) | 0x20) == 0x61;
  if (!encoded && (i >= n || load<u8>(p + i) != 0x3a)) return false;
  if (!hexKey(p, i, false)) return false;
  const start = i + (encoded ? 3 : 1);
  let e = start;
  while (e < n && hexDigit(load<u8>(p + e)) != 255) e++;
  if (parseHex(p + start, e - start)) span = parsed;
  return true;
}

/** 1-<trace id, base64>-...: the id is a text, so its hash is the key. */
function sw8(p: usize, n: u32): bool {
  if (n < 4 || load<u8>(p, 1) != 0x2d) return false;
  let e: u32 = 2;
  while (e < n && load<u8>(p + e) != 0x2d) e++;
  if (e >= n) return false;
  return text(p + 2, e - 2);
}

/** 32hex/decimal;o=1 */
function cloud(p: usize, n: u32): bool {
  if (n < 32 || (n > 32 && load<u8>(p, 32) != 0x2f && load<u8>(p, 32) != 0x3b)) return false;
  if (!hexKey(p, 32, true)) return false;
  if (n > 33 && load<u8>(p, 32) == 0x2f) {
    let e: u32 = 33;
    while (e < n && isDigit(load<u8>(p + e))) e++;
    if (parseDecimal(p + 33, e - 33)) span = parsed;
  }
  return true;
}

function text(p: usize, n: u32): bool {
  if (n == 0 || n > TEXT_MAX) return false;
  sha256(p, n);
  keyHi = digestHi;
  keyLo = digestLo;
  return true;
}

/** A UUID's 32 digits, else the hash of the text. */
function requestId(p: usize, n: u32): void {
  if (n == 36 && load<u8>(p, 8) == 0x2d && load<u8>(p, 13) == 0x2d && load<u8>(p, 18) == 0x2d && load<u8>(p, 23) == 0x2d) {
    let hi: u64 = 0;
    let lo: u64 = 0;
    let digits: u32 = 0;
    let fine = true;
    for (let i: u32 = 0; i < 36; i++) {
      if (i == 8 || i == 13 || i == 18 || i == 23) continue;
      const d = hexDigit(load<u8>(p + i));
      if (d == 255) {
        fine = false;
        break;
      }
      if (digits < 16) hi = (hi << 4) | (d as u64);
      else lo = (lo << 4) | (d as u64);
      digits++;
    }
    if (fine) {
      requestHi = hi;
      requestLo = lo;
      return;
    }
  }
  if (n == 0 || n > TEXT_MAX) return;
  sha256(p, n);
  requestHi = digestHi;
  requestLo = digestLo;
}
