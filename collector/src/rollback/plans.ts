// The plans that are not done: kept up to date while rows come, told to applications, acknowledged.

import type { Clock } from '../clock.js';
import type { Logger } from '../log.js';
import type { Archive } from './archive.js';
import { effectiveMode, type Controls } from './modes.js';
import { planOf } from './plan.js';
import { withScopes } from './policy.js';
import type { Peers } from './peers.js';
import type { PolicySource } from './policy-source.js';
import { stepName } from './sample.js';
import { acknowledge, dueSteps, expireSteps, isOpen, isUnjudged, updatePlan, type StepRecord } from './signals.js';
import type { StoredAck } from './store-entries.js';
import { isEnforced, type VerdictRecord } from './verdicts.js';
import type { View } from './view.js';
import type { Watchers } from './watchers.js';

/** Plans with steps to be told, at most; the oldest are given up. */
const OPEN_MAX = 10_000;

export interface PlansParts {
  readonly clock: Clock;
  readonly log: Logger;
  readonly policy: PolicySource;
  readonly controls: Controls;
  readonly archive: Archive;
  readonly watchers: Watchers;
  readonly peers: () => Peers;
}

export interface Found {
  readonly record: VerdictRecord;
  readonly step: StepRecord;
}

export class Plans {
  private readonly open = new Map<string, VerdictRecord>();
  private readonly bySignal = new Map<string, Found>();
  /** Plans given up for want of room. */
  dropped = 0;

  constructor(private readonly parts: PlansParts) {}

  /** Those with steps that are told, or will be. */
  get all(): Iterable<VerdictRecord> {
    return this.open.values();
  }

  find(signalId: string): Found | undefined {
    return this.bySignal.get(signalId);
  }

  /** Takes over what has become known of a transaction. True if the plan changed. */
  update(record: VerdictRecord, view: View): boolean {
    const before = record.steps;
    const changed = this.replan(record, view);
    if (changed) {
      const kept = new Set(record.steps);
      for (const step of before) if (!kept.has(step)) this.bySignal.delete(step.signalId);
    }
    return changed;
  }

  /** Keeps a record where its signals are found. */
  track(record: VerdictRecord): void {
    for (const step of record.steps) this.bySignal.set(step.signalId, { record, step });
    this.open.delete(record.id);
    if (!isEnforced(record) || record.succeeded === true || !record.steps.some(isOpen)) return;
    this.open.set(record.id, record);
    if (this.open.size <= OPEN_MAX) return;
    this.open.delete(this.open.keys().next().value!);
    this.dropped += 1;
  }

  forget(record: VerdictRecord): void {
    this.open.delete(record.id);
    for (const step of record.steps) {
      this.bySignal.delete(step.signalId);
      this.parts.watchers.forget(step);
    }
  }

  /**
   * Someone says that a step is undone. Settles when that is stored as well as it will be.
   *
   * @param actor who says so, for the audit
   * @returns undefined = there is no such signal; `first`: nobody had said so before
   */
  async acknowledge(
    signalId: string,
    by: string,
    reason = '',
    actor = by,
  ): Promise<(Found & { first: boolean }) | undefined> {
    const found = this.bySignal.get(signalId);
    if (found === undefined) return undefined;
    const { archive, clock, peers } = this.parts;
    if (found.step.state === 'done') return { ...found, first: false };
    const ack = { signal: signalId, by, actor, reason, atUs: clock.nowUs() };
    // Of several replicas that are told at the same time, the one that is first in the log is believed.
    const first = !peers().shared || (await archive.acknowledge(ack));
    if (first) this.acknowledged(ack);
    if (first && !peers().shared) await archive.claim(found.record);
    return { ...found, first };
  }

  /** A step is undone. False: it was already, or is not known. */
  acknowledged({ signal, by, actor, reason, atUs }: StoredAck): boolean {
    const found = this.bySignal.get(signal);
    if (found === undefined) return false;
    const { watchers, archive, peers } = this.parts;
    const result = `${stepName(found.step)} undone`;
    // Where acknowledgements are entries, each replica makes the same record of them, even of those that it knows
    // already by what became of the plan.
    const note = { id: `ack ${signal}`, atUs, action: 'ack', actor, reason, subject: signal, result } as const;
    if (peers().shared) archive.note(note);
    if (!acknowledge(found.step, by, atUs)) return false;
    if (!peers().shared) archive.audit('ack', actor, reason, signal, result);
    watchers.forget(found.step);
    this.settle(found.record);
    return true;
  }

  tick(nowUs: number): void {
    for (const record of this.open.values()) if (this.drives(record)) this.signal(record, nowUs);
  }

  private replan(record: VerdictRecord, view: View): boolean {
    const { declined, safe } = this.parts.policy.policy;
    const forward = new Set(record.forward.map(stepName));
    // Of two requests under one id, only what began before the verdict is known to be the failed one's.
    const alone = view.entries <= 1;
    const { steps, omitted } = planOf(view, { declined, safe, decidedUs: record.decidedUs, forward, alone });
    if (alone) return updatePlan(record, steps, omitted);
    const before = record.steps.length;
    const sure = new Set(steps.map(step => step.eventId));
    record.steps = record.steps.filter(step => step.state !== 'waiting' || sure.has(step.eventId));
    return updatePlan(record, steps, omitted) || record.steps.length < before;
  }

  /** What was weakened or killed since the verdict tells nobody anything. */
  private isInForce({ kind, service }: VerdictRecord, nowUs: number): boolean {
    const { policy } = this.parts.policy;
    const place = { kind, service, caller: '' };
    return effectiveMode(policy.mode, withScopes(policy, this.parts.controls), place, nowUs) === 'enforce';
  }

  private settle(record: VerdictRecord): void {
    this.track(record);
    this.parts.archive.keepVerdict(record);
    // What has to be undone next need not wait for the tick.
    if (this.open.has(record.id) && this.drives(record)) this.signal(record, this.parts.clock.nowUs());
  }

  /** One replica tells of a plan, and none that does not know what the others know. */
  private drives({ id }: VerdictRecord): boolean {
    const peers = this.parts.peers();
    return peers.isFresh() && peers.owns(id);
  }

  private signal(record: VerdictRecord, nowUs: number): void {
    if (isUnjudged(record, nowUs)) this.open.delete(record.id);
    const expired = expireSteps(record, nowUs);
    const due = this.isInForce(record, nowUs) ? dueSteps(record, nowUs) : [];
    for (const step of due) this.parts.watchers.deliver(record, step, nowUs);
    if (expired) {
      this.parts.log.warn({ id: record.id, key: record.key }, 'a rollback is stuck: a step was not acknowledged');
      for (const step of record.steps) if (step.state === 'expired') this.parts.watchers.forget(step);
      this.settle(record);
    } else if (due.some(step => step.deliveries === 1)) this.parts.archive.keepVerdict(record);
  }
}
