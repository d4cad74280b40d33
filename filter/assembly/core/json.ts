// A tolerant JSON reader for pluginConfig: flat, bounded, no recursion into what it does not need.
// It reports each leaf with its dotted path; `{"collector":{"cluster":"c"}}` and
// `{"collector.cluster":"c"}` are the same. Bounds: nesting 8, path 128 bytes, string 4096 bytes.
import { hexDigit, isDigit } from '../bytes';

export const JSON_STRING: i32 = 1;
export const JSON_NUMBER: i32 = 2;
export const JSON_BOOL: i32 = 3;
export const JSON_NULL: i32 = 4;
/** A value that is too deep, too long, or an object inside an array. */
export const JSON_OTHER: i32 = 5;
/** An object was opened; its members follow with longer paths. */
export const JSON_OBJECT: i32 = 7;
/** An array was opened; its items follow as leaves of the same path with `inArray`. */
export const JSON_ARRAY: i32 = 6;

const DEPTH_MAX: i32 = 8;
const PATH_MAX: u32 = 128;
const STRING_MAX: u32 = 4096;

const PATH: usize = memory.data(128, 8);
const STRING: usize = memory.data(4096, 8);

export abstract class JsonSink {
  abstract leaf(path: usize, pathSize: u32, kind: i32, ptr: usize, size: u32, inArray: bool): void;
}

let at: usize = 0;
let end: usize = 0;
let pathSize: u32 = 0;
let stringSize: u32 = 0;
let stringCut: bool = false;

/** False when the text is not one JSON object. Leaves seen before the fault have been reported. */
export function readJson(ptr: usize, size: u32, sink: JsonSink): bool {
  at = ptr;
  end = ptr + size;
  pathSize = 0;
  space();
  if (at >= end || load<u8>(at) != 0x7b) return false;
  if (!object(sink, 1)) return false;
  space();
  return at == end;
}

function space(): void {
  while (at < end) {
    const c = load<u8>(at);
    if (c != 32 && c != 10 && c != 13 && c != 9) return;
    at++;
  }
}

function object(sink: JsonSink, depth: i32): bool {
  at++; // {
  space();
  if (at < end && load<u8>(at) == 0x7d) {
    at++;
    return true;
  }
  while (at < end) {
    if (load<u8>(at) != 0x22 || !string()) return false;
    const saved = pathSize;
    push();
    space();
    if (at >= end || load<u8>(at) != 0x3a) return false;
    at++;
    if (!value(sink, depth, false)) return false;
    pathSize = saved;
    space();
    if (at >= end) return false;
    const c = load<u8>(at++);
    if (c == 0x7d) return true;
    if (c != 0x2c) return false;
    space();
  }
  return false;
}

function push(): void {
  if (pathSize > 0 && pathSize < PATH_MAX) store<u8>(PATH + pathSize++, 46);
  const room = PATH_MAX - pathSize;
  const n = stringSize < room ? stringSize : room;
  memory.copy(PATH + pathSize, STRING, n);
  pathSize += n;
}

function value(sink: JsonSink, depth: i32, inArray: bool): bool {
  space();
  if (at >= end) return false;
  const c = load<u8>(at);
  if (c == 0x22) {
    if (!string()) return false;
    sink.leaf(PATH, pathSize, stringCut ? JSON_OTHER : JSON_STRING, STRING, stringSize, inArray);
    return true;
  }
  if (c == 0x7b || c == 0x5b) {
    if (inArray || depth >= DEPTH_MAX) {
      const start = at;
      if (!skip()) return false;
      sink.leaf(PATH, pathSize, JSON_OTHER, start, (at - start) as u32, inArray);
      return true;
    }
    if (c == 0x7b) {
      sink.leaf(PATH, pathSize, JSON_OBJECT, 0, 0, false);
      return object(sink, depth + 1);
    }
    return array(sink, depth + 1);
  }
  const start = at;
  while (at < end) {
    const d = load<u8>(at);
    if (d == 0x2c || d == 0x7d || d == 0x5d || d <= 32) break;
    at++;
  }
  const size = (at - start) as u32;
  if (size == 4 && load<u32>(start) == 0x65757274) { sink.leaf(PATH, pathSize, JSON_BOOL, start, 4, inArray); return true; }
  if (size == 5 && load<u32>(start) == 0x736c6166 && load<u8>(start, 4) == 0x65) { sink.leaf(PATH, pathSize, JSON_BOOL, start, 5, inArray); return true; }
  if (size == 4 && load<u32>(start) == 0x6c6c756e) { sink.leaf(PATH, pathSize, JSON_NULL, start, 4, inArray); return true; }
  if (!isNumber(start, size)) return false;
  sink.leaf(PATH, pathSize, JSON_NUMBER, start, size, inArray);
  return true;
}

function array(sink: JsonSink, depth: i32): bool {
  at++; // [
  sink.leaf(PATH, pathSize, JSON_ARRAY, 0, 0, false);
  space();
  if (at < end && load<u8>(at) == 0x5d) {
    at++;
    return true;
  }
  while (at < end) {
    if (!value(sink, depth, true)) return false;
    space();
    if (at >= end) return false;
    const c = load<u8>(at++);
    if (c == 0x5d) return true;
    if (c != 0x2c) return false;
  }
  return false;
}

/** Past one object or array, whatever its depth. */
function skip(): bool {
  let depth: u32 = 0;
  while (at < end) {
    const c = load<u8>(at);
    if (c == 0x22) {
      if (!string()) return false;
      continue;
    }
    at++;
    if (c == 0x7b || c == 0x5b) depth++;
    else if (c == 0x7d || c == 0x5d) {
      depth--;
      if (depth == 0) return true;
    }
  }
  return false;
}

/** Reads a string at `at` into STRING; escapes are resolved, what is too long is cut and marked. */
function string(): bool {
  at++;
  stringSize = 0;
  stringCut = false;
  while (at < end) {
    let c = load<u8>(at++);
    if (c == 0x22) return true;
    if (c < 32) return false;
    if (c == 0x5c) {
      if (at >= end) return false;
      c = load<u8>(at++);
      if (c == 0x75) {
        if (end - at < 4) return false;
        let code: u32 = 0;
        for (let i: usize = 0; i < 4; i++) {
          const d = hexDigit(load<u8>(at + i));
          if (d == 255) return false;
          code = (code << 4) | d;
        }
        at += 4;
        putUtf8(code);
        continue;
      }
      if (c == 0x6e) c = 10;
      else if (c == 0x74) c = 9;
      else if (c == 0x72) c = 13;
      else if (c == 0x62) c = 8;
      else if (c == 0x66) c = 12;
      else if (c != 0x22 && c != 0x5c && c != 0x2f) return false;
    }
    put(c);
  }
  return false;
}

function put(c: u8): void {
  if (stringSize >= STRING_MAX) {
    stringCut = true;
    return;
  }
  store<u8>(STRING + stringSize++, c);
}

function putUtf8(code: u32): void {
  if (code < 0x80) put(code as u8);
  else if (code < 0x800) {
    put((0xc0 | (code >> 6)) as u8);
    put((0x80 | (code & 63)) as u8);
  } else {
    put((0xe0 | (code >> 12)) as u8);
    put((0x80 | ((code >> 6) & 63)) as u8);
    put((0x80 | (code & 63)) as u8);
  }
}

function isNumber(ptr: usize, size: u32): bool {
  let i: u32 = 0;
  if (i < size && load<u8>(ptr) == 0x2d) i++;
  let digits: u32 = 0;
  while (i < size && isDigit(load<u8>(ptr + i))) { i++; digits++; }
  if (digits == 0) return false;
  if (i < size && load<u8>(ptr + i) == 0x2e) {
    i++;
    digits = 0;
    while (i < size && isDigit(load<u8>(ptr + i))) { i++; digits++; }
    if (digits == 0) return false;
  }
  if (i < size && (load<u8>(ptr + i) | 0x20) == 0x65) {
    i++;
    if (i < size && (load<u8>(ptr + i) == 0x2d || load<u8>(ptr + i) == 0x2b)) i++;
    digits = 0;
    while (i < size && isDigit(load<u8>(ptr + i))) { i++; digits++; }
    if (digits == 0) return false;
  }
  return i == size;
}

/** Value of a number leaf; exact for integers up to 2^53. */
export function numberOf(ptr: usize, size: u32): f64 {
  let i: u32 = 0;
  const negative = load<u8>(ptr) == 0x2d;
  if (negative) i++;
  let v: f64 = 0;
  while (i < size && isDigit(load<u8>(ptr + i))) v = v * 10 + ((load<u8>(ptr + i++) - 48) as f64);
  if (i < size && load<u8>(ptr + i) == 0x2e) {
    i++;
    let unit: f64 = 0.1;
    while (i < size && isDigit(load<u8>(ptr + i))) {
      v += ((load<u8>(ptr + i++) - 48) as f64) * unit;
      unit /= 10;
    }
  }
  if (i < size) {
    i++; // e
    let down = false;
    if (load<u8>(ptr + i) == 0x2d) { down = true; i++; } else if (load<u8>(ptr + i) == 0x2b) i++;
    let e = 0;
    while (i < size && e < 400) e = e * 10 + ((load<u8>(ptr + i++) - 48) as i32);
    for (let k = 0; k < e; k++) v = down ? v / 10 : v * 10;
  }
  return negative ? -v : v;
}
