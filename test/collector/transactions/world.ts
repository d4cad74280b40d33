/** The collector's transactions with a clock to turn, and readable answers. */
import { ManualClock } from '../../../collector/src/clock.js';
import { Transactions, type TransactionsOptions } from '../../../collector/src/transactions/index.js';
import { batch, instance, T0, type TestRow } from './rows.js';

export interface ShownEvent {
  eventId: string;
  parentEventId: string;
  service: string;
  operation: string;
  cuid: string;
  started: { seconds: string; nanos: number };
  duration?: { seconds: string; nanos: number };
  ended?: { seconds: string; nanos: number };
  labels: string[];
  call?: { callerService: string; callerCuid: string; attempts: number; responseCode: number };
  callOnly: boolean;
  entry: boolean;
  outcome: string;
}

export interface Shown {
  key: string;
  keySource: string;
  keyText: string;
  requestIds: string[];
  state: string;
  kind: string;
  started: { seconds: string; nanos: number };
  ended?: { seconds: string; nanos: number };
  duration?: { seconds: string; nanos: number };
  entries: number;
  events: ShownEvent[];
  eventsOmitted: number;
  unlinked: number;
}

export interface Listed {
  transactions: Shown[];
  nextPageToken: string;
  truncated: boolean;
  coveredSince: { seconds: string; nanos: number };
}

export interface Told {
  transaction: Shown;
  summary: string;
  lines: {
    text: string;
    depth: number;
    eventId: string;
    evidence: string[];
    offset: { seconds: string; nanos: number };
  }[];
}

export class World {
  readonly clock = new ManualClock(T0);
  readonly transactions: Transactions;
  readonly services = new Map<string, string>();
  /** CUIDs that are aliases, and the CUID their life has now. */
  readonly aliases = new Map<string, string>();

  constructor(options: Partial<TransactionsOptions> = {}) {
    this.transactions = new Transactions({
      clock: this.clock,
      retainMs: 15 * 60_000,
      retainFailedMs: 24 * 3_600_000,
      retainFlowMs: 14 * 24 * 3_600_000,
      transactionsMax: 1000,
      resolveService: cuid => this.services.get(cuid),
      resolveCuid: cuid => this.aliases.get(cuid) ?? cuid,
      seed: 1,
      ...options,
    });
  }

  rows(name: string, ...rows: TestRow[]): void {
    const from = instance(name);
    this.services.set(from.cuid, from.service);
    this.transactions.ingest(batch(from, rows));
  }

  /** As `rows`, but not every event has one. */
  thinned(name: string, ...rows: TestRow[]): void {
    const from = instance(name);
    this.services.set(from.cuid, from.service);
    this.transactions.ingest({ ...batch(from, rows), thinned: true });
  }

  /** Time passes, a quarter of a second a tick. */
  pass(seconds: number): void {
    for (let ms = 0; ms < seconds * 1000; ms += 250) {
      this.clock.advanceMs(250);
      this.transactions.tick(this.clock.nowUs());
    }
  }

  get(id: string): Shown {
    return this.transactions.get(id) as Shown;
  }

  list(request: object = {}): Listed {
    return this.transactions.list(request) as Listed;
  }

  explain(id: string): Told {
    return this.transactions.explain(id) as Told;
  }
}

export const microseconds = (time: { seconds: string; nanos: number } | undefined): number =>
  time === undefined ? Number.NaN : Number(time.seconds) * 1e6 + time.nanos / 1000;
