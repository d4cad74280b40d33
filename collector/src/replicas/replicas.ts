// The other replicas of the collector: who they are, what their sidecars say, and which duty is whose.
//
// Durable facts come by the log. Here is what only matters now: each replica tells the others four times a second
// what the sidecars connected to it said, and everything every ten seconds, so that a question has one answer
// wherever it is asked. Who speaks is alive; who is silent for 3 s is not, and what fell to it falls to the others.
//
// A replica that cannot hear anyone does not know whether the others are dead or it is cut off itself. It keeps what
// fell to it, takes nothing over, and decides nothing until it hears the store again.

import type { Clock } from '../clock.js';
import type { InFlight, Report } from '../ingest/report.js';
import type { Ingest } from '../ingest/ingest.js';
import { RELIEVE_EVERY_MS } from '../ingest/moves.js';
import type { ReplicasPort } from '../ingest/replicas-port.js';
import { instanceRef } from '../ingest/apply.js';
import type { TransactionsPort } from '../ingest/transactions-port.js';
import type { Recovered } from '../recover.js';
import type { Logger } from '../log.js';
import type { Life } from '../registry/life.js';
import type { Registry } from '../registry/registry.js';
import type { Rollback } from '../rollback/controller.js';
import type { Peers } from '../rollback/peers.js';
import type { VerdictRecord } from '../rollback/verdicts.js';
import type { Delivery } from '../rollback/watchers.js';
import type { Shared } from '../store/shared.js';
import { Callbacks } from './callbacks.js';
import { Membership } from './membership.js';
import { decodeMessage, listsOf, pieces, type LifeNews, type Message, type StateMessage } from './messages.js';
import { Outbox } from './outbox.js';

/** How often everything is told, ms. */
const ALL_EVERY_MS = 10_000;

/** A replica that starts listens for this long, ms, before any duty is its: others speak every 250 ms. */
const SETTLE_MS = 600;

/** From this age on (ms) the store is stale: a command may take a second before it is given up. */
export const STALE_MS = 1000;

/** Signals of steps that the log has not brought yet, at most; the oldest go, and are told again by their driver. */
const EARLY_MAX = 1000;

/** News of lives that the log has not brought yet, at most, and for how long they wait for it, ms. */
const UNBORN_MAX = 10_000;
const UNBORN_MS = 5000;

export interface ReplicasParts {
  readonly clock: Clock;
  readonly log: Logger;
  readonly registry: Registry;
  readonly transactions: TransactionsPort;
  readonly rollback: Rollback;
  readonly recovered: Recovered;
  readonly shared: Shared;
}

type SignalMessage = Extract<Message, { type: 'signal' }>;

export class Replicas implements ReplicasPort, Peers {
  readonly shared = true;
  readonly membership: Membership;
  /** Messages that were not understood. */
  unknown = 0;
  private readonly outbox: Outbox;
  private readonly callbacks = new Callbacks();
  private readonly proxies = new Map<string, number>();
  /** Report streams of each other replica. */
  private readonly streams = new Map<string, number>();
  /** Whose streams they are here, once there are any. */
  ingest: Pick<Ingest, 'streams' | 'relieve'> | undefined;
  private relievedMs = Number.NEGATIVE_INFINITY;
  private readonly early = new Set<SignalMessage>();
  /** News of lives that the log has not brought yet, by CUID. */
  private readonly unborn = new Map<
    string,
    { readonly from: string; readonly news: LifeNews; readonly atMs: number }
  >();
  private begun: [string, readonly InFlight[]][] = [];
  private allMs = Number.NEGATIVE_INFINITY;
  private settled = false;
  private wasStale = false;

  constructor(private readonly parts: ReplicasParts) {
    const { clock, registry, rollback, recovered, shared } = parts;
    this.membership = new Membership(shared.replicaId);
    this.outbox = new Outbox({ clock, registry, rollback, recovered, streams: () => this.ingest?.streams ?? 0 });
    registry.mayEnd = life => this.isFresh() && this.membership.owns(life.cuid);
    rollback.peers = this;
    shared.bus.subscribe((from, bytes) => this.take(from, bytes));
  }

  /** Says that this replica is there, and settles once it knows the others. */
  async join(): Promise<void> {
    this.publishState();
    await new Promise(resolve => setTimeout(resolve, SETTLE_MS));
    this.settled = true;
    this.membership.settle();
    this.parts.rollback.tookOver();
    this.publishState();
  }

  get id(): string {
    return this.membership.self;
  }

  /** For how long (ms) the store has not been heard; 0 = it is. */
  get staleMs(): number {
    const ms = this.parts.shared.staleMs();
    return ms > STALE_MS ? ms : 0;
  }

  isFresh(): boolean {
    return this.staleMs === 0;
  }

  owns(name: string): boolean {
    return this.membership.owns(name);
  }

  heard(life: Life): void {
    this.outbox.heard(life);
  }

  told(life: Life, report: Pick<Report, 'inFlight' | 'began'>): void;
  told(verdictId: string, proxies: number): void;
  told(of: Life | string, what: Pick<Report, 'inFlight' | 'began'> | number): void {
    if (typeof of === 'string') return this.outbox.verdictTold(of, what as number);
    const { inFlight, began } = what as Pick<Report, 'inFlight' | 'began'>;
    this.outbox.inFlight(of, inFlight);
    if (began.length === 0) return;
    // A verdict may wait for them: they go at once, those of one turn together.
    if (this.begun.length === 0) setImmediate(() => this.publishBegun());
    this.begun.push([of.cuid, began]);
  }

  ask({ keys, requests }: Pick<VerdictRecord, 'keys' | 'requests'>, services: readonly string[]): void {
    this.publish({ type: 'ask', keys, requests, services });
  }

  deliver({ record, step, sequence }: Delivery, target: string): void {
    this.publish({ type: 'signal', verdict: record.id, step, sequence, target });
  }

  callbackElsewhere(cuid: string): Life | undefined {
    const life = this.parts.registry.find(cuid);
    return life !== undefined && this.callbacks.has(life) ? life : undefined;
  }

  callbackOfService(service: string): Life | undefined {
    return this.callbacks.of(service);
  }

  proxiesElsewhere(): number {
    return [...this.proxies.values()].reduce((sum, one) => sum + one, 0);
  }

  /** To be called about four times a second. */
  tick(): void {
    const { clock } = this.parts;
    const nowMs = clock.monotonicMs();
    const stale = !this.isFresh();
    // Nobody could be heard: that says nothing of them, and their time begins anew.
    if (stale || this.wasStale) this.membership.forgive(nowMs);
    if (!stale && this.wasStale) this.outbox.all();
    this.wasStale = stale;
    this.expire(nowMs);
    if (nowMs - this.allMs >= ALL_EVERY_MS) {
      this.allMs = nowMs;
      this.outbox.all();
    }
    for (const [cuid, { from, news, atMs }] of this.unborn) {
      if (this.onLife(from, news, nowMs - atMs) || nowMs - atMs > UNBORN_MS) this.unborn.delete(cuid);
    }
    for (const signal of this.early) if (this.signal(signal)) this.early.delete(signal);
    if (stale) return;
    this.publishState();
    if (nowMs - this.relievedMs < RELIEVE_EVERY_MS) return;
    this.relievedMs = nowMs;
    this.ingest?.relieve([...this.streams.values()]);
  }

  /** Says that this replica leaves: others take its duties over at once. */
  leave(): void {
    this.publish({ type: 'bye' });
  }

  private expire(nowMs: number): void {
    const dead = this.membership.expire(nowMs);
    for (const id of dead) this.gone(id, 'a replica is not heard any more; its duties fall to the others');
  }

  private gone(id: string, message: string): void {
    const { log, registry, rollback } = this.parts;
    log.info({ replica: id, replicas: this.membership.all.length }, message);
    registry.leftElsewhere(id);
    this.callbacks.left(id);
    this.proxies.delete(id);
    this.streams.delete(id);
    rollback.tookOver();
  }

  private publishState(): void {
    for (const message of this.outbox.take(!this.settled)) this.publish(message);
  }

  private publishBegun(): void {
    this.publish({ type: 'began', items: this.begun });
    this.begun = [];
  }

  private publish(message: Message): void {
    for (const bytes of pieces(message)) this.parts.shared.bus.publish(bytes);
  }

  private take(from: string, bytes: Buffer): void {
    const message = decodeMessage(bytes);
    try {
      if (message === undefined) this.unknown += 1;
      else this.on(from, message);
    } catch (error) {
      // Written by another version, or by nobody of ours: what is understood counts, the rest is passed over.
      this.unknown += 1;
      this.parts.log.debug({ err: error, from }, 'a message of another replica was not understood');
    }
  }

  private on(from: string, message: Message): void {
    if (message.type === 'bye') {
      if (this.membership.left(from)) this.gone(from, 'a replica has left; its duties fall to the others');
      return;
    }
    if (this.membership.heard(from, this.parts.clock.monotonicMs())) this.came(from);
    const { rollback } = this.parts;
    if (message.type === 'state') this.onState(from, message);
    else if (message.type === 'ask') rollback.flush(message, message.services);
    else if (message.type === 'began') this.onBegan(message.items);
    else if (message.type === 'signal' && !this.signal(message)) this.keepEarly(message);
  }

  private came(id: string): void {
    this.parts.log.info({ replica: id, replicas: this.membership.all.length }, 'a replica is heard');
    this.outbox.all();
    this.parts.rollback.tookOver();
  }

  private onState(from: string, message: StateMessage): void {
    const { lives, lists, told, proxies, streams, version, sinceUs, ledgerSinceUs, fresh } = message;
    const { registry, transactions, rollback, recovered } = this.parts;
    // Both have read the same log: who began later knows what the other knew.
    recovered.countingSinceUs = Math.min(recovered.countingSinceUs, sinceUs);
    rollback.ledger.reaches(ledgerSinceUs);
    if (fresh) this.outbox.all();
    this.proxies.set(from, proxies);
    this.streams.set(from, streams);
    rollback.proxies.raise(version);
    for (const news of lives) if (!this.onLife(from, news, 0)) this.keepUnborn(from, news);
    for (const news of lists) {
      const life = registry.find(news.cuid);
      if (life !== undefined) transactions.inFlight(instanceRef(life), listsOf(news));
    }
    for (const [id, count] of told) rollback.toldElsewhere(id, from, count);
  }

  /** @param sinceMs how long ago the news came @returns false = the life is not known here */
  private onLife(replica: string, news: LifeNews, sinceMs: number): boolean {
    const life = this.parts.registry.find(news.cuid);
    if (life === undefined) return false;
    const { connected, ageMs, offsetUs, errorUs, status, statusAgeMs, jobs, callback } = news;
    this.parts.registry.heardElsewhere(life, {
      replica,
      connected,
      ageMs: ageMs + sinceMs,
      clock: { offsetUs, errorUs },
      ...(status === undefined ? {} : { status: { value: status, ageMs: statusAgeMs + sinceMs } }),
      jobs: jobs.map(([progress, jobAgeMs]) => ({ progress, ageMs: jobAgeMs + sinceMs })),
    });
    this.callbacks.note(replica, life, connected && callback);
    return true;
  }

  private keepUnborn(from: string, news: LifeNews): void {
    this.unborn.set(news.cuid, { from, news, atMs: this.parts.clock.monotonicMs() });
    if (this.unborn.size > UNBORN_MAX) this.unborn.delete(this.unborn.keys().next().value!);
  }

  private onBegan(items: readonly (readonly [string, readonly InFlight[]])[]): void {
    const { registry, rollback } = this.parts;
    for (const [cuid, began] of items) {
      const life = registry.find(cuid);
      if (life !== undefined) rollback.began(life, began);
    }
  }

  private signal({ verdict, step, sequence, target }: SignalMessage): boolean {
    return this.parts.rollback.deliveredElsewhere(verdict, step, sequence, target);
  }

  private keepEarly(message: SignalMessage): void {
    this.early.add(message);
    if (this.early.size > EARLY_MAX) this.early.delete(this.early.values().next().value!);
  }
}
