// What one finished, unenforced transaction shows: its edges in the order in which they began, what of
// it failed for good, and how it ended. Pure.

import { OUTCOME } from '../transactions/transaction.js';
import { chainsOf, failed, isFailure, type Declined } from './outcome.js';
import type { View, ViewStep } from './view.js';

/** Steps of a transaction that are looked at; those that began first. */
export const STEPS_MAX = 64;

/** Who calls what, and by which host name. */
export interface Edge {
  readonly caller: string;
  readonly service: string;
  readonly operation: string;
  readonly destination: string;
  /** As `stepName` and `edgeName` have it. */
  readonly step: string;
  readonly name: string;
}

export interface Sample {
  readonly atUs: number;
  /** The whole transaction failed. */
  readonly failed: boolean;
  /** In the order in which they began. */
  readonly edges: readonly EdgeSeen[];
  /** Steps whose calls ended with a failure. */
  readonly failures: readonly StepFailed[];
}

export interface EdgeSeen {
  readonly edge: Edge;
  /** Position of the edge that caused it; CAUSED_BY_ENTRY, or DETACHED. */
  readonly under: number;
  /** It ended well, or would have if we had not refused it. */
  readonly ok: boolean;
  readonly beganUs: number;
  /** Of it and all that it caused, us. */
  readonly workUs: number;
}

/** What `EdgeSeen.under` is where no edge stands above. */
export const CAUSED_BY_ENTRY = -1;
/** Nothing leads from the entry to it: the sender of a message may be its cause, its request is another one. */
export const DETACHED = -2;

export interface StepFailed {
  readonly step: string;
  readonly endUs: number;
}

/** Calls of one caller's operation that followed a failed one, at most. */
export interface Repeats {
  readonly call: string;
  readonly repeats: number;
}

export const stepName = ({ service, operation }: { service: string; operation: string }): string =>
  `${service} ${operation}`;

export const edgeName = ({ caller, service, operation }: Pick<Edge, 'caller' | 'service' | 'operation'>): string =>
  `${caller} -> ${service} ${operation}`;

/** Whether the transaction ended in a way that teaches, and if so whether it failed. */
export function hasFailed(view: View, declined: Declined): boolean | undefined {
  if (view.state === 'SUCCEEDED') return false;
  if (view.state === 'FAILED') return true;
  if (view.state !== 'DECLINED') return undefined;
  return view.steps.some(step => step.entry && isFailure(step, declined));
}

/** @param refused what we refused counts as done: an application wanted it */
export function sampleOf(
  view: View,
  wholeFailed: boolean,
  declined: Declined,
  atUs: number,
  refused: 'left out' | 'done' = 'left out',
): Sample {
  const work = workOf(view.steps);
  const seen = view.steps
    .map((step, at) => ({ step, at, workUs: work[at]! }))
    .filter(({ step }) => step.call && (refused === 'done' || step.outcome !== OUTCOME.REFUSED))
    .sort((a, b) => a.step.beganUs - b.step.beganUs)
    .slice(0, STEPS_MAX);
  const positions = new Map(seen.map(({ at }, position) => [at, position]));
  const failures = chainsOf(view, declined).filter(failed);
  return {
    atUs,
    failed: wholeFailed,
    edges: seen.map(({ step, workUs }) => {
      const { beganUs, outcome } = step;
      const under = causeOf(view.steps, step, positions);
      const ok = outcome === OUTCOME.OK || outcome === OUTCOME.REFUSED;
      return { edge: edgeOf(step), under, ok, beganUs, workUs };
    }),
    failures: failures.slice(0, STEPS_MAX).map(({ step }) => ({ step: stepName(step), endUs: step.endUs })),
  };
}

function causeOf(steps: readonly ViewStep[], step: ViewStep, positions: ReadonlyMap<number, number>): number {
  for (let at = step.parent; at >= 0; at = steps[at]!.parent) {
    const position = positions.get(at);
    if (position !== undefined) return position;
    if (steps[at]!.entry) return CAUSED_BY_ENTRY;
  }
  return DETACHED;
}

export function repeatsOf(view: View, declined: Declined): Repeats[] {
  const most = new Map<string, number>();
  for (const { step, calls } of chainsOf(view, declined)) {
    const call = edgeName(step);
    if (calls > 1) most.set(call, Math.max(most.get(call) ?? 0, calls - 1));
  }
  return [...most].map(([call, repeats]) => ({ call, repeats }));
}

export function edgeOf({ caller, service, operation, destination }: Omit<Edge, 'step' | 'name'>): Edge {
  const names = { caller, service, operation };
  return { ...names, destination, step: stepName(names), name: edgeName(names) };
}

/** Own time at each place, with that of all it caused: what would not be done without it. */
function workOf(steps: readonly ViewStep[]): number[] {
  const work = steps.map(step => step.workUs);
  // Causes come before effects: from the end on, each adds what it gathered to its cause.
  for (let at = steps.length - 1; at >= 0; at--) {
    const { parent } = steps[at]!;
    if (parent >= 0) work[parent] = work[parent]! + work[at]!;
  }
  return work;
}
