// Early rollback as it runs: rows come in, verdicts are made, filters and applications are told.
//
// The decisions are pure (policy.ts, plan.ts, signals.ts); here is what they are asked about, what
// follows from them, and the state that has to outlive a moment. Time is the collector's clock; how long
// a directive holds is its monotonic side.

import type { Clock } from '../clock.js';
import { lowWord, outcomeOf, ROW_FLAG, type EventColumns } from '../ingest/columns.js';
import type { Hello, Report } from '../ingest/report.js';
import type { RollbackPort } from '../ingest/rollback-port.js';
import { instanceRef } from '../ingest/apply.js';
import type { Logger } from '../log.js';
import { serviceOfHost } from '../registry/counts.js';
import type { Life } from '../registry/life.js';
import type { Registry } from '../registry/registry.js';
import { hexOfId, idOfHex } from '../transactions/ids.js';
import type { Transactions } from '../transactions/index.js';
import { OUTCOME } from '../transactions/transaction.js';
import { idsOf, scan, type Account, type Ids } from './accounts.js';
import { Archive } from './archive.js';
import { ControlsBook } from './controls-book.js';
import { flushOf, type Directive } from './directives.js';
import { Late } from './late.js';
import type { Learner } from './learner.js';
import { Ledger } from './ledger.js';
import { MeshDown } from './mesh-down.js';
import { effectiveMode } from './modes.js';
import { Pace } from './pace.js';
import { Plans } from './plans.js';
import { decide, withScopes } from './policy.js';
import type { PolicySource } from './policy-source.js';
import { Proxies } from './proxies.js';
import { recordOf } from './record.js';
import { stepName } from './sample.js';
import type { RollbackEntry } from './store-entries.js';
import { Told } from './told.js';
import { isEnforced, Verdicts, type VerdictRecord } from './verdicts.js';
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
  readonly put: (entries: readonly RollbackEntry[]) => Promise<unknown>;
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

/** Proxies asked for what they have not told yet, at most. */
const ASKED_MAX = 64;

export class Rollback implements RollbackPort {
  readonly verdicts: Verdicts = new Verdicts(record => this.forget(record));
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
  /** Decisions not made, by reason. */
  readonly abstained = new Map<string, number>();
  private readonly evaluations = new Pace(EVALUATIONS_PER_SECOND);
  private readonly verdictPace = new Pace(VERDICTS_PER_SECOND);
  private readonly asks = new Pace(ASKS_PER_SECOND);

  constructor(readonly parts: RollbackParts) {
    const { clock, registry, log, policy, learner, put, changed } = parts;
    this.ledger = new Ledger(clock.nowUs());
    this.archive = new Archive({ clock, log, ledger: this.ledger, put, ...(changed === undefined ? {} : { changed }) });
    this.proxies = new Proxies(() => clock.nowUs());
    const findLife = (cuid: string): Life | undefined => (cuid === '' ? undefined : registry.find(cuid));
    this.watchers = new Watchers(this.proxies, findLife, parts.callbackBody);
    this.plans = new Plans({
      clock,
      log,
      policy,
      controls: this.controls,
      archive: this.archive,
      watchers: this.watchers,
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

  rows(life: Life, columns: EventColumns): void {
    const { policy } = this.parts.policy;
    const declined = policy.declined.http.size + policy.declined.grpc.size > 0;
    const seen = scan(columns, declined, word => this.late.has(word));
    for (const { row, what } of seen.accounts) this.account(life, columns, row, what);
    if (!this.live) return;
    for (const [peer, { calls, failures }] of seen.calls) {
      this.down.note(life, columns.strings[peer]!, calls, failures);
    }
    for (const ids of seen.failing.values()) this.evaluate(ids);
    for (const row of seen.entries) {
      const { verdicts } = this;
      const known = verdicts.mayHave(lowWord(columns.keyLo, row)) || verdicts.mayHave(lowWord(columns.requestLo, row));
      if (known) this.entryEnded(columns, row);
    }
    for (const ids of seen.watched.values()) this.moved(ids);
  }

  report(life: Life, { began, directiveAcks, signalResults }: Report): void {
    if (began.length > 0) this.parts.transactions.began(instanceRef(life), began);
    for (const item of began) {
      const ids = { key: idOfHex(item.keyHi + item.keyLo), request: idOfHex(item.requestHi + item.requestLo) };
      if (this.wanted.has(hexOfId(ids.key)) || this.wanted.has(hexOfId(ids.request))) this.evaluate(ids);
      if (this.late.has(ids.key[3]) || this.late.has(ids.request[3])) this.moved(ids);
    }
    const nowUs = this.parts.clock.nowUs();
    for (const { version, heldUs } of directiveAcks) {
      const seconds = this.told.latency(version, nowUs - heldUs);
      if (seconds !== undefined) this.parts.latency(seconds);
    }
    for (const { id, status } of signalResults) {
      const found = this.plans.find(id);
      // Only the service that was asked may say that it has undone its step.
      if (found?.step.service === life.service && status >= 200 && status < 300) this.plans.acknowledge(id, life.cuid);
    }
  }

  /** To be called about four times a second. */
  tick(nowUs: number): void {
    const { clock, policy } = this.parts;
    const nowMs = clock.monotonicMs();
    if (policy.look(nowUs, nowMs)) {
      this.archive.audit('policy', '', '', policy.path, 'in force');
      // What was decided by another policy is let go: what holds now decides what comes.
      this.endWithin('mesh', 'another policy');
      this.told.clearAll();
    }
    for (const scope of this.controls.expire(nowUs)) this.archive.keep({ type: 'override', id: scope, value: null });
    for (const record of this.told.expired()) this.end(record, 'ttl');
    for (const [name, { untilMs }] of this.wanted) if (nowMs >= untilMs) this.wanted.delete(name);
    this.late.expire(nowUs);
    this.plans.tick(nowUs);
    this.down.tick(nowMs);
    this.verdicts.expire(nowUs);
    this.ledger.audits.expire(nowUs);
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

  /** Makes a verdict take effect: recorded first, then told. */
  issue(record: VerdictRecord, view: View): void {
    const { clock } = this.parts;
    this.verdicts.put(record);
    this.ledger.verdict(record);
    this.parts.transactions.setDoomed(idOfHex(record.key), true);
    this.told.tell(record, view);
    this.late.add(record, clock.nowUs());
    this.plans.update(record, view);
    this.plans.track(record);
    this.askProxies(record, this.pathOf(view));
    this.archive.keepVerdict(record);
    // A line of the log takes as long as all that was done up to here.
    setImmediate(() => {
      const { id, kind, service, operation, mode, reason, heldOut, proxies } = record;
      this.parts.log.info({ id, kind, service, operation, mode, reason, heldOut, proxies }, 'a transaction is doomed');
    });
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
    const { policy, clock } = this.parts;
    const all = withScopes(policy.policy, this.controls);
    return effectiveMode(policy.policy.mode, all, { kind: '', service, caller: '' }, clock.nowUs()) === 'off';
  }

  /** A verdict goes out of memory, and with it all that hangs on it. */
  private forget(record: VerdictRecord): void {
    this.plans.forget(record);
    this.told.forget(record);
    this.late.forget(record);
  }

  private evaluate(ids: Ids): void {
    const { transactions, learner, policy, clock } = this.parts;
    if (!this.evaluations.take(clock.monotonicMs())) return this.abstain(TOO_MANY);
    const view = transactions.view(ids.key, ids.request);
    if (view === undefined || this.verdictOf(view) !== undefined) return;
    const nowUs = clock.nowUs();
    const decision = decide(policy.policy, learner.get(view.kind), view, this.controls, nowUs);
    if (decision.verdict !== undefined) {
      if (!this.verdictPace.take(clock.monotonicMs())) return this.abstain(TOO_MANY);
      this.forgetWanted(ids);
      this.issue(recordOf(decision.verdict, view, policy.policy.ttlMs, nowUs), view);
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

  private askProxies(ids: Pick<VerdictRecord, 'keys' | 'requests'>, services: Iterable<string>): void {
    if (!this.asks.take(this.parts.clock.monotonicMs())) return;
    let asked = 0;
    for (const service of new Set(services)) {
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
    const outcome = outcomeOf(columns.flags[row]!);
    this.end(record, 'entry ended');
    // The caller has left: whether the application succeeds, nobody says.
    if (outcome === OUTCOME.CANCELLED || outcome === 0) return;
    record.succeeded = outcome === OUTCOME.OK;
    if (record.succeeded) {
      this.ledger.wrong(record);
      this.parts.log.warn(
        { id: record.id, key: record.key, kind: record.kind },
        'a verdict was wrong: the transaction succeeded',
      );
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
