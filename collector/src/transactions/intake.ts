// Rows and in-flight lists on their way into the table.

import {
  endUnixUs,
  highWord,
  keySourceOf,
  lowWord,
  NEVER_EVIDENCE,
  outcomeOf,
  ROW_FLAG,
  type EventColumns,
} from '../ingest/columns.js';
import { STRINGS_MAX } from '../ingest/decode-columns.js';
import type { InFlight, InFlightList } from '../ingest/report.js';
import type { InstanceRef, RowBatch } from '../ingest/transactions-port.js';
import { NONE } from './id-index.js';
import { idOfHex } from './ids.js';
import { InFlightLists } from './in-flight.js';
import { foldSpan, ROW_STATE, type NewRow } from './rows.js';
import { isOdd, noteShape } from './shapes.js';
import { AT, FLAG, IS } from './slots.js';
import { ROWS_MAX, type RowIds, type Table } from './table.js';
import type { Transaction } from './transaction.js';
import { warm } from './warm.js';

export interface IntakeCounters {
  /** Rows that were there already, and rows of transactions that the flow had learned from. */
  duplicateRows: number;
  lateRows: number;
  /** Events beyond what one transaction keeps. */
  omittedEvents: number;
}

/** Entries told of when they began are believed to run for this long, us; and how many of them, at most. */
const BEGUN_US = 180_000_000;
const BEGUN_MAX = 100_000;

export class Intake {
  readonly counters: IntakeCounters = { duplicateRows: 0, lateRows: 0, omittedEvents: 0 };
  private readonly lists: InFlightLists<NewRow>;

  /** Told of when they began, oldest first. */
  private readonly begun = new Map<string, { readonly item: NewRow; readonly heardUs: number }>();

  private nowUs = 0;
  private warmed = 0;
  private readonly scratch = new Scratch();
  /** Of the row that is being taken. */
  private readonly ids: RowIds = {
    key0: 0,
    key1: 0,
    key2: 0,
    key3: 0,
    request0: 0,
    request1: 0,
    request2: 0,
    request3: 0,
    eventHigh: 0,
    eventLow: 0,
  };

  /**
   * @param touched     told of every transaction that changed
   * @param secondEntry told when one that was learned from has another entry, of the kind named
   */
  constructor(
    private readonly table: Table,
    private readonly touched: (slot: number) => void,
    private readonly secondEntry: (transaction: Transaction, kind: string) => void = () => undefined,
  ) {
    this.lists = new InFlightLists(item => this.vanished(item));
  }

  get listsDropped(): number {
    return this.lists.dropped;
  }

  /** Takes the rows of one batch. */
  batch({ instance, columns }: RowBatch, nowUs: number): void {
    this.nowUs = nowUs;
    const { texts, instances } = this.table.rows;
    const { kinds } = this.table.slots;
    const from = instances.acquire(instanceKey(instance), () => instanceOf(instance));
    const { strings } = columns;
    const { names, hashes, kindOf } = this.scratch;
    // The batch holds a reference to each of its texts while its rows are stored.
    for (let i = 0; i < strings.length; i++) {
      const name = texts.acquire(strings[i]!, () => strings[i]!);
      names[i] = name;
      hashes[i] = texts.hash(name);
      kindOf[i] = NONE;
    }
    const { service } = instance;
    const own = texts.acquire(service, () => service);
    const serviceHash = texts.hash(own);
    this.warmed ^= warm(this.table, columns);
    for (let row = 0; row < columns.rows; row++) this.row(instance, columns, row, from, serviceHash);
    for (let i = 0; i < strings.length; i++) {
      texts.release(names[i]!);
      if (kindOf[i] !== NONE) kinds.release(kindOf[i]!);
    }
    texts.release(own);
    instances.release(from);
  }

  /** Takes what producers of one instance say is running. */
  inFlight(instance: InstanceRef, lists: readonly InFlightList[], nowUs: number): void {
    this.nowUs = nowUs;
    const { instances } = this.table.rows;
    const from = instances.acquire(instanceKey(instance), () => instanceOf(instance));
    const periodUs = (instance.reportInFlightMs ?? 0) * 1000;
    for (const { producer, items } of lists) {
      const running = new Map<string, NewRow>();
      for (const item of items) {
        const taken = this.runs(instance, item, from);
        if (taken !== undefined) running.set(`${item.eventId} ${item.flags & ROW_FLAG.CALL}`, taken);
      }
      this.lists.replace(`${instance.proxyId} ${producer}`, running, periodUs, nowUs);
    }
    instances.release(from);
  }

  /** Takes requests that have begun; how they end is told by rows, or not at all. */
  begins(instance: InstanceRef, items: readonly InFlight[], nowUs: number): void {
    this.nowUs = nowUs;
    const { instances } = this.table.rows;
    const from = instances.acquire(instanceKey(instance), () => instanceOf(instance));
    for (const item of items) {
      const taken = this.runs(instance, item, from);
      if (taken === undefined) continue;
      const id = `${instance.proxyId} ${item.eventId} ${item.flags & ROW_FLAG.CALL}`;
      this.begun.delete(id);
      this.begun.set(id, { item: taken, heardUs: nowUs });
      if (this.begun.size > BEGUN_MAX) this.begun.delete(this.begun.keys().next().value!);
    }
    instances.release(from);
  }

  /** Lets in-flight lists run out that were not renewed. */
  expire(nowUs: number): void {
    this.nowUs = nowUs;
    this.lists.expire(nowUs);
    for (const [id, { item, heardUs }] of this.begun) {
      if (nowUs - heardUs <= BEGUN_US && nowUs >= heardUs) break;
      this.begun.delete(id);
      this.vanished(item);
    }
  }

  private row(instance: InstanceRef, columns: EventColumns, at: number, from: number, serviceHash: number): void {
    const { table, ids } = this;
    const { slots, rows } = table;
    const { names, hashes } = this.scratch;
    const flags = columns.flags[at]!;
    const eventHigh = columns.eventId[2 * at + 1]!;
    const eventLow = columns.eventId[2 * at]!;
    const durationUs = columns.durationUs[at]!;
    const offsetUs = instance.clockOffsetUs;
    const ownEndUs = endUnixUs(columns, at);
    const endUs = ownEndUs - offsetUs;
    // By the order of the proxy's own clock first: the same sum whichever way a row came.
    const startUs = ownEndUs - durationUs - offsetUs;
    ids.key0 = columns.keyHi[2 * at + 1]!;
    ids.key1 = columns.keyHi[2 * at]!;
    ids.key2 = columns.keyLo[2 * at + 1]!;
    ids.key3 = columns.keyLo[2 * at]!;
    ids.request0 = columns.requestHi[2 * at + 1]!;
    ids.request1 = columns.requestHi[2 * at]!;
    ids.request2 = columns.requestLo[2 * at + 1]!;
    ids.request3 = columns.requestLo[2 * at]!;
    ids.eventHigh = eventHigh;
    ids.eventLow = eventLow;
    const slot = this.join(keySourceOf(flags), startUs);
    const keyText = columns.keyText[at]!;
    if (keyText !== 0) slots.noteKeyText(slot, columns.strings[keyText]!);
    this.touch(slot);
    const known = this.knownRow(slot, eventHigh, eventLow, from, flags, ownEndUs, durationUs);
    if (known !== NONE) {
      const state = rows.state(known);
      if (state === ROW_STATE.ENDED) {
        this.counters.duplicateRows += 1;
        return;
      }
      this.ended(slot, rows.flags(known), state);
      rows.replace(known, this.rowAt(instance, columns, at, from));
      slots.mark(slot, FLAG.ODD);
      this.noteEnd(slot, flags, endUs, durationUs);
      return;
    }
    if (slots.has(slot, FLAG.LEARNED)) this.counters.lateRows += 1;
    const operation = columns.operation[at]!;
    this.noteStart(slot, flags, startUs, isEntry(flags) ? this.kindOf(instance, columns, operation) : NONE);
    this.noteEnd(slot, flags, endUs, durationUs);
    if (!this.hasRoom(slot, flags)) return;
    const first = slots.word(slot, IS.FIRST);
    table.added(slot, rows.addFrom(columns, at, names, from, offsetUs, slot, first), eventHigh, eventLow);
    if (isOdd(flags, columns.peerCuid[at]!)) slots.mark(slot, FLAG.ODD);
    else
      noteShape(
        slots,
        slot,
        flags,
        serviceHash,
        hashes[operation]!,
        hashes[columns.peerService[at]!]!,
        eventHigh,
        eventLow,
      );
  }

  /** Finds the transaction of the row whose ids are filled in, and offers it the row's key. */
  private join(source: number, startUs: number): number {
    const { ids, table } = this;
    const slot = table.join(ids);
    const { key0, key1, key2, key3 } = ids;
    if ((key0 | key1 | key2 | key3) !== 0) table.slots.offerKey(slot, source, startUs, key0, key1, key2, key3);
    else table.slots.offerKey(slot, 0, startUs, 0, 0, ids.eventHigh, ids.eventLow);
    return slot;
  }

  /** A stored row of the same request that has not ended, or is the very same; else NONE. */
  private knownRow(
    slot: number,
    eventHigh: number,
    eventLow: number,
    instance: number,
    flags: number,
    endUs: number,
    durationUs: number,
  ): number {
    const { rows, slots } = this.table;
    const byEvent = (eventHigh | eventLow) !== 0;
    let row = byEvent ? this.table.rowOf(eventHigh, eventLow) : slots.word(slot, IS.FIRST);
    for (; row !== NONE; row = byEvent ? rows.twin(row) : rows.next(row)) {
      if (byEvent && rows.slot(row) !== slot) continue;
      if (!rows.isSameRequest(row, eventHigh, eventLow, instance, flags)) continue;
      if (rows.state(row) !== ROW_STATE.ENDED || rows.isSameEnd(row, endUs, durationUs)) return row;
    }
    return NONE;
  }

  private kindOf(instance: InstanceRef, columns: EventColumns, operation: number): number {
    const { kindOf } = this.scratch;
    if (kindOf[operation] === NONE) {
      const kind = `${instance.service} ${columns.strings[operation]!}`;
      kindOf[operation] = this.table.slots.kinds.acquire(kind, () => kind);
    }
    return kindOf[operation]!;
  }

  private rowAt(instance: InstanceRef, columns: EventColumns, at: number, from: number): NewRow {
    const { names } = this.scratch;
    return {
      eventHigh: highWord(columns.eventId, at),
      eventLow: lowWord(columns.eventId, at),
      endUs: endUnixUs(columns, at),
      durationUs: columns.durationUs[at]!,
      offsetUs: instance.clockOffsetUs,
      spanIn: foldSpan(highWord(columns.spanIn, at), lowWord(columns.spanIn, at)),
      spanOut: foldSpan(highWord(columns.spanOut, at), lowWord(columns.spanOut, at)),
      operation: names[columns.operation[at]!]!,
      peerService: names[columns.peerService[at]!]!,
      peerCuid: names[columns.peerCuid[at]!]!,
      details: names[columns.details[at]!]!,
      status: columns.status[at]!,
      responseFlags: columns.responseFlags[at]!,
      flags: columns.flags[at]!,
      waitUs: columns.waitUs[at]!,
      instance: from,
      state: ROW_STATE.ENDED,
    };
  }

  /** An item of an in-flight list. Undefined when its end is known already, or nothing names it. */
  private runs(instance: InstanceRef, item: InFlight, from: number): NewRow | undefined {
    if (/^0*$/.test(item.eventId)) return undefined;
    const { texts } = this.table.rows;
    const names = [item.operation, item.peerService, item.peerCuid, ''].map(text => texts.acquire(text, () => text));
    const eventId = idOfHex(item.eventId);
    const row: NewRow = {
      eventHigh: eventId[2],
      eventLow: eventId[3],
      endUs: this.nowUs + instance.clockOffsetUs,
      durationUs: Math.min(item.ageMs * 1000, 0xffffffff),
      offsetUs: instance.clockOffsetUs,
      spanIn: 0,
      spanOut: 0,
      operation: names[0]!,
      peerService: names[1]!,
      peerCuid: names[2]!,
      details: names[3]!,
      status: 0,
      responseFlags: 0,
      flags: item.flags,
      waitUs: 0,
      instance: from,
      state: ROW_STATE.RUNNING,
    };
    const [key, request] = [idOfHex(item.keyHi + item.keyLo), idOfHex(item.requestHi + item.requestLo)];
    const { ids } = this;
    [ids.key0, ids.key1, ids.key2, ids.key3] = key;
    [ids.request0, ids.request1, ids.request2, ids.request3] = request;
    [ids.eventHigh, ids.eventLow] = [row.eventHigh, row.eventLow];
    const slot = this.join(keySourceOf(item.flags), row.endUs - row.durationUs - row.offsetUs);
    const taken = this.takeRunning(instance, slot, row, item.operation);
    if (taken) this.touch(slot);
    for (const name of names) texts.release(name);
    return taken ? row : undefined;
  }

  private takeRunning({ service }: InstanceRef, slot: number, row: NewRow, operation: string): boolean {
    const { rows, slots } = this.table;
    for (const known of this.table.rowsOf({ slot })) {
      if (!rows.isSameRequest(known, row.eventHigh, row.eventLow, row.instance, row.flags)) continue;
      const state = rows.state(known);
      // The list was on its way when the end came: it is older than what is known.
      if (state === ROW_STATE.ENDED) return false;
      if (state === ROW_STATE.VANISHED) this.began(slot, rows.flags(known));
      rows.setState(known, ROW_STATE.RUNNING);
      rows.heard(known, row.endUs, row.durationUs);
      return true;
    }
    if (!this.hasRoom(slot, row.flags)) return false;
    this.table.addRow(slot, row);
    slots.mark(slot, FLAG.ODD);
    const kind = `${service} ${operation}`;
    const number = isEntry(row.flags) ? slots.kinds.acquire(kind, () => kind) : NONE;
    this.noteStart(slot, row.flags, row.endUs - row.durationUs - row.offsetUs, number);
    if (number !== NONE) slots.kinds.release(number);
    this.began(slot, row.flags);
    return true;
  }

  /** Whether another row can be stored; an event that cannot is counted. */
  private hasRoom(slot: number, flags: number): boolean {
    const { slots } = this.table;
    const event = (flags & ROW_FLAG.CALL) === 0;
    if (slots.word(slot, IS.ROWS) < ROWS_MAX) {
      if (event) slots.add(slot, IS.EVENTS, 1);
      return true;
    }
    if (event) slots.add(slot, IS.OMITTED, 1);
    if (event) this.counters.omittedEvents += 1;
    slots.mark(slot, FLAG.ODD);
    return false;
  }

  /** @param kind of an entry event */
  private noteStart(slot: number, flags: number, startUs: number, kind: number): void {
    const { slots } = this.table;
    if (startUs < slots.double(slot, AT.STARTED)) slots.setDouble(slot, AT.STARTED, startUs);
    if ((flags & NEVER_EVIDENCE) === 0) slots.mark(slot, FLAG.EVIDENCE);
    if (kind === NONE) return;
    slots.entryStarted(slot, kind, startUs);
    const second = slots.has(slot, FLAG.LEARNED) && slots.word(slot, IS.ENTRIES) === 2;
    if (second) this.secondEntry(this.table.at(slot), slots.kinds.get(kind));
  }

  private noteEnd(slot: number, flags: number, endUs: number, durationUs: number): void {
    const { slots } = this.table;
    if (endUs > slots.double(slot, AT.LAST_END)) slots.setDouble(slot, AT.LAST_END, endUs);
    if (isEntry(flags)) slots.entryEnded(slot, endUs - durationUs, endUs, durationUs, outcomeOf(flags));
  }

  private began(slot: number, flags: number): void {
    const { slots } = this.table;
    slots.add(slot, IS.RUNNING, 1);
    if (isEntry(flags)) slots.add(slot, IS.ENTRIES_RUNNING, 1);
  }

  private ended(slot: number, flags: number, state: number): void {
    if (state !== ROW_STATE.RUNNING) return;
    const { slots } = this.table;
    slots.add(slot, IS.RUNNING, -1);
    if (isEntry(flags)) slots.add(slot, IS.ENTRIES_RUNNING, -1);
  }

  /** A request is not in its producer's list any more. Its end is on its way, or lost. */
  private vanished(row: NewRow): void {
    const { rows } = this.table;
    for (let known = this.table.rowOf(row.eventHigh, row.eventLow); known !== NONE; known = rows.twin(known)) {
      if (((rows.flags(known) ^ row.flags) & ROW_FLAG.CALL) !== 0) continue;
      if (rows.state(known) !== ROW_STATE.RUNNING) continue;
      const slot = rows.slot(known);
      this.ended(slot, rows.flags(known), ROW_STATE.RUNNING);
      rows.setState(known, ROW_STATE.VANISHED);
      this.touch(slot);
      return;
    }
  }

  private touch(slot: number): void {
    this.table.slots.touch(slot, this.nowUs);
    this.touched(slot);
  }
}

/** What rows of one batch need of its strings, filled anew for each batch. */
class Scratch {
  /** Numbers of the strings, their hashes, and the kinds that begin with them as operations. */
  readonly names = new Int32Array(STRINGS_MAX);
  readonly hashes = new Int32Array(STRINGS_MAX);
  readonly kindOf = new Int32Array(STRINGS_MAX);
}

const isEntry = (flags: number): boolean => (flags & (ROW_FLAG.CALL | ROW_FLAG.ENTRY)) === ROW_FLAG.ENTRY;

const instanceKey = ({ cuid, service, cluster, node }: InstanceRef): string =>
  `${cuid}\0${service}\0${cluster}\0${node}`;

function instanceOf({ cuid, service, cluster, node, proxyId }: InstanceRef): {
  cuid: string;
  service: string;
  cluster: string;
  node: string;
  proxyId: string;
} {
  return { cuid, service, cluster, node, proxyId };
}
