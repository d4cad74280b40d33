// All transactions that are kept: found by any of their ids, joined when a row carries the ids of two,
// and given up in order when time or room is over.

import { TRACE_REASON_MASK, type Id } from './ids.js';
import { hash2, hash4, HashIndex, NONE } from './id-index.js';
import { Rows, type NewRow, type Row } from './rows.js';
import { AT, IDS_MAX, IS, SHELVES, type IndexedId, type Shelf } from './slot-layout.js';
import { Slots } from './slots.js';
import { Transaction } from './transaction.js';

/** Rows of one transaction: 512 events, each with the caller's side of it. */
export const ROWS_MAX = 1024;

/** Rows a transaction, on the average, when the table is full: 88 bytes each. */
const ROWS_MEAN = 20;

/** Share of the table that failed transactions and noise can fill while others want room. */
const FAILED_SHARE = 0.5;
const NOISE_SHARE = 0.05;

type IndexName = IndexedId['index'] | 'event';

/** The ids of one row as words, to be filled again for each; all zero = it has none of this sort. */
export interface RowIds {
  key0: number;
  key1: number;
  key2: number;
  key3: number;
  request0: number;
  request1: number;
  request2: number;
  request3: number;
  eventHigh: number;
  eventLow: number;
}

export interface TableCounters {
  /** Given up for want of room, and for age. */
  evicted: number;
  expired: number;
  /** Joined with another, and not joined because the two together would be too big. */
  merged: number;
  mergesRefused: number;
}

export class Table {
  private readonly seed: number;
  readonly rows = new Rows();
  readonly slots = new Slots();
  readonly counters: TableCounters = { evicted: 0, expired: 0, merged: 0, mergesRefused: 0 };
  /** Begin of the latest transaction that was given up for want of room, us; 0 = none was. */
  evictedBeginUs = 0;
  /** Slots by key and by request id. */
  private readonly keys = new HashIndex();
  private readonly requests = new HashIndex();
  /** Rows by event id: the one that came first, with the others as its twins. */
  private readonly events = new HashIndex();

  /** @param leaving told of each that is given up for want of room before it is gone */
  constructor(
    private readonly transactionsMax: number,
    seed: number,
    private readonly leaving: (slot: number) => void = () => undefined,
  ) {
    this.seed = seed | 0;
  }

  get size(): number {
    return this.slots.size;
  }

  *all(): Generator<Transaction> {
    for (const slot of this.slots.all()) yield this.at(slot);
  }

  at(slot: number): Transaction {
    return new Transaction(this.slots, slot);
  }

  find(index: IndexName, id: Id): Transaction | undefined {
    const slot = index === 'event' ? this.slotOfRow(this.rowOf(id[2], id[3])) : this.slotOf(index, ...id);
    return slot === NONE ? undefined : this.at(slot);
  }

  /** First row with an event id, or NONE; the others are its twins. */
  rowOf(eventHigh: number, eventLow: number): number {
    const { events } = this;
    const hash = hash2(this.seed, eventHigh, eventLow);
    for (let cell = events.first(hash); cell !== NONE; cell = events.after(cell, hash)) {
      const row = events.at(cell);
      if (this.rows.isEvent(row, eventHigh, eventLow)) return row;
    }
    return NONE;
  }

  /** The transaction of a row: the one that has any of its ids, several joined into one, or a new one. */
  join(ids: RowIds): number {
    const { slots } = this;
    const { key0, key1, key2, key3, request0, request1, request2, request3 } = ids;
    const hasKey = (key0 | key1 | key2 | key3) !== 0;
    const hasRequest = (request0 | request1 | request2 | request3) !== 0;
    const row = (ids.eventHigh | ids.eventLow) === 0 ? NONE : this.rowOf(ids.eventHigh, ids.eventLow);
    this.twin = row;
    let slot = this.slotOfRow(row);
    // Nearly always its ids are those it had at first; then there is nothing to look up.
    let keyKnown = !hasKey || (slot !== NONE && slots.isKey(slot, key0, key1, key2, key3));
    if (!keyKnown) {
      const byKey = this.slotOf('key', key0, key1, key2, key3);
      keyKnown = byKey !== NONE;
      slot = this.unite(slot, byKey);
    }
    let requestKnown = !hasRequest || (slot !== NONE && slots.isRequest(slot, request0, request1, request2, request3));
    if (!requestKnown) {
      const byRequest = this.slotOf('request', request0, request1, request2, request3);
      requestKnown = byRequest !== NONE;
      if (byRequest !== NONE && this.mayJoin(byRequest, slot, hasKey)) slot = this.unite(slot, byRequest);
    }
    if (slot === NONE) slot = this.create();
    if (!keyKnown) this.register(slot, 'key', key0, key1, key2, key3);
    if (!requestKnown) this.register(slot, 'request', request0, request1, request2, request3);
    return slot;
  }

  /** Whether the row that was joined last has the event id of one that is stored. */
  get hasTwin(): boolean {
    return this.twin !== NONE;
  }

  /** Stores the row that was joined last as one of the transaction in `slot`; its event id leads there from now on. */
  addRow(slot: number, row: Readonly<NewRow>): void {
    const { slots, rows } = this;
    this.added(slot, rows.add(row, slot, slots.word(slot, IS.FIRST)), row.eventHigh, row.eventLow);
  }

  /** The row that was joined last was stored in front of the list of `slot`. */
  added(slot: number, row: number, eventHigh: number, eventLow: number): void {
    const { slots, rows } = this;
    slots.setWord(slot, IS.FIRST, row);
    slots.add(slot, IS.ROWS, 1);
    if ((eventHigh | eventLow) !== 0) {
      const first = this.twin;
      if (first === NONE) this.events.add(hash2(this.seed, eventHigh, eventLow), row);
      else {
        rows.setTwin(row, rows.twin(first));
        rows.setTwin(first, row);
      }
    }
    while (rows.size > this.transactionsMax * ROWS_MEAN && this.evict(slot));
  }

  /** Numbers of the rows of a transaction, latest first. */
  *rowsOf({ slot }: Pick<Transaction, 'slot'>): Generator<number> {
    for (let row = this.slots.word(slot, IS.FIRST); row !== NONE; row = this.rows.next(row)) yield row;
  }

  read(transaction: Pick<Transaction, 'slot'>): Row[] {
    const rows: Row[] = [];
    for (const row of this.rowsOf(transaction)) rows.push(this.rows.read(row));
    return rows;
  }

  /** Forgets ended transactions of one shelf that ended before `beforeUs`. */
  expire(shelf: Shelf, beforeUs: number): void {
    const { slots } = this;
    for (let slot = slots.firstOf(shelf); slot !== NONE; slot = slots.firstOf(shelf)) {
      const transaction = this.at(slot);
      // A sender's clock may be ahead of ours.
      if (Math.min(transaction.endUs ?? transaction.heardUs, transaction.heardUs) >= beforeUs) return;
      this.remove(slot);
      this.counters.expired += 1;
    }
  }

  /** First row with the event id of the row that was joined last, NONE = there is none. */
  private twin = NONE;

  private slotOfRow(row: number): number {
    return row === NONE ? NONE : this.rows.slot(row);
  }

  private slotOf(index: IndexedId['index'], a: number, b: number, c: number, d: number): number {
    const { slots } = this;
    const cells = index === 'key' ? this.keys : this.requests;
    const hash = this.hashOf(index, a, b, c, d);
    for (let cell = cells.first(hash); cell !== NONE; cell = cells.after(cell, hash)) {
      const slot = cells.at(cell);
      if (index === 'key' ? slots.isKey(slot, a, b, c, d) : slots.isRequest(slot, a, b, c, d)) return slot;
    }
    return NONE;
  }

  /** Request ids are compared without the digit in which Envoy packs the trace reason, but kept as they are. */
  private hashOf(index: IndexedId['index'], a: number, b: number, c: number, d: number): number {
    return hash4(this.seed, a, index === 'key' ? b : b & TRACE_REASON_MASK, c, d);
  }

  private hashAt(slot: number, index: IndexedId['index'], is: number): number {
    const { slots } = this;
    const [a, b, c, d] = [is, is + 1, is + 2, is + 3];
    return this.hashOf(index, slots.word(slot, a), slots.word(slot, b), slots.word(slot, c), slots.word(slot, d));
  }

  private create(): number {
    const slot = this.slots.take();
    while (this.slots.size > this.transactionsMax && this.evict(slot));
    return slot;
  }

  private register(slot: number, index: IndexedId['index'], a: number, b: number, c: number, d: number): void {
    if (this.slots.word(slot, IS.IDS) >= IDS_MAX || this.slotOf(index, a, b, c, d) !== NONE) return;
    this.slots.noteId(slot, index, a, b, c, d);
    const hash = this.hashOf(index, a, b, c, d);
    if (index === 'key') this.keys.add(hash, slot);
    else this.requests.add(hash, slot);
  }

  /** Not when the request id would be the only link of a new key to a transaction with too many. */
  private mayJoin(found: number, slot: number, hasKey: boolean): boolean {
    if (slot !== NONE || !hasKey || this.slots.word(found, IS.IDS) < IDS_MAX) return true;
    this.counters.mergesRefused += 1;
    return false;
  }

  private unite(a: number, b: number): number {
    if (a === NONE || b === NONE || a === b) return a === NONE ? b : a;
    const { slots } = this;
    const [rowsOfA, rowsOfB] = [slots.word(a, IS.ROWS), slots.word(b, IS.ROWS)];
    // An id that many requests share (a constant x-request-id) is no id: it must not make all of them one.
    if (slots.word(a, IS.IDS) + slots.word(b, IS.IDS) > IDS_MAX || rowsOfA + rowsOfB > 2 * ROWS_MAX) {
      this.counters.mergesRefused += 1;
      return a;
    }
    return rowsOfA >= rowsOfB ? this.merge(a, b) : this.merge(b, a);
  }

  private merge(into: number, from: number): number {
    const { slots, rows } = this;
    const first = slots.word(from, IS.FIRST);
    let last = NONE;
    for (let row = first; row !== NONE; row = rows.next(row)) {
      last = row;
      rows.setSlot(row, into);
    }
    if (last !== NONE) {
      rows.setNext(last, slots.word(into, IS.FIRST));
      slots.setWord(into, IS.FIRST, first);
    }
    slots.add(into, IS.ROWS, slots.word(from, IS.ROWS));
    for (const { index, id } of slots.idsOf(from)) {
      const cells = index === 'key' ? this.keys : this.requests;
      cells.put(cells.find(this.hashOf(index, ...id), from), into);
      slots.noteId(into, index, ...id);
    }
    slots.absorb(into, from);
    slots.release(from);
    this.counters.merged += 1;
    return into;
  }

  /** Gives up the least useful transaction, never `kept`; false if there is no other. */
  private evict(kept: number): boolean {
    const { slots } = this;
    for (const shelf of this.evictionOrder()) {
      let slot = slots.firstOf(shelf);
      if (slot === kept) slot = slots.after(slot);
      if (slot === NONE) continue;
      this.leaving(slot);
      this.evictedBeginUs = Math.max(this.evictedBeginUs, this.beginUs(slot));
      this.remove(slot);
      this.counters.evicted += 1;
      return true;
    }
    return false;
  }

  private evictionOrder(): readonly Shelf[] {
    if (this.slots.sizeOf('noise') > NOISE_SHARE * this.transactionsMax) return NOISE_FIRST;
    return this.slots.sizeOf('failed') > FAILED_SHARE * this.transactionsMax ? FAILED_FIRST : ENDED_FIRST;
  }

  private beginUs(slot: number): number {
    const entryStartUs = this.slots.double(slot, AT.ENTRY_START);
    return entryStartUs === Number.POSITIVE_INFINITY ? this.slots.double(slot, AT.STARTED) : entryStartUs;
  }

  private remove(slot: number): void {
    const { slots, rows } = this;
    const first = slots.word(slot, IS.FIRST);
    for (let row = first; row !== NONE; row = rows.next(row)) this.unlist(row);
    rows.freeList(first);
    if (slots.hasFirst(slot, 'key')) {
      this.keys.delete(this.hashAt(slot, 'key', IS.FIRST_KEY), slot);
    }
    if (slots.hasFirst(slot, 'request')) {
      this.requests.delete(this.hashAt(slot, 'request', IS.FIRST_REQUEST), slot);
    }
    for (const { index, id } of slots.rarely(slot)?.ids ?? NO_IDS) this.unpoint(index, id, slot);
    slots.release(slot);
  }

  /** Takes a row out of those with its event id. */
  private unlist(row: number): void {
    const { rows, events } = this;
    const [high, low] = [rows.eventHigh(row), rows.eventLow(row)];
    if ((high | low) === 0) return;
    const hash = hash2(this.seed, high, low);
    const twin = rows.twin(row);
    const cell = events.find(hash, row);
    if (cell !== NONE) {
      if (twin === NONE) events.delete(hash, row);
      else events.put(cell, twin);
      return;
    }
    const first = this.rowOf(high, low);
    for (let before = first; before !== NONE; before = rows.twin(before)) {
      if (rows.twin(before) !== row) continue;
      rows.setTwin(before, twin);
      return;
    }
  }

  private unpoint(index: IndexedId['index'], id: Id, slot: number): void {
    const cells = index === 'key' ? this.keys : this.requests;
    cells.delete(this.hashOf(index, ...id), slot);
  }
}

const NO_IDS: readonly IndexedId[] = [];

const [ARRIVING, SETTLED, RUNNING, NOISE, ENDED, FAILED] = SHELVES;
const NOISE_FIRST = [NOISE, ENDED, FAILED, SETTLED, RUNNING, ARRIVING] as const;
const FAILED_FIRST = [FAILED, ENDED, NOISE, SETTLED, RUNNING, ARRIVING] as const;
const ENDED_FIRST = [ENDED, NOISE, FAILED, SETTLED, RUNNING, ARRIVING] as const;

export const isNone = (id: Id): boolean => (id[0] | id[1] | id[2] | id[3]) === 0;
