// What has to be undone, and in which order. Pure.
//
// Wall clocks of hosts disagree, so the order rests on causes and on the clock of one caller: what a step
// caused comes after it, and of two calls of one parent the second comes after the first if it began when
// the first had ended. All that follows from either is undone before.

import { isFailure, type Declined } from './outcome.js';
import { stepName } from './sample.js';
import { OUTCOME } from '../transactions/transaction.js';
import type { View, ViewStep } from './view.js';

/** Steps of one plan; what comes after them is counted only. */
export const PLAN_STEPS_MAX = 64;

export interface PlannedStep {
  readonly eventId: string;
  readonly service: string;
  readonly operation: string;
  readonly cuid: string;
  readonly unknown: boolean;
  readonly doneUs: number;
  /** event ids of the steps that have to be undone before. */
  readonly after: readonly string[];
}

export interface PlanRules {
  readonly declined: Declined;
  /** `service OPERATION` with nothing to undo in spite of its method. */
  readonly safe: ReadonlySet<string>;
  /** Calls that began later than this and are none of `forward` are compensations themselves. */
  readonly decidedUs: number;
  /** `service OPERATION`. */
  readonly forward: ReadonlySet<string>;
  /** Only one request goes by its ids: what began after `decidedUs` can be its own. */
  readonly alone: boolean;
}

/** The steps to undo, first to undo first; and how many more there were. */
export function planOf(view: View, rules: PlanRules): { steps: PlannedStep[]; omitted: number } {
  const wanted = view.steps.map((step, at) => ({ step, at })).filter(({ step }) => mustUndo(step, rules));
  const order = new Order(view.steps);
  const newestFirst = (a: { at: number }, b: { at: number }): number =>
    order.isAfter(a.at, b.at) ? -1 : order.isAfter(b.at, a.at) ? 1 : 0;
  const newest = [...wanted].sort(
    (a, b) => b.step.beganUs - a.step.beganUs || (a.step.eventId < b.step.eventId ? -1 : 1),
  );
  const kept = topological(newest.slice(0, PLAN_STEPS_MAX), newestFirst);
  const steps = kept.map(({ step, at }) => ({
    eventId: step.eventId,
    service: step.service,
    operation: step.operation,
    cuid: step.cuid,
    unknown: isUnknown(step),
    doneUs: step.endUs,
    after: kept.filter(other => order.isAfter(other.at, at)).map(other => other.step.eventId),
  }));
  return { steps, omitted: wanted.length - kept.length };
}

const UNSAFE = /^(?:POST|PUT|PATCH|DELETE) |^\//;

/** Completed or unknown, with a method that changes something. gRPC methods may all change something. */
function mustUndo(step: ViewStep, { declined, safe, decidedUs, forward, alone }: PlanRules): boolean {
  if (step.entry || !step.ended || step.eventId === '' || !UNSAFE.test(step.operation)) return false;
  const name = stepName(step);
  if (safe.has(name) || (step.beganUs > decidedUs && !(alone && forward.has(name)))) return false;
  if (isUnknown(step)) return true;
  return step.outcome === OUTCOME.OK && !isFailure(step, declined);
}

/** The caller left, or had no answer: it may have taken effect. */
const isUnknown = (step: ViewStep): boolean => step.unknown || step.outcome === OUTCOME.CANCELLED;

/** Which step took effect after which, as far as that is certain. */
class Order {
  private readonly chains: number[][];

  constructor(private readonly steps: readonly ViewStep[]) {
    this.chains = steps.map((_, at) => {
      const chain: number[] = [];
      for (let above = at; above >= 0; above = steps[above]!.parent) chain.push(above);
      return chain;
    });
  }

  /** Whether `later` took effect after `earlier`. */
  isAfter(later: number, earlier: number): boolean {
    if (later === earlier) return false;
    if (this.chains[later]!.includes(earlier)) return true;
    if (this.chains[earlier]!.includes(later)) return false;
    for (const x of this.chains[earlier]!) {
      for (const y of this.chains[later]!) {
        const [first, second] = [this.steps[x]!, this.steps[y]!];
        if (x !== y && first.group === second.group && first.call && second.call) {
          return first.ended && second.beganUs >= first.endUs;
        }
      }
    }
    return false;
  }
}

/** Stable: whatever must come before, comes before; else the order given stays. */
function topological<T>(items: readonly T[], compare: (a: T, b: T) => number): T[] {
  const left = [...items];
  const sorted: T[] = [];
  while (left.length > 0) {
    const next = left.findIndex(one => left.every(other => other === one || compare(one, other) <= 0));
    sorted.push(...left.splice(Math.max(0, next), 1));
  }
  return sorted;
}
