// Verdicts, plans and the ledger as messages of the API. Pure.

import { timestamp, type Seconds } from '../rpc/encode.js';
import type { Audit, Line } from './ledger.js';
import { modeName, type Kill, type Override } from './modes.js';
import { edgeName } from './sample.js';
import { EXPIRE_US, planState, type StepRecord } from './signals.js';
import type { Saved, VerdictRecord } from './verdicts.js';
import type { Delivery } from './watchers.js';

const time = (us: number | undefined, name: string): Record<string, Seconds> =>
  us === undefined ? {} : { [name]: timestamp(us) };

export const stateName = (record: VerdictRecord): string => `ROLLBACK_STATE_${planState(record)}`;

export function verdictMessage(record: VerdictRecord): object {
  const { id, key, kind, reason, service, operation, eventId, mode, heldOut, endReason, evidence } = record;
  return {
    id,
    key,
    kind,
    reason: `VERDICT_REASON_${reason.toUpperCase()}`,
    service,
    operation,
    eventId,
    mode: modeName(mode),
    heldOut,
    decided: timestamp(record.decidedUs),
    ...time(record.endedUs, 'ended'),
    endReason,
    evidence,
    forward: [...new Set(record.forward.map(edgeName))],
    proxies: record.proxies,
    state: stateName(record),
    wrong: record.succeeded === true,
    saved: savedMessage(record.saved),
    operatorReason: record.operatorReason,
  };
}

export const savedMessage = (saved: Saved): object => ({
  refused: String(saved.refused),
  wouldRefuse: String(saved.wouldRefuse),
  withheld: String(saved.withheld),
  retriesSuppressed: String(saved.retriesSuppressed),
  work: timestamp(saved.workUs),
  wouldWork: timestamp(saved.wouldWorkUs),
});

export function stepMessage(step: StepRecord, order: number): object {
  const { signalId, service, operation, eventId, cuid, unknown, state, doneUs, signalledUs } = step;
  return {
    signalId,
    order,
    service,
    operation,
    eventId,
    cuid,
    unknown,
    state: `STEP_STATE_${state.toUpperCase()}`,
    doneAt: timestamp(doneUs),
    ...time(signalledUs, 'signalled'),
    ...time(step.acknowledgedUs, 'acknowledged'),
    ...time(signalledUs === undefined ? undefined : signalledUs + EXPIRE_US, 'expires'),
    deliveries: step.deliveries,
    acknowledgedBy: step.acknowledgedBy,
    after: step.after,
  };
}

export const planMessage = (record: VerdictRecord): object => ({
  verdict: verdictMessage(record),
  state: stateName(record),
  steps: record.steps.map((step, at) => stepMessage(step, at + 1)),
  omitted: record.omitted,
});

export function signalMessage({ record, step, sequence }: Delivery): object {
  const failed = `${record.service} ${record.operation}`;
  return {
    id: step.signalId,
    resumeToken: String(sequence),
    key: record.key,
    kind: record.kind,
    reason: record.operatorReason === '' ? failed : record.operatorReason,
    step: stepMessage(step, record.steps.indexOf(step) + 1),
    delivery: step.deliveries,
    mode: modeName(record.mode),
  };
}

export const lineMessage = ({ kind, service, operation, verdicts, heldOut, wrong, saved }: Line): object => ({
  kind,
  service,
  operation,
  verdicts: String(verdicts),
  heldOut: String(heldOut),
  wrongVerdicts: String(wrong),
  saved: savedMessage(saved),
});

export const auditMessage = ({ atUs, action, actor, reason, subject, result }: Audit): object => ({
  at: timestamp(atUs),
  action,
  actor,
  reason,
  subject,
  result,
});

export const overrideMessage = ({ scope, mode, untilUs, reason, actor }: Override): object => ({
  scope,
  mode: modeName(mode),
  until: timestamp(untilUs),
  reason,
  actor,
});

export const killMessage = ({ scope, sinceUs, reason, actor }: Kill): object => ({
  scope,
  since: timestamp(sinceUs),
  reason,
  actor,
});
