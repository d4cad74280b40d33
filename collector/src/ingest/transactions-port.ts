// What the rest of the collector needs of transactions and flow. `transactions/` meets it.

import type { Pieces } from '../slices.js';
import type { NotFound } from '../errors.js';
import type { EventColumns } from './columns.js';
import type { InFlight, InFlightList } from './report.js';

/** The life that rows come from. */
export interface InstanceRef {
  readonly cuid: string;
  readonly service: string;
  readonly cluster: string;
  readonly node: string;
  readonly proxyId: string;
  /** Its clock minus the collector's, us. */
  readonly clockOffsetUs: number;
  /** Its requests are listed while they run once they are this old, ms; 0 or absent = not said. */
  readonly reportInFlightMs?: number;
}

export interface RowBatch {
  readonly instance: InstanceRef;
  readonly columns: EventColumns;
  readonly producer: bigint;
  /** Not every event has a row: nothing can be learned from how many there are. */
  readonly thinned?: boolean;
}

export interface TransactionsPort {
  /** Events found unlinked so far. */
  readonly unlinked: number;
  ingest(batch: RowBatch): void;
  inFlight(instance: InstanceRef, lists: readonly InFlightList[]): void;
  /** Requests told of when they began. */
  began(instance: InstanceRef, items: readonly InFlight[]): void;
  /** Messages of the API as plain objects; errors are those of errors.ts. */
  get(id: string): object;
  list(request: object): object;
  /** The same, in pieces; so does flowPieces what getFlow does. */
  listPieces(request: object): Pieces<object>;
  /** `decisions`: also what early rollback decided on it; true if unset. */
  explain(id: string, decisions?: boolean): object;
  /** What `get` throws for what is not there. */
  unknown(id: string): NotFound;
  /** Calls back with each Transaction that starts, changes state or ends; returns how to stop. */
  watch(filter: object, onChange: (transaction: object) => void): () => void;
  readonly flow: {
    getFlow(request: object): object;
    flowPieces(request: object): Pieces<object>;
    snapshot(): unknown;
    restore(state: unknown): void;
  };
  /** Lets time pass: expiry, grace periods, learning. `nowUs` by the collector's clock. */
  tick(nowUs: number): void;
}
