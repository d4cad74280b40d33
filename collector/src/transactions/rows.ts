// The rows of all transactions, column by column, in chained lists.
//
// A row as an object would take some 400 bytes; here it takes 77. Chunks are allocated as needed and
// reused through a free list. `Row` objects are made when someone asks for a transaction.

import { hexOfWords, ROW_FLAG } from '../ingest/columns.js';
import { NONE } from './id-index.js';
import { Interner } from './interner.js';

/** The proxy that told a row. */
export interface Instance {
  readonly cuid: string;
  readonly service: string;
  readonly cluster: string;
  readonly node: string;
  readonly proxyId: string;
}

export const ROW_STATE = {
  /** Told with its end. */
  ENDED: 0,
  /** Runs, as the last in-flight list says. */
  RUNNING: 1,
  /** Was in an in-flight list, is not any more, and its end was never told. */
  VANISHED: 2,
} as const;

/** One row. Times are us since 1970 by the clock of its own proxy. */
export interface Row {
  readonly instance: Instance;
  /** 16 hex digits; '' when it has none. */
  readonly eventId: string;
  readonly call: boolean;
  readonly startUs: number;
  /** Of a row that runs: when it was last heard of. */
  readonly endUs: number;
  readonly durationUs: number;
  /** Clock of the proxy minus the collector's, us, as it was estimated when the row came. */
  readonly offsetUs: number;
  /** Folded to 32 bits; 0 = none. Only good for telling whether two are equal. */
  readonly spanIn: number;
  readonly spanOut: number;
  readonly operation: string;
  readonly peerService: string;
  readonly peerCuid: string;
  readonly details: string;
  /** As in EventColumns. */
  readonly status: number;
  readonly responseFlags: number;
  readonly flags: number;
  readonly waitUs: number;
  /** One of ROW_STATE. */
  readonly state: number;
}

/** A row on its way in: names are numbers of `texts`, the instance one of `instances`. */
export interface NewRow {
  eventHigh: number;
  eventLow: number;
  endUs: number;
  durationUs: number;
  offsetUs: number;
  spanIn: number;
  spanOut: number;
  operation: number;
  peerService: number;
  peerCuid: number;
  details: number;
  status: number;
  responseFlags: number;
  flags: number;
  waitUs: number;
  instance: number;
  state: number;
}

const CHUNK_BITS = 14;
const CHUNK_ROWS = 1 << CHUNK_BITS;
const IN_CHUNK = CHUNK_ROWS - 1;

class Chunk {
  readonly endUs = new Float64Array(CHUNK_ROWS);
  readonly offsetUs = new Float64Array(CHUNK_ROWS);
  readonly eventHigh = new Uint32Array(CHUNK_ROWS);
  readonly eventLow = new Uint32Array(CHUNK_ROWS);
  readonly durationUs = new Uint32Array(CHUNK_ROWS);
  readonly waitUs = new Uint32Array(CHUNK_ROWS);
  readonly status = new Uint32Array(CHUNK_ROWS);
  readonly responseFlags = new Uint32Array(CHUNK_ROWS);
  readonly flags = new Uint32Array(CHUNK_ROWS);
  readonly spanIn = new Uint32Array(CHUNK_ROWS);
  readonly spanOut = new Uint32Array(CHUNK_ROWS);
  readonly operation = new Int32Array(CHUNK_ROWS);
  readonly peerService = new Int32Array(CHUNK_ROWS);
  readonly peerCuid = new Int32Array(CHUNK_ROWS);
  readonly details = new Int32Array(CHUNK_ROWS);
  readonly instance = new Int32Array(CHUNK_ROWS);
  readonly next = new Int32Array(CHUNK_ROWS);
  readonly state = new Uint8Array(CHUNK_ROWS);
}

export class Rows {
  /** Names: operations, peers, details. */
  readonly texts = new Interner<string>();
  readonly instances = new Interner<Instance>();
  private readonly chunks: Chunk[] = [];
  private used = 0;
  private free = NONE;
  private count = 0;

  get size(): number {
    return this.count;
  }

  /** Stores a row in front of the list that begins at `next`, and returns its number. */
  add(row: Readonly<NewRow>, next: number): number {
    const number = this.take();
    this.write(number, row);
    this.chunk(number).next[number & IN_CHUNK] = next;
    this.count += 1;
    return number;
  }

  /** Writes another row in the place of one: what ran has ended. */
  replace(number: number, row: Readonly<NewRow>): void {
    this.releaseNames(number);
    this.write(number, row);
  }

  /** Frees the list that begins at `first`. */
  freeList(first: number): void {
    for (let number = first; number !== NONE;) {
      const next = this.next(number);
      this.releaseNames(number);
      this.chunk(number).next[number & IN_CHUNK] = this.free;
      this.free = number;
      this.count -= 1;
      number = next;
    }
  }

  next(number: number): number {
    return this.chunk(number).next[number & IN_CHUNK]!;
  }

  setNext(number: number, next: number): void {
    this.chunk(number).next[number & IN_CHUNK] = next;
  }

  eventHigh(number: number): number {
    return this.chunk(number).eventHigh[number & IN_CHUNK]!;
  }

  eventLow(number: number): number {
    return this.chunk(number).eventLow[number & IN_CHUNK]!;
  }

  flags(number: number): number {
    return this.chunk(number).flags[number & IN_CHUNK]!;
  }

  state(number: number): number {
    return this.chunk(number).state[number & IN_CHUNK]!;
  }

  setState(number: number, state: number): void {
    this.chunk(number).state[number & IN_CHUNK] = state;
  }

  instanceOf(number: number): Instance {
    return this.instances.get(this.chunk(number).instance[number & IN_CHUNK]!);
  }

  peerServiceOf(number: number): string {
    return this.texts.get(this.chunk(number).peerService[number & IN_CHUNK]!);
  }

  /** Of a row that runs: it was heard of again. */
  heard(number: number, endUs: number, durationUs: number): void {
    const chunk = this.chunk(number);
    chunk.endUs[number & IN_CHUNK] = endUs;
    chunk.durationUs[number & IN_CHUNK] = durationUs;
  }

  /** Whether the stored row and `row` tell of the same request at the same proxy, from the same side. */
  isSameRequest(number: number, row: Readonly<NewRow>): boolean {
    const chunk = this.chunk(number);
    const at = number & IN_CHUNK;
    return (
      chunk.eventLow[at] === row.eventLow &&
      chunk.eventHigh[at] === row.eventHigh &&
      this.isSameProxy(chunk.instance[at]!, row.instance) &&
      ((chunk.flags[at]! ^ row.flags) & ROW_FLAG.CALL) === 0
    );
  }

  /** By the proxy, not by its CUID, which may become another one while a request runs. */
  private isSameProxy(a: number, b: number): boolean {
    return a === b || this.instances.get(a).proxyId === this.instances.get(b).proxyId;
  }

  /** With isSameRequest: the row is the very same, not another attempt at the same instance. */
  isSameEnd(number: number, row: Readonly<NewRow>): boolean {
    const chunk = this.chunk(number);
    const at = number & IN_CHUNK;
    return chunk.endUs[at] === row.endUs && chunk.durationUs[at] === row.durationUs;
  }

  read(number: number): Row {
    const chunk = this.chunk(number);
    const at = number & IN_CHUNK;
    const endUs = chunk.endUs[at]!;
    const durationUs = chunk.durationUs[at]!;
    const [high, low] = [chunk.eventHigh[at]!, chunk.eventLow[at]!];
    const flags = chunk.flags[at]!;
    return {
      instance: this.instances.get(chunk.instance[at]!),
      eventId: (high | low) === 0 ? '' : hexOfWords(high, low),
      call: (flags & ROW_FLAG.CALL) !== 0,
      startUs: endUs - durationUs,
      endUs,
      durationUs,
      offsetUs: chunk.offsetUs[at]!,
      spanIn: chunk.spanIn[at]!,
      spanOut: chunk.spanOut[at]!,
      operation: this.texts.get(chunk.operation[at]!),
      peerService: this.texts.get(chunk.peerService[at]!),
      peerCuid: this.texts.get(chunk.peerCuid[at]!),
      details: this.texts.get(chunk.details[at]!),
      status: chunk.status[at]!,
      responseFlags: chunk.responseFlags[at]!,
      flags,
      waitUs: chunk.waitUs[at]!,
      state: chunk.state[at]!,
    };
  }

  private write(number: number, row: Readonly<NewRow>): void {
    const chunk = this.chunk(number);
    const at = number & IN_CHUNK;
    chunk.endUs[at] = row.endUs;
    chunk.offsetUs[at] = row.offsetUs;
    chunk.eventHigh[at] = row.eventHigh;
    chunk.eventLow[at] = row.eventLow;
    chunk.durationUs[at] = row.durationUs;
    chunk.waitUs[at] = row.waitUs;
    chunk.status[at] = row.status;
    chunk.responseFlags[at] = row.responseFlags;
    chunk.flags[at] = row.flags;
    chunk.spanIn[at] = row.spanIn;
    chunk.spanOut[at] = row.spanOut;
    chunk.operation[at] = row.operation;
    chunk.peerService[at] = row.peerService;
    chunk.peerCuid[at] = row.peerCuid;
    chunk.details[at] = row.details;
    chunk.instance[at] = row.instance;
    chunk.state[at] = row.state;
    this.texts.retain(row.operation);
    this.texts.retain(row.peerService);
    this.texts.retain(row.peerCuid);
    this.texts.retain(row.details);
    this.instances.retain(row.instance);
  }

  private releaseNames(number: number): void {
    const chunk = this.chunk(number);
    const at = number & IN_CHUNK;
    this.texts.release(chunk.operation[at]!);
    this.texts.release(chunk.peerService[at]!);
    this.texts.release(chunk.peerCuid[at]!);
    this.texts.release(chunk.details[at]!);
    this.instances.release(chunk.instance[at]!);
  }

  private chunk(number: number): Chunk {
    return this.chunks[number >>> CHUNK_BITS]!;
  }

  private take(): number {
    const number = this.free;
    if (number !== NONE) {
      this.free = this.next(number);
      return number;
    }
    if (this.used === this.chunks.length * CHUNK_ROWS) this.chunks.push(new Chunk());
    return this.used++;
  }
}

/** A 64-bit span id as 32 bits that are 0 only for 0. */
export function foldSpan(high: number, low: number): number {
  if ((high | low) === 0) return 0;
  return (high ^ low) >>> 0 || 1;
}
