// Early rollback as it runs: rows come in, verdicts are made, filters and applications are told.
//
// The decisions are pure (policy.ts, plan.ts, signals.ts); here is what they are asked about, what
// follows from them, and the state that has to outlive a moment. Time is the collector's clock; how long
// a directive holds is its monotonic side.

import type { Clock } from '../clock.js';
import { lowWord, outcomeOf, ROW_FLAG, type EventColumns } from '../ingest/columns.js';
import type { Origin } from '../ingest/apply.js';
import type { Hello, InFlight, Report } from '../ingest/report.js';
import type { RollbackPort } from '../ingest/rollback-port.js';
import { instanceRef } from '../ingest/apply.js';
import type { Logger } from '../log.js';
import { serviceOfHost } from '../registry/counts.js';
import type { Life } from '../registry/life.js';
import type { Registry } from '../registry/registry.js';
import { hexOfId, idOfHex, type Id } from '../transactions/ids.js';
import type { Transactions } from '../transactions/index.js';
import { OUTCOME } from '../transactions/transaction.js';
import { idsOf, scan, type Account, type Ids } from './accounts.js';
import { Archive } from './archive.js';
import { ControlsBook } from './controls-book.js';
import { flushOf, type Directive } from './directives.js';
import { Late } from './late.js';
import type { Learner } from './learner.js';
import { Ledger } from './ledger.js';
import { mergeStep } from './merge.js';
import { MeshDown } from './mesh-down.js';
import { effectiveMode, type Kill, type Override } from './modes.js';
import { Pace } from './pace.js';
import { Plans } from './plans.js';
import { decide, withScopes } from './policy.js';
import type { PolicySource } from './policy-source.js';
import { Proxies } from './proxies.js';
import { recordOf } from './record.js';
import { stepName } from './sample.js';
import type { StepRecord } from './signals.js';
import { ALONE, type Peers } from './peers.js';
import type { PutRollback } from '../store/store.js';
import { RETENTION, type Retention } from './retention.js';
import type { RollbackEntry, StoredAck } from './store-entries.js';
import { Told } from './told.js';
import { isEnforced, namesOf, Verdicts, type VerdictRecord } from './verdicts.js';
import type { View } from './view.js';
import { Watchers, type Delivery } from './watchers.js';

export interface RollbackParts {
  readonly clock: Clock;
  readonly registry: Registry;
  readonly transactions: Transactions;
  readonly learner: Learner;
  readonly policy: PolicySource;
  readonly log: Logger;
  /** Keeps entries; settles when they are as durable as they will be. */
  readonly put: (entries: readonly RollbackEntry[]) => Promise<PutRollback>;
  /** RETENTION if absent. */
  readonly retention?: Retention;
  /** Told of verdicts that changed here. */
  readonly changed?: (records: Iterable<VerdictRecord>) => void;
  /** Told how long it took from the end of a failed call until a directive was in force, s. */
  readonly latency: (seconds: number) => void;
  /** What applications are told by callback. */
  readonly callbackBody: (delivery: Delivery) => Buffer;
}

/** Transactions that wait for their kind to be known, at most; and for how long, ms. */
const WANTED_MAX = 10_000;
const WANTED_MS = 10_000;

/**
 * In a storm of failures ingest goes first. A verdict and its directives cost up to 1 ms, an evaluation without one a
 * tenth of it; what is past these bounds passes, and is counted.
 */
const EVALUATIONS_PER_SECOND = 2000;
const VERDICTS_PER_SECOND = 300;
const ASKS_PER_SECOND = 300;
const TOO_MANY = 'too many at once';
const STALE = 'the store is stale';

/** Verdicts in force or open that are written down again when a replica has gone, at most. */
const TAKEN_OVER_MAX = 1000;

/** No id. */
const NONE: Id = [0, 0, 0, 0];

/** Proxies asked for what they have not told yet, at most. */
const ASKED_MAX = 64;

export class Rollback implements RollbackPort {
  readonly verdicts: Verdicts;
  readonly controls = new ControlsBook();
  readonly ledger: Ledger;
  readonly proxies: Proxies;
  readonly watchers: Watchers;
  readonly archive: Archive;
  readonly plans: Plans;
  readonly down: MeshDown;
  private readonly told: Told;
  private readonly late = new Late();
  private readonly wanted = new Map<string, { ids: Ids; untilMs: number }>();
  /** False while the store gives back what it kept: nothing is decided by the past. */
  private live = false;
  /** The other replicas; set once they are there. */
  peers: Peers = ALONE;
  /** Transactions on which a verdict is on its way into the store, by their names. */
  private readonly proposed = new Set<string>();
  /** Verdicts of this replica that were void, because another one was first. */
  claimsLost = 0;
  /** Decisions not made, by reason. */
  readonly abstained = new Map<string, number>();
  private readonly evaluations = new Pace(EVALUATIONS_PER_SECOND);
  private readonly verdictPace = new Pace(VERDICTS_PER_SECOND);
  private readonly asks = new Pace(ASKS_PER_SECOND);

  constructor(readonly parts: RollbackParts) {
    const { clock, registry, log, policy, learner, put, changed } = parts;
    const retention = parts.retention ?? RETENTION;
    this.verdicts = new Verdicts(record => this.forget(record), retention);
    this.ledger = new Ledger(clock.nowUs(), retention);
    const peers = (): Peers => this.peers;
    const told = changed === undefined ? {} : { changed };
    this.archive = new Archive({ clock, log, ledger: this.ledger, put, peers, ...told });
    this.proxies = new Proxies(() => clock.nowUs());
    const findLife = (cuid: string): Life | undefined => (cuid === '' ? undefined : registry.find(cuid));
    this.watchers = new Watchers(this.proxies, findLife, parts.callbackBody, peers);
    this.plans = new Plans({
      clock,
      log,
      policy,
      controls: this.controls,
      archive: this.archive,
      watchers: this.watchers,
      peers,
    });
    this.told = new Told(clock, this.proxies);
    const { controls, proxies } = this;
    this.down = new MeshDown({ clock, log, registry, learner, policy, controls, proxies });
  }

  /** From now on what comes is the present. */
  begin(): void {
    this.live = true;
  }

  hello(life: Life, { rollbackMode, rollbackCallback }: Hello): void {
    this.proxies.hello(life, rollbackMode, rollbackCallback);
    // It may hold what it was told before a kill that it did not hear.
    if (this.proxies.has(life) && this.isOff(life.service)) this.told.clear(life);
  }

  left(life: Life): void {
    this.proxies.left(life);
  }

  take(life: Life): readonly Directive[] {
    return this.proxies.take(life);
  }

  rows(life: Life, columns: EventColumns, origin: Origin): void {
    const { policy } = this.parts.policy;
    const declined = policy.declined.http.size + policy.declined.grpc.size > 0;
    const seen = scan(columns, declined, this.late.size === 0 ? undefined : word => this.late.has(word));
    for (const { row, what } of seen.accounts) this.account(life, columns, row, what);
    if (!this.live) return;
    for (const [peer, { calls, failures }] of seen.calls) {
      this.down.note(life, columns.strings[peer]!, calls, failures);
    }
    // What fails is judged where it came in; what becomes of a verdict every replica sees by itself.
    if (origin === 'own') for (const ids of seen.failing.values()) this.evaluate(ids);
    for (const row of seen.entries) {
      const { verdicts } = this;
      const known = verdicts.mayHave(lowWord(columns.keyLo, row)) || verdicts.mayHave(lowWord(columns.requestLo, row));
      if (known) this.entryEnded(columns, row);
    }
    for (const ids of seen.watched.values()) this.moved(ids);
  }

  report(life: Life, { began, directiveAcks, signalResults }: Report): void {
    this.began(life, began);
    const nowUs = this.parts.clock.nowUs();
    for (const { version, heldUs } of directiveAcks) {
      const seconds = this.told.latency(version, nowUs - heldUs);
      if (seconds !== undefined) this.parts.latency(seconds);
    }
    for (const { id, status } of signalResults) {
      const found = this.plans.find(id);
      // Only the service that was asked may say that it has undone its step.
      const undone = found?.step.service === life.service && status >= 200 && status < 300;
      if (undone) this.background(this.plans.acknowledge(id, life.cuid));
    }
  }

  /** Requests that began, told here or at another replica. */
  began(life: Life, items: readonly InFlight[]): void {
    if (items.length === 0) return;
    this.parts.transactions.began(instanceRef(life), items);
    for (const item of items) {
      const ids = { key: idOfHex(item.keyHi + item.keyLo), request: idOfHex(item.requestHi + item.requestLo) };
      if (this.wanted.has(hexOfId(ids.key)) || this.wanted.has(hexOfId(ids.request))) this.evaluate(ids);
      if (this.late.has(ids.key[3]) || this.late.has(ids.request[3])) this.moved(ids);
    }
  }

  /** To be called about four times a second. */
  tick(nowUs: number): void {
    const { clock, policy } = this.parts;
    const nowMs = clock.monotonicMs();
    if (policy.look(nowUs, nowMs)) {
      // Each replica has a file of its own, with the same policy: one of them notes that it changed.
      if (this.peers.owns('policy')) this.archive.audit('policy', '', '', policy.path, 'in force');
      // What was decided by another policy is let go: what holds now decides what comes.
      this.endWithin('mesh', 'another policy');
      this.told.clearAll();
    }
    // Nothing is written down: what is read again later expires again, and a newer one is not wiped out.
    this.controls.expire(nowUs);
    for (const record of this.told.expired()) this.end(record, 'ttl');
    for (const [name, { untilMs }] of this.wanted) if (nowMs >= untilMs) this.wanted.delete(name);
    this.late.expire(nowUs);
    this.plans.tick(nowUs);
    this.down.tick(nowMs);
    this.verdicts.expire(nowUs);
    this.ledger.expire(nowUs);
  }

  /** Whether what became of a transaction was our doing: it teaches nothing then. */
  isEnforced(view: View): boolean {
    const record = this.verdictOf(view);
    return record !== undefined && isEnforced(record);
  }

  /** The verdict on a transaction, by any of its ids. */
  verdictOf(view: View): VerdictRecord | undefined {
    return this.verdicts.of(view.key) ?? this.ofRequests(view);
  }

  /** In force, for `list` and metrics. */
  get inForce(): number {
    return this.told.size;
  }

  /**
   * Makes a verdict take effect. Alone, this replica tells it at once, while it is being recorded. One of several
   * records it first: of verdicts on one transaction the first in the log stands, and only that is told.
   *
   * @returns the verdict that stands, stored
   */
  async propose(record: VerdictRecord, view: View): Promise<VerdictRecord> {
    if (!this.peers.shared) {
      this.issue(record, view);
      await this.archive.claim(record);
      return record;
    }
    const names = [...namesOf(record)];
    for (const name of names) this.proposed.add(name);
    try {
      // The one that drives it may have been faster: then it was adopted like that of another replica.
      if (!(await this.archive.claim(record))) this.claimsLost += 1;
      else if (this.verdicts.get(record.id) === undefined) this.issue(record, view);
    } finally {
      for (const name of names) this.proposed.delete(name);
    }
    return this.verdicts.of(record.key) ?? record;
  }

  private issue(record: VerdictRecord, view: View): void {
    this.ledger.verdict(record);
    this.begins(record, view);
    // While it was being recorded, more of it may have come.
    this.plans.update(record, this.peers.shared ? (this.viewOf(record) ?? view) : view);
    this.plans.track(record);
    this.askProxies(record, this.pathOf(view));
    this.archive.keepVerdict(record);
    this.catchUp(record);
    // A line of the log takes as long as all that was done up to here.
    setImmediate(() => {
      const { id, kind, service, operation, mode, reason, heldOut, proxies } = record;
      this.parts.log.info({ id, kind, service, operation, mode, reason, heldOut, proxies }, 'a transaction is doomed');
    });
  }

  /** A verdict of another replica, or of the time before a restart. */
  adopt(record: VerdictRecord): void {
    const nowUs = this.parts.clock.nowUs();
    if (!this.live || record.endedUs !== undefined || nowUs >= record.decidedUs + record.ttlMs * 1000) {
      this.verdicts.put(record);
      this.late.add(record, record.decidedUs);
      return this.plans.track(record);
    }
    const view = this.viewOf(record);
    this.begins(record, view);
    if (view !== undefined) this.plans.update(record, view);
    this.plans.track(record);
    this.archive.keepVerdict(record);
    // The proxies connected here may know what its plan lacks.
    if (view !== undefined) this.askProxies(record, this.pathOf(view), false);
    this.catchUp(record);
  }

  /** It is on record: the transaction shows it, and the proxies connected here are told. */
  private begins(record: VerdictRecord, view: View | undefined): void {
    const { clock, transactions } = this.parts;
    this.verdicts.put(record);
    transactions.setDoomed(idOfHex(record.key), true);
    const leftMs = record.ttlMs - (clock.nowUs() - record.decidedUs) / 1000;
    const ttlMs = Math.round(Math.min(record.ttlMs, Math.max(1, leftMs)));
    const told = this.told.tell(record, view, ttlMs);
    this.told.count(record, this.peers.id, told);
    this.peers.told(record.id, told);
    this.late.add(record, clock.nowUs());
  }

  /** What was heard of a transaction before its verdict was known here. */
  private catchUp(record: VerdictRecord): void {
    if (!this.peers.shared) return;
    const view = this.viewOf(record);
    const entry = view?.entries === 1 ? view.steps.find(step => step.entry) : undefined;
    if (view !== undefined && view.entries > 1) this.end(record, 'second entry');
    else if (entry?.ended === true) this.judged(record, entry.outcome);
    else if (this.modeOf(record) !== 'enforce' && record.mode === 'enforce') this.end(record, 'overridden');
  }

  private viewOf({ key, requests }: VerdictRecord): View | undefined {
    return this.parts.transactions.view(idOfHex(key), requests[0] === undefined ? NONE : idOfHex(requests[0]));
  }

  /** A replica has told so many proxies of a verdict. */
  toldElsewhere(id: string, replica: string, proxies: number): void {
    const record = this.verdicts.get(id);
    if (record !== undefined) this.told.count(record, replica, proxies);
  }

  /** A step was told by the replica that tells this plan's. False: the verdict or the step is not known here yet. */
  deliveredElsewhere(id: string, told: StepRecord, sequence: number, target: string): boolean {
    const record = this.verdicts.get(id);
    const step = record?.steps.find(one => one.eventId === told.eventId);
    if (record === undefined || step === undefined) return false;
    mergeStep(step, told);
    this.watchers.deliverHere({ record, step, sequence }, target, this.parts.clock.nowUs());
    return true;
  }

  /** More became known of a verdict at another replica. */
  advanced(record: VerdictRecord): void {
    const { endedUs, endReason } = record;
    if (this.live && endedUs !== undefined && this.told.end(record, endReason === 'ttl')) {
      this.parts.transactions.setDoomed(idOfHex(record.key), false);
    }
    this.plans.track(record);
  }

  /** Told of one's own as well, at its place in the log: nothing to do if nobody said otherwise in between. */
  overridden(scope: string, value: Override | undefined): void {
    if (this.live && value === this.controls.overrides.find(one => one.scope === scope)) return;
    this.controls.override(scope, value);
    if (this.live && value !== undefined && value.mode !== 'enforce') this.endWithin(scope, 'overridden');
  }

  switched(scope: string, value: Kill | undefined): void {
    if (this.live && value === this.controls.kills.find(one => one.scope === scope)) return;
    this.controls.kill(scope, value);
    if (this.live && value !== undefined) this.killed(scope);
  }

  acknowledged(ack: StoredAck): void {
    this.plans.acknowledged(ack);
  }

  /** Others have gone or come: what falls to this replica now, it writes down as it knows it. */
  tookOver(): void {
    if (!this.peers.shared) return;
    let left = TAKEN_OVER_MAX;
    for (const record of new Set([...this.told.records(), ...this.plans.all])) {
      if (left-- > 0) this.archive.keepVerdict(record);
    }
  }

  /** Ends what filters hold of a verdict, if it is in force. */
  end(record: VerdictRecord, reason: string): void {
    if (!this.told.end(record, reason === 'ttl')) return;
    record.endedUs = Math.max(record.decidedUs, this.parts.clock.nowUs()); // the clock may have been set back
    record.endReason = reason;
    this.parts.transactions.setDoomed(idOfHex(record.key), false);
    this.archive.keepVerdict(record);
  }

  /** Verdicts of a scope end; if it is the mesh, every filter forgets everything. Returns how many were told so. */
  killed(scope: string): number {
    this.endWithin(scope, 'killed');
    return scope === 'mesh' ? this.told.clearAll() : 0;
  }

  /** Ends the verdicts in force that have to do with a scope. */
  endWithin(scope: string, reason: string): void {
    for (const record of this.told.within(scope)) this.end(record, reason);
  }

  private isOff(service: string): boolean {
    return this.modeOf({ kind: '', service }) === 'off';
  }

  private modeOf({ kind, service }: Pick<VerdictRecord, 'kind' | 'service'>): string {
    const { policy, clock } = this.parts;
    const all = withScopes(policy.policy, this.controls);
    return effectiveMode(policy.policy.mode, all, { kind, service, caller: '' }, clock.nowUs());
  }

  /** Work that nobody waits for. Its failures belong in the log. */
  private background(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      this.parts.log.error({ err: error }, 'the store refused what rollback told it');
    });
  }

  /** A verdict goes out of memory, and with it all that hangs on it. */
  private forget(record: VerdictRecord): void {
    this.plans.forget(record);
    this.told.forget(record);
    this.late.forget(record);
  }

  private evaluate(ids: Ids): void {
    const { transactions, learner, policy, clock } = this.parts;
    if (!this.peers.isFresh()) return this.abstain(STALE);
    if (!this.evaluations.take(clock.monotonicMs())) return this.abstain(TOO_MANY);
    const view = transactions.view(ids.key, ids.request);
    if (view === undefined || this.verdictOf(view) !== undefined) return;
    const nowUs = clock.nowUs();
    const decision = decide(policy.policy, learner.get(view.kind), view, this.controls, nowUs);
    if (decision.verdict !== undefined) {
      if (!this.verdictPace.take(clock.monotonicMs())) return this.abstain(TOO_MANY);
      this.forgetWanted(ids);
      const record = recordOf(decision.verdict, view, policy.policy.ttlMs, nowUs, this.peers.id);
      if (!this.peers.shared) return this.issue(record, view);
      if (![...namesOf(record)].some(name => this.proposed.has(name))) this.background(this.propose(record, view));
      return;
    }
    this.abstain(decision.why);
    if (decision.wanted) this.want(ids, view);
    else this.forgetWanted(ids);
  }

  /** Its kind is not known while its entry runs: the proxies that serve entries are asked. */
  private want(ids: Ids, view: View): void {
    const name = hexOfId(ids.key);
    if (this.wanted.has(name)) return;
    const wish = { ids, untilMs: this.parts.clock.monotonicMs() + WANTED_MS };
    this.wanted.set(name, wish);
    this.wanted.set(hexOfId(ids.request), wish);
    while (this.wanted.size > WANTED_MAX) this.wanted.delete(this.wanted.keys().next().value!);
    const failed = new Set(view.steps.filter(step => step.outcome === OUTCOME.FAILED).map(stepName));
    const services = [...this.parts.learner.all()]
      .filter(stats => stats.knows(failed))
      .map(stats => stats.kind.split(' ')[0]!);
    this.askProxies({ keys: [name], requests: [hexOfId(ids.request)] }, new Set(services));
  }

  private forgetWanted({ key, request }: Ids): void {
    this.wanted.delete(hexOfId(key));
    this.wanted.delete(hexOfId(request));
  }

  private abstain(why: string): void {
    this.abstained.set(why, (this.abstained.get(why) ?? 0) + 1);
  }

  private askProxies(
    ids: Pick<VerdictRecord, 'keys' | 'requests'>,
    services: Iterable<string>,
    everywhere = true,
  ): void {
    if (!this.asks.take(this.parts.clock.monotonicMs())) return;
    const named = [...new Set(services)];
    if (everywhere) this.peers.ask(ids, named);
    this.flush(ids, named);
  }

  /** Asks the proxies connected here. */
  flush(ids: Pick<VerdictRecord, 'keys' | 'requests'>, services: readonly string[]): void {
    let asked = 0;
    for (const service of services) {
      for (const life of this.proxies.of(service)) {
        if (asked++ >= ASKED_MAX) return;
        this.proxies.send(life, flushOf(ids, this.proxies.version()));
      }
    }
  }

  /** Services that took part, as far as is known, and those that come before the failed step. */
  private pathOf(view: View): Set<string> {
    const services = view.steps.flatMap(step => [step.caller, step.service]);
    return new Set([view.kind.split(' ')[0]!, ...services].filter(service => service !== ''));
  }

  /** A transaction under a verdict was heard of: its plan may grow, and a second entry ends it. */
  private moved({ key, request }: Ids): void {
    const view = this.parts.transactions.view(key, request);
    const record = view === undefined ? undefined : this.verdictOf(view);
    if (view === undefined || record === undefined) return;
    if (view.entries > 1) this.end(record, 'second entry');
    if (!this.plans.update(record, view)) return;
    this.plans.track(record);
    this.archive.keepVerdict(record);
  }

  private entryEnded(columns: EventColumns, row: number): void {
    const { key, request } = idsOf(columns, row);
    const record = this.verdicts.of(hexOfId(key), hexOfId(request));
    if (record === undefined || record.succeeded !== undefined) return;
    // Of two requests under one id nobody knows which one failed.
    if ((this.parts.transactions.view(key, request)?.entries ?? 0) > 1) return this.end(record, 'second entry');
    this.judged(record, outcomeOf(columns.flags[row]!));
  }

  /** How its entry ended says whether a verdict was right. */
  private judged(record: VerdictRecord, outcome: number): void {
    if (record.succeeded !== undefined) return;
    this.end(record, 'entry ended');
    // The caller has left: whether the application succeeds, nobody says.
    if (outcome === OUTCOME.CANCELLED || outcome === 0) return;
    record.succeeded = outcome === OUTCOME.OK;
    if (record.succeeded) {
      this.ledger.wrong(record);
      const { id, key, kind } = record;
      this.parts.log.warn({ id, key, kind }, 'a verdict was wrong: the transaction succeeded');
    }
    this.plans.track(record);
    this.archive.keepVerdict(record);
  }

  private account(life: Life, columns: EventColumns, row: number, what: Account): void {
    const { key, request } = idsOf(columns, row);
    const record = this.verdicts.of(hexOfId(key), hexOfId(request));
    const call = (columns.flags[row]! & ROW_FLAG.CALL) !== 0;
    const peer = this.parts.registry.find(columns.strings[columns.peerCuid[row]!]!)?.service ?? '';
    const named = peer === '' ? serviceOfHost(columns.strings[columns.peerService[row]!]!) : peer;
    const [source, destination] = call ? [life.service, named] : [peer, life.service];
    const operation = columns.strings[columns.operation[row]!]!;
    const edge = record?.forward.find(
      one => one.operation === operation && one.service === destination && (!call || one.caller === source),
    );
    this.ledger.requests(what, columns.weight[row]!, source, destination, record, edge?.workUs ?? 0);
  }

  private ofRequests(view: View): VerdictRecord | undefined {
    for (const id of [...view.keys, ...view.requests]) {
      const hex = hexOfId(id);
      const record = this.verdicts.of(hex, hex);
      if (record !== undefined) return record;
    }
    return undefined;
  }
}
