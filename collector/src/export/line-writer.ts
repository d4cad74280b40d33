// Text written as bytes, forward. Pure. A string made of pieces costs more in garbage than in writing.

const START_BYTES = 256 * 1024;

/** Longer pieces are copied by the engine. */
const LOOPED_BYTES_MAX = 64;

/** The two hex digits of a byte, as two characters. */
const HEX = Uint16Array.from({ length: 256 }, (_, byte) => {
  const digits = byte.toString(16).padStart(2, '0');
  return digits.charCodeAt(0) | (digits.charCodeAt(1) << 8);
});

const ZERO = 48; // '0'

export class LineWriter {
  private buffer = Buffer.allocUnsafe(START_BYTES);
  private at = 0;
  /** The second that was written last, as `2026-11-21T19:00:00.`. */
  private second = Number.NaN;
  private secondText = Buffer.alloc(0);

  /** What was written, as a copy; then begins anew. */
  finish(): Buffer {
    const bytes = Buffer.from(this.buffer.subarray(0, this.at));
    this.at = 0;
    return bytes;
  }

  raw(bytes: Uint8Array): void {
    const { length } = bytes;
    this.reserve(length);
    const { buffer, at } = this;
    if (length > LOOPED_BYTES_MAX) buffer.set(bytes, at);
    else for (let i = 0; i < length; i++) buffer[at + i] = bytes[i]!;
    this.at += length;
  }

  /** A whole number of at most 16 digits. */
  decimal(value: number): void {
    let length = 1;
    for (let rest = value; rest >= 10; rest = Math.floor(rest / 10)) length += 1;
    this.digits(value, length);
  }

  /** The 16 hex digits of a 64-bit value. */
  hex64(low: number, high: number): void {
    this.reserve(16);
    this.hex32(high);
    this.hex32(low);
  }

  /** RFC 3339 with microseconds. */
  time(us: number): void {
    const whole = Math.round(us);
    const second = Math.floor(whole / 1e6);
    if (second !== this.second) {
      this.second = second;
      this.secondText = Buffer.from(`${new Date(second * 1000).toISOString().slice(0, 19)}.`);
    }
    this.raw(this.secondText);
    this.digits(whole - second * 1e6, 6);
    this.reserve(1);
    this.buffer[this.at++] = 90; // 'Z'
  }

  private digits(value: number, length: number): void {
    this.reserve(length);
    let rest = value;
    for (let i = length - 1; i >= 0; i--) {
      this.buffer[this.at + i] = ZERO + (rest % 10);
      rest = Math.floor(rest / 10);
    }
    this.at += length;
  }

  private hex32(word: number): void {
    for (let shift = 24; shift >= 0; shift -= 8) {
      const pair = HEX[(word >>> shift) & 255]!;
      this.buffer[this.at++] = pair & 255;
      this.buffer[this.at++] = pair >> 8;
    }
  }

  private reserve(bytes: number): void {
    if (this.at + bytes <= this.buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, this.at + bytes));
    this.buffer.copy(larger, 0, 0, this.at);
    this.buffer = larger;
  }
}
