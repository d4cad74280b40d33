// One verdict as two replicas know it. Pure but for the record it changes.
//
// What happens to a verdict only goes one way: it ends, its entry succeeds or not, steps are told and undone. So two
// records of it are joined field by field, in whatever order they come, and nobody has to ask who was first. Only
// which steps there are is not of this sort: it is as the last in the log says.

import type { StepRecord, StepState } from './signals.js';
import type { VerdictRecord } from './verdicts.js';

const RANK: Readonly<Record<StepState, number>> = { waiting: 0, signalled: 1, expired: 2, done: 3 };

/** Takes over what `told` has further. Sums of rows stay: every replica counts the same rows. */
export function mergeVerdict(known: VerdictRecord, told: VerdictRecord): void {
  if (told.endedUs !== undefined && (known.endedUs === undefined || told.endedUs < known.endedUs)) {
    known.endedUs = told.endedUs;
    known.endReason = told.endReason;
  }
  if (told.succeeded !== undefined) known.succeeded ??= told.succeeded;
  known.proxies = Math.max(known.proxies, told.proxies);
  const steps = new Map(known.steps.map(step => [step.eventId, step]));
  const merged = told.steps.map(step => {
    const before = steps.get(step.eventId);
    steps.delete(step.eventId);
    return before === undefined ? step : mergeStep(before, step);
  });
  // What somebody was told of stays, whoever does not see it any more.
  known.steps = [...merged, ...[...steps.values()].filter(step => step.state !== 'waiting')];
  known.omitted = told.omitted;
}

/** The same object, as far as either is. */
export function mergeStep(known: StepRecord, told: Readonly<StepRecord>): StepRecord {
  if (RANK[told.state] > RANK[known.state]) known.state = told.state;
  known.cuid ||= told.cuid;
  known.unknown = told.unknown;
  known.after = told.after;
  known.deliveries = Math.max(known.deliveries, told.deliveries);
  known.nextUs = Math.max(known.nextUs, told.nextUs);
  const signalledUs = least(known.signalledUs, told.signalledUs);
  if (signalledUs !== undefined) known.signalledUs = signalledUs;
  const first = least(known.acknowledgedUs, told.acknowledgedUs);
  if (first === undefined) return known;
  if (first !== known.acknowledgedUs) known.acknowledgedBy = told.acknowledgedBy;
  known.acknowledgedUs = first;
  return known;
}

const least = (a: number | undefined, b: number | undefined): number | undefined =>
  a === undefined || (b !== undefined && b < a) ? b : a;
