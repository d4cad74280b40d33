// meshpulse.v1.EventColumns: bytes -> typed arrays. Pure.

import { type Column32, type EventColumns, ROWS_MAX } from './columns.js';
import { LENGTH, type Reader } from './wire.js';

/** Entries of the string table, at most. */
export const STRINGS_MAX = 1024;

/** Bytes of one string, at most. */
export const STRING_BYTES_MAX = 256;

type ColumnName = Exclude<keyof EventColumns, 'rows' | 'baseUnixUs' | 'strings'>;

interface ColumnSpec {
  readonly name: ColumnName;
  readonly wireName: string;
  readonly width: 4 | 8;
  /** The values are indexes into `strings`. */
  readonly text?: true;
}

/** By field number of EventColumns. */
const COLUMNS: readonly (ColumnSpec | undefined)[] = [
  undefined,
  undefined, // rows
  undefined, // base_unix_us
  undefined, // strings
  { name: 'endOffsetUs', wireName: 'end_offset_us', width: 4 },
  { name: 'durationUs', wireName: 'duration_us', width: 4 },
  { name: 'keyHi', wireName: 'key_hi', width: 8 },
  { name: 'keyLo', wireName: 'key_lo', width: 8 },
  { name: 'requestHi', wireName: 'request_hi', width: 8 },
  { name: 'requestLo', wireName: 'request_lo', width: 8 },
  { name: 'eventId', wireName: 'event_id', width: 8 },
  { name: 'spanIn', wireName: 'span_in', width: 8 },
  { name: 'spanOut', wireName: 'span_out', width: 8 },
  { name: 'operation', wireName: 'operation', width: 4, text: true },
  { name: 'peerService', wireName: 'peer_service', width: 4, text: true },
  { name: 'peerCuid', wireName: 'peer_cuid', width: 4, text: true },
  { name: 'status', wireName: 'status', width: 4 },
  { name: 'responseFlags', wireName: 'response_flags', width: 4 },
  { name: 'flags', wireName: 'flags', width: 4 },
  { name: 'waitUs', wireName: 'wait_us', width: 4 },
  { name: 'requestBytes', wireName: 'request_bytes', width: 4 },
  { name: 'responseBytes', wireName: 'response_bytes', width: 4 },
  { name: 'weight', wireName: 'weight', width: 4 },
  { name: 'keyText', wireName: 'key_text', width: 4, text: true },
  { name: 'details', wireName: 'details', width: 4, text: true },
];

/** What absent columns read as; two words a row for the widest. Never written to. */
const ZEROS = new Uint32Array(2 * ROWS_MAX);
const ONES = new Uint32Array(ROWS_MAX).fill(1);

const HOST_IS_BIG_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 0;

/**
 * Reads one EventColumns message to its end.
 *
 * Columns are views into the reader's bytes where these happen to be aligned, copies otherwise.
 *
 * @throws WireError naming the field when a bound of the contract is broken
 */
export function decodeColumns(reader: Reader): EventColumns {
  let rows = 0;
  let baseUnixUs = 0;
  const strings: string[] = [];
  const raw: (ColumnBytes | undefined)[] = [];
  while (reader.next()) {
    const field = reader.field;
    const spec = COLUMNS[field];
    if (spec !== undefined) raw[field] = gather(reader, spec, raw[field]);
    else if (field === 1) rows = reader.uint32('rows');
    else if (field === 2) baseUnixUs = reader.fixed64('base_unix_us');
    else if (field === 3) takeString(reader, strings);
    else reader.skip();
  }
  if (rows < 1 || rows > ROWS_MAX) throw reader.error('rows', `is ${rows}, must be 1 to ${ROWS_MAX}`);
  if (strings.length === 0) strings.push('');
  if (strings[0] !== '') throw reader.error('strings[0]', 'must be empty');
  return new Decoded(rows, baseUnixUs, strings, alignedColumns(reader, raw, rows, strings.length));
}

/** Always the same fields in the same order, so that whoever reads columns finds them at once. */
class Decoded implements EventColumns {
  readonly endOffsetUs: Column32;
  readonly durationUs: Column32;
  readonly keyHi: Column32;
  readonly keyLo: Column32;
  readonly requestHi: Column32;
  readonly requestLo: Column32;
  readonly eventId: Column32;
  readonly spanIn: Column32;
  readonly spanOut: Column32;
  readonly operation: Column32;
  readonly peerService: Column32;
  readonly peerCuid: Column32;
  readonly status: Column32;
  readonly responseFlags: Column32;
  readonly flags: Column32;
  readonly waitUs: Column32;
  readonly requestBytes: Column32;
  readonly responseBytes: Column32;
  readonly weight: Column32;
  readonly keyText: Column32;
  readonly details: Column32;

  /** @param of columns by field number */
  constructor(
    readonly rows: number,
    readonly baseUnixUs: number,
    readonly strings: readonly string[],
    of: readonly (Column32 | undefined)[],
  ) {
    this.endOffsetUs = of[4] ?? ZEROS;
    this.durationUs = of[5] ?? ZEROS;
    this.keyHi = of[6] ?? ZEROS;
    this.keyLo = of[7] ?? ZEROS;
    this.requestHi = of[8] ?? ZEROS;
    this.requestLo = of[9] ?? ZEROS;
    this.eventId = of[10] ?? ZEROS;
    this.spanIn = of[11] ?? ZEROS;
    this.spanOut = of[12] ?? ZEROS;
    this.operation = of[13] ?? ZEROS;
    this.peerService = of[14] ?? ZEROS;
    this.peerCuid = of[15] ?? ZEROS;
    this.status = of[16] ?? ZEROS;
    this.responseFlags = of[17] ?? ZEROS;
    this.flags = of[18] ?? ZEROS;
    this.waitUs = of[19] ?? ZEROS;
    this.requestBytes = of[20] ?? ZEROS;
    this.responseBytes = of[21] ?? ZEROS;
    this.weight = of[22] ?? ONES;
    this.keyText = of[23] ?? ZEROS;
    this.details = of[24] ?? ZEROS;
  }
}

/**
 * The columns by field number. Those that do not lie on a whole word of the message, nearly all, are copied
 * into one piece of memory together: to allocate costs more than to copy.
 */
function alignedColumns(
  reader: Reader,
  raw: readonly (ColumnBytes | undefined)[],
  rows: number,
  strings: number,
): (Column32 | undefined)[] {
  let unaligned = 0;
  for (let field = 0; field < raw.length; field++) {
    const bytes = raw[field]?.bytes;
    if (bytes === undefined) continue;
    checkEntries(reader, COLUMNS[field]!, bytes, rows);
    if (bytes.byteOffset % 4 !== 0) unaligned += bytes.length;
  }
  const copies = new Uint8Array(unaligned);
  let copied = 0;
  const columns: (Column32 | undefined)[] = [];
  for (let field = 0; field < COLUMNS.length; field++) {
    const bytes = raw[field]?.bytes;
    if (bytes === undefined) {
      columns.push(undefined);
      continue;
    }
    let [buffer, offset] = [bytes.buffer, bytes.byteOffset];
    if (offset % 4 !== 0) {
      copies.set(bytes, copied);
      [buffer, offset] = [copies.buffer, copied];
      copied += bytes.length;
    }
    columns.push(finish(reader, COLUMNS[field]!, asWords(buffer, offset, bytes.length), strings));
  }
  return columns;
}

/** A column's bytes so far. `owned` once they had to be put together from several pieces. */
interface ColumnBytes {
  bytes: Buffer;
  owned?: { buffer: Buffer; length: number };
}

/** One piece of a column: normally all of it, packed; legal encoders may also split or not pack it. */
function gather(reader: Reader, spec: ColumnSpec, before: ColumnBytes | undefined): ColumnBytes {
  const piece = reader.wire === LENGTH ? reader.view(spec.wireName) : reader.element(spec.wireName, spec.width);
  if (before === undefined) return { bytes: piece };
  const owned = (before.owned ??= adopt(before.bytes, spec));
  const length = owned.length + piece.length;
  if (length > owned.buffer.length) throw reader.error(spec.wireName, `has more than ${ROWS_MAX} entries`);
  piece.copy(owned.buffer, owned.length);
  owned.length = length;
  before.bytes = owned.buffer.subarray(0, length);
  return before;
}

/** Room for the largest column at once, so that many small pieces cost no more than their bytes. */
function adopt(bytes: Buffer, spec: ColumnSpec): { buffer: Buffer; length: number } {
  const buffer = Buffer.alloc(Math.max(spec.width * ROWS_MAX, bytes.length));
  bytes.copy(buffer);
  return { buffer, length: bytes.length };
}

function takeString(reader: Reader, strings: string[]): void {
  if (strings.length >= STRINGS_MAX) throw reader.error('strings', `has more than ${STRINGS_MAX} entries`);
  strings.push(reader.text(`strings[${strings.length}]`, STRING_BYTES_MAX));
}

function checkEntries(reader: Reader, { wireName, width }: ColumnSpec, bytes: Buffer, rows: number): void {
  const entries = bytes.length / width;
  if (entries !== rows) throw reader.error(wireName, `has ${entries} entries, must have ${rows} (rows)`);
}

function finish(reader: Reader, spec: ColumnSpec, column: Uint32Array, strings: number): Column32 {
  if (spec.text === true) checkIndexes(reader, spec, column, strings);
  if (spec.name === 'weight') checkWeights(reader, column);
  return column;
}

/** @param offset a whole word of the buffer */
function asWords(buffer: ArrayBufferLike, offset: number, bytes: number): Uint32Array {
  if (!HOST_IS_BIG_ENDIAN) return new Uint32Array(buffer, offset, bytes / 4);
  const swapped = Buffer.from(Buffer.from(buffer, offset, bytes)).swap32();
  return new Uint32Array(Uint8Array.from(swapped).buffer);
}

function checkIndexes(reader: Reader, spec: ColumnSpec, column: Uint32Array, strings: number): void {
  for (let row = 0; row < column.length; row++) {
    if (column[row]! >= strings) {
      throw reader.error(`${spec.wireName}[${row}]`, `is ${column[row]}, must be below ${strings} (strings)`);
    }
  }
}

function checkWeights(reader: Reader, column: Uint32Array): void {
  const row = column.indexOf(0);
  if (row >= 0) throw reader.error(`weight[${row}]`, 'is 0, must be 1 or more');
}
