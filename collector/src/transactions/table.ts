// All transactions that are kept: found by any of their ids, joined when a row carries the ids of two,
// and given up in order when time or room is over.

import { maskedWord, type Id } from './ids.js';
import { IdIndex, NONE } from './id-index.js';
import { Rows, type Row } from './rows.js';
import { IDS_MAX, Transaction, type IndexedId, type Shelf } from './transaction.js';

/** Rows of one transaction: 512 events, each with the caller's side of it. */
export const ROWS_MAX = 1024;

/** Rows a transaction, on the average, when the table is full: about 77 bytes each. */
const ROWS_MEAN = 20;

/** Share of the table that failed transactions and noise can fill while others want room. */
const FAILED_SHARE = 0.5;
const NOISE_SHARE = 0.05;

type IndexName = IndexedId['index'] | 'event';

/** The ids of one row; [0, 0, 0, 0] = it has none of this sort. */
export interface RowIds {
  readonly key: Id;
  readonly request: Id;
  /** The first two words are 0. */
  readonly event: Id;
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
  readonly rows = new Rows();
  readonly counters: TableCounters = { evicted: 0, expired: 0, merged: 0, mergesRefused: 0 };
  /** Each in the order in which its transactions will expire. */
  readonly shelves: Readonly<Record<Shelf, Set<Transaction>>> = {
    arriving: new Set(),
    settled: new Set(),
    running: new Set(),
    noise: new Set(),
    ended: new Set(),
    failed: new Set(),
  };
  /** Begin of the latest transaction that was given up for want of room, us; 0 = none was. */
  evictedBeginUs = 0;
  private readonly slots: (Transaction | undefined)[] = [];
  private readonly freeSlots: number[] = [];
  private readonly indexes: Readonly<Record<IndexName, IdIndex>>;
  private serial = 0;
  private count = 0;

  constructor(
    private readonly transactionsMax: number,
    seed: number,
  ) {
    this.indexes = { key: new IdIndex(seed), request: new IdIndex(seed), event: new IdIndex(seed) };
  }

  get size(): number {
    return this.count;
  }

  *all(): Generator<Transaction> {
    for (const transaction of this.slots) if (transaction !== undefined) yield transaction;
  }

  find(index: IndexName, id: Id): Transaction | undefined {
    const slot = this.indexes[index].get(id[0], secondWord(index, id), id[2], id[3]);
    return slot === NONE ? undefined : this.slots[slot];
  }

  /** The transaction of a row: the one that has any of its ids, several joined into one, or a new one. */
  join(ids: RowIds): Transaction {
    let transaction = isNone(ids.event) ? undefined : this.find('event', ids.event);
    if (!isNone(ids.key)) transaction = this.unite(transaction, this.find('key', ids.key));
    if (!isNone(ids.request)) transaction = this.unite(transaction, this.byRequest(ids, transaction === undefined));
    transaction ??= this.create();
    this.register(transaction, 'key', ids.key);
    this.register(transaction, 'request', ids.request);
    return transaction;
  }

  /** Stores a row as one of `transaction`; its event id leads there from now on. */
  addRow(transaction: Transaction, row: Parameters<Rows['add']>[0]): void {
    transaction.first = this.rows.add(row, transaction.first);
    transaction.rows += 1;
    const { event } = this.indexes;
    if ((row.eventHigh | row.eventLow) !== 0 && event.get(0, 0, row.eventHigh, row.eventLow) === NONE) {
      event.set(0, 0, row.eventHigh, row.eventLow, transaction.slot);
    }
    while (this.rows.size > this.transactionsMax * ROWS_MEAN && this.evict(transaction));
  }

  /** Numbers of the rows of a transaction, latest first. */
  *rowsOf(transaction: Transaction): Generator<number> {
    for (let row = transaction.first; row !== NONE; row = this.rows.next(row)) yield row;
  }

  read(transaction: Transaction): Row[] {
    const rows: Row[] = [];
    for (const row of this.rowsOf(transaction)) rows.push(this.rows.read(row));
    return rows;
  }

  /** Puts a transaction at the end of a shelf. */
  shelve(transaction: Transaction, shelf: Shelf): void {
    this.shelves[transaction.shelf].delete(transaction);
    transaction.shelf = shelf;
    this.shelves[shelf].add(transaction);
  }

  /** What has become of a transaction: itself, the one it was joined into, or undefined if it is gone. */
  current(transaction: Transaction): Transaction | undefined {
    let at = transaction;
    while (at.mergedInto !== undefined) at = at.mergedInto;
    return this.slots[at.slot] === at ? at : undefined;
  }

  /** Forgets ended transactions of one shelf that ended before `beforeUs`. */
  expire(shelf: Shelf, beforeUs: number): void {
    for (const transaction of this.shelves[shelf]) {
      // A sender's clock may be ahead of ours.
      if (Math.min(transaction.endUs ?? transaction.heardUs, transaction.heardUs) >= beforeUs) return;
      this.remove(transaction);
      this.counters.expired += 1;
    }
  }

  private create(): Transaction {
    const slot = this.freeSlots.pop() ?? this.slots.length;
    const transaction = new Transaction(slot, ++this.serial);
    this.slots[slot] = transaction;
    this.shelves.arriving.add(transaction);
    this.count += 1;
    while (this.count > this.transactionsMax && this.evict(transaction));
    return transaction;
  }

  private register(transaction: Transaction, index: IndexedId['index'], id: Id): void {
    if (isNone(id) || transaction.ids.length >= IDS_MAX || this.find(index, id) !== undefined) return;
    this.point({ index, id }, transaction);
    transaction.ids.push({ index, id });
  }

  private point({ index, id }: IndexedId, transaction: Transaction): void {
    this.indexes[index].set(id[0], secondWord(index, id), id[2], id[3], transaction.slot);
  }

  /** By request id; not when that would be the only link of a new key to a transaction with too many. */
  private byRequest({ request, key }: RowIds, alone: boolean): Transaction | undefined {
    const found = this.find('request', request);
    if (found === undefined || !alone || isNone(key) || found.ids.length < IDS_MAX) return found;
    this.counters.mergesRefused += 1;
    return undefined;
  }

  private unite(a: Transaction | undefined, b: Transaction | undefined): Transaction | undefined {
    if (a === undefined || b === undefined || a === b) return a ?? b;
    // An id that many requests share (a constant x-request-id) is no id: it must not make all of them one.
    if (a.ids.length + b.ids.length > IDS_MAX || a.rows + b.rows > 2 * ROWS_MAX) {
      this.counters.mergesRefused += 1;
      return a;
    }
    return a.rows >= b.rows ? this.merge(a, b) : this.merge(b, a);
  }

  private merge(into: Transaction, from: Transaction): Transaction {
    let last = NONE;
    for (const row of this.rowsOf(from)) {
      last = row;
      this.indexes.event.set(0, 0, this.rows.eventHigh(row), this.rows.eventLow(row), into.slot);
    }
    if (last !== NONE) {
      this.rows.setNext(last, into.first);
      into.first = from.first;
    }
    into.rows += from.rows;
    for (const id of from.ids) {
      this.point(id, into);
      into.ids.push(id);
    }
    into.absorb(from);
    from.mergedInto = into;
    this.forget(from);
    this.counters.merged += 1;
    return into;
  }

  /** Gives up the least useful transaction, never `kept`; false if there is no other. */
  private evict(kept: Transaction): boolean {
    const { arriving, settled, running, noise, ended, failed } = this.shelves;
    const order =
      noise.size > NOISE_SHARE * this.transactionsMax
        ? [noise, ended, failed, settled, running, arriving]
        : failed.size > FAILED_SHARE * this.transactionsMax
          ? [failed, ended, noise, settled, running, arriving]
          : [ended, noise, failed, settled, running, arriving];
    for (const shelf of order) {
      for (const transaction of shelf) {
        if (transaction === kept) continue;
        this.evictedBeginUs = Math.max(this.evictedBeginUs, transaction.beginUs);
        this.remove(transaction);
        this.counters.evicted += 1;
        return true;
      }
    }
    return false;
  }

  private remove(transaction: Transaction): void {
    const { slot } = transaction;
    for (const row of this.rowsOf(transaction)) {
      this.indexes.event.delete(0, 0, this.rows.eventHigh(row), this.rows.eventLow(row), slot);
    }
    this.rows.freeList(transaction.first);
    for (const { index, id } of transaction.ids) {
      this.indexes[index].delete(id[0], secondWord(index, id), id[2], id[3], slot);
    }
    this.forget(transaction);
  }

  private forget(transaction: Transaction): void {
    this.slots[transaction.slot] = undefined;
    this.freeSlots.push(transaction.slot);
    this.shelves[transaction.shelf].delete(transaction);
    this.count -= 1;
  }
}

/** Request ids are compared without the digit in which Envoy packs the trace reason, but kept as they are. */
const secondWord = (index: IndexName, id: Id): number => (index === 'request' ? maskedWord(id[1]) : id[1]);

export const isNone = (id: Id): boolean => (id[0] | id[1] | id[2] | id[3]) === 0;
