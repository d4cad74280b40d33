// Transactions.List: which transactions, newest first, in pages.

import { InvalidArgument } from '../errors.js';
import { ROW_FLAG } from '../ingest/columns.js';
import { serviceOfHost } from '../registry/counts.js';
import { microseconds } from '../rpc/encode.js';
import { matches } from '../rpc/pages.js';
import { LOOKED_AT, type Pieces } from '../slices.js';
import type { Table } from './table.js';
import type { Transaction } from './transaction.js';

type Time = { readonly seconds?: string | number; readonly nanos?: number } | null;

export interface Filter {
  /** `TRANSACTION_STATE_…`; empty = any. */
  readonly states?: readonly string[];
  readonly service?: string;
  readonly namespace?: string;
  /**
   * Of which services anything may be seen; absent = of all. What lies beyond them is not searched either.
   * `cuid`: of the callee as its caller knows it, which tells the service better than a host name.
   */
  readonly sees?: (service: string, cuid?: string) => boolean;
}

export interface ListRequest extends Filter {
  readonly olderThan?: Time;
  readonly since?: Time;
  /** 1 to 1000; checked before. */
  readonly pageSize?: number;
  readonly pageToken?: string;
}

const PAGE_SIZE = 100;

export interface Listed {
  readonly transactions: readonly Transaction[];
  readonly nextPageToken: string;
  /** Of the request, us; undefined = as far back as there is something. */
  readonly sinceUs: number | undefined;
}

/** @throws InvalidArgument when the page token is none of ours */
export function* list(table: Table, request: ListRequest, nowUs: number): Pieces<Listed> {
  const { pageSize = PAGE_SIZE, pageToken = '' } = request;
  const sinceUs = microseconds(request.since);
  const olderThanUs = microseconds(request.olderThan);
  const after = pageToken === '' ? undefined : parseToken(pageToken);
  const page = new Newest(pageSize + 1);
  let looked = 0;
  for (const transaction of table.all()) {
    if (++looked % LOOKED_AT === 0) yield;
    if (after !== undefined && compare(transaction, after) <= 0) continue;
    if (olderThanUs !== undefined && transaction.beginUs > nowUs - olderThanUs) continue;
    if (sinceUs !== undefined && (transaction.endUs ?? nowUs) < sinceUs) continue;
    const { beginUs, serial } = transaction;
    const place = { beginUs, serial, transaction };
    if (page.wants(place) && passes(table, transaction, request)) page.add(place);
  }
  const found = page.sorted();
  const last = found[pageSize - 1];
  // One may have gone, or become part of another, while others were looked at.
  const shown = found.slice(0, pageSize).map(({ transaction }) => transaction);
  const transactions = shown.filter(({ gone }) => !gone);
  return { transactions, nextPageToken: found.length > pageSize && last !== undefined ? token(last) : '', sinceUs };
}

/**
 * Whether a transaction is in one of the states and touched the service or namespace. What is made of
 * probes, shadows and our own requests alone is no business request: it is found by its id only.
 */
export function passes(table: Table, transaction: Transaction, filter: Filter): boolean {
  const { states = [], service = '', namespace = '', sees } = filter;
  if (!transaction.evidence) return false;
  if (states.length > 0 && !states.includes(`TRANSACTION_STATE_${transaction.shownState}`)) return false;
  if (service === '' && namespace === '' && sees === undefined) return true;
  for (const row of table.rowsOf(transaction)) {
    const own = table.rows.instanceOf(row).service;
    const peer = (): string => serviceOfHost(table.rows.peerServiceOf(row));
    if (sees !== undefined && !sees(own) && !(isCall(table, row) && sees(peer(), table.rows.peerCuidOf(row)))) continue;
    if (matches(own, service, namespace)) return true;
    // Services without a sidecar take part by their host name.
    if (service !== '' && peer() === service) return true;
  }
  return false;
}

/** A step is seen from both of its ends; that an event had a caller only the caller's own row tells. */
const isCall = (table: Table, row: number): boolean => (table.rows.flags(row) & ROW_FLAG.CALL) !== 0;

interface Position {
  readonly beginUs: number;
  readonly serial: number;
}

/** A transaction, with where it was when it was found: it may change, or go, before the page is full. */
interface Found extends Position {
  readonly transaction: Transaction;
}

/** Newest first: by begin, then by the order in which they were first heard of. */
const compare = (a: Position, b: Position): number => b.beginUs - a.beginUs || b.serial - a.serial;

const token = ({ beginUs, serial }: Position): string =>
  Buffer.from(JSON.stringify([beginUs, serial])).toString('base64url');

function parseToken(text: string): Position {
  try {
    const parsed: unknown = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'));
    if (Array.isArray(parsed) && parsed.length === 2 && parsed.every(Number.isFinite)) {
      const [beginUs, serial] = parsed as [number, number];
      return { beginUs, serial };
    }
  } catch {
    // Not JSON: said below like any other text that is not ours.
  }
  throw new InvalidArgument('page_token', text.slice(0, 40), 'a next_page_token of this list');
}

/** The `size` newest of what is added, without sorting the rest: a heap with the oldest of them on top. */
class Newest {
  private readonly heap: Found[] = [];

  constructor(private readonly size: number) {}

  wants(found: Position): boolean {
    return this.heap.length < this.size || compare(found, this.heap[0]!) < 0;
  }

  add(found: Found): void {
    const { heap } = this;
    if (heap.length < this.size) {
      heap.push(found);
      this.up(heap.length - 1);
    } else {
      heap[0] = found;
      this.down();
    }
  }

  sorted(): Found[] {
    return [...this.heap].sort(compare);
  }

  private up(from: number): void {
    const { heap } = this;
    for (let at = from; at > 0;) {
      const above = (at - 1) >> 1;
      if (compare(heap[at]!, heap[above]!) <= 0) return;
      [heap[at], heap[above]] = [heap[above]!, heap[at]!];
      at = above;
    }
  }

  private down(): void {
    const { heap } = this;
    for (let at = 0; ;) {
      let oldest = at;
      for (const below of [2 * at + 1, 2 * at + 2]) {
        if (below < heap.length && compare(heap[below]!, heap[oldest]!) > 0) oldest = below;
      }
      if (oldest === at) return;
      [heap[at], heap[oldest]] = [heap[oldest]!, heap[at]!];
      at = oldest;
    }
  }
}
