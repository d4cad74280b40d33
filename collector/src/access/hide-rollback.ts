// What a caller of some namespaces is shown of verdicts, plans and the policy. Pure. The rule is that of hide.ts.

import type { VerdictRecord } from '../rollback/verdicts.js';
import type { Grant } from './caller.js';
import { HIDDEN, serviceOfKind, shownKind } from './hide.js';

/** Undefined when none of it may be seen: neither where it entered, nor what failed, nor what has to be undone. */
export function hideRecord(record: VerdictRecord, grant: Grant): VerdictRecord | undefined {
  if (grant.all) return record;
  const { kind, service, steps } = record;
  const own = [serviceOfKind(kind), service, ...steps.map(step => step.service)].some(one => grant.covers(one));
  if (!own) return undefined;
  const failedHere = grant.covers(service);
  const enteredHere = grant.covers(serviceOfKind(kind));
  return {
    ...record,
    kind: shownKind(kind, grant),
    ...(failedHere || service === '' ? {} : { service: HIDDEN, operation: '' }),
    evidence: failedHere ? record.evidence : [],
    operatorReason: failedHere || enteredHere ? record.operatorReason : '',
    forward: record.forward.filter(edge => grant.covers(edge.caller) || grant.covers(edge.service)),
    steps: steps.map(step =>
      grant.covers(step.service)
        ? step
        : { ...step, service: HIDDEN, operation: '', cuid: '', signalId: '', acknowledgedBy: '' },
    ),
  };
}

/** Whether a line of the ledger is about what was granted. */
export const seesLine = ({ kind, service }: { kind: string; service: string }, grant: Grant): boolean =>
  grant.covers(service) || grant.covers(serviceOfKind(kind));

export const hideLine = <T extends { kind: string; service: string; operation: string }>(line: T, grant: Grant): T =>
  grant.all
    ? line
    : {
        ...line,
        kind: shownKind(line.kind, grant),
        ...(line.service === '' || grant.covers(line.service) ? {} : { service: HIDDEN, operation: '' }),
      };

interface PolicyMessage {
  readonly text: string;
  readonly refused: string;
  readonly overrides: readonly { readonly scope: string }[];
  readonly kills: readonly { readonly scope: string }[];
  readonly learned: readonly { readonly kind: string; readonly service: string }[];
}

/** The file names steps of the whole mesh: only who reads all of it is shown it. */
export function hidePolicy<T extends PolicyMessage>(policy: T, grant: Grant): T {
  if (grant.all) return policy;
  const sees = ({ scope }: { readonly scope: string }): boolean => {
    const name = scope.slice(scope.indexOf('/') + 1);
    if (scope === 'mesh') return true;
    return scope.startsWith('namespace/') ? grant.hasNamespace(name) : grant.covers(serviceOfKind(name));
  };
  return {
    ...policy,
    text: '',
    refused: policy.refused === '' ? '' : 'the policy file as it is now was refused',
    overrides: policy.overrides.filter(sees),
    kills: policy.kills.filter(sees),
    learned: policy.learned
      .filter(one => grant.covers(one.service))
      .map(one => ({ ...one, kind: shownKind(one.kind, grant), forward: [] })),
  };
}
