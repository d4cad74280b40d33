// Protobuf, written from its end to its beginning. Pure.
//
// A nested message begins with its length, which is known when the message is written. So the last field is written
// first: what was written since a mark is the message, and its length and tag go before it. No sizes are computed ahead,
// nothing is copied, no object is made per field.

const START_BYTES = 64 * 1024;

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

  /** Bytes of fields that were encoded before. */
  raw(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.at -= bytes.length;
    this.buffer.set(bytes, this.at);
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
