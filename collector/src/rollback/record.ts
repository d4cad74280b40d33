// A decision as it is kept. Pure.

import { hexOfId } from '../transactions/ids.js';
import { PPM } from './directives.js';
import { fnvHex } from './hash.js';
import type { Verdict } from './policy.js';
import { nothingSaved, type ForwardRecord, type VerdictRecord } from './verdicts.js';
import type { ForwardEdge } from './kind-stats.js';
import type { View } from './view.js';

/** @param by the replica that decides: two that decide at the same moment make two verdicts, of which one stands */
export function recordOf(verdict: Verdict, view: View, ttlMs: number, nowUs: number, by = ''): VerdictRecord {
  const { reason, chain, mode, heldOut, forward, budgetRatio, budgetMin, evidence } = verdict;
  const { service, operation, eventId } = chain.step;
  return {
    ...emptyRecord(view, nowUs, ttlMs, by),
    reason,
    service,
    operation,
    eventId,
    mode,
    heldOut,
    evidence,
    budgetPpm: Math.round(budgetRatio * PPM),
    budgetMin,
    forward: forward.map(forwardRecord),
  };
}

/** By hand: nothing of a failed step is known. */
export function emptyRecord(view: View, nowUs: number, ttlMs: number, by = ''): VerdictRecord {
  return {
    id: fnvHex(`${view.key}\n${nowUs}${by}`),
    key: view.key,
    keys: [...new Set([view.key, ...view.keys.map(hexOfId)])],
    requests: view.requests.map(hexOfId),
    kind: view.kind,
    reason: 'triggered',
    service: '',
    operation: '',
    eventId: '',
    mode: 'observe',
    heldOut: false,
    decidedUs: nowUs,
    evidence: [],
    forward: [],
    budgetPpm: PPM,
    budgetMin: 0,
    ttlMs,
    operatorReason: '',
    endReason: '',
    proxies: 0,
    saved: nothingSaved(),
    steps: [],
    omitted: 0,
  };
}

export function forwardRecord({ edge, onlyForward, workUs }: ForwardEdge): ForwardRecord {
  const { caller, service, operation, destination } = edge;
  return { caller, service, operation, destination, onlyForward, workUs };
}
