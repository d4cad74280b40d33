// What ingest has seen: plain sums, read by the metrics.
//
// Those by service tell of lives, which a durable store keeps; they go on where they stopped, like the
// counts that the API shows. The rest tells of this process, and begins at 0 with it.

import type { Life } from '../registry/life.js';
import type { Loss } from './producers.js';
import type { Counter } from './report.js';
import { SettlingSum, type SettlingState } from './settling-sum.js';

/** Services with a sum of their own; lives come with checked names, but any number of them. */
const SERVICES_MAX = 10_000;

/** Names of filters' own counters that are kept apart: there are a handful, and senders choose them. */
const COUNTER_NAMES_MAX = 32;
const COUNTER_NAME = /^[a-z][a-z_]{0,39}$/;

const OTHER = 'other';

interface Lost {
  readonly reports: SettlingSum;
  readonly events: SettlingSum;
}

/** As the store keeps it. */
interface State {
  readonly lost: readonly [string, SettlingState, SettlingState][];
  readonly unclean: readonly [string, number][];
  readonly configErrors: readonly [string, number][];
  readonly filterCounts: readonly [string, readonly [string, number][]][];
}

/** What a life tells of its filter with every hello. */
export type Told = Pick<Life, 'service' | 'bootEpochUs' | 'configErrors' | 'counters'>;

export class IngestTotals {
  messages = 0;
  bytes = 0;
  batches = 0;
  replays = 0;
  /** Messages refused, by the name of the gRPC code. */
  readonly refused = new Map<string, number>();
  private readonly lostByService = new Map<string, Lost>();
  readonly uncleanByService = new Map<string, number>();
  readonly configErrorsByService = new Map<string, number>();
  /** Filters' own counters: service -> name -> sum. */
  readonly filterCounts = new Map<string, Map<string, number>>();
  private readonly counterNames = new Set<string>();

  /** @param loss below 0: a late batch takes it back */
  lost(service: string, loss: Loss, nowMs: number): void {
    const key = room(this.lostByService, service);
    const sums = this.lostByService.get(key) ?? { reports: new SettlingSum(), events: new SettlingSum() };
    this.lostByService.set(key, sums);
    sums.reports.add(loss.reports, nowMs);
    sums.events.add(loss.events, nowMs);
  }

  /** What counts as lost by now, by service. */
  *losses(nowMs: number): Iterable<[service: string, loss: Loss]> {
    for (const [service, { reports, events }] of this.lostByService) {
      yield [service, { reports: reports.value(nowMs), events: events.value(nowMs) }];
    }
  }

  ended({ clean, service }: Pick<Life, 'clean' | 'service'>): void {
    if (!clean) add(this.uncleanByService, room(this.uncleanByService, service), 1);
  }

  /**
   * A life told of its filter, for the first time or again. Faults count once, and again when they
   * change; counters by what they grew.
   *
   * @returns whether it told faults that it had not told before
   */
  told(before: Told | undefined, now: Told): boolean {
    const sameStart = before?.bootEpochUs === now.bootEpochUs;
    for (const { name, value } of now.counters) {
      const known = sameStart ? (before.counters.find(counter => counter.name === name)?.value ?? 0) : 0;
      if (value > known) this.count(now.service, name, value - known);
    }
    const errors = now.configErrors.length;
    if (errors === 0 || now.configErrors.join('\n') === before?.configErrors.join('\n')) return false;
    add(this.configErrorsByService, room(this.configErrorsByService, now.service), errors);
    return true;
  }

  refuse(code: string): void {
    add(this.refused, code, 1);
  }

  /** The sums by service, JSON-ready. */
  state(): State {
    return {
      lost: [...this.lostByService].map(([service, sums]) => [service, sums.reports.state(), sums.events.state()]),
      unclean: [...this.uncleanByService],
      configErrors: [...this.configErrorsByService],
      filterCounts: [...this.filterCounts].map(([service, counts]) => [service, [...counts]]),
    };
  }

  /** Takes back what `state` gave, in place of what was counted so far. */
  restore(state: unknown, nowMs: number): void {
    const { lost = [], unclean = [], configErrors = [], filterCounts = [] } = state as Partial<State>;
    for (const map of [this.lostByService, this.uncleanByService, this.configErrorsByService, this.filterCounts]) {
      map.clear();
    }
    for (const [service, reports, events] of lost) {
      const sums = { reports: SettlingSum.from(reports, nowMs), events: SettlingSum.from(events, nowMs) };
      this.lostByService.set(service, sums);
    }
    for (const [service, count] of unclean) this.uncleanByService.set(service, count);
    for (const [service, count] of configErrors) this.configErrorsByService.set(service, count);
    for (const [service, counts] of filterCounts) {
      for (const [name, value] of counts) this.count(service, name, value);
    }
  }

  private count(service: string, told: string, growth: number): void {
    const key = room(this.filterCounts, service);
    const counts = this.filterCounts.get(key) ?? new Map<string, number>();
    this.filterCounts.set(key, counts);
    add(counts, this.counterName(told), growth);
  }

  private counterName(told: string): string {
    if (this.counterNames.has(told)) return told;
    if (!COUNTER_NAME.test(told) || this.counterNames.size >= COUNTER_NAMES_MAX) return OTHER;
    this.counterNames.add(told);
    return told;
  }
}

const add = (map: Map<string, number>, key: string, amount: number): void =>
  void map.set(key, (map.get(key) ?? 0) + amount);

const room = (map: ReadonlyMap<string, unknown>, key: string): string =>
  map.has(key) || map.size < SERVICES_MAX ? key : OTHER;

/** The counters of one filter: none goes back while it runs, whichever of its VMs tells. */
export function highest(before: readonly Counter[], now: readonly Counter[]): Counter[] {
  const values = new Map(before.map(({ name, value }) => [name, value]));
  for (const { name, value } of now) values.set(name, Math.max(value, values.get(name) ?? 0));
  return [...values].map(([name, value]) => ({ name, value }));
}
