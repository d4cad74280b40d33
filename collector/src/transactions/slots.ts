// What is known of each transaction, in typed arrays by slot: what every row changes.
//
// A transaction as an object with its ids and its place in a list takes a microsecond to make and to
// collect, for the ten rows it has. Here it is a few words that are used again. What few transactions have
// (a text of its key, more than one id of a sort) lies in objects beside them. `Transaction` is a view.

import { TRACE_REASON_MASK, type Id } from './ids.js';
import { NONE } from './id-index.js';
import { Interner } from './interner.js';
import {
  AT,
  DOUBLES,
  FLAG,
  HAS,
  IS,
  RANK_NONE,
  rankOf,
  SHELVES,
  STAGE,
  WORDS,
  type IndexedId,
  type Shelf,
} from './slot-layout.js';

const ARRIVING = SHELVES.indexOf('arriving');

/** What few transactions have. */
export interface Rare {
  keyText: string;
  /** Beyond the first key and the first request id. */
  ids: IndexedId[];
  /** The state and kind that watchers were told last. */
  told: string;
  /** As found when it last settled: see `Transaction.endedWithoutEntry`. */
  endedWithoutEntry: string;
}

const START_SIZE = 1024; // slots; doubles when full

export class Slots {
  /** For the intake of rows too, which cannot afford a call for each. They are others after a `take`. */
  doubles = new Float64Array(DOUBLES * START_SIZE);
  words = new Int32Array(this.doubles.buffer);
  readonly kinds = new Interner<string>();
  private readonly rare = new Map<number, Rare>();
  private used = 0;
  private free: number[] = [];
  private serial = 0;
  /** The time, us by the collector's clock: in an array, because a field would make an object of each. */
  readonly now = new Float64Array(1);
  private readonly heads = new Int32Array(SHELVES.length).fill(NONE);
  private readonly tails = new Int32Array(SHELVES.length).fill(NONE);
  private readonly sizes = new Int32Array(SHELVES.length);

  /** Slots that are in use. */
  get size(): number {
    return this.used - this.free.length;
  }

  double(slot: number, at: number): number {
    return this.doubles[DOUBLES * slot + at]!;
  }

  setDouble(slot: number, at: number, value: number): void {
    this.doubles[DOUBLES * slot + at] = value;
  }

  word(slot: number, is: number): number {
    return this.words[WORDS * slot + is]!;
  }

  setWord(slot: number, is: number, value: number): void {
    this.words[WORDS * slot + is] = value;
  }

  add(slot: number, is: number, amount: number): void {
    this.words[WORDS * slot + is]! += amount;
  }

  has(slot: number, flag: number): boolean {
    return (this.words[WORDS * slot + IS.FLAGS]! & flag) !== 0;
  }

  mark(slot: number, flag: number, on = true): void {
    const at = WORDS * slot + IS.FLAGS;
    if (on) this.words[at]! |= flag;
    else this.words[at]! &= ~flag;
  }

  /** Whether a slot holds the transaction with this serial. */
  holds(slot: number, serial: number): boolean {
    return this.double(slot, AT.SERIAL) === serial;
  }

  *all(): Generator<number> {
    for (let slot = 0; slot < this.used; slot++) if (this.double(slot, AT.SERIAL) !== 0) yield slot;
  }

  /** A new transaction, on the shelf of those that arrive. */
  take(): number {
    let slot = this.free.pop();
    if (slot === undefined) {
      slot = this.used++;
      if (WORDS * this.used > this.words.length) this.grow();
    }
    const { words, doubles } = this;
    const at = WORDS * slot;
    words.fill(0, at, at + WORDS);
    words[at + IS.FIRST] = NONE;
    words[at + IS.KIND] = NONE;
    words[at + IS.KEY_RANK] = RANK_NONE;
    const times = DOUBLES * slot;
    doubles[times + AT.HEARD] = 0;
    doubles[times + AT.STARTED] = Number.POSITIVE_INFINITY;
    doubles[times + AT.LAST_END] = 0;
    doubles[times + AT.ENTRY_START] = Number.POSITIVE_INFINITY;
    doubles[times + AT.ENTRY_END] = Number.NEGATIVE_INFINITY;
    doubles[times + AT.KEY_START] = Number.POSITIVE_INFINITY;
    doubles[times + AT.ENTRY_DURATION] = 0;
    doubles[times + AT.SERIAL] = ++this.serial;
    this.append(slot, ARRIVING);
    return slot;
  }

  /** Gives a slot back; its rows and ids are the caller's business. */
  release(slot: number): void {
    this.takeOff(slot);
    this.setDouble(slot, AT.SERIAL, 0);
    const kind = this.word(slot, IS.KIND);
    if (kind !== NONE) this.kinds.release(kind);
    if (this.rare.size > 0) this.rare.delete(slot);
    this.free.push(slot);
  }

  // Shelves: doubly linked lists through the slots, the next to go first.

  firstOf(shelf: Shelf): number {
    return this.heads[SHELVES.indexOf(shelf)]!;
  }

  after(slot: number): number {
    return this.word(slot, IS.AFTER);
  }

  sizeOf(shelf: Shelf): number {
    return this.sizes[SHELVES.indexOf(shelf)]!;
  }

  /** Puts a transaction at the end of a shelf. */
  shelve(slot: number, shelf: Shelf): void {
    this.takeOff(slot);
    this.append(slot, SHELVES.indexOf(shelf));
  }

  /** It was heard of now: at the end of those that arrive. */
  touch(slot: number): void {
    const at = WORDS * slot;
    const { words, doubles } = this;
    doubles[DOUBLES * slot + AT.HEARD] = this.now[0]!;
    words[at + IS.STAGE] = STAGE.ARRIVING;
    if (words[at + IS.SHELF] === ARRIVING && words[at + IS.AFTER] === NONE) return;
    this.takeOff(slot);
    this.append(slot, ARRIVING);
  }

  private append(slot: number, shelf: number): void {
    const { words } = this;
    const last = this.tails[shelf]!;
    const at = WORDS * slot;
    words[at + IS.SHELF] = shelf;
    words[at + IS.BEFORE] = last;
    words[at + IS.AFTER] = NONE;
    if (last === NONE) this.heads[shelf] = slot;
    else words[WORDS * last + IS.AFTER] = slot;
    this.tails[shelf] = slot;
    this.sizes[shelf]! += 1;
  }

  private takeOff(slot: number): void {
    const { words } = this;
    const at = WORDS * slot;
    const shelf = words[at + IS.SHELF]!;
    const before = words[at + IS.BEFORE]!;
    const after = words[at + IS.AFTER]!;
    if (before === NONE) this.heads[shelf] = after;
    else words[WORDS * before + IS.AFTER] = after;
    if (after === NONE) this.tails[shelf] = before;
    else words[WORDS * after + IS.BEFORE] = before;
    this.sizes[shelf]! -= 1;
  }

  // Ids.

  /** Whether it can be found by this key. */
  isKey(slot: number, a: number, b: number, c: number, d: number): boolean {
    const { words } = this;
    const at = WORDS * slot;
    if ((words[at + IS.HAS]! & HAS.KEY) !== 0 && same(words, at + IS.FIRST_KEY, a, b, c, d)) return true;
    return words[at + IS.IDS]! > 1 && this.isAmongRare(slot, 'key', a, b, c, d);
  }

  /** Whether it can be found by this request id; the digit of the trace reason does not count. */
  isRequest(slot: number, a: number, b: number, c: number, d: number): boolean {
    const { words } = this;
    const at = WORDS * slot;
    const from = at + IS.FIRST_REQUEST;
    if (
      (words[at + IS.HAS]! & HAS.REQUEST) !== 0 &&
      words[from] === (a | 0) &&
      ((words[from + 1]! ^ b) & TRACE_REASON_MASK) === 0 &&
      words[from + 2] === (c | 0) &&
      words[from + 3] === (d | 0)
    ) {
      return true;
    }
    return words[at + IS.IDS]! > 1 && this.isAmongRare(slot, 'request', a, b, c, d);
  }

  private isAmongRare(slot: number, of: 'key' | 'request', a: number, b: number, c: number, d: number): boolean {
    const ids = this.rare.get(slot)?.ids;
    if (ids === undefined) return false;
    const mask = of === 'key' ? -1 : TRACE_REASON_MASK;
    return ids.some(
      ({ index, id }) =>
        index === of && id[0] === a >>> 0 && ((id[1] ^ b) & mask) === 0 && id[2] === c >>> 0 && id[3] === d >>> 0,
    );
  }

  noteId(slot: number, index: 'key' | 'request', a: number, b: number, c: number, d: number): void {
    const { words } = this;
    const at = WORDS * slot;
    const has = index === 'key' ? HAS.KEY : HAS.REQUEST;
    words[at + IS.IDS]! += 1;
    if ((words[at + IS.HAS]! & has) !== 0) {
      this.rareOf(slot).ids.push({ index, id: [a >>> 0, b >>> 0, c >>> 0, d >>> 0] });
      return;
    }
    words[at + IS.HAS]! |= has;
    put(words, at + (index === 'key' ? IS.FIRST_KEY : IS.FIRST_REQUEST), a, b, c, d);
  }

  /** Whether its first id of a sort is known. */
  hasFirst(slot: number, index: 'key' | 'request'): boolean {
    return (this.words[WORDS * slot + IS.HAS]! & (index === 'key' ? HAS.KEY : HAS.REQUEST)) !== 0;
  }

  /** All ids that it can be found by. */
  idsOf(slot: number): IndexedId[] {
    const ids: IndexedId[] = [];
    if (this.hasFirst(slot, 'key')) ids.push({ index: 'key', id: this.idAt(slot, IS.FIRST_KEY) });
    if (this.hasFirst(slot, 'request')) ids.push({ index: 'request', id: this.idAt(slot, IS.FIRST_REQUEST) });
    return [...ids, ...(this.rare.get(slot)?.ids ?? [])];
  }

  /** @param is KEY, FIRST_KEY or FIRST_REQUEST */
  idAt(slot: number, is: number): Id {
    const { words } = this;
    const at = WORDS * slot + is;
    return [words[at]! >>> 0, words[at + 1]! >>> 0, words[at + 2]! >>> 0, words[at + 3]! >>> 0];
  }

  /**
   * Offers a key, read from a row that started at `startUs` by the collector's clock. A trace context is
   * preferred to a request id, then the key of the earliest row: whatever the order of arrival, it is
   * the same one in the end.
   */
  offerKey(slot: number, source: number, startUs: number, a: number, b: number, c: number, d: number): void {
    const { words, doubles } = this;
    const at = WORDS * slot;
    const rank = rankOf(source);
    const known = words[at + IS.KEY_RANK]!;
    if (rank > known || (rank === known && startUs >= doubles[DOUBLES * slot + AT.KEY_START]!)) return;
    words[at + IS.KEY_SOURCE] = source;
    words[at + IS.KEY_RANK] = rank;
    doubles[DOUBLES * slot + AT.KEY_START] = startUs;
    put(words, at + IS.KEY, a, b, c, d);
  }

  // Entry events.

  /** @param kind number of its kind, of which it takes a reference */
  entryStarted(slot: number, kind: number, startUs: number): void {
    this.add(slot, IS.ENTRIES, 1);
    this.entryFrom(slot, kind, startUs);
  }

  entryEnded(slot: number, startUs: number, endUs: number, durationUs: number, outcome: number): void {
    const { words, doubles } = this;
    const at = WORDS * slot;
    const times = DOUBLES * slot;
    words[at + IS.ENTRIES_ENDED]! += 1;
    // While it ran its start was known to the millisecond only.
    const started = doubles[times + AT.ENTRY_START]!;
    doubles[times + AT.ENTRY_START] = words[at + IS.ENTRIES] === 1 ? startUs : Math.min(started, startUs);
    if (endUs < doubles[times + AT.ENTRY_END]!) return;
    doubles[times + AT.ENTRY_END] = endUs;
    doubles[times + AT.ENTRY_DURATION] = durationUs;
    words[at + IS.ENTRY_OUTCOME] = outcome;
  }

  /** `into` takes over all that `from` knows but its rows and ids. */
  absorb(into: number, from: number): void {
    const key = this.idAt(from, IS.KEY);
    this.noteKeyText(into, this.rare.get(from)?.keyText ?? '');
    if (this.word(from, IS.KEY_RANK) !== RANK_NONE) {
      this.offerKey(into, this.word(from, IS.KEY_SOURCE), this.double(from, AT.KEY_START), ...key);
    }
    for (const is of [IS.EVENTS, IS.OMITTED, IS.RUNNING, IS.ENTRIES_RUNNING, IS.SHAPE_A, IS.SHAPE_B]) {
      this.add(into, is, this.word(from, is));
    }
    this.setWord(into, IS.PAIRS, this.word(into, IS.PAIRS) ^ this.word(from, IS.PAIRS));
    this.setDouble(into, AT.STARTED, Math.min(this.double(into, AT.STARTED), this.double(from, AT.STARTED)));
    this.setDouble(into, AT.LAST_END, Math.max(this.double(into, AT.LAST_END), this.double(from, AT.LAST_END)));
    this.setDouble(into, AT.HEARD, Math.max(this.double(into, AT.HEARD), this.double(from, AT.HEARD)));
    if (this.word(from, IS.ENTRIES) > 0) {
      this.entryFrom(into, this.word(from, IS.KIND), this.double(from, AT.ENTRY_START));
    }
    this.add(into, IS.ENTRIES, this.word(from, IS.ENTRIES));
    const later = this.double(from, AT.ENTRY_END) >= this.double(into, AT.ENTRY_END);
    if (this.word(from, IS.ENTRIES_ENDED) > 0 && later) {
      this.setDouble(into, AT.ENTRY_END, this.double(from, AT.ENTRY_END));
      this.setDouble(into, AT.ENTRY_DURATION, this.double(from, AT.ENTRY_DURATION));
      this.setWord(into, IS.ENTRY_OUTCOME, this.word(from, IS.ENTRY_OUTCOME));
    }
    this.add(into, IS.ENTRIES_ENDED, this.word(from, IS.ENTRIES_ENDED));
    this.mark(into, this.word(from, IS.FLAGS) & (FLAG.EVIDENCE | FLAG.LEARNED | FLAG.DOOMED | FLAG.ODD));
    this.setWord(into, IS.UNLINKED, Math.max(this.word(into, IS.UNLINKED), this.word(from, IS.UNLINKED)));
    const told = this.rare.get(from)?.told ?? '';
    if (told !== '' && this.told(into) === '') this.rareOf(into).told = told;
  }

  private entryFrom(slot: number, kind: number, startUs: number): void {
    const known = this.word(slot, IS.KIND);
    if (startUs >= this.double(slot, AT.ENTRY_START) && known !== NONE) return;
    this.setDouble(slot, AT.ENTRY_START, startUs);
    this.kinds.retain(kind);
    if (known !== NONE) this.kinds.release(known);
    this.setWord(slot, IS.KIND, kind);
  }

  // What is rare.

  rareOf(slot: number): Rare {
    let rare = this.rare.get(slot);
    if (rare === undefined) {
      this.rare.set(slot, (rare = { keyText: '', ids: [], told: '', endedWithoutEntry: 'UNSPECIFIED' }));
    }
    return rare;
  }

  rarely(slot: number): Rare | undefined {
    return this.rare.get(slot);
  }

  told(slot: number): string {
    return this.rare.get(slot)?.told ?? '';
  }

  noteKeyText(slot: number, text: string): void {
    if (text !== '' && (this.rare.get(slot)?.keyText ?? '') === '') this.rareOf(slot).keyText = text;
  }

  private grow(): void {
    const words = new Int32Array(2 * this.words.length);
    words.set(this.words);
    this.words = words;
    this.doubles = new Float64Array(words.buffer);
  }
}

function put(words: Int32Array, at: number, a: number, b: number, c: number, d: number): void {
  words[at] = a;
  words[at + 1] = b;
  words[at + 2] = c;
  words[at + 3] = d;
}

const same = (words: Int32Array, at: number, a: number, b: number, c: number, d: number): boolean =>
  words[at] === (a | 0) && words[at + 1] === (b | 0) && words[at + 2] === (c | 0) && words[at + 3] === (d | 0);
