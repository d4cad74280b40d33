// One report as a filter sends it: a batch of rows, column by column, with places to write new values into.
//
// The layout is made once. A sender that had to build every message from objects would need more CPU than
// what it measures; so it copies the bytes and writes the columns that differ.

/** Columns that every message fills, in the order of the wire: name, field number of EventColumns, words a row. */
const COLUMNS = {
  endOffsetUs: [4, 1],
  durationUs: [5, 1],
  keyHi: [6, 2],
  keyLo: [7, 2],
  requestHi: [8, 2],
  requestLo: [9, 2],
  eventId: [10, 2],
  spanIn: [11, 2],
  spanOut: [12, 2],
  operation: [13, 1],
  peerService: [14, 1],
  peerCuid: [15, 1],
  status: [16, 1],
  flags: [18, 1],
  waitUs: [19, 1],
} as const;

export type ColumnName = keyof typeof COLUMNS;

/** Values of one message; 64-bit columns as two words a row, low word first. */
export type Columns = Readonly<Record<ColumnName, Uint32Array>>;

export function newColumns(rows: number): Columns {
  const made = Object.entries(COLUMNS).map(([name, [, words]]) => [name, new Uint32Array(words * rows)]);
  return Object.fromEntries(made) as Columns;
}

/** Bytes of a varint that is written again: padding it to this length is legal, and 2^35 is enough. */
const NUMBER_BYTES = 5;

/** Bytes of a message; those with a name are written anew each time. */
interface Piece {
  readonly name?: string;
  readonly bytes: Buffer;
}

/** A ReportRequest with one batch of `rows` rows, to be filled in. */
export class Report {
  private readonly bytes: Buffer;
  private readonly at = new Map<string, number>();

  constructor(
    readonly rows: number,
    producer: bigint,
    strings: readonly string[],
  ) {
    const events: Piece[] = [{ bytes: tag(1, 0) }, { bytes: varint(rows) }, { bytes: tag(2, 1) }];
    events.push({ name: 'base', bytes: Buffer.alloc(8) });
    for (const text of strings) events.push({ bytes: tag(3, 2) }, ...sized([{ bytes: Buffer.from(text) }]));
    for (const [name, [field, words]] of Object.entries(COLUMNS)) {
      events.push({ bytes: tag(field, 2) }, ...sized([{ name, bytes: Buffer.alloc(4 * words * rows) }]));
    }
    const id = Buffer.alloc(8);
    id.writeBigUInt64LE(producer);
    const batch: Piece[] = [{ bytes: tag(1, 1) }, { bytes: id }];
    batch.push({ bytes: tag(2, 0) }, { name: 'seq', bytes: padded(0) });
    batch.push({ bytes: tag(3, 0) }, { name: 'first', bytes: padded(0) });
    batch.push({ bytes: tag(5, 2) }, ...sized(events));
    const message: Piece[] = [{ bytes: tag(8, 1) }, { name: 'sent', bytes: Buffer.alloc(8) }];
    message.push({ bytes: tag(2, 2) }, ...sized(batch));
    let length = 0;
    for (const { name, bytes } of message) {
      if (name !== undefined) this.at.set(name, length);
      length += bytes.length;
    }
    this.bytes = Buffer.concat(message.map(({ bytes }) => bytes));
  }

  /** The message with these values. Times are us since 1970. */
  with(seq: number, baseUnixUs: number, sentUnixUs: number, columns: Columns): Buffer {
    const message = Buffer.from(this.bytes);
    message.set(padded(seq), this.at.get('seq'));
    message.set(padded((seq - 1) * this.rows), this.at.get('first'));
    message.writeBigUInt64LE(BigInt(baseUnixUs), this.at.get('base'));
    message.writeBigUInt64LE(BigInt(sentUnixUs), this.at.get('sent'));
    for (const [name, values] of Object.entries(columns)) {
      message.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), this.at.get(name));
    }
    return message;
  }
}

const sized = (pieces: readonly Piece[]): Piece[] => [
  { bytes: varint(pieces.reduce((sum, { bytes }) => sum + bytes.length, 0)) },
  ...pieces,
];

const tag = (field: number, wire: number): Buffer => varint(field * 8 + wire);

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (; value > 0x7f; value = Math.floor(value / 128)) bytes.push((value % 128) | 0x80);
  return Buffer.from([...bytes, value]);
}

function padded(value: number): Buffer {
  const bytes = Array.from({ length: NUMBER_BYTES }, (_, i) => (Math.floor(value / 128 ** i) % 128) | 0x80);
  bytes[NUMBER_BYTES - 1]! &= 0x7f;
  return Buffer.from(bytes);
}
