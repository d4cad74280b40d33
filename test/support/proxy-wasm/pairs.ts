/**
 * The buffer in which header maps and property maps cross the border.
 *
 *     u32 count | count x (u32 name length, u32 value length) | count x (name NUL value NUL)
 *
 * Little-endian. A buffer that breaks any rule is read as *no pairs*, not as an error: a set call then
 * removes every header.
 */
import { PAIRS_BYTES_MAX, PAIRS_COUNT_MAX } from './abi.js';
import { textOf } from './bytes.js';

/** Name and value, byte strings. */
export type Pair = readonly [name: string, value: string];

const WORD = 4;

export function encodedPairsSize(pairs: readonly Pair[]): number {
  let size = WORD;
  for (const [name, value] of pairs) size += 2 * WORD + name.length + 1 + value.length + 1;
  return size;
}

/** Writes into `target`, which must have `encodedPairsSize(pairs)` bytes. */
export function encodePairsInto(pairs: readonly Pair[], target: Buffer): void {
  target.writeUInt32LE(pairs.length, 0);
  let sizes = WORD;
  let data = WORD + pairs.length * 2 * WORD;
  for (const [name, value] of pairs) {
    target.writeUInt32LE(name.length, sizes);
    target.writeUInt32LE(value.length, sizes + WORD);
    sizes += 2 * WORD;
    data += target.write(name, data, 'latin1');
    target[data++] = 0;
    data += target.write(value, data, 'latin1');
    target[data++] = 0;
  }
}

export function encodePairs(pairs: readonly Pair[]): Buffer {
  const target = Buffer.alloc(encodedPairsSize(pairs));
  encodePairsInto(pairs, target);
  return target;
}

/** @returns the pairs, or `undefined` where the host would silently read an empty list. */
export function decodePairs(source: Uint8Array): Pair[] | undefined {
  const size = source.byteLength;
  if (size > PAIRS_BYTES_MAX || size < WORD) return undefined;
  const buffer = Buffer.from(source.buffer, source.byteOffset, size);
  const count = buffer.readUInt32LE(0);
  if (count > PAIRS_COUNT_MAX || WORD + count * 2 * WORD > size) return undefined;
  const pairs: Pair[] = [];
  let at = WORD + count * 2 * WORD;
  const text = (length: number): string | undefined => {
    const end = at + length;
    if (end + 1 > size || buffer[end] !== 0) return undefined;
    const value = buffer.toString('latin1', at, end);
    at = end + 1;
    return value;
  };
  for (let i = 0; i < count; i++) {
    const name = text(buffer.readUInt32LE(WORD + i * 2 * WORD));
    if (name === undefined) return undefined;
    const value = text(buffer.readUInt32LE(2 * WORD + i * 2 * WORD));
    if (value === undefined) return undefined;
    pairs.push([name, value]);
  }
  return at === size ? pairs : undefined;
}

/** Pairs of texts that may hold characters above 255 (JavaScript strings), as UTF-8 byte strings. */
export function utf8Pairs(headers: Readonly<Record<string, string>>): Pair[] {
  const bytes = (text: string): string => textOf(Buffer.from(text, 'utf8'));
  return Object.entries(headers).map(([name, value]) => [bytes(name), bytes(value)]);
}
