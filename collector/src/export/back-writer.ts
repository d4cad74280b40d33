// Protobuf, written from its end to its beginning. Pure.
//
// A nested message begins with its length, which is known when the message is written. So the last field is written
// first: what was written since a mark is the message, and its length and tag go before it. No sizes are computed ahead,
// nothing is copied, no object is made per field.

const START_BYTES = 64 * 1024;

/** Longer pieces are copied by the engine. */
const LOOPED_BYTES_MAX = 64;

/** The two hex digits of a byte, as two characters. */
const HEX = Uint16Array.from({ length: 256 }, (_, byte) => {
  const digits = byte.toString(16).padStart(2, '0');
  return (digits.charCodeAt(0) << 8) | digits.charCodeAt(1);
});

export class BackWriter {
  private buffer = Buffer.allocUnsafe(START_BYTES);
  /** The first byte that is written. */
  private at = START_BYTES;

  /** Bytes written so far; also a mark for `message`. */
  get size(): number {
    return this.buffer.length - this.at;
  }

  /** What was written, as a copy. */
  finish(): Buffer {
    return Buffer.from(this.buffer.subarray(this.at));
  }

  clear(): void {
    this.at = this.buffer.length;
  }

  /** Makes what was written since `mark` a length-delimited field. */
  message(field: number, mark: number): void {
    this.varint(this.size - mark);
    this.varint((field << 3) | 2);
  }

  bytes(field: number, bytes: Uint8Array): void {
    const mark = this.size;
    this.raw(bytes);
    this.message(field, mark);
  }

  string(field: number, text: string): void {
    const mark = this.size;
    const length = Buffer.byteLength(text);
    this.reserve(length);
    this.at -= length;
    this.buffer.write(text, this.at, 'utf8');
    this.message(field, mark);
  }

  /** @param value whole, 0 to 2^53-1 */
  number(field: number, value: number): void {
    this.varint(value);
    this.varint(field << 3);
  }

  /** @param low, high words of the value */
  fixed64(field: number, low: number, high: number): void {
    this.reserve(8);
    this.at -= 8;
    this.buffer.writeUInt32LE(low >>> 0, this.at);
    this.buffer.writeUInt32LE(high >>> 0, this.at + 4);
    this.varint((field << 3) | 1);
  }

  /** Bytes of fields that were encoded before. Most are short, and a loop is faster for these than a call. */
  raw(bytes: Uint8Array): void {
    const { length } = bytes;
    this.reserve(length);
    this.at -= length;
    const { buffer, at } = this;
    if (length > LOOPED_BYTES_MAX) buffer.set(bytes, at);
    else for (let i = 0; i < length; i++) buffer[at + i] = bytes[i]!;
  }

  /** The 16 hex digits of a 64-bit value, as text without a length: `message` gives it one. */
  hex64(low: number, high: number): void {
    this.reserve(16);
    this.at -= 16;
    this.hexAt(this.at, high);
    this.hexAt(this.at + 8, low);
  }

  /** The digits of a whole number, as text without a length. */
  decimal(value: number): void {
    this.reserve(16);
    let rest = value;
    do {
      this.buffer[--this.at] = 48 + (rest % 10);
      rest = Math.floor(rest / 10);
    } while (rest > 0);
  }

  /** The 8 bytes of a 64-bit value, most significant first. */
  big64(low: number, high: number): void {
    this.reserve(8);
    this.at -= 8;
    this.buffer.writeUInt32BE(high, this.at);
    this.buffer.writeUInt32BE(low, this.at + 4);
  }

  private hexAt(at: number, word: number): void {
    for (let i = 0; i < 4; i++) {
      const pair = HEX[(word >>> (24 - 8 * i)) & 255]!;
      this.buffer[at + 2 * i] = pair >> 8;
      this.buffer[at + 2 * i + 1] = pair & 255;
    }
  }

  /** @param value whole, 0 to 2^53-1 */
  private varint(value: number): void {
    this.reserve(8);
    let length = 1;
    for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) length += 1;
    this.at -= length;
    let rest = value;
    for (let i = 0; i < length; i++) {
      this.buffer[this.at + i] = (rest % 128) | (i < length - 1 ? 128 : 0);
      rest = Math.floor(rest / 128);
    }
  }

  private reserve(bytes: number): void {
    if (bytes <= this.at) return;
    const { size } = this;
    const larger = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, size + bytes + START_BYTES));
    this.buffer.copy(larger, larger.length - size, this.at);
    this.at = larger.length - size;
    this.buffer = larger;
  }
}
