// The rows of all transactions, in chained lists.
//
// A row as an object would take some 400 bytes; here it takes 88, side by side, because rows are read
// one by one and long after they came, when nothing of them is in a cache any more. Chunks are allocated
// as needed and reused through a free list. `Row` objects are made when someone asks for a transaction.

import { endUnixUs, hexOfWords, ROW_FLAG, type EventColumns } from '../ingest/columns.js';
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

/** Where rows come from: a batch, the numbers of its strings, its proxy, and the offset of its clock. */
export interface Source {
  columns: EventColumns;
  readonly names: Readonly<Int32Array>;
  instance: number;
  offsetUs: number;
}

const CHUNK_BITS = 14;
const CHUNK_ROWS = 1 << CHUNK_BITS;
const IN_CHUNK = CHUNK_ROWS - 1;

/** Where the words of a row are. The first four are two doubles. */
const WORDS = 22;
const END = 0;
const OFFSET = 1;
const EVENT_HIGH = 4;
const EVENT_LOW = 5;
const FLAGS = 6;
const INSTANCE = 7;
const NEXT = 8;
/** Next row with the same event id. */
const TWIN = 9;
const SLOT = 10;
const STATE = 11;
const DURATION = 12;
const OPERATION = 13;
const PEER_SERVICE = 14;
const PEER_CUID = 15;
const DETAILS = 16;
const SPAN_IN = 17;
const SPAN_OUT = 18;
const STATUS = 19;
const RESPONSE_FLAGS = 20;
const WAIT = 21;

class Chunk {
  /** Signed, as small integers are: a word above 2^31 read as unsigned would be an object. */
  readonly words = new Int32Array(CHUNK_ROWS * WORDS);
  readonly doubles = new Float64Array(this.words.buffer);
}

const at = (number: number): number => (number & IN_CHUNK) * WORDS;

export class Rows {
  /** Names: operations, peers, details. */
  readonly texts = new Interner<string>();
  readonly instances = new Interner<Instance>();
  private readonly chunks: Chunk[] = [];
  private used = 0;
  /** Numbers given back, the next to be used last. */
  private free = new Int32Array(CHUNK_ROWS);
  private freed = 0;

  get size(): number {
    return this.used - this.freed;
  }

  /** Stores a row of the transaction in `slot` in front of the list that begins at `next`, and returns its number. */
  add(row: Readonly<NewRow>, slot: number, next: number): number {
    const number = this.take(slot, next);
    this.write(number, row);
    return number;
  }

  /** As `add`, straight from columns. */
  addFrom({ columns, names, instance, offsetUs }: Source, row: number, slot: number, next: number): number {
    const number = this.take(slot, next);
    const { words, doubles } = this.chunk(number);
    const to = at(number);
    doubles[(to >> 1) + END] = endUnixUs(columns, row);
    doubles[(to >> 1) + OFFSET] = offsetUs;
    words[to + EVENT_LOW] = columns.eventId[2 * row]!;
    words[to + EVENT_HIGH] = columns.eventId[2 * row + 1]!;
    words[to + FLAGS] = columns.flags[row]!;
    words[to + INSTANCE] = instance;
    words[to + STATE] = ROW_STATE.ENDED;
    words[to + DURATION] = columns.durationUs[row]!;
    const operation = names[columns.operation[row]!]!;
    const peerService = names[columns.peerService[row]!]!;
    const peerCuid = names[columns.peerCuid[row]!]!;
    const details = names[columns.details[row]!]!;
    words[to + OPERATION] = operation;
    words[to + PEER_SERVICE] = peerService;
    words[to + PEER_CUID] = peerCuid;
    words[to + DETAILS] = details;
    words[to + SPAN_IN] = foldSpan(columns.spanIn[2 * row + 1]! | 0, columns.spanIn[2 * row]! | 0);
    words[to + SPAN_OUT] = foldSpan(columns.spanOut[2 * row + 1]! | 0, columns.spanOut[2 * row]! | 0);
    words[to + STATUS] = columns.status[row]!;
    words[to + RESPONSE_FLAGS] = columns.responseFlags[row]!;
    words[to + WAIT] = columns.waitUs[row]!;
    const { texts } = this;
    texts.retain(operation);
    texts.retain(peerService);
    texts.retain(peerCuid);
    texts.retain(details);
    this.instances.retain(instance);
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
      this.giveBack(number);
      number = next;
    }
  }

  next(number: number): number {
    return this.get(number, NEXT);
  }

  setNext(number: number, next: number): void {
    this.set(number, NEXT, next);
  }

  /** Next row with the same event id, of whichever transaction; NONE = there is no other. */
  twin(number: number): number {
    return this.get(number, TWIN);
  }

  setTwin(number: number, twin: number): void {
    this.set(number, TWIN, twin);
  }

  /** Of its transaction. */
  slot(number: number): number {
    return this.get(number, SLOT);
  }

  setSlot(number: number, slot: number): void {
    this.set(number, SLOT, slot);
  }

  eventHigh(number: number): number {
    return this.get(number, EVENT_HIGH);
  }

  eventLow(number: number): number {
    return this.get(number, EVENT_LOW);
  }

  flags(number: number): number {
    return this.get(number, FLAGS);
  }

  state(number: number): number {
    return this.get(number, STATE);
  }

  setState(number: number, state: number): void {
    this.set(number, STATE, state);
  }

  instanceOf(number: number): Instance {
    return this.instances.get(this.get(number, INSTANCE));
  }

  peerServiceOf(number: number): string {
    return this.texts.get(this.get(number, PEER_SERVICE));
  }

  peerCuidOf(number: number): string {
    return this.texts.get(this.get(number, PEER_CUID));
  }

  /** Of a row that runs: it was heard of again. */
  heard(number: number, endUs: number, durationUs: number): void {
    this.chunk(number).doubles[(at(number) >> 1) + END] = endUs;
    this.set(number, DURATION, durationUs);
  }

  isEvent(number: number, eventHigh: number, eventLow: number): boolean {
    const { words } = this.chunk(number);
    const from = at(number);
    return words[from + EVENT_LOW] === (eventLow | 0) && words[from + EVENT_HIGH] === (eventHigh | 0);
  }

  /** Whether the stored row tells of the request with this event id at the same proxy, from the same side. */
  isSameRequest(number: number, eventHigh: number, eventLow: number, instance: number, flags: number): boolean {
    const { words } = this.chunk(number);
    const from = at(number);
    return (
      words[from + EVENT_LOW] === (eventLow | 0) &&
      words[from + EVENT_HIGH] === (eventHigh | 0) &&
      ((words[from + FLAGS]! ^ flags) & ROW_FLAG.CALL) === 0 &&
      this.isSameProxy(words[from + INSTANCE]!, instance)
    );
  }

  /** By the proxy, not by its CUID, which may become another one while a request runs. */
  private isSameProxy(a: number, b: number): boolean {
    return a === b || this.instances.get(a).proxyId === this.instances.get(b).proxyId;
  }

  /** With isSameRequest: the row is the very same, not another attempt at the same instance. */
  isSameEnd(number: number, endUs: number, durationUs: number): boolean {
    return (
      this.chunk(number).doubles[(at(number) >> 1) + END] === endUs && this.get(number, DURATION) >>> 0 === durationUs
    );
  }

  read(number: number): Row {
    const { words, doubles } = this.chunk(number);
    const from = at(number);
    const endUs = doubles[(from >> 1) + END]!;
    const durationUs = words[from + DURATION]! >>> 0;
    const [high, low] = [words[from + EVENT_HIGH]! >>> 0, words[from + EVENT_LOW]! >>> 0];
    const flags = words[from + FLAGS]! >>> 0;
    return {
      instance: this.instances.get(words[from + INSTANCE]!),
      eventId: (high | low) === 0 ? '' : hexOfWords(high, low),
      call: (flags & ROW_FLAG.CALL) !== 0,
      startUs: endUs - durationUs,
      endUs,
      durationUs,
      offsetUs: doubles[(from >> 1) + OFFSET]!,
      spanIn: words[from + SPAN_IN]! >>> 0,
      spanOut: words[from + SPAN_OUT]! >>> 0,
      operation: this.texts.get(words[from + OPERATION]!),
      peerService: this.texts.get(words[from + PEER_SERVICE]!),
      peerCuid: this.texts.get(words[from + PEER_CUID]!),
      details: this.texts.get(words[from + DETAILS]!),
      status: words[from + STATUS]! >>> 0,
      responseFlags: words[from + RESPONSE_FLAGS]! >>> 0,
      flags,
      waitUs: words[from + WAIT]! >>> 0,
      state: words[from + STATE]!,
    };
  }

  private write(number: number, row: Readonly<NewRow>): void {
    const { words, doubles } = this.chunk(number);
    const to = at(number);
    doubles[(to >> 1) + END] = row.endUs;
    doubles[(to >> 1) + OFFSET] = row.offsetUs;
    words[to + EVENT_HIGH] = row.eventHigh;
    words[to + EVENT_LOW] = row.eventLow;
    words[to + FLAGS] = row.flags;
    words[to + INSTANCE] = row.instance;
    words[to + STATE] = row.state;
    words[to + DURATION] = row.durationUs;
    words[to + OPERATION] = row.operation;
    words[to + PEER_SERVICE] = row.peerService;
    words[to + PEER_CUID] = row.peerCuid;
    words[to + DETAILS] = row.details;
    words[to + SPAN_IN] = row.spanIn;
    words[to + SPAN_OUT] = row.spanOut;
    words[to + STATUS] = row.status;
    words[to + RESPONSE_FLAGS] = row.responseFlags;
    words[to + WAIT] = row.waitUs;
    for (const name of [row.operation, row.peerService, row.peerCuid, row.details]) this.texts.retain(name);
    this.instances.retain(row.instance);
  }

  private releaseNames(number: number): void {
    const { words } = this.chunk(number);
    const from = at(number);
    this.texts.release(words[from + OPERATION]!);
    this.texts.release(words[from + PEER_SERVICE]!);
    this.texts.release(words[from + PEER_CUID]!);
    this.texts.release(words[from + DETAILS]!);
    this.instances.release(words[from + INSTANCE]!);
  }

  private giveBack(number: number): void {
    if (this.freed === this.free.length) {
      const larger = new Int32Array(2 * this.free.length);
      larger.set(this.free);
      this.free = larger;
    }
    this.free[this.freed++] = number;
  }

  private get(number: number, word: number): number {
    return this.chunk(number).words[at(number) + word]!;
  }

  private set(number: number, word: number, value: number): void {
    this.chunk(number).words[at(number) + word] = value;
  }

  private chunk(number: number): Chunk {
    return this.chunks[number >>> CHUNK_BITS]!;
  }

  /** A number for a row of the transaction in `slot`, in front of the list that begins at `next`. */
  private take(slot: number, next: number): number {
    if (this.freed === 0 && this.used === this.chunks.length * CHUNK_ROWS) this.chunks.push(new Chunk());
    const number = this.freed > 0 ? this.free[--this.freed]! : this.used++;
    const { words } = this.chunk(number);
    const to = at(number);
    words[to + NEXT] = next;
    words[to + TWIN] = NONE;
    words[to + SLOT] = slot;
    return number;
  }
}

/** A 64-bit span id as 32 bits, signed, that are 0 only for 0. */
export function foldSpan(high: number, low: number): number {
  if ((high | low) === 0) return 0;
  return (high ^ low) | 0 || 1;
}
