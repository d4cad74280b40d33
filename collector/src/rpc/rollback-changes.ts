// What changes early rollback, for callers who may: inside of what they were granted, and under their own name.
// What they cannot see either, does not exist for them.

import { hideRecord } from '../access/hide-rollback.js';
import { NotFound } from '../errors.js';
import type { Permit } from '../access/permit.js';
import {
  ack,
  kill,
  override,
  trigger,
  type AckRequest,
  type KillRequest,
  type OverrideRequest,
  type TriggerRequest,
} from '../rollback/operator-changes.js';
import { checkId, simulate } from '../rollback/operator-reads.js';
import type { View } from '../rollback/view.js';
import type { ReadParts } from './parts.js';

/** Without what has no place in the message. */
type Said<T> = T & { actor?: string };

const named = <T extends Said<object>>(permit: Permit, request: T): T => {
  const actor = permit.actor(request.actor);
  return actor === undefined ? request : { ...request, actor };
};

export async function triggerBy({ rollback, permit }: ReadParts, request: TriggerRequest): Promise<object> {
  if (!permit.changes.all) {
    const { transactions } = rollback.parts;
    const view = transactions.viewOfId(checkId(request.id));
    if (!seesAny(permit, view)) throw transactions.unknown(request.id!);
    const service = view.kind.split(' ')[0]!;
    if (service === '' || !permit.changes.covers(service)) {
      throw permit.deny(`this transaction does not begin in ${permit.changes.toString()}, where you are operator`);
    }
  }
  // It begins at their own, so some of it is theirs to see; other steps are hidden as in GetPlan.
  return trigger(rollback, named(permit, request), record => hideRecord(record, permit.reads) ?? record);
}

const seesAny = ({ reads }: Permit, { kind, steps }: View): boolean =>
  [kind.split(' ')[0]!, ...steps.flatMap(({ caller, service }) => [caller, service])].some(one => reads.covers(one));

export async function ackBy({ rollback, permit }: ReadParts, request: AckRequest): Promise<object> {
  const { signal = '', by = '' } = request;
  const known = rollback.plans.find(signal);
  if (known !== undefined && !permit.acks.covers(known.step.service)) {
    permit.deny(`signal ${signal} is for another service than ${permit.acks.toString()}`);
    throw new NotFound(`no signal has the id ${signal}; signals are remembered for 90 days`);
  }
  return ack(rollback, { ...named(permit, { ...request, actor: by }), by });
}

export async function overrideBy({ rollback, permit }: ReadParts, request: OverrideRequest): Promise<object> {
  checkReach(permit, request.scope ?? '');
  return override(rollback, named(permit, request));
}

export async function killBy({ rollback, permit }: ReadParts, request: KillRequest): Promise<object> {
  checkReach(permit, request.scope === undefined || request.scope === '' ? 'mesh' : request.scope);
  return kill(rollback, named(permit, request));
}

/** It looks at what the whole mesh did. */
export async function simulateBy(
  { rollback, permit }: ReadParts,
  request: Parameters<typeof simulate>[1],
): Promise<object> {
  if (!permit.changes.all)
    throw permit.deny('a simulation looks at the whole mesh; it takes an operator of all namespaces');
  return simulate(rollback, request);
}

/** @throws PermissionDenied unless all of a scope lies in what an operator was granted */
function checkReach(permit: Permit, scope: string): void {
  const { changes } = permit;
  if (changes.all) return;
  const at = scope.indexOf('/');
  const [what, name] = [scope.slice(0, at), scope.slice(at + 1)];
  const reaches =
    what === 'namespace'
      ? changes.hasNamespace(name)
      : (what === 'service' || what === 'kind') && changes.covers(name.split(' ')[0]!);
  if (!reaches)
    throw permit.deny(`scope ${JSON.stringify(scope)} reaches beyond ${changes.toString()}, where you are operator`);
}
