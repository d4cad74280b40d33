// Protobuf wire format, read by hand: a bounds-checked walk over the bytes of one message.
//
// Generated code makes an object for every field of every row. Reports are columns, so almost all of
// their bytes can be taken as they lie. Whatever the bytes are, the only thing thrown is WireError.

import { hex32 } from './columns.js';

/** The bytes are not what the contract allows. `field` is a path like `batches[2].events.key_hi`. */
export class WireError extends Error {
  constructor(
    readonly field: string,
    readonly reason: string,
  ) {
    super(`${field === '' ? 'message' : field}: ${reason}`);
    this.name = 'WireError';
  }
}

export const VARINT = 0;
export const FIXED64 = 1;
export const LENGTH = 2;
export const FIXED32 = 5;

/** A 64-bit id as 16 lower-case hex digits. */
export const hexOfId = (id: bigint): string => id.toString(16).padStart(16, '0');

/** Largest 64-bit value taken as a number; sequence numbers and counts never get near it. */
const SAFE_HIGH_WORD = 0x1fffff;

/**
 * A cursor over `bytes[pos, end)`. `next()` reads a tag into `field` and `wire`; then exactly one of
 * the value readers, or `skip()`, takes the value. `path` names the message in errors.
 */
export class Reader {
  field = 0;
  wire = 0;

  constructor(
    readonly bytes: Buffer,
    private pos: number,
    readonly end: number,
    readonly path: string,
  ) {}

  /** Reads the next tag; false at the end of the message. */
  next(): boolean {
    if (this.pos >= this.end) return false;
    const tag = this.varint32('tag');
    this.field = tag >>> 3;
    this.wire = tag & 7;
    if (this.field === 0) throw this.error('tag', 'field number 0');
    return true;
  }

  /** A uint32, bool or enum. Bits above 32 are cut off, as generated code does. */
  uint32(name: string): number {
    this.expect(VARINT, name);
    return this.varint32(name);
  }

  /** A uint64 that must fit a double exactly, 0 to 2^53-1. */
  uint64(name: string): number {
    this.expect(VARINT, name);
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.byte(name);
      const bits = byte & 0x7f;
      if (shift < 28) low += bits * 2 ** shift;
      else high += bits * 2 ** (shift - 28);
      if (byte < 0x80) {
        const value = low + high * 2 ** 28;
        if (!Number.isSafeInteger(value)) throw this.error(name, 'is above 2^53-1');
        return value;
      }
    }
    throw this.error(name, 'is a varint longer than 10 bytes');
  }

  /** A fixed64 that must fit a double exactly, 0 to 2^53-1: times in us since 1970. */
  fixed64(name: string): number {
    const at = this.fixed(FIXED64, 8, name);
    const high = this.bytes.readUInt32LE(at + 4);
    if (high > SAFE_HIGH_WORD) throw this.error(name, 'is above 2^53-1');
    return high * 2 ** 32 + this.bytes.readUInt32LE(at);
  }

  /** A fixed64 of any value: random ids. */
  id64(name: string): bigint {
    return this.bytes.readBigUInt64LE(this.fixed(FIXED64, 8, name));
  }

  /** A fixed64 as 16 lower-case hex digits. */
  hex64(name: string): string {
    const at = this.fixed(FIXED64, 8, name);
    return hex32(this.bytes.readUInt32LE(at + 4)) + hex32(this.bytes.readUInt32LE(at));
  }

  double(name: string): number {
    return this.bytes.readDoubleLE(this.fixed(FIXED64, 8, name));
  }

  /** A text of at most `bytesMax` bytes. Bytes that are no UTF-8 read as U+FFFD. */
  text(name: string, bytesMax: number): string {
    const start = this.span(name);
    const length = this.pos - start;
    if (length > bytesMax) throw this.error(name, `has ${length} bytes, at most ${bytesMax} are allowed`);
    return this.bytes.toString('utf8', start, this.pos);
  }

  /** A message inside this one. */
  message(name: string): Reader {
    const start = this.span(name);
    return new Reader(this.bytes, start, this.pos, this.pathOf(name));
  }

  /** The bytes of a length-delimited value: a view, not a copy. */
  view(name: string): Buffer {
    const start = this.span(name);
    return this.bytes.subarray(start, this.pos);
  }

  /** The `width` bytes of one unpacked fixed32 or fixed64: a view, not a copy. */
  element(name: string, width: 4 | 8): Buffer {
    const at = this.fixed(width === 4 ? FIXED32 : FIXED64, width, name);
    return this.bytes.subarray(at, at + width);
  }

  /** Values of a packed or unpacked repeated uint32, appended to `into`, which holds at most `max`. */
  uint32s(name: string, into: number[], max: number): void {
    if (this.wire === LENGTH) {
      const start = this.span(name);
      const packed = new Reader(this.bytes, start, this.pos, this.path);
      while (packed.pos < packed.end) this.push(name, into, packed.varint32(name), max);
    } else {
      this.push(name, into, this.uint32(name), max);
    }
  }

  /** Passes over a field this version does not know. */
  skip(): void {
    if (this.wire === VARINT) while (this.byte(`field ${this.field}`) >= 0x80);
    else if (this.wire === FIXED64) this.fixed(FIXED64, 8, `field ${this.field}`);
    else if (this.wire === LENGTH) this.span(`field ${this.field}`);
    else if (this.wire === FIXED32) this.fixed(FIXED32, 4, `field ${this.field}`);
    else throw this.error(`field ${this.field}`, `has wire type ${this.wire}, which the contract never uses`);
  }

  error(name: string, reason: string): WireError {
    return new WireError(this.pathOf(name), reason);
  }

  private pathOf(name: string): string {
    return this.path === '' ? name : `${this.path}.${name}`;
  }

  private push(name: string, into: number[], value: number, max: number): void {
    if (into.length >= max) throw this.error(name, `has more than ${max} entries`);
    into.push(value);
  }

  private expect(wire: number, name: string): void {
    if (this.wire !== wire) throw this.error(name, `has wire type ${this.wire}, expected ${wire}`);
  }

  private byte(name: string): number {
    if (this.pos >= this.end) throw this.error(name, 'is cut short');
    return this.bytes[this.pos++]!;
  }

  private varint32(name: string): number {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.byte(name);
      if (shift < 32) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
    throw this.error(name, 'is a varint longer than 10 bytes');
  }

  private fixed(wire: number, width: number, name: string): number {
    this.expect(wire, name);
    const at = this.pos;
    if (this.end - at < width) throw this.error(name, 'is cut short');
    this.pos = at + width;
    return at;
  }

  /** Moves behind a length-delimited value and returns where it starts. */
  private span(name: string): number {
    this.expect(LENGTH, name);
    const length = this.varint32(name);
    const start = this.pos;
    if (length > this.end - start) throw this.error(name, `claims ${length} bytes where ${this.end - start} are left`);
    this.pos = start + length;
    return start;
  }
}
