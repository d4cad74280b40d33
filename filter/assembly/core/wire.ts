// meshpulse.v1 on the wire: a small protobuf writer, the columnar event batch, and a reader for the
// collector's reply. Field numbers are those of protos/meshpulse/v1/ingest.proto.
import { copy, writeHex64 } from '../bytes';
import * as names from './names';
import * as reader from './reader';
import { digestHi, sha256 } from './sha256';

/** Rows of one batch: 10 to 25 KiB, and even with five texts of its own each within the contract's 1,024. */
export const ROWS_MAX: u32 = 200;
/** Bytes of one row record while it waits for its batch. */
export const ROW_BYTES: usize = 144;
/** Room for the largest batch: columns, and a distinct longest name for each of three columns and a CUID per row. */
const OUT_BYTES: u32 = 384 * 1024;
const OUT: usize = memory.data(393216, 16);
/** Kept free for what a sender adds behind its fragments, bytes: hello, status, a time. */
const RESERVE: u32 = 64 * 1024;

/** One event or call. Times are us; ids as in EventColumns. */
@unmanaged
export class Row {
  endUs: u64;
  keyHi: u64;
  keyLo: u64;
  requestHi: u64;
  requestLo: u64;
  event: u64;
  spanIn: u64;
  spanOut: u64;
  peerHi: u64;
  peerLo: u64;
  durationUs: u32;
  operation: u32;
  peerService: u32;
  status: u32;
  responseFlags: u32;
  flags: u32;
  waitUs: u32;
  requestBytes: u32;
  responseBytes: u32;
  weight: u32;
  details: u32;
  textAt: u32;
  textSize: u32;
}

let pos: usize = OUT;

export function start(): void {
  pos = OUT;
}
export function outPtr(): usize {
  return OUT;
}
export function outSize(): u32 {
  return (pos - OUT) as u32;
}
/** Bytes still free: what is optional asks first. */
export function room(): u32 {
  const used = (pos - OUT) as u32;
  return used + RESERVE < OUT_BYTES ? OUT_BYTES - RESERVE - used : 0;
}

export function varint(value: u64): void {
  let v = value;
  while (v >= 0x80) {
    store<u8>(pos++, (v as u8) | 0x80);
    v >>= 7;
  }
  store<u8>(pos++, v as u8);
}

export function putVarint(field: u32, value: u64): void {
  if (value == 0) return;
  always(field, value);
}

/** For `optional` fields: 0 is said. */
export function always(field: u32, value: u64): void {
  varint((field << 3) as u64);
  varint(value);
}

export function putFixed64(field: u32, value: u64): void {
  if (value == 0) return;
  varint(((field << 3) | 1) as u64);
  store<u64>(pos, value);
  pos += 8;
}

export function putDouble(field: u32, value: f64): void {
  varint(((field << 3) | 1) as u64);
  store<f64>(pos, value);
  pos += 8;
}

export function putBytes(field: u32, ptr: usize, size: u32): void {
  if (size == 0) return;
  entry(field, ptr, size);
}

function entry(field: u32, ptr: usize, size: u32): void {
  varint(((field << 3) | 2) as u64);
  varint(size);
  pos = copy(pos, ptr, size);
}

export function putText(field: u32, text: string): void {
  if (text.length == 0) return;
  const bytes = String.UTF8.encode(text);
  entry(field, changetype<usize>(bytes), bytes.byteLength);
}

/** Copies bytes that are already fields. */
export function putRaw(ptr: usize, size: u32): void {
  pos = copy(pos, ptr, size);
}

/** Opens a nested message; give the result to `close`. */
export function open(field: u32): usize {
  varint(((field << 3) | 2) as u64);
  const mark = pos;
  pos += 5;
  return mark;
}

export function close(mark: usize): void {
  const body = mark + 5;
  const size = pos - body;
  pos = mark;
  varint(size);
  memory.copy(pos, body, size);
  pos += size;
}

// The batch's string table: name ids and CUIDs, each once.

const NAME_INDEX: usize = memory.data(8192, 16); // u16 by name id: place in the table, 0 = not yet
const NAMES_USED: usize = memory.data(1536, 16); // u16 x 3 columns x ROWS_MAX
const CUIDS: usize = memory.data(4096, 16); // 16 bytes x ROWS_MAX
const CUID_INDEX: usize = memory.data(512, 16); // u16 x ROWS_MAX
const TEXT: usize = memory.data(48, 8);
let stringCount: u32 = 0;
let namesUsed: u32 = 0;
let cuidCount: u32 = 0;

function nameIndex(id: u32): u32 {
  if (id == 0) return 0;
  const known = load<u16>(NAME_INDEX + id * 2) as u32;
  if (known != 0) return known;
  entry(3, names.namePtr(id), names.nameSize(id));
  store<u16>(NAME_INDEX + id * 2, stringCount as u16);
  store<u16>(NAMES_USED + namesUsed++ * 2, id as u16);
  return stringCount++;
}

function cuidIndex(hi: u64, lo: u64): u32 {
  if ((hi | lo) == 0) return 0;
  for (let i: u32 = 0; i < cuidCount; i++) {
    if (load<u64>(CUIDS + i * 16) == hi && load<u64>(CUIDS + i * 16, 8) == lo) return load<u16>(CUID_INDEX + i * 2) as u32;
  }
  writeUuid(TEXT, hi, lo);
  entry(3, TEXT, 36);
  store<u64>(CUIDS + cuidCount * 16, hi);
  store<u64>(CUIDS + cuidCount * 16, lo, 8);
  store<u16>(CUID_INDEX + cuidCount * 2, stringCount as u16);
  cuidCount++;
  return stringCount++;
}

const HEX: usize = memory.data(32, 8);

/** 36 bytes, lower case. */
export function writeUuid(to: usize, hi: u64, lo: u64): void {
  writeHex64(HEX, hi);
  writeHex64(HEX + 16, lo);
  memory.copy(to, HEX, 8);
  store<u8>(to, 45, 8);
  memory.copy(to + 9, HEX + 8, 4);
  store<u8>(to, 45, 13);
  memory.copy(to + 14, HEX + 12, 4);
  store<u8>(to, 45, 18);
  memory.copy(to + 19, HEX + 16, 4);
  store<u8>(to, 45, 23);
  memory.copy(to + 24, HEX + 20, 12);
}

const COLUMN: usize = memory.data(6144, 16); // six u32 columns of string indexes
const C_OPERATION: usize = COLUMN;
const C_PEER: usize = COLUMN + 1024;
const C_CUID: usize = COLUMN + 2048;
const C_TEXT: usize = COLUMN + 3072;
const C_DETAILS: usize = COLUMN + 4096;
const C_END: usize = COLUMN + 5120;

/** EventColumns of `n` rows at `rows`; `texts` is where Row.textAt points into. */
export function putEvents(rows: usize, n: u32, texts: usize): void {
  stringCount = 1;
  namesUsed = 0;
  cuidCount = 0;
  const mark = open(5);
  putVarint(1, n);
  let base = u64.MAX_VALUE;
  for (let i: u32 = 0; i < n; i++) {
    const end = row(rows, i).endUs;
    if (end < base) base = end;
  }
  putFixed64(2, base);
  entry(3, 0, 0);
  for (let i: u32 = 0; i < n; i++) {
    const r = row(rows, i);
    const offset = r.endUs - base;
    store<u32>(C_END + i * 4, offset > 0xffffffff ? 0xffffffff : (offset as u32));
    store<u32>(C_OPERATION + i * 4, nameIndex(r.operation));
    store<u32>(C_PEER + i * 4, nameIndex(r.peerService));
    store<u32>(C_CUID + i * 4, cuidIndex(r.peerHi, r.peerLo));
    store<u32>(C_DETAILS + i * 4, nameIndex(r.details));
    let text: u32 = 0;
    if (r.textSize > 0) {
      entry(3, texts + r.textAt, r.textSize);
      text = stringCount++;
    }
    store<u32>(C_TEXT + i * 4, text);
  }
  column32(4, C_END, 4, n);
  column32(5, rows + offsetof<Row>('durationUs'), ROW_BYTES, n);
  column64(6, rows + offsetof<Row>('keyHi'), n);
  column64(7, rows + offsetof<Row>('keyLo'), n);
  column64(8, rows + offsetof<Row>('requestHi'), n);
  column64(9, rows + offsetof<Row>('requestLo'), n);
  column64(10, rows + offsetof<Row>('event'), n);
  column64(11, rows + offsetof<Row>('spanIn'), n);
  column64(12, rows + offsetof<Row>('spanOut'), n);
  column32(13, C_OPERATION, 4, n);
  column32(14, C_PEER, 4, n);
  column32(15, C_CUID, 4, n);
  column32(16, rows + offsetof<Row>('status'), ROW_BYTES, n);
  column32(17, rows + offsetof<Row>('responseFlags'), ROW_BYTES, n);
  column32(18, rows + offsetof<Row>('flags'), ROW_BYTES, n);
  column32(19, rows + offsetof<Row>('waitUs'), ROW_BYTES, n);
  column32(20, rows + offsetof<Row>('requestBytes'), ROW_BYTES, n);
  column32(21, rows + offsetof<Row>('responseBytes'), ROW_BYTES, n);
  column32(22, rows + offsetof<Row>('weight'), ROW_BYTES, n);
  column32(23, C_TEXT, 4, n);
  column32(24, C_DETAILS, 4, n);
  close(mark);
  for (let i: u32 = 0; i < namesUsed; i++) store<u16>(NAME_INDEX + (load<u16>(NAMES_USED + i * 2) as u32) * 2, 0);
}

// @ts-ignore: decorator
@inline
function row(rows: usize, i: u32): Row {
  return changetype<Row>(rows + (i as usize) * ROW_BYTES);
}

function column32(field: u32, from: usize, stride: usize, n: u32): void {
  let any: u32 = 0;
  for (let i: u32 = 0; i < n; i++) any |= load<u32>(from + (i as usize) * stride);
  if (any == 0) return;
  varint(((field << 3) | 2) as u64);
  varint(n * 4);
  for (let i: u32 = 0; i < n; i++) {
    store<u32>(pos, load<u32>(from + (i as usize) * stride));
    pos += 4;
  }
}

function column64(field: u32, from: usize, n: u32): void {
  let any: u64 = 0;
  for (let i: u32 = 0; i < n; i++) any |= load<u64>(from + (i as usize) * ROW_BYTES);
  if (any == 0) return;
  varint(((field << 3) | 2) as u64);
  varint(n * 8);
  for (let i: u32 = 0; i < n; i++) {
    store<u64>(pos, load<u64>(from + (i as usize) * ROW_BYTES));
    pos += 8;
  }
}

// Reader. Bounds first: whatever the collector, or somebody in its place, sends is at worst ignored.

export abstract class ReplySink {
  abstract ack(producer: u64, seq: u64): void;
  /** The `sent_unix_us` of the message that is answered. */
  abstract echo(sentUs: u64): void;
  /** Not yet read, and not yet believed. */
  abstract directive(ptr: usize, size: u32): void;
  /** `sampleRatio`: NaN = no wish. */
  abstract hints(intervalMs: u32, drainMs: u32, retryAfterMs: u32, sampleRatio: f64): void;
}

/** False when the bytes are no ReportReply; what was understood before the fault has been told. */
export function readReply(ptr: usize, size: u32, sink: ReplySink): bool {
  const end = ptr + size;
  let at = ptr;
  while (at < end) {
    reader.open(at, (end - at) as u32);
    const tag = reader.varint();
    const nested = tag == 10 || tag == 18 || tag == 26;
    const n: u32 = nested ? reader.span() : 0;
    const inner = reader.spanPtr;
    if (tag == 41) sink.echo(reader.fixed64());
    else if (!nested) reader.skip((tag & 7) as u32);
    if (!reader.fine()) return false;
    at = reader.position();
    if (tag == 10) readAck(inner, n, sink);
    else if (tag == 18) sink.directive(inner, n);
    else if (tag == 26) readHints(inner, n, sink);
    // What is wrong inside a directive is that directive's fault alone.
    if (nested && tag != 18 && !reader.fine()) return false;
  }
  return true;
}

function readAck(ptr: usize, size: u32, sink: ReplySink): void {
  let producer: u64 = 0;
  let seq: u64 = 0;
  reader.open(ptr, size);
  while (reader.more()) {
    const tag = reader.varint();
    if (tag == 9) producer = reader.fixed64();
    else if (tag == 16) seq = reader.varint();
    else reader.skip((tag & 7) as u32);
  }
  if (reader.fine()) sink.ack(producer, seq);
}

function readHints(ptr: usize, size: u32, sink: ReplySink): void {
  let interval: u32 = 0;
  let drain: u32 = 0;
  let retry: u32 = 0;
  let ratio: f64 = NaN;
  reader.open(ptr, size);
  while (reader.more()) {
    const tag = reader.varint();
    if (tag == 8) interval = reader.varint() as u32;
    else if (tag == 16) drain = reader.varint() as u32;
    else if (tag == 24) retry = reader.varint() as u32;
    else if (tag == 33) ratio = reinterpret<f64>(reader.fixed64());
    else reader.skip((tag & 7) as u32);
  }
  if (reader.fine()) sink.hints(interval, drain, retry, ratio);
}

const HASHED: usize = memory.data(32, 8);

/** A name that may be personal: the first 16 hex digits of its SHA-256. */
export function putHashed(field: u32, ptr: usize, size: u32): void {
  sha256(ptr, size);
  writeHex64(HASHED, digestHi);
  entry(field, HASHED, 16);
}

/** A 64-bit id as 16 hex digits; 0 is left out. */
export function putHex(field: u32, value: u64): void {
  if (value == 0) return;
  writeHex64(HASHED, value);
  entry(field, HASHED, 16);
}

/** A UUID as text; nil is left out. */
export function putUuid(field: u32, hi: u64, lo: u64): void {
  if ((hi | lo) == 0) return;
  writeUuid(TEXT, hi, lo);
  entry(field, TEXT, 36);
}
