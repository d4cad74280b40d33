// Transactions: the rows of all proxies joined into business requests, and what they teach the flow.
//
// Rows come in any order, late, or not at all. So nothing is decided when a row comes: it is stored with
// the transaction that has one of its ids. When a transaction has been quiet for a while its rows are
// linked by cause, once for learning and again whenever someone asks.

import { randomInt } from 'node:crypto';
import type { Clock } from '../clock.js';
import { NotFound, shown } from '../errors.js';
import { flowPieces, getFlow, type FlowRequest } from '../flow/get-flow.js';
import { FlowGraph } from '../flow/graph.js';
import { learn } from '../flow/learn.js';
import { restoreTo, snapshotOf } from '../flow/snapshot.js';
import { outcomeOf } from '../ingest/columns.js';
import type { InFlight, InFlightList } from '../ingest/report.js';
import type { InstanceRef, RowBatch, TransactionsPort } from '../ingest/transactions-port.js';
import type { StoryLine } from '../rollback/story.js';
import { viewOf, type View } from '../rollback/view.js';
import { timestamp } from '../rpc/encode.js';
import { atOnce, type Pieces } from '../slices.js';
import { explain } from './explain.js';
import { candidates, hexOfId, type Id } from './ids.js';
import { NONE } from './id-index.js';
import { Intake } from './intake.js';
import { countUnlinked, endWithoutEntry, isThinned, nodesOf } from './lessons.js';
import { link, type LifeOf, type Step } from './link.js';
import { list, passes, type Filter, type ListRequest } from './list.js';
import { head, whole } from './message.js';
import type { Naming } from './names.js';
import { Servers } from './servers.js';
import { isNone, Table } from './table.js';
import { LOOKS_PER_SECOND, Shapes, type Known } from './shapes.js';
import { AT, FLAG, IS, STAGE, type Shelf } from './slot-layout.js';
import { OUTCOME, type Transaction } from './transaction.js';

/** Learns from finished transactions beside the flow, and is kept with it. */
export interface Lessons {
  /**
   * One in which everything went well, with one entry. False: it has to be looked at; most need not be,
   * and that is what makes learning cheap.
   */
  skim(kind: string, atUs: number): boolean;
  /** `atUs`: when its entry ended. */
  add(view: View, atUs: number): void;
  /** One that was learned from turns out to have another entry. */
  secondEntry(kind: string, second: string): void;
  snapshot(): unknown;
  restore(state: unknown): void;
}

export interface TransactionsOptions {
  readonly clock: Clock;
  /** How long ended transactions are kept, ms; and those that failed. */
  readonly retainMs: number;
  readonly retainFailedMs: number;
  /** After how long unseen a step or edge of the flow is forgotten, ms. */
  readonly retainFlowMs: number;
  readonly transactionsMax: number;
  /** Service of a life, by CUID or alias. */
  resolveService(cuid: string): string | undefined;
  /** The CUID that a life has now, by this one or an alias; what it was given if it knows none. */
  readonly resolveCuid?: (cuid: string) => string;
  readonly lessons?: Lessons;
  /** What was decided on a transaction, as lines of its story. */
  readonly decisions?: (view: View) => readonly StoryLine[];
  /** Spreads ids in hash tables; random if absent. */
  readonly seed?: number;
  /** Transactions of known shapes that are looked at all the same, a second; LOOKS_PER_SECOND if absent. */
  readonly looksPerSecond?: number;
}

/** Quiet for this long after its entry event ended, a transaction is learned from: reports come every second. */
const SETTLE_US = 3_000_000;

/** Quiet for this long, what has not come is taken as missing. */
const GRACE_US = 10_000_000;

/** Work of one tick, ms; what is left over waits for the next. After a restart there is much at once. */
const TICK_MS_MAX = 100;

/** How often the flow is looked through for what is gone. */
const FORGET_EVERY_US = 10_000_000;

interface Watcher {
  readonly filter: Filter;
  readonly onChange: (transaction: object) => void;
}

/** As the store keeps it. */
interface State {
  readonly graph: unknown;
  /** Keys of transactions that were not learned from yet. */
  readonly unlearned: readonly string[];
  readonly coveredSinceUs: number;
  /** Events found unlinked; absent in what older versions stored. */
  readonly unlinked?: number;
  readonly lessons?: unknown;
}

export class Transactions implements TransactionsPort {
  /** Events whose cause should have been known. Goes on where it stopped when the flow does. */
  unlinked = 0;
  readonly flow: TransactionsPort['flow'];
  private readonly clock: Clock;
  private readonly lifeOf: LifeOf;
  private readonly table: Table;
  private readonly intake: Intake;
  private readonly servers = new Servers();
  private readonly naming: Naming;
  private readonly graph = new FlowGraph();
  private readonly watchers = new Set<Watcher>();
  /** Slots. */
  private readonly changed = new Set<number>();
  private readonly shapes: Shapes;
  private rebuilt: Readonly<Record<string, number>> = {};
  private coveredSinceUs: number;
  private forgotUs = 0;

  constructor(private readonly options: TransactionsOptions) {
    this.clock = options.clock;
    this.lifeOf = options.resolveCuid ?? (cuid => cuid);
    this.coveredSinceUs = this.clock.nowUs();
    this.table = new Table(options.transactionsMax, options.seed ?? randomInt(2 ** 32), slot => this.leaving(slot));
    this.shapes = new Shapes(this.table.slots, options.looksPerSecond ?? LOOKS_PER_SECOND);
    this.intake = new Intake(
      this.table,
      slot => this.touched(slot),
      (transaction, second) => options.lessons?.secondEntry(transaction.kind, second),
    );
    this.naming = {
      resolveService: cuid => options.resolveService(cuid),
      isService: name => this.servers.isService(name),
    };
    this.flow = {
      getFlow: (request: FlowRequest) => getFlow(this.taught(), request, this.clock.nowUs()),
      flowPieces: (request: FlowRequest) => flowPieces(this.taught(), request, this.clock.nowUs()),
      snapshot: () => this.snapshot(),
      restore: state => this.restore(state),
    };
  }

  /** Whatever was given up so far, while transactions were rebuilt, was counted before. */
  beginCounting(): void {
    this.rebuilt = this.counters;
  }

  /** Kept now. */
  get size(): number {
    return this.table.size;
  }

  /** What was given up, and why; for metrics. */
  get counters(): Readonly<Record<string, number>> {
    const all = {
      ...this.table.counters,
      ...this.intake.counters,
      inFlightListsDropped: this.intake.listsDropped,
      flowDropped: this.graph.dropped,
      skimmed: this.shapes.skimmed,
    };
    return Object.fromEntries(Object.entries(all).map(([name, count]) => [name, count - (this.rebuilt[name] ?? 0)]));
  }

  ingest(batch: RowBatch): void {
    this.servers.note(batch);
    this.intake.batch(batch, this.clock.nowUs());
    this.tellWatchers();
  }

  inFlight(instance: InstanceRef, lists: readonly InFlightList[]): void {
    this.intake.inFlight(instance, lists, this.clock.nowUs());
    this.tellWatchers();
  }

  /** Entry requests, and others that were asked for, told before they are in any list. */
  began(instance: InstanceRef, items: readonly InFlight[]): void {
    this.intake.begins(instance, items, this.clock.nowUs());
    this.tellWatchers();
  }

  /** What is known of the transaction that has one of these ids; all zero = none. */
  view(key: Id, request: Id): View | undefined {
    const transaction =
      (isNone(key) ? undefined : this.table.find('key', key)) ??
      (isNone(request) ? undefined : this.table.find('request', request));
    return transaction === undefined ? undefined : this.viewOf(transaction);
  }

  /** A verdict on it is in force, or is not any more. */
  setDoomed(key: Id, doomed: boolean): void {
    const transaction = this.table.find('key', key);
    if (transaction === undefined) return;
    transaction.doomed = doomed;
    this.touched(transaction.slot);
    this.tellWatchers();
  }

  /** @throws NotFound */
  viewOfId(id: string): View {
    return this.viewOf(this.find(id));
  }

  /** Those that ended since then, the newest `max` of them, in the order in which they ended. */
  *viewsSince(sinceUs: number, max: number): Generator<{ view: View; endUs: number }> {
    const ended = [...this.table.all()].flatMap(transaction => {
      const { endUs, evidence } = transaction;
      return endUs === undefined || endUs < sinceUs || !evidence ? [] : [{ transaction, endUs }];
    });
    for (const { transaction, endUs } of ended.sort((a, b) => a.endUs - b.endUs).slice(-max)) {
      if (!transaction.gone) yield { view: this.viewOf(transaction), endUs };
    }
  }

  /** @throws NotFound */
  get(id: string): object {
    const transaction = this.find(id);
    return whole(transaction, this.link(transaction), this.naming);
  }

  /** @throws NotFound */
  explain(id: string, decisions = true): object {
    const transaction = this.find(id);
    const roots = this.link(transaction);
    return {
      transaction: whole(transaction, roots, this.naming),
      ...explain(transaction, roots, this.naming, decisions ? this.decisionsOn(transaction) : []),
    };
  }

  /** @throws InvalidArgument when the page token is none of ours */
  list(request: ListRequest): object {
    return atOnce(this.listPieces(request));
  }

  /** The same in pieces. */
  *listPieces(request: ListRequest): Pieces<object> {
    const { transactions, nextPageToken, sinceUs } = yield* list(this.table, request, this.clock.nowUs());
    const failedOnly = request.states?.length === 1 && request.states[0] === 'TRANSACTION_STATE_FAILED';
    const reachUs = this.reachUs(failedOnly ? this.options.retainFailedMs : this.options.retainMs);
    return {
      transactions: transactions.map(head),
      nextPageToken,
      coveredSince: timestamp(Math.max(reachUs, sinceUs ?? reachUs)),
      truncated: sinceUs !== undefined && sinceUs < reachUs,
    };
  }

  watch(filter: Filter, onChange: (transaction: object) => void): () => void {
    const watcher = { filter, onChange };
    this.watchers.add(watcher);
    return () => void this.watchers.delete(watcher);
  }

  tick(nowUs: number): void {
    this.intake.expire(nowUs);
    const nowMs = this.clock.monotonicMs();
    this.shapes.tick(nowMs);
    this.ripe('arriving', nowUs - SETTLE_US, nowUs, nowMs + TICK_MS_MAX, slot => this.settle(slot));
    this.ripe('settled', nowUs - GRACE_US, nowUs, nowMs + TICK_MS_MAX, slot => this.finish(slot));
    const { retainMs, retainFailedMs, retainFlowMs } = this.options;
    this.table.expire('noise', nowUs - retainMs * 1000);
    this.table.expire('ended', nowUs - retainMs * 1000);
    this.table.expire('failed', nowUs - retainFailedMs * 1000);
    if (nowUs - this.forgotUs >= FORGET_EVERY_US) {
      this.forgotUs = nowUs;
      this.taught().forget(nowUs - retainFlowMs * 1000);
    }
    this.taught();
    this.tellWatchers();
  }

  /** Does `work` for those last heard of before `beforeUs`, as long as the time of one tick lasts. */
  private ripe(shelf: Shelf, beforeUs: number, nowUs: number, untilMs: number, work: (slot: number) => void): void {
    const { slots } = this.table;
    for (let slot = slots.firstOf(shelf); slot !== NONE; slot = slots.firstOf(shelf)) {
      // Heard of in the future: the clock was set back.
      const heardUs = slots.double(slot, AT.HEARD);
      if (heardUs > beforeUs && heardUs <= nowUs) return;
      work(slot);
      if (this.clock.monotonicMs() > untilMs) return;
    }
  }

  /** How far back a list of transactions that are kept for `retainMs` reaches, us. */
  private reachUs(retainMs: number): number {
    return Math.max(this.coveredSinceUs, this.table.evictedBeginUs, this.clock.nowUs() - retainMs * 1000);
  }

  private find(id: string): Transaction {
    for (const candidate of candidates(id)) {
      const found = this.table.find(candidate.index, candidate.id);
      if (found !== undefined) return found;
    }
    throw this.unknown(id);
  }

  /** What whoever asks for a transaction that is not there is told. */
  unknown(id: string): NotFound {
    const since = (retainMs: number): string => new Date(this.reachUs(retainMs) / 1000).toISOString();
    const { retainMs, retainFailedMs } = this.options;
    return new NotFound(
      `no transaction has the id ${shown(id)}; they are remembered since ${since(retainMs)}, ` +
        `failed ones since ${since(retainFailedMs)}`,
    );
  }

  private decisionsOn(transaction: Transaction): readonly StoryLine[] {
    return this.options.decisions?.(this.viewOf(transaction)) ?? [];
  }

  private viewOf(transaction: Transaction): View {
    const roots = this.link(transaction);
    return viewOf(transaction, roots, this.naming, this.isThinned(roots));
  }

  private isThinned(roots: readonly Step[]): boolean {
    return isThinned(roots, cuid => this.servers.thins(this.lifeOf(cuid)));
  }

  private link(transaction: Transaction): Step[] {
    return link(this.table.read(transaction), this.lifeOf);
  }

  /** Quiet for a moment: if all of it is there, the flow learns from it. */
  private settle(slot: number): void {
    const { slots } = this.table;
    if (this.shapes.mayLook || !this.skim(slot)) this.look(this.table.at(slot));
    slots.setWord(slot, IS.STAGE, STAGE.SETTLED);
    slots.shelve(slot, 'settled');
    this.touched(slot);
  }

  /** Counts a transaction that is like others; false: it has to be looked at. */
  private skim(slot: number): boolean {
    const { slots } = this.table;
    if (slots.has(slot, FLAG.LEARNED) || this.servers.thinAtAll) return false;
    const known = this.shapes.find(slot);
    if (known === undefined) return false;
    const atUs = Math.min(slots.double(slot, AT.ENTRY_END), this.clock.nowUs());
    if (this.options.lessons?.skim(slots.kinds.get(known.kind), atUs) === false) return false;
    this.shapes.count(known, atUs);
    slots.mark(slot, FLAG.LEARNED);
    slots.setWord(slot, IS.UNLINKED_FOUND, 0);
    return true;
  }

  private look(transaction: Transaction): void {
    const roots = this.link(transaction);
    if (transaction.running === 0) this.teach(transaction, roots);
    transaction.endedWithoutEntry = endWithoutEntry(roots);
    transaction.unlinkedFound = countUnlinked(roots, proxy => this.servers.serves(proxy, transaction.startedUs));
  }

  /** There is no room for it any more: what need not be looked at is learned before it goes. */
  private leaving(slot: number): void {
    if (this.table.slots.word(slot, IS.STAGE) === STAGE.ARRIVING) this.skim(slot);
  }

  /** Quiet for so long that nothing more is expected: what was found when it settled is final. */
  private finish(slot: number): void {
    const { slots } = this.table;
    slots.setWord(slot, IS.STAGE, STAGE.FINAL);
    const transaction = this.table.at(slot);
    if (canTeach(transaction)) this.teach(transaction, this.link(transaction));
    if (!transaction.rebuilt) this.unlinked += Math.max(0, transaction.unlinkedFound - transaction.unlinked);
    transaction.rebuilt = false;
    transaction.unlinked = transaction.unlinkedFound;
    const { state } = transaction;
    const ended = !transaction.evidence ? 'noise' : state === 'FAILED' ? 'failed' : 'ended';
    slots.shelve(slot, state === 'RUNNING' ? 'running' : ended);
    this.touched(slot);
  }

  private teach(transaction: Transaction, roots: readonly Step[]): void {
    if (!canTeach(transaction)) return;
    transaction.learned = true;
    const atUs = Math.min(transaction.entryEndUs, this.clock.nowUs());
    const thinned = this.isThinned(roots);
    const { lessons } = this.options;
    const clean = !thinned && transaction.entries === 1 && this.wentWell(transaction);
    if (lessons !== undefined && !(clean && lessons.skim(transaction.kind, atUs))) {
      lessons.add(viewOf(transaction, roots, this.naming, thinned), atUs);
    }
    if (thinned) return this.graph.abstain(transaction.kind, atUs);
    const taught = learn(nodesOf(roots, this.naming));
    this.graph.add(taught, atUs);
    this.shapes.looked(transaction.slot, roots, taught);
  }

  /** The graph, with what was only counted so far. */
  private taught(): FlowGraph {
    this.shapes.flush(({ lessons, count, latestUs }: Known) => this.graph.addMany(lessons, count, latestUs));
    return this.graph;
  }

  private wentWell(transaction: Transaction): boolean {
    for (const row of this.table.rowsOf(transaction)) {
      if (outcomeOf(this.table.rows.flags(row)) !== OUTCOME.OK) return false;
    }
    return true;
  }

  private touched(slot: number): void {
    if (this.watchers.size > 0) this.changed.add(slot);
  }

  private tellWatchers(): void {
    for (const slot of this.changed) {
      // It may have been given up since, or joined into another one, which changed as well.
      if (this.table.slots.double(slot, AT.SERIAL) === 0) continue;
      const transaction = this.table.at(slot);
      const now = `${transaction.shownState} ${transaction.kind}`;
      if (now === transaction.told) continue;
      transaction.told = now;
      let message: object | undefined;
      for (const { filter, onChange } of this.watchers) {
        if (passes(this.table, transaction, filter)) onChange((message ??= head(transaction)));
      }
    }
    this.changed.clear();
  }

  private snapshot(): State {
    const unlearned: string[] = [];
    for (const transaction of this.table.all()) {
      const over = transaction.learned || (transaction.stage === STAGE.FINAL && transaction.state !== 'RUNNING');
      if (!over) unlearned.push(hexOfId(transaction.key));
    }
    const { coveredSinceUs, unlinked } = this;
    const lessons = this.options.lessons?.snapshot();
    return { graph: snapshotOf(this.taught()), unlearned, coveredSinceUs, unlinked, lessons };
  }

  /**
   * Takes back what a snapshot held. Of the transactions that were rebuilt so far the graph knows all
   * but those that had not been learned from when it was taken.
   */
  private restore(state: unknown): void {
    const { graph, unlearned, coveredSinceUs, unlinked = 0, lessons } = (state ?? {}) as Partial<State>;
    if (!restoreTo(this.graph, graph)) return;
    this.options.lessons?.restore(lessons);
    const waiting = new Set(unlearned ?? []);
    for (const transaction of this.table.all()) {
      transaction.learned = !waiting.has(hexOfId(transaction.key));
      transaction.rebuilt = transaction.learned;
    }
    this.unlinked = unlinked;
    if (coveredSinceUs !== undefined) this.coveredSinceUs = Math.min(this.coveredSinceUs, coveredSinceUs);
  }
}

/** Its entries have ended, and it was not learned from before. */
function canTeach({ learned, evidence, entriesEnded, entriesRunning }: Transaction): boolean {
  return !learned && evidence && entriesEnded > 0 && entriesRunning === 0;
}
