// The rows of one batch as the collector reads them: one typed array per column, no object per row.
//
// A report carries thousands of rows, and an object for each would cost more than everything else
// the collector does with it. So `decode-columns.ts` turns the packed columns of the wire into the
// arrays below, and readers walk them by row number.
//
// 64-bit columns are `Uint32Array`s with two words a row, low word first: word `2 * row` holds bits
// 0-31 and word `2 * row + 1` bits 32-63. BigInt would allocate for every value read; two words can
// be compared, hashed and printed as hex without allocation.
//
// A column that the sender left out is a shared array of zeros (ones for `weight`), at least as long
// as `rows` but often longer: walk to `rows`, never to `column.length`. Arrays are read-only and may
// be views into the message: copy what is kept, keep no array.

/** Rows in one batch, at most. From the wire contract. */
export const ROWS_MAX = 4096;

/** Bits 0-15 of `flags`, as in `meshpulse.v1.RowFlag`. */
export const ROW_FLAG = {
  CALL: 1,
  ENTRY: 2,
  STREAM: 4,
  PROBE: 8,
  SHADOW: 16,
  OWN: 32,
  UNSEEN: 64,
  EXTERNAL: 128,
  LOCAL_REPLY: 256,
  GRPC: 512,
  INJECTED: 1024,
  WOULD_REFUSE: 2048,
  WITHHELD: 4096,
  NO_RETRIES: 8192,
  RETRY_REFUSED: 16384,
} as const;

/** 32-bit unsigned values, one a row. Read-only. */
export type Column32 = Readonly<Uint32Array>;

/** 64-bit unsigned values as two words a row, low word first. Read-only. */
export type Column64 = Readonly<Uint32Array>;

/** See `meshpulse.v1.EventColumns` for the meaning of each column. */
export interface EventColumns {
  /** 1 to ROWS_MAX. */
  readonly rows: number;
  /** Sender's clock, us since 1970: exact in a double until the year 2255. */
  readonly baseUnixUs: number;
  /** Entry 0 is ''. Every index in the text columns is below `strings.length`. */
  readonly strings: readonly string[];
  readonly endOffsetUs: Column32;
  readonly durationUs: Column32;
  /** High half of the transaction key: its first 16 hex digits. */
  readonly keyHi: Column64;
  readonly keyLo: Column64;
  readonly requestHi: Column64;
  readonly requestLo: Column64;
  readonly eventId: Column64;
  readonly spanIn: Column64;
  readonly spanOut: Column64;
  /** Index into `strings`. */
  readonly operation: Column32;
  /** Index into `strings`. */
  readonly peerService: Column32;
  /** Index into `strings`. */
  readonly peerCuid: Column32;
  /** See `httpStatusOf` and `grpcStatusOf`. */
  readonly status: Column32;
  readonly responseFlags: Column32;
  /** See `outcomeOf`, `keySourceOf`, `attemptsOf` and `ROW_FLAG`. */
  readonly flags: Column32;
  readonly waitUs: Column32;
  readonly requestBytes: Column32;
  readonly responseBytes: Column32;
  /** Events that the row stands for, 1 or more (an absent column is all ones). */
  readonly weight: Column32;
  /** Index into `strings`. */
  readonly keyText: Column32;
  /** Index into `strings`. */
  readonly details: Column32;
}

/** HTTP status of a `status` value, 0 = none. */
export const httpStatusOf = (status: number): number => status & 0xffff;

/** gRPC status of a `status` value, 0 to 254; undefined when the row is not gRPC. */
export function grpcStatusOf(status: number): number | undefined {
  const code = (status >>> 16) & 0xff;
  return code === 0 ? undefined : code - 1;
}

/** `Outcome` of a `flags` value, 0 to 15. */
export const outcomeOf = (flags: number): number => (flags >>> 16) & 0xf;

/** `KeySource` of a `flags` value, 0 to 15. */
export const keySourceOf = (flags: number): number => (flags >>> 20) & 0xf;

/** Attempts of a `flags` value, 0 to 255. */
export const attemptsOf = (flags: number): number => flags >>> 24;

/** Time of the row's end, us since 1970 by the sender's clock. */
export const endUnixUs = (columns: EventColumns, row: number): number => columns.baseUnixUs + columns.endOffsetUs[row]!;

/** Low word of a 64-bit value, 0 to 2^32-1. */
export const lowWord = (column: Column64, row: number): number => column[2 * row]!;

/** High word of a 64-bit value, 0 to 2^32-1. */
export const highWord = (column: Column64, row: number): number => column[2 * row + 1]!;

/** Whether a 64-bit value is 0, which means absent in every column. */
export const isZero64 = (column: Column64, row: number): boolean => (column[2 * row]! | column[2 * row + 1]!) === 0;

/** A 64-bit value as 16 lower-case hex digits. */
export const hex64 = (column: Column64, row: number): string => hexOfWords(column[2 * row + 1]!, column[2 * row]!);

/** Two words as 16 lower-case hex digits. */
export const hexOfWords = (high: number, low: number): string => hex32(high) + hex32(low);

/** A 32-bit unsigned value as 8 lower-case hex digits. */
export const hex32 = (word: number): string => HEX16[word >>> 16]! + HEX16[word & 0xffff]!;

/** Four hex digits for every 16-bit value: 2^16 short strings, about 2 MB, looked up instead of built. */
const HEX16: readonly string[] = Array.from({ length: 0x10000 }, (_, value) => value.toString(16).padStart(4, '0'));

/** Lower-case names of what sets a row apart, as `labels` in the API. Empty for a plain request. */
export function labelsOf(flags: number): string[] {
  const labels: string[] = [];
  for (const [bit, label] of LABELS) if ((flags & bit) !== 0) labels.push(label);
  return labels;
}

const LABELS: readonly (readonly [number, string])[] = [
  [ROW_FLAG.STREAM, 'stream'],
  [ROW_FLAG.PROBE, 'probe'],
  [ROW_FLAG.SHADOW, 'shadow'],
  [ROW_FLAG.OWN, 'own'],
  [ROW_FLAG.UNSEEN, 'unseen'],
  [ROW_FLAG.LOCAL_REPLY, 'local-reply'],
  [ROW_FLAG.WOULD_REFUSE, 'would-refuse'],
  [ROW_FLAG.WITHHELD, 'withheld'],
  [ROW_FLAG.NO_RETRIES, 'no-retries'],
  [ROW_FLAG.RETRY_REFUSED, 'retry-refused'],
];

/** Rows with one of these flags are shown, but never evidence and never learned from. */
export const NEVER_EVIDENCE = ROW_FLAG.PROBE | ROW_FLAG.SHADOW | ROW_FLAG.OWN;
