// From plan to signals: which step is told when, how often, and until when. Pure but for the records it
// changes; time is an argument.

import { fnvHex } from './hash.js';
import { PLAN_STEPS_MAX, type PlannedStep } from './plan.js';
import { isEnforced, type VerdictRecord } from './verdicts.js';

/** For this long only the life that did the work is told, us. */
export const SAME_LIFE_US = 2e6;

/** A signal is repeated after this long, each time after twice as long, at most after REPEAT_MAX_US. */
const REPEAT_US = 2e6;
const REPEAT_MAX_US = 30e6;

/** Without an acknowledgement a signal is given up after this long, us. */
export const EXPIRE_US = 15 * 60 * 1e6;

/** What was done before the verdict is told of within this time: filters are asked for it, us. */
export const SETTLE_US = 300_000;

export type StepState = 'waiting' | 'signalled' | 'done' | 'expired';

/** JSON-ready. */
export interface StepRecord {
  readonly signalId: string;
  readonly eventId: string;
  readonly service: string;
  readonly operation: string;
  readonly doneUs: number;
  cuid: string;
  unknown: boolean;
  after: readonly string[];
  state: StepState;
  signalledUs?: number;
  acknowledgedUs?: number;
  acknowledgedBy: string;
  deliveries: number;
  nextUs: number;
}

export type PlanStateName = 'DECIDED' | 'ROLLING_BACK' | 'ROLLED_BACK' | 'STUCK';

/** Takes over a plan as it is known now: new steps are added, known ones keep their state. True if it changed. */
export function updatePlan(record: VerdictRecord, planned: readonly PlannedStep[], omitted: number): boolean {
  const known = new Map(record.steps.map(step => [step.eventId, step]));
  const told = record.steps.filter(step => step.state !== 'waiting');
  let room = PLAN_STEPS_MAX - told.length;
  const fits = ({ eventId }: PlannedStep): boolean => told.includes(known.get(eventId)!) || room-- > 0;
  const kept = planned.filter(fits);
  let changed = false;
  const steps = kept.map(plan => {
    const step = known.get(plan.eventId);
    known.delete(plan.eventId);
    changed ||= step === undefined || step.unknown !== plan.unknown || step.after.length !== plan.after.length;
    if (step === undefined) return newStep(record, plan);
    return Object.assign(step, { after: plan.after, unknown: plan.unknown, cuid: step.cuid || plan.cuid });
  });
  // What is not seen any more stays, above all if it was told.
  const unseen = [...known.values()].filter(step => step.state !== 'waiting' || room-- > 0);
  changed ||= unseen.length < known.size;
  record.steps = [...steps, ...unseen];
  const more = Math.max(0, omitted + planned.length - record.steps.length);
  changed ||= record.omitted !== more;
  record.omitted = more;
  return changed;
}

function newStep(record: VerdictRecord, plan: PlannedStep): StepRecord {
  const { eventId, service, operation, cuid, unknown, doneUs, after } = plan;
  const signalId = fnvHex(`${record.id}\n${eventId}`);
  const fresh = { state: 'waiting' as const, acknowledgedBy: '', deliveries: 0, nextUs: 0 };
  return { signalId, eventId, service, operation, cuid, unknown, doneUs, after, ...fresh };
}

/**
 * Whether applications are told at all. A learned verdict can be wrong, and to undo what succeeds is worse
 * than to undo late: it waits until the entry has ended without success.
 */
export function maySignal(record: VerdictRecord, nowUs: number): boolean {
  if (!isEnforced(record) || record.succeeded === true || !hasPassed(record.decidedUs, SETTLE_US, nowUs)) return false;
  return record.reason !== 'learned' || record.succeeded === false;
}

/** Nobody will say any more how its entry ended: its steps are not told, unless that comes after all. */
export function isUnjudged({ reason, succeeded, decidedUs }: VerdictRecord, nowUs: number): boolean {
  return reason === 'learned' && succeeded === undefined && nowUs >= decidedUs + EXPIRE_US;
}

/** Steps to be told now. Changes their state; the caller stores and sends. */
export function dueSteps(record: VerdictRecord, nowUs: number): StepRecord[] {
  if (!maySignal(record, nowUs)) return [];
  const open = new Set(record.steps.filter(isOpen).map(step => step.eventId));
  return record.steps.filter(step => {
    if (step.state === 'waiting' && !step.after.some(id => open.has(id))) {
      step.state = 'signalled';
      step.signalledUs = nowUs;
    } else if (step.state !== 'signalled' || !hasPassed(step.nextUs - REPEAT_MAX_US, REPEAT_MAX_US, nowUs))
      return false;
    step.nextUs = nowUs + Math.min(REPEAT_MAX_US, REPEAT_US * 2 ** Math.min(10, step.deliveries));
    step.deliveries += 1;
    return true;
  });
}

/** Gives up what was not acknowledged in time; returns whether there was any. */
export function expireSteps(record: VerdictRecord, nowUs: number): boolean {
  let expired = false;
  for (const step of record.steps) {
    if (step.state !== 'signalled' || nowUs < step.signalledUs! + EXPIRE_US) continue;
    step.state = 'expired';
    expired = true;
  }
  return expired;
}

/** True the first time. A late acknowledgement of an expired step counts as well. */
export function acknowledge(step: StepRecord, by: string, nowUs: number): boolean {
  if (step.state === 'done') return false;
  step.state = 'done';
  step.acknowledgedUs = nowUs;
  step.acknowledgedBy = by;
  return true;
}

/** Whether a life may be told of a step: its own, or, after a while, that of any of its service. */
export function addressedTo(step: StepRecord, cuid: string, nowUs: number): boolean {
  if (step.cuid === '' || cuid === '' || step.cuid === cuid) return true;
  return hasPassed(step.signalledUs ?? nowUs, SAME_LIFE_US, nowUs);
}

/** Times are kept over restarts, so they are wall time; once the clock was set back, nobody waits for it to come again. */
const hasPassed = (sinceUs: number, forUs: number, nowUs: number): boolean =>
  nowUs >= sinceUs + forUs || nowUs < sinceUs;

export const isOpen = ({ state }: StepRecord): boolean => state === 'waiting' || state === 'signalled';

export function planState(record: VerdictRecord): PlanStateName {
  const { steps } = record;
  if (steps.some(step => step.state === 'expired')) return 'STUCK';
  if (steps.length > 0 && steps.every(step => step.state === 'done')) return 'ROLLED_BACK';
  const idle = steps.every(step => step.state === 'waiting');
  const acts = isEnforced(record) && (record.reason !== 'learned' || record.succeeded === false);
  return steps.length === 0 || record.succeeded === true || (idle && !acts) ? 'DECIDED' : 'ROLLING_BACK';
}
