// Rows and in-flight lists on their way into the table.

import {
  endUnixUs,
  highWord,
  isZero64,
  keySourceOf,
  lowWord,
  NEVER_EVIDENCE,
  outcomeOf,
  ROW_FLAG,
  type Column64,
  type EventColumns,
} from '../ingest/columns.js';
import type { InFlight, InFlightList } from '../ingest/report.js';
import type { InstanceRef, RowBatch } from '../ingest/transactions-port.js';
import { idOfHex, type Id } from './ids.js';
import { InFlightLists } from './in-flight.js';
import { foldSpan, ROW_STATE, type NewRow } from './rows.js';
import { ROWS_MAX, type Table } from './table.js';
import { STAGE, type Transaction } from './transaction.js';

const NO_ID: Id = [0, 0, 0, 0];

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

interface Running {
  readonly transaction: Transaction;
  readonly row: NewRow;
}

export class Intake {
  readonly counters: IntakeCounters = { duplicateRows: 0, lateRows: 0, omittedEvents: 0 };
  private readonly lists: InFlightLists<Running>;

  /** Told of when they began, oldest first. */
  private readonly begun = new Map<string, { readonly item: Running; readonly heardUs: number }>();

  private nowUs = 0;

  /**
   * @param touched     told of every transaction that changed
   * @param secondEntry told when one that was learned from has another entry, of the kind named
   */
  constructor(
    private readonly table: Table,
    private readonly touched: (transaction: Transaction) => void,
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
    const from = instances.acquire(instanceKey(instance), () => instanceOf(instance));
    // The batch holds a reference to each of its texts while its rows are stored.
    const names = columns.strings.map(text => texts.acquire(text, () => text));
    for (let row = 0; row < columns.rows; row++) this.row(instance, columns, row, from, names);
    for (const name of names) texts.release(name);
    instances.release(from);
  }

  /** Takes what producers of one instance say is running. */
  inFlight(instance: InstanceRef, lists: readonly InFlightList[], nowUs: number): void {
    this.nowUs = nowUs;
    const { instances } = this.table.rows;
    const from = instances.acquire(instanceKey(instance), () => instanceOf(instance));
    const periodUs = (instance.reportInFlightMs ?? 0) * 1000;
    for (const { producer, items } of lists) {
      const running = new Map<string, Running>();
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

  private row(instance: InstanceRef, columns: EventColumns, at: number, from: number, names: readonly number[]): void {
    const flags = columns.flags[at]!;
    const row: NewRow = {
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
      flags,
      waitUs: columns.waitUs[at]!,
      instance: from,
      state: ROW_STATE.ENDED,
    };
    const key = idOf(columns.keyHi, columns.keyLo, at);
    const request = idOf(columns.requestHi, columns.requestLo, at);
    const text = columns.strings[columns.keyText[at]!]!;
    const transaction = this.join(row, key, request, keySourceOf(flags), text);
    this.take(transaction, row);
    this.touch(transaction);
  }

  private join(row: NewRow, key: Id, request: Id, source: number, text: string): Transaction {
    const event: Id = [0, 0, row.eventHigh, row.eventLow];
    const transaction = this.table.join({ key, request, event });
    const startUs = row.endUs - row.durationUs - row.offsetUs;
    const hasKey = (key[0] | key[1] | key[2] | key[3]) !== 0;
    transaction.offerKey(hasKey ? key : event, hasKey ? source : 0, text, startUs);
    return transaction;
  }

  /** Stores a row that ended, or that it is there already. */
  private take(transaction: Transaction, row: NewRow): void {
    const { rows } = this.table;
    for (const known of this.table.rowsOf(transaction)) {
      if (!rows.isSameRequest(known, row)) continue;
      const state = rows.state(known);
      if (state !== ROW_STATE.ENDED) {
        this.ended(transaction, rows.flags(known), state);
        rows.replace(known, row);
        this.noteEnd(transaction, row);
        return;
      }
      if (rows.isSameEnd(known, row)) {
        this.counters.duplicateRows += 1;
        return;
      }
    }
    if (transaction.learned) this.counters.lateRows += 1;
    this.noteStart(transaction, row);
    this.noteEnd(transaction, row);
    this.store(transaction, row);
  }

  /** An item of an in-flight list. Undefined when its end is known already, or nothing names it. */
  private runs(instance: InstanceRef, item: InFlight, from: number): Running | undefined {
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
    const key = idOfHex(item.keyHi + item.keyLo);
    const request = idOfHex(item.requestHi + item.requestLo);
    const transaction = this.join(row, key, request, keySourceOf(item.flags), '');
    const taken = this.takeRunning(transaction, row);
    if (taken) this.touch(transaction);
    for (const name of names) texts.release(name);
    return taken ? { transaction, row } : undefined;
  }

  private takeRunning(transaction: Transaction, row: NewRow): boolean {
    const { rows } = this.table;
    for (const known of this.table.rowsOf(transaction)) {
      if (!rows.isSameRequest(known, row)) continue;
      const state = rows.state(known);
      // The list was on its way when the end came: it is older than what is known.
      if (state === ROW_STATE.ENDED) return false;
      if (state === ROW_STATE.VANISHED) this.began(transaction, rows.flags(known));
      rows.setState(known, ROW_STATE.RUNNING);
      rows.heard(known, row.endUs, row.durationUs);
      return true;
    }
    if (!this.store(transaction, row)) return false;
    this.noteStart(transaction, row);
    this.began(transaction, row.flags);
    return true;
  }

  private store(transaction: Transaction, row: NewRow): boolean {
    const event = (row.flags & ROW_FLAG.CALL) === 0;
    if (transaction.rows >= ROWS_MAX) {
      if (event) transaction.omitted += 1;
      if (event) this.counters.omittedEvents += 1;
      return false;
    }
    if (event) transaction.events += 1;
    this.table.addRow(transaction, row);
    return true;
  }

  private noteStart(transaction: Transaction, row: NewRow): void {
    const startUs = row.endUs - row.durationUs - row.offsetUs;
    transaction.startedUs = Math.min(transaction.startedUs, startUs);
    if ((row.flags & NEVER_EVIDENCE) === 0) transaction.evidence = true;
    if (!isEntry(row.flags)) return;
    const { texts, instances } = this.table.rows;
    const { service } = instances.get(row.instance);
    const kind = `${service} ${texts.get(row.operation)}`;
    transaction.entryStarted(kind, startUs);
    if (transaction.learned && transaction.entries === 2) this.secondEntry(transaction, kind);
  }

  private noteEnd(transaction: Transaction, row: NewRow): void {
    const endUs = row.endUs - row.offsetUs;
    transaction.lastEndUs = Math.max(transaction.lastEndUs, endUs);
    if (!isEntry(row.flags)) return;
    transaction.entryEnded(endUs - row.durationUs, endUs, row.durationUs, outcomeOf(row.flags));
  }

  private began(transaction: Transaction, flags: number): void {
    transaction.running += 1;
    if (isEntry(flags)) transaction.entriesRunning += 1;
  }

  private ended(transaction: Transaction, flags: number, state: number): void {
    if (state !== ROW_STATE.RUNNING) return;
    transaction.running -= 1;
    if (isEntry(flags)) transaction.entriesRunning -= 1;
  }

  /** A request is not in its producer's list any more. Its end is on its way, or lost. */
  private vanished({ transaction, row }: Running): void {
    const { rows } = this.table;
    const current = this.table.current(transaction);
    if (current === undefined) return;
    for (const known of this.table.rowsOf(current)) {
      const same = rows.eventLow(known) === row.eventLow && rows.eventHigh(known) === row.eventHigh;
      if (!same || ((rows.flags(known) ^ row.flags) & ROW_FLAG.CALL) !== 0) continue;
      if (rows.state(known) !== ROW_STATE.RUNNING) continue;
      this.ended(current, rows.flags(known), ROW_STATE.RUNNING);
      rows.setState(known, ROW_STATE.VANISHED);
      this.touch(current);
      return;
    }
  }

  private touch(transaction: Transaction): void {
    transaction.heardUs = this.nowUs;
    transaction.stage = STAGE.ARRIVING;
    this.table.shelve(transaction, 'arriving');
    this.touched(transaction);
  }
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

function idOf(high: Column64, low: Column64, row: number): Id {
  if (isZero64(high, row) && isZero64(low, row)) return NO_ID;
  return [highWord(high, row), lowWord(high, row), highWord(low, row), lowWord(low, row)];
}
