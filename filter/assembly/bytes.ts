// Bytes in linear memory: the filter's request path knows no strings.

/** ASCII text as static bytes, made once when the module starts. */
export class Text {
  private readonly buffer: ArrayBuffer;
  readonly ptr: usize;
  readonly size: u32;
  constructor(text: string) {
    this.buffer = String.UTF8.encode(text);
    this.ptr = changetype<usize>(this.buffer);
    this.size = this.buffer.byteLength;
  }
  // @ts-ignore: decorator
  @inline
  is(ptr: usize, size: u32): bool {
    return size == this.size && same(ptr, this.ptr, size);
  }
  // @ts-ignore: decorator
  @inline
  starts(ptr: usize, size: u32): bool {
    return size >= this.size && same(ptr, this.ptr, this.size);
  }
}

export function same(a: usize, b: usize, size: u32): bool {
  let i: u32 = 0;
  while (i + 8 <= size) {
    if (load<u64>(a + i) != load<u64>(b + i)) return false;
    i += 8;
  }
  while (i < size) {
    if (load<u8>(a + i) != load<u8>(b + i)) return false;
    i++;
  }
  return true;
}

/** 64-bit hash of bytes, never 0. Not keyed: tables that use it are bounded, so a flood of collisions costs time, not memory. */
export function hash(ptr: usize, size: u32, seed: u64): u64 {
  let h: u64 = seed ^ (0x9e3779b97f4a7c15 + (size as u64));
  let i: u32 = 0;
  while (i + 8 <= size) {
    h = rotl<u64>((h ^ load<u64>(ptr + i)) * 0xff51afd7ed558ccd, 29);
    i += 8;
  }
  while (i < size) {
    h = (h ^ (load<u8>(ptr + i) as u64)) * 0x100000001b3;
    i++;
  }
  h ^= h >> 32;
  h *= 0xc4ceb9fe1a85ec53;
  h ^= h >> 29;
  return h == 0 ? 1 : h;
}

// @ts-ignore: decorator
@inline
export function isDigit(c: u8): bool {
  return c >= 48 && c <= 57;
}

const HEX_DIGITS: StaticArray<u8> = hexDigits();

function hexDigits(): StaticArray<u8> {
  const table = new StaticArray<u8>(256);
  for (let c = 0; c < 256; c++) {
    const l = c | 0x20;
    table[c] = c >= 48 && c <= 57 ? ((c - 48) as u8) : l >= 97 && l <= 102 ? ((l - 87) as u8) : 255;
  }
  return table;
}

/** 0..15, or 255. Lower and upper case. */
// @ts-ignore: decorator
@inline
export function hexDigit(c: u8): u8 {
  return load<u8>(changetype<usize>(HEX_DIGITS) + (c as usize));
}

export let parsed: u64 = 0;

/** 1 to 16 hex digits into `parsed`. */
export function parseHex(ptr: usize, size: u32): bool {
  if (size == 0 || size > 16) return false;
  let v: u64 = 0;
  for (let i: u32 = 0; i < size; i++) {
    const d = hexDigit(load<u8>(ptr + i));
    if (d == 255) return false;
    v = (v << 4) | (d as u64);
  }
  parsed = v;
  return true;
}

/** Decimal digits into `parsed`; false on overflow. */
export function parseDecimal(ptr: usize, size: u32): bool {
  if (size == 0 || size > 20) return false;
  let v: u64 = 0;
  for (let i: u32 = 0; i < size; i++) {
    const c = load<u8>(ptr + i);
    if (!isDigit(c)) return false;
    const d = (c - 48) as u64;
    if (v > (u64.MAX_VALUE - d) / 10) return false;
    v = v * 10 + d;
  }
  parsed = v;
  return true;
}

/** Writes 16 lower-case hex digits and returns the end. */
export function writeHex64(to: usize, value: u64): usize {
  for (let i: u32 = 0; i < 16; i++) {
    const d = ((value >> ((15 - i) * 4)) & 15) as u8;
    store<u8>(to + i, d < 10 ? 48 + d : 87 + d);
  }
  return to + 16;
}

export function writeDecimal(to: usize, value: u64): usize {
  if (value < 10) {
    store<u8>(to, 48 + (value as u8));
    return to + 1;
  }
  let digits: u32 = 0;
  let v = value;
  while (v > 0) {
    digits++;
    v /= 10;
  }
  v = value;
  let at = to + digits;
  while (v > 0) {
    at--;
    store<u8>(at, 48 + ((v % 10) as u8));
    v /= 10;
  }
  return to + digits;
}

/** Two decimals of a share: 0.42, 1. Values are clamped to 0..1. */
export function writeShare(to: usize, value: f64): usize {
  const clamped = value < 0 ? 0 : value > 1 ? 1 : value;
  const hundredths = Math.round(clamped * 100) as u32;
  if (hundredths == 100) {
    store<u8>(to, 49);
    return to + 1;
  }
  store<u8>(to, 48);
  if (hundredths == 0) return to + 1;
  store<u8>(to + 1, 46);
  store<u8>(to + 2, 48 + ((hundredths / 10) as u8));
  if (hundredths % 10 == 0) return to + 3;
  store<u8>(to + 3, 48 + ((hundredths % 10) as u8));
  return to + 4;
}

/** Copies and returns the end. Most texts here are short, and the engine's bulk copy is a call out of the VM. */
export function copy(to: usize, from: usize, size: u32): usize {
  if (size > 96) {
    memory.copy(to, from, size);
    return to + size;
  }
  let i: u32 = 0;
  while (i + 8 <= size) {
    store<u64>(to + i, load<u64>(from + i));
    i += 8;
  }
  while (i < size) {
    store<u8>(to + i, load<u8>(from + i));
    i++;
  }
  return to + size;
}

export let uuidHi: u64 = 0;
export let uuidLo: u64 = 0;

/** A lower-case UUID of 36 characters into uuidHi and uuidLo; not the nil one. */
export function parseUuid(ptr: usize, size: u32): bool {
  if (size != 36) return false;
  let hi: u64 = 0;
  let lo: u64 = 0;
  let digits: u32 = 0;
  for (let i: u32 = 0; i < 36; i++) {
    const c = load<u8>(ptr + i);
    if (i == 8 || i == 13 || i == 18 || i == 23) {
      if (c != 0x2d) return false;
      continue;
    }
    const d = hexDigit(c);
    if (d == 255 || (c >= 65 && c <= 70)) return false;
    if (digits < 16) hi = (hi << 4) | (d as u64);
    else lo = (lo << 4) | (d as u64);
    digits++;
  }
  if ((hi | lo) == 0) return false;
  uuidHi = hi;
  uuidLo = lo;
  return true;
}
