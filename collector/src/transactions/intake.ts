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
import { foldSpan, ROW_STATE, type NewRow, type Source } from './rows.js';
import { isOdd, noteShape } from './shapes.js';
import { AT, DOUBLES, FLAG, IS, rankOf, WORDS } from './slot-layout.js';
import { ROWS_MAX, type RowIds, type Table } from './table.js';
import type { Transaction } from './transaction.js';

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
  /** Of the batch that is being taken: by place among its strings their hashes, and the kinds of entries. */
  private readonly names = new Int32Array(STRINGS_MAX);
  private readonly source: Source = { columns: NO_COLUMNS, names: this.names, instance: NONE, offsetUs: 0 };
  private readonly hashes = new Int32Array(STRINGS_MAX);
  private readonly kinds = new Int32Array(STRINGS_MAX);
  private serviceHash = 0;
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
    this.table.slots.now[0] = nowUs;
    const { texts, instances } = this.table.rows;
    const { strings } = columns;
    const { source, hashes, kinds } = this;
    source.columns = columns;
    source.instance = instances.acquire(instanceKey(instance), () => instanceOf(instance));
    source.offsetUs = instance.clockOffsetUs;
    // The batch holds a reference to each of its texts while its rows are stored.
    for (let i = 0; i < strings.length; i++) {
      const name = texts.acquire(strings[i]!, () => strings[i]!);
      this.names[i] = name;
      hashes[i] = texts.hash(name);
      kinds[i] = NONE;
    }
    const { service } = instance;
    const own = texts.acquire(service, () => service);
    this.serviceHash = texts.hash(own);
    for (let row = 0; row < columns.rows; row++) this.row(instance, row);
    for (let i = 0; i < strings.length; i++) {
      texts.release(this.names[i]!);
      if (kinds[i] !== NONE) this.table.slots.kinds.release(kinds[i]!);
    }
    texts.release(own);
    instances.release(source.instance);
  }

  /** Takes what producers of one instance say is running. */
  inFlight(instance: InstanceRef, lists: readonly InFlightList[], nowUs: number): void {
    this.nowUs = nowUs;
    this.table.slots.now[0] = nowUs;
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
    this.table.slots.now[0] = nowUs;
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
    this.table.slots.now[0] = nowUs;
    this.lists.expire(nowUs);
    for (const [id, { item, heardUs }] of this.begun) {
      if (nowUs - heardUs <= BEGUN_US && nowUs >= heardUs) break;
      this.begun.delete(id);
      this.vanished(item);
    }
  }

  /** Nothing here makes an object: numbers stay in arrays and locals, words are signed so that they stay small. */
  private row(instance: InstanceRef, at: number): void {
    const { table, ids, source } = this;
    const { slots, rows } = table;
    const { columns } = source;
    const { eventId, keyHi, keyLo, requestHi, requestLo } = columns;
    const flags = columns.flags[at]! | 0;
    const [low, high] = [2 * at, 2 * at + 1];
    const eventHigh = eventId[high]! | 0;
    const eventLow = eventId[low]! | 0;
    ids.key0 = keyHi[high]! | 0;
    ids.key1 = keyHi[low]! | 0;
    ids.key2 = keyLo[high]! | 0;
    ids.key3 = keyLo[low]! | 0;
    ids.request0 = requestHi[high]! | 0;
    ids.request1 = requestHi[low]! | 0;
    ids.request2 = requestLo[high]! | 0;
    ids.request3 = requestLo[low]! | 0;
    ids.eventHigh = eventHigh;
    ids.eventLow = eventLow;
    const slot = table.join(ids);
    const ownEndUs = endUnixUs(columns, at);
    const startUs = ownEndUs - columns.durationUs[at]! - source.offsetUs;
    const endUs = ownEndUs - source.offsetUs;
    const { words, doubles } = slots;
    const [word, time] = [WORDS * slot, DOUBLES * slot];
    const [rank, known] = [this.rankOfRow(flags), words[word + IS.KEY_RANK]!];
    if (rank < known || (rank === known && startUs < doubles[time + AT.KEY_START]!))
      this.offerKey(slot, flags, startUs);
    const keyText = columns.keyText[at]!;
    if (keyText !== 0) slots.noteKeyText(slot, columns.strings[keyText]!);
    this.touch(slot);
    const before =
      table.hasTwin || (eventHigh | eventLow) === 0 ? this.knownRow(slot, at, eventHigh, eventLow, flags) : NONE;
    if (before !== NONE) return this.again(instance, slot, at, before);
    if ((words[word + IS.FLAGS]! & FLAG.LEARNED) !== 0) this.counters.lateRows += 1;
    if (startUs < doubles[time + AT.STARTED]!) doubles[time + AT.STARTED] = startUs;
    if (endUs > doubles[time + AT.LAST_END]!) doubles[time + AT.LAST_END] = endUs;
    if ((flags & NEVER_EVIDENCE) === 0) words[word + IS.FLAGS]! |= FLAG.EVIDENCE;
    if (isEntry(flags)) this.entry(instance, slot, at, startUs, endUs);
    if (!this.hasRoom(slot, flags)) return;
    table.added(slot, rows.addFrom(source, at, slot, words[word + IS.FIRST]!), eventHigh, eventLow);
    this.shape(slot, at, flags, eventHigh, eventLow);
  }

  private shape(slot: number, at: number, flags: number, eventHigh: number, eventLow: number): void {
    const { source, hashes } = this;
    const { operation, peerService, peerCuid } = source.columns;
    const { slots } = this.table;
    if (isOdd(flags, peerCuid[at]!)) slots.mark(slot, FLAG.ODD);
    else
      noteShape(
        slots,
        slot,
        flags,
        this.serviceHash,
        hashes[operation[at]!]!,
        hashes[peerService[at]!]!,
        eventHigh,
        eventLow,
      );
  }

  /** A row that is there already, or whose beginning is. */
  private again(instance: InstanceRef, slot: number, at: number, known: number): void {
    const { rows, slots } = this.table;
    const { columns, offsetUs } = this.source;
    const state = rows.state(known);
    if (state === ROW_STATE.ENDED) {
      this.counters.duplicateRows += 1;
      return;
    }
    this.ended(slot, rows.flags(known), state);
    rows.replace(known, this.rowAt(instance, at));
    slots.mark(slot, FLAG.ODD);
    this.noteEnd(slot, columns.flags[at]!, endUnixUs(columns, at) - offsetUs, columns.durationUs[at]!);
  }

  private entry(instance: InstanceRef, slot: number, at: number, startUs: number, endUs: number): void {
    const { columns } = this.source;
    const kind = this.kindOf(instance, columns.operation[at]!);
    this.entryBegan(slot, kind, startUs);
    const durationUs = columns.durationUs[at]!;
    this.table.slots.entryEnded(slot, endUs - durationUs, endUs, durationUs, outcomeOf(columns.flags[at]!));
  }

  /** Rank of the key of the row whose ids are filled in. */
  private rankOfRow(flags: number): number {
    const { key0, key1, key2, key3 } = this.ids;
    return rankOf((key0 | key1 | key2 | key3) === 0 ? 0 : keySourceOf(flags));
  }

  private offerKey(slot: number, flags: number, startUs: number): void {
    const { key0, key1, key2, key3, eventHigh, eventLow } = this.ids;
    const { slots } = this.table;
    if ((key0 | key1 | key2 | key3) === 0) slots.offerKey(slot, 0, startUs, 0, 0, eventHigh, eventLow);
    else slots.offerKey(slot, keySourceOf(flags), startUs, key0, key1, key2, key3);
  }

  /** A stored row of the same request that has not ended, or is the very same; else NONE. */
  private knownRow(slot: number, at: number, eventHigh: number, eventLow: number, flags: number): number {
    const { rows, slots } = this.table;
    const { columns, instance } = this.source;
    const byEvent = (eventHigh | eventLow) !== 0;
    let row = byEvent ? this.table.rowOf(eventHigh, eventLow) : slots.word(slot, IS.FIRST);
    for (; row !== NONE; row = byEvent ? rows.twin(row) : rows.next(row)) {
      if (byEvent && rows.slot(row) !== slot) continue;
      if (!rows.isSameRequest(row, eventHigh, eventLow, instance, flags)) continue;
      if (rows.state(row) !== ROW_STATE.ENDED) return row;
      if (rows.isSameEnd(row, endUnixUs(columns, at), columns.durationUs[at]!)) return row;
    }
    return NONE;
  }

  private kindOf(instance: InstanceRef, operation: number): number {
    const { kinds } = this;
    if (kinds[operation] === NONE) {
      const kind = `${instance.service} ${this.source.columns.strings[operation]!}`;
      kinds[operation] = this.table.slots.kinds.acquire(kind, () => kind);
    }
    return kinds[operation]!;
  }

  private rowAt(instance: InstanceRef, at: number): NewRow {
    const { columns, names, instance: from } = this.source;
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
    const slot = this.table.join(ids);
    this.offerKey(slot, item.flags, row.endUs - row.durationUs - row.offsetUs);
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
    const startUs = row.endUs - row.durationUs - row.offsetUs;
    if (startUs < slots.double(slot, AT.STARTED)) slots.setDouble(slot, AT.STARTED, startUs);
    if ((row.flags & NEVER_EVIDENCE) === 0) slots.mark(slot, FLAG.EVIDENCE);
    if (isEntry(row.flags)) {
      const kind = `${service} ${operation}`;
      const number = slots.kinds.acquire(kind, () => kind);
      this.entryBegan(slot, number, startUs);
      slots.kinds.release(number);
    }
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

  private entryBegan(slot: number, kind: number, startUs: number): void {
    const { slots } = this.table;
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
    this.table.slots.touch(slot);
    this.touched(slot);
  }
}

/** Before the first batch. */
const NO_COLUMNS = { rows: 0 } as EventColumns;

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
