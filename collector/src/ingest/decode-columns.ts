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
  const columns = {} as Record<ColumnName, Column32>;
  COLUMNS.forEach((spec, field) => {
    if (spec !== undefined) columns[spec.name] = finish(reader, spec, raw[field], rows, strings.length);
  });
  return { rows, baseUnixUs, strings, ...columns };
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

function finish(
  reader: Reader,
  spec: ColumnSpec,
  raw: ColumnBytes | undefined,
  rows: number,
  strings: number,
): Column32 {
  if (raw === undefined) return spec.name === 'weight' ? ONES : ZEROS;
  const entries = raw.bytes.length / spec.width;
  if (entries !== rows) throw reader.error(spec.wireName, `has ${entries} entries, must have ${rows} (rows)`);
  const column = asWords(raw.bytes);
  if (spec.text === true) checkIndexes(reader, spec, column, strings);
  if (spec.name === 'weight') checkWeights(reader, column);
  return column;
}

function asWords(bytes: Buffer): Uint32Array {
  if (HOST_IS_BIG_ENDIAN) {
    const swapped = Buffer.from(bytes).swap32();
    return new Uint32Array(Uint8Array.from(swapped).buffer);
  }
  if (bytes.byteOffset % 4 === 0) return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const words = new Uint32Array(bytes.length / 4);
  new Uint8Array(words.buffer).set(bytes);
  return words;
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
