// Which steps have failed for good. Pure.
//
// What counts is the caller's side after Envoy's retries. Applications repeat calls above Envoy, so calls
// of one operation under one parent form chains: each began after the one before had failed. Calls side
// by side (fan-out) are chains of their own.

import { OUTCOME } from '../transactions/transaction.js';
import type { View, ViewStep } from './view.js';

/** Codes of the `declined` outcome that a policy takes for failures. */
export interface Declined {
  readonly http: ReadonlySet<number>;
  readonly grpc: ReadonlySet<number>;
}

export const NONE_DECLINED: Declined = { http: new Set(), grpc: new Set() };

export interface Chain {
  /** Of its last call. */
  readonly step: ViewStep;
  /** Calls in it, and those that failed; equal unless the last one went well or still runs. */
  readonly calls: number;
  readonly failures: number;
}

export function isFailure(
  { outcome, http, grpc }: Pick<ViewStep, 'outcome' | 'http' | 'grpc'>,
  declined: Declined,
): boolean {
  if (outcome === OUTCOME.FAILED) return true;
  if (outcome !== OUTCOME.DECLINED) return false;
  return grpc === undefined || grpc === 0 ? declined.http.has(http) : declined.grpc.has(grpc);
}

/** All chains of calls, in the order in which their last calls began. */
export function chainsOf(view: View, declined: Declined): Chain[] {
  const groups = new Map<string, ViewStep[]>();
  for (const step of view.steps) {
    // A refused or cancelled call says nothing of its callee.
    if (!step.call || step.outcome === OUTCOME.REFUSED || step.outcome === OUTCOME.CANCELLED) continue;
    const key = `${step.group}\n${step.service}\n${step.operation}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [step]);
    else group.push(step);
  }
  const chains = [...groups.values()].flatMap(group => chainsIn(group, declined));
  return chains.sort((a, b) => a.step.beganUs - b.step.beganUs);
}

function chainsIn(calls: readonly ViewStep[], declined: Declined): Chain[] {
  const chains: Chain[] = [];
  for (const step of [...calls].sort((a, b) => a.beganUs - b.beganUs)) {
    const failed = step.ended && isFailure(step, declined);
    const before = chains.findIndex(chain => chain.calls === chain.failures && chain.step.endUs <= step.beganUs);
    const { calls: length, failures } = chains[before] ?? { calls: 0, failures: 0 };
    const next = { step, calls: length + 1, failures: failures + (failed ? 1 : 0) };
    if (before < 0) chains.push(next);
    else chains[before] = next;
  }
  return chains;
}

/** Those that ended with a failure. Whether for good, is a question of how many there were. */
export const failed = (chain: Chain): boolean => chain.failures === chain.calls;
