// What has changed since others were last told, as messages of bounded size.

import type { InFlightList } from '../ingest/report.js';
import type { Clock } from '../clock.js';
import type { Life } from '../registry/life.js';
import type { Registry } from '../registry/registry.js';
import type { Recovered } from '../recover.js';
import type { Rollback } from '../rollback/controller.js';
import { listNews, type LifeNews, type ListNews, type StateMessage } from './messages.js';

/** Lives and lists of one message, and messages of one round; what is left waits for the next. */
const LIVES_PER_MESSAGE = 1000;
const LISTS_PER_MESSAGE = 250;
const LISTED_PER_MESSAGE = 4000; // requests of all lists, up to a list more: about 350 bytes each
const MESSAGES_PER_ROUND = 8;

/** Lists that wait to be told, at most: they are renewed every few seconds anyway. */
const LISTS_MAX = 10_000;

/** That a life has no stream here any more is told again for this long, ms: the bus may lose it. */
const LEFT_MS = 60_000;

export interface OutboxParts {
  readonly clock: Clock;
  readonly registry: Registry;
  readonly rollback: Pick<Rollback, 'proxies' | 'ledger'>;
  readonly recovered: Pick<Recovered, 'countingSinceUs'>;
  /** Report streams open. */
  readonly streams: () => number;
}

export class Outbox {
  private readonly changed = new Set<Life>();
  /** Lives without a stream, and when they were heard, oldest first. */
  private readonly left = new Map<Life, number>();
  /** Latest list of each producer, by life. */
  private readonly lists = new Map<Life, Map<bigint, InFlightList>>();
  private told: (readonly [string, number])[] = [];

  constructor(private readonly parts: OutboxParts) {}

  heard(life: Life): void {
    this.changed.add(life);
    this.left.delete(life);
    if (life.streams === 0) this.left.set(life, this.parts.clock.monotonicMs());
  }

  inFlight(life: Life, lists: readonly InFlightList[]): void {
    if (lists.length === 0 || this.lists.size >= LISTS_MAX) return;
    const known = this.lists.get(life) ?? new Map<bigint, InFlightList>();
    this.lists.set(life, known);
    for (const list of lists) known.set(list.producer, list);
  }

  verdictTold(id: string, proxies: number): void {
    this.told.push([id, proxies]);
  }

  /** Everything that is connected here, or was lately, is to be told again. */
  all(): void {
    const nowMs = this.parts.clock.monotonicMs();
    for (const [life, heardMs] of this.left) {
      this.changed.add(life);
      if (nowMs - heardMs > LEFT_MS) this.left.delete(life);
    }
    for (const life of this.parts.registry.activeLives) if (life.streams > 0) this.changed.add(life);
  }

  /** The messages of one round, at least one: it says as well that this replica lives. */
  take(fresh: boolean): StateMessage[] {
    const messages: StateMessage[] = [];
    do messages.push(this.message(fresh));
    while ((this.changed.size > 0 || this.lists.size > 0) && messages.length < MESSAGES_PER_ROUND);
    return messages;
  }

  private message(fresh: boolean): StateMessage {
    const { recovered, rollback } = this.parts;
    const lives = first(this.changed, LIVES_PER_MESSAGE).map(life => this.news(life));
    const lists: ListNews[] = [];
    let listed = 0;
    for (const [life, byProducer] of this.lists) {
      if (lists.length >= LISTS_PER_MESSAGE || listed >= LISTED_PER_MESSAGE) break;
      this.lists.delete(life);
      for (const { items } of byProducer.values()) listed += items.length;
      lists.push(listNews(life.cuid, [...byProducer.values()]));
    }
    const told = this.told;
    this.told = [];
    const { size: proxies, highestVersion: version } = rollback.proxies;
    const since = { sinceUs: recovered.countingSinceUs, ledgerSinceUs: rollback.ledger.since };
    const streams = this.parts.streams();
    return { type: 'state', lives, lists, told, proxies, streams, version, ...since, fresh };
  }

  private news(life: Life): LifeNews {
    const { clock, registry, rollback } = this.parts;
    const nowMs = clock.monotonicMs();
    const { offsetUs, errorUs } = life.clock.current;
    return {
      cuid: life.cuid,
      connected: life.streams > 0,
      callback: rollback.proxies.takesCallbacks(life),
      ageMs: Math.round(nowMs - life.lastSeenMs),
      offsetUs,
      errorUs,
      ...(life.status === undefined ? {} : { status: life.status }),
      statusAgeMs: Math.round(nowMs - life.statusMs),
      jobs: registry.jobsHeard(life).map(({ progress, ageMs }) => [progress, ageMs] as const),
    };
  }
}

/** Takes the first `max` out of a set. */
function first<T>(set: Set<T>, max: number): T[] {
  const taken: T[] = [];
  for (const one of set) {
    if (taken.length >= max) break;
    set.delete(one);
    taken.push(one);
  }
  return taken;
}
