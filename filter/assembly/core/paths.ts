// A path as the application behind may read it. Servers and frameworks decode, merge slashes, resolve
// dot segments, strip `;parameters` and ignore case, each in its own way: what is to stay closed is
// compared in the form in which all of these spellings are one.
import { hexDigit, Text } from '../bytes';

/** Layers of percent-encoding that are taken off: a proxy behind may decode once, and the application again. */
const DECODINGS: u32 = 3;

/** The path read last began with `//`: who resolves it as a URL takes its first segment for a host. */
export let hostFirst: bool = false;

/**
 * Writes the plain form of [from, from + size) to `to`, which has room for `size` + 1 bytes, and returns
 * its size: no query or fragment, decoded, `\` as `/`, no parameters, no empty or dot segments, lower
 * case, no `/` at the end.
 */
export function plain(from: usize, size: u32, to: usize): u32 {
  let n: u32 = 0;
  while (n < size && load<u8>(from + n) != 0x3f && load<u8>(from + n) != 0x23) n++;
  memory.copy(to, from, n);
  for (let i: u32 = 0; i < DECODINGS; i++) {
    const before = n;
    n = decode(to, n);
    if (n == before) break;
  }
  return resolve(to, n);
}

function decode(at: usize, size: u32): u32 {
  let n: u32 = 0;
  for (let i: u32 = 0; i < size; i++) {
    let c = load<u8>(at + i);
    if (c == 0x25 && i + 2 < size) {
      const high = hexDigit(load<u8>(at + i + 1));
      const low = hexDigit(load<u8>(at + i + 2));
      if (high != 255 && low != 255) {
        c = (high << 4) | low;
        i += 2;
      }
    }
    store<u8>(at + n++, c);
  }
  return n;
}

/** In place: the result is never longer than what has been read. */
function resolve(at: usize, size: u32): u32 {
  let n: u32 = 0;
  let i: u32 = 0;
  hostFirst = size > 1 && slash(load<u8>(at)) && slash(load<u8>(at + 1));
  while (i < size) {
    // One segment, without its slashes: [start, end), its parameters from `name` on.
    while (i < size && slash(load<u8>(at + i))) i++;
    const start = i;
    let name: u32 = u32.MAX_VALUE;
    while (i < size && !slash(load<u8>(at + i))) {
      const c = load<u8>(at + i);
      // Decoded by now: what an application takes for the query's or fragment's begin ends the path for it.
      if (name == u32.MAX_VALUE && (c == 0x3b || c == 0x3f || c == 0x23 || c == 0)) name = i;
      i++;
    }
    const length = (name == u32.MAX_VALUE ? i : name) - start;
    if (length == 0 || (length == 1 && load<u8>(at + start) == 0x2e)) continue;
    if (length == 2 && load<u16>(at + start) == 0x2e2e) {
      while (n > 0 && load<u8>(at + --n) != 0x2f) {}
      continue;
    }
    store<u8>(at + n++, 0x2f);
    for (let j: u32 = 0; j < length; j++) {
      const c = load<u8>(at + start + j);
      store<u8>(at + n++, c >= 65 && c <= 90 ? c | 0x20 : c);
    }
  }
  return n;
}

function slash(c: u8): bool {
  return c == 0x2f || c == 0x5c;
}

/** The plain form of a configured path, to compare with; empty for the root, which nothing can close. */
export function plainText(path: string): Text {
  const bytes = String.UTF8.encode(path);
  const to = heap.alloc(bytes.byteLength + 1);
  const text = new Text(String.UTF8.decodeUnsafe(to, plain(changetype<usize>(bytes), bytes.byteLength, to)));
  heap.free(to);
  return text;
}
