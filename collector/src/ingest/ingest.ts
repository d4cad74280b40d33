// What a report does: who it is from, what is new in it, and what its sender is told.
//
// A message takes effect in two steps. What only matters now (status, progress, in-flight lists, the
// lease) applies at once. Batches go to the store first, which says whether they are new; then they are
// counted, and a failure in them decides what it decides. They are acknowledged when the store has them
// for good: an acknowledged batch is one that a restart keeps, if the store can keep anything.

import { status as Code } from '@grpc/grpc-js';
import type { Clock } from '../clock.js';
import { Exhausted, StreamEnded } from '../errors.js';
import type { Logger } from '../log.js';
import type { Counts } from '../registry/counts.js';
import { noteRate, SILENT_MS, type Life, type Transport } from '../registry/life.js';
import type { Registry } from '../registry/registry.js';
import { toStored } from '../registry/life.js';
import type { Store, StoredBatch } from '../store/store.js';
import type { TransactionsPort } from './transactions-port.js';
import { instanceRef, type Applier } from './apply.js';
import { Moves, surplus, type Hints } from './moves.js';
import { Wishes } from './wishes.js';
import type { Loss } from './producers.js';
import { PRODUCERS_MAX, type Batch, type Hello, type Report } from './report.js';
import type { Directive, RollbackPort } from './rollback-port.js';
import type { ReplicasPort } from './replicas-port.js';
import type { IngestTotals, Told } from './totals.js';
import { hexOfId, WireError } from './wire.js';

export interface IngestParts {
  readonly clock: Clock;
  readonly registry: Registry;
  readonly counts: Counts;
  readonly store: Store;
  readonly transactions: TransactionsPort;
  readonly applier: Applier;
  readonly totals: IngestTotals;
  readonly log: Logger;
  readonly rollback?: RollbackPort;
  /** Told of each batch that is new, once it has its place. */
  readonly exports?: { rows(life: Life, batch: Batch, receivedUs: number): void };
  /** The other replicas, when there are any. */
  readonly replicas?: ReplicasPort;
  /** Report streams open at once, at most. */
  readonly streamsMax: number;
}

/** As meshpulse.v1.ReportReply, ready to be encoded; 64-bit values as decimal text. */
export interface Reply {
  readonly acks: readonly { producer: string; seq: string; durable: boolean }[];
  readonly directives?: readonly Directive[];
  readonly hints?: Hints;
  readonly receivedUnixUs: string;
  readonly echoSentUnixUs: string;
}

/** One connection's side of the conversation. `fail` ends it from our side; `tell` says something unasked. */
export interface Peer {
  readonly transport: Transport;
  fail(error: Error): void;
  tell(reply: Reply): void;
}

export interface Session {
  readonly peer: Peer;
  life?: Life;
  heardMs: number;
  /** Settles when everything taken so far is stored and applied. */
  settled: Promise<unknown>;
}

/** How long a refused stream should wait, ms. */
const STREAMS_RETRY_MS = 10_000;

export class Ingest {
  private readonly sessions = new Set<Session>();
  private readonly streamOf = new Map<Life, Session>();
  private readonly moves: Moves<Session>;
  private readonly wishes = new Wishes<Session>();
  /** Lives that the store refused when they were put last: whoever reads their batches would not know them. */
  private readonly unput = new WeakSet<Life>();

  constructor(private readonly parts: IngestParts) {
    this.moves = new Moves(parts.clock);
    parts.registry.on('ended', life => this.onEnded(life));
    parts.registry.on('revived', life => this.putLife(life));
  }

  /** @throws Exhausted when all streams are taken */
  open(peer: Peer): Session {
    if (peer.transport === 'stream' && this.sessions.size >= this.parts.streamsMax) {
      throw new Exhausted(`${this.sessions.size} report streams are all that streams-max allows`, STREAMS_RETRY_MS);
    }
    const session = { peer, heardMs: this.parts.clock.monotonicMs(), settled: Promise.resolve() };
    if (peer.transport === 'stream') this.sessions.add(session);
    return session;
  }

  /** The connection is over, in whichever way. */
  close(session: Session): void {
    if (!this.sessions.delete(session) || session.life === undefined) return;
    this.leave(session, session.life);
  }

  get streams(): number {
    return this.sessions.size;
  }

  /**
   * Takes one message. Settles when its batches are stored.
   *
   * @throws WireError when the session has no life yet and the message no hello; InvalidArgument and
   *         Exhausted as Registry.hello
   */
  async take(session: Session, report: Report): Promise<Reply> {
    const { clock, registry, totals } = this.parts;
    const receivedUs = clock.nowUs();
    session.heardMs = clock.monotonicMs();
    totals.messages += 1;
    const life = report.hello === undefined ? session.life : this.hello(session, report.hello, report.sentUnixUs);
    if (life === undefined) throw new WireError('hello', 'is missing, the first message must carry it');
    registry.heard(life, report.sentUnixUs);
    this.parts.replicas?.heard(life);
    this.takeState(life, report);
    const acks = await this.queue(session, () => this.takeBatches(life, report.batches, receivedUs));
    if (report.goodbye !== undefined) registry.goodbye(life);
    const wish = this.wishes.hints(session, clock.monotonicMs());
    return { ...wish, ...this.reply(acks, receivedUs, report.sentUnixUs), ...this.waiting(session, life) };
  }

  /** How busy this process was since it was last said, 0 to 1: under load filters are asked for less. */
  load(busyRatio: number): void {
    this.wishes.look(busyRatio, this.parts.clock.monotonicMs());
  }

  /** Share of transactions whose rows filters are asked for, 0 to 1. */
  get sampleRatioWished(): number {
    return this.wishes.wish.sampleRatio;
  }

  /** Says something to a proxy on its stream; false when it has none. */
  tell(life: Life, directives: readonly Directive[]): boolean {
    const session = this.streamOf.get(life);
    if (session === undefined) return false;
    session.peer.tell({ ...this.reply([], this.parts.clock.nowUs(), 0), directives });
    return true;
  }

  /** Directives ride on the answers to a proxy without a stream. */
  private waiting({ peer }: Session, life: Life): Pick<Reply, 'directives'> {
    const directives = peer.transport === 'stream' ? [] : (this.parts.rollback?.take(life) ?? []);
    return directives.length === 0 ? {} : { directives };
  }

  /** Ends streams that have been silent for too long. To be called about once a second. */
  tick(): void {
    const nowMs = this.parts.clock.monotonicMs();
    for (const session of this.sessions) {
      if (nowMs - session.heardMs <= SILENT_MS) continue;
      session.peer.fail(new StreamEnded(Code.DEADLINE_EXCEEDED, `silent for ${SILENT_MS / 1000} s`));
    }
  }

  /** Asks every stream to go elsewhere within `drainMs`. */
  drain(drainMs: number): void {
    this.ask(this.sessions, this.moves.leave(drainMs));
  }

  /** Asks some to, where `others`, the other replicas, have fewer. To be called every RELIEVE_EVERY_MS. */
  relieve(others: readonly number[]): void {
    const { chosen, hints } = this.moves.choose(this.sessions, surplus(this.sessions.size, others));
    this.ask(chosen, hints);
  }

  private ask(sessions: Iterable<Session>, hints: Hints): void {
    for (const { peer } of sessions) peer.tell({ ...this.reply([], this.parts.clock.nowUs(), 0), hints });
  }

  /** Ends every stream that is still there. */
  endAll(): void {
    for (const session of this.sessions)
      session.peer.fail(new StreamEnded(Code.UNAVAILABLE, 'the collector is leaving'));
  }

  private hello(session: Session, hello: Hello, sentUnixUs: number): Life {
    const { registry, store, counts } = this.parts;
    const arrival = registry.hello(hello, session.peer.transport, sentUnixUs);
    const { life } = arrival;
    if (session.life !== life) this.join(session, life);
    this.parts.rollback?.hello(life, hello);
    counts.forgetExternal(life.service, life.cluster);
    this.noteProducers(
      life,
      hello.producers.map(producer => hexOfId(producer.id)),
    );
    this.putLife(life);
    this.background(store.announce(life.cuid, life.proxyId, hello.producers).then(loss => this.lost(life, loss)));
    if (arrival.producersGone.length > 0) {
      this.background(store.finish(life.cuid, life.proxyId, arrival.producersGone).then(loss => this.lost(life, loss)));
    }
    this.noteTold(arrival.told, life);
    return life;
  }

  private noteTold(before: Told | undefined, life: Life): void {
    if (!this.parts.totals.told(before, life)) return;
    const { service, cuid, configErrors: errors } = life;
    this.parts.log.warn({ service, cuid, errors }, 'a filter reports faults in its configuration');
  }

  /** A new stream of a life takes the place of the old one. */
  private join(session: Session, life: Life): void {
    if (session.life !== undefined) this.leave(session, session.life);
    session.life = life;
    if (session.peer.transport !== 'stream') return;
    const before = this.streamOf.get(life);
    this.streamOf.set(life, session);
    this.parts.registry.stream(life, 1);
    if (before !== undefined) before.peer.fail(new StreamEnded(Code.ABORTED, 'the proxy has opened another stream'));
  }

  private leave(session: Session, life: Life): void {
    if (session.peer.transport === 'stream') this.parts.registry.stream(life, -1);
    this.parts.replicas?.heard(life);
    if (this.streamOf.get(life) !== session) return;
    this.streamOf.delete(life);
    this.parts.rollback?.left(life);
  }

  private takeState(life: Life, report: Report): void {
    const { registry, transactions, clock } = this.parts;
    if (report.status !== undefined) registry.status(life, report.status);
    registry.progress(life, report.progress);
    if (report.inFlight.length > 0) transactions.inFlight(instanceRef(life), report.inFlight);
    this.parts.replicas?.told(life, report);
    this.parts.rollback?.report(life, report);
    const rows = report.batches.reduce((sum, batch) => sum + (batch.events?.rows ?? 0), 0);
    if (rows > 0) noteRate(life, rows, clock.monotonicMs());
  }

  private async takeBatches(life: Life, batches: readonly Batch[], receivedUs: number): Promise<Reply['acks']> {
    if (batches.length === 0) return [];
    const { store, applier, totals } = this.parts;
    this.noteProducers(
      life,
      batches.map(batch => hexOfId(batch.producer)),
    );
    if (this.unput.has(life)) this.putLife(life);
    const { cuid, proxyId } = life;
    const stored = batches.map((batch): StoredBatch => ({ cuid, proxyId, receivedUs, batch }));
    const results = await store.putBatches(stored, ({ batch }, { fresh, loss }) => {
      if (fresh) applier.apply(life, batch, 'own');
      if (fresh) this.parts.exports?.rows(life, batch, receivedUs);
      if (fresh) totals.batches += 1;
      else totals.replays += 1;
      this.lost(life, loss);
    });
    const acks = new Map<bigint, Reply['acks'][number]>();
    results.forEach(({ seq, durable }, index) => {
      const { producer } = batches[index]!;
      acks.set(producer, { producer: String(producer), seq: String(seq), durable });
    });
    return [...acks.values()];
  }

  /** Those heard longest ago are taken for gone when a life has had too many. */
  private noteProducers(life: Life, producers: readonly string[]): void {
    const { store } = this.parts;
    for (const producer of producers) {
      life.producers.delete(producer);
      life.producers.add(producer);
      if (life.producers.size <= PRODUCERS_MAX) continue;
      const gone = life.producers.values().next().value!;
      life.producers.delete(gone);
      this.background(store.finish(life.cuid, life.proxyId, [gone]).then(loss => this.lost(life, loss)));
    }
  }

  /** Runs the work, and lets a later goodbye or hello wait for it: messages take effect in their order. */
  private async queue<T>(session: Session, work: () => Promise<T>): Promise<T> {
    const before = session.settled;
    const result = work();
    session.settled = Promise.allSettled([before, result]);
    await before;
    return result;
  }

  private reply(acks: Reply['acks'], receivedUs: number, sentUs: number): Reply {
    return {
      acks,
      ...this.moves.hints(),
      receivedUnixUs: String(receivedUs),
      echoSentUnixUs: String(sentUs),
    };
  }

  private onEnded(life: Life): void {
    // Whoever still has a stream can be told: another that claims its address has ended it, and it may go on.
    if (!this.streamOf.has(life)) this.parts.rollback?.left(life);
    const { store, log, totals } = this.parts;
    totals.ended(life);
    const { cuid, service, clean, eventsLostMax } = life;
    log.info({ cuid, service, clean, eventsLostMax }, clean ? 'a life said goodbye' : 'a life ended without goodbye');
    this.background(
      store.finish(life.cuid, life.proxyId, [...life.producers]).then(loss => {
        this.lost(life, loss);
      }),
    );
    this.putLife(life);
  }

  private putLife(life: Life): void {
    life.puts += 1;
    this.unput.delete(life);
    const put = this.parts.store.putLife(toStored(life)).catch((error: unknown) => {
      this.unput.add(life);
      throw error;
    });
    this.background(put.finally(() => (life.puts -= 1)));
  }

  private lost(life: Life, loss: Loss): void {
    if (loss.reports === 0 && loss.events === 0) return;
    this.parts.registry.lost(life, loss);
    this.parts.totals.lost(life.service, loss, this.parts.clock.monotonicMs());
    const { cuid, service } = life;
    const fields = { cuid, service, reports: loss.reports, events: loss.events };
    if (loss.reports < 0) this.parts.log.info(fields, 'reports that were missing came after all');
    else this.parts.log.warn(fields, 'reports or events are missing');
  }

  /** Work that no reply waits for. Its failures belong in the log. */
  private background(work: Promise<unknown>): void {
    work.catch((error: unknown) => this.parts.log.error({ err: error }, 'the store refused what it was told'));
  }
}
