// What a policy would have decided on transactions that are kept, each seen as it was when a step failed
// for good, with what those that had ended before had taught. Pure.

import { Learner } from './learner.js';
import { NO_CONTROLS } from './modes.js';
import { chainsOf, failed } from './outcome.js';
import { decide, type Policy, type Verdict } from './policy.js';
import { stepName } from './sample.js';
import type { View } from './view.js';

export interface Score {
  transactions: number;
  failing: number;
  right: number;
  wrong: number;
  heldOut: number;
  missed: number;
  refused: number;
  workUs: number;
  readonly steps: Map<string, StepScore>;
}

export interface StepScore {
  readonly kind: string;
  readonly service: string;
  readonly operation: string;
  readonly reason: Verdict['reason'];
  right: number;
  wrong: number;
  forward: readonly string[];
  evidence: readonly string[];
}

export class Simulation {
  readonly score: Score = {
    transactions: 0,
    failing: 0,
    right: 0,
    wrong: 0,
    heldOut: 0,
    missed: 0,
    refused: 0,
    workUs: 0,
    steps: new Map(),
  };
  private readonly learner: Learner;

  constructor(private readonly policy: Policy) {
    this.learner = new Learner(() => policy.declined);
  }

  /** One transaction that ended at `endUs`; they come in the order in which they ended. */
  add(view: View, endUs: number): void {
    const { score } = this;
    score.transactions += 1;
    const chains = chainsOf(view, this.policy.declined).filter(failed);
    if (chains.length > 0) score.failing += 1;
    const verdict = this.decide(
      view,
      chains.map(({ step }) => step.endUs),
    );
    if (verdict === undefined) {
      if (view.state === 'FAILED') score.missed += 1;
    } else this.count(view, verdict.verdict, verdict.atUs);
    this.learner.add(view, endUs);
  }

  private decide(view: View, failuresUs: readonly number[]): { verdict: Verdict; atUs: number } | undefined {
    const stats = this.learner.get(view.kind);
    for (const atUs of [...new Set(failuresUs)].sort((a, b) => a - b)) {
      const { verdict } = decide(this.policy, stats, asOf(view, atUs), NO_CONTROLS, atUs);
      if (verdict !== undefined) return { verdict, atUs };
    }
    return undefined;
  }

  private count(view: View, verdict: Verdict, atUs: number): void {
    const { score } = this;
    const right = view.state !== 'SUCCEEDED';
    if (right) score.right += 1;
    else score.wrong += 1;
    if (verdict.heldOut) score.heldOut += 1;
    const step = this.stepScore(view.kind, verdict);
    if (right) step.right += 1;
    else step.wrong += 1;
    step.forward = verdict.forward.map(({ edge }) => edge.name);
    step.evidence = verdict.evidence;
    for (const { caller, service, operation, beganUs } of view.steps) {
      const edge = verdict.forward.find(
        ({ edge: one }) => one.caller === caller && one.service === service && one.operation === operation,
      );
      if (edge === undefined || beganUs <= atUs || verdict.heldOut) continue;
      score.refused += 1;
      score.workUs += edge.workUs;
    }
  }

  private stepScore(kind: string, { reason, chain }: Verdict): StepScore {
    const key = `${kind}\n${stepName(chain.step)}\n${reason}`;
    let step = this.score.steps.get(key);
    if (step === undefined) {
      const { service, operation } = chain.step;
      step = { kind, service, operation, reason, right: 0, wrong: 0, forward: [], evidence: [] };
      this.score.steps.set(key, step);
    }
    return step;
  }
}

/** What was known at a moment: later requests had not begun, and those that ran had no outcome. */
export function asOf(view: View, atUs: number): View {
  const positions = new Map<number, number>();
  const steps: View['steps'][number][] = [];
  view.steps.forEach((step, at) => {
    if (step.beganUs > atUs) return;
    const parent = positions.get(step.parent) ?? -1;
    const ended = step.ended && step.endUs <= atUs;
    positions.set(at, steps.length);
    steps.push({ ...step, parent, ended, outcome: ended ? step.outcome : 0 });
  });
  return { ...view, state: 'RUNNING', steps };
}
