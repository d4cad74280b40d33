// What people and applications change: checked here, done by the controller, written down.

import { InvalidArgument, NotFound } from '../errors.js';
import { microseconds } from '../rpc/encode.js';
import type { Rollback } from './controller.js';
import { checkActor, checkReason, checkScope, checkTtl } from './controls-book.js';
import { killMessage, overrideMessage, planMessage, stepMessage, verdictMessage } from './messages.js';
import { effectiveMode, modeName, modeOf } from './modes.js';
import { checkId } from './operator-reads.js';
import { mayRefuse, unfitness, withScopes, type Policy } from './policy.js';
import { emptyRecord, forwardRecord } from './record.js';
import { stepName } from './sample.js';
import type { VerdictRecord } from './verdicts.js';
import type { View } from './view.js';

type Time = { readonly seconds?: string | number; readonly nanos?: number } | null;

/** Names of who acknowledges, bytes. */
const BY_BYTES_MAX = 64;

export interface TriggerRequest {
  readonly id?: string;
  readonly reason?: string;
  readonly dryRun?: boolean;
  readonly actor?: string;
}

/**
 * @param shown what of a verdict the caller may see
 * @throws NotFound, InvalidArgument
 */
export async function trigger(
  rollback: Rollback,
  request: TriggerRequest,
  shown: (record: VerdictRecord) => VerdictRecord = record => record,
): Promise<object> {
  const answer = (record: VerdictRecord): object => {
    const seen = shown(record);
    return { verdict: verdictMessage(seen), plan: planMessage(seen), dryRun: request.dryRun === true };
  };
  const { clock, policy, transactions } = rollback.parts;
  const [reason, actor] = [checkReason(request.reason), checkActor(request.actor)];
  const view = transactions.viewOfId(checkId(request.id));
  const before = rollback.verdictOf(view);
  if (before !== undefined) return answer(before);
  const nowUs = clock.nowUs();
  const record = triggeredRecord(rollback, view, policy.policy, reason, nowUs);
  if (request.dryRun === true) {
    rollback.plans.update(record, view);
    return answer(record);
  }
  const stands = await rollback.propose(record, view);
  if (stands.id !== record.id) return answer(stands);
  rollback.archive.audit('trigger', actor, reason, view.key, `mode ${record.mode}, ${record.proxies} proxies told`);
  return answer(record);
}

/** Nobody failed, so what comes after the first step is what would be refused: nothing is known to be more. */
function triggeredRecord(rollback: Rollback, view: View, policy: Policy, reason: string, nowUs: number): VerdictRecord {
  const place = { kind: view.kind, service: view.kind.split(' ')[0]!, caller: '' };
  const all = withScopes(policy, rollback.controls);
  const inForce = effectiveMode(policy.mode, all, place, nowUs);
  const stats = rollback.parts.learner.get(view.kind);
  const unfit = unfitness(stats, view, nowUs) || (view.entries > 1 ? 'more than one entry' : '');
  const first = view.steps.find(step => step.call);
  const known =
    stats === undefined || unfit !== '' || first === undefined
      ? []
      : stats.forward(stepName(first)).filter(({ edge }) => mayRefuse(edge, inForce, policy, all, view.kind, nowUs));
  return {
    ...emptyRecord(view, nowUs, policy.ttlMs, rollback.peers.id),
    mode: inForce,
    operatorReason: reason,
    evidence: [`mode=${inForce}`, ...(unfit === '' ? [] : [`nothing_refused=${unfit}`])],
    forward: known.map(forwardRecord),
  };
}

export interface AckRequest {
  readonly signal?: string;
  readonly step?: string;
  readonly by?: string;
  readonly dryRun?: boolean;
  readonly reason?: string;
  /** Who says so, where that is known; else `by`. Never from the wire. */
  readonly actor?: string;
}

/** Settles when the acknowledgement is stored. @throws NotFound, InvalidArgument */
export async function ack(
  rollback: Rollback,
  { signal = '', step = '', by = '', dryRun = false, reason = '', actor = by }: AckRequest,
): Promise<object> {
  if (!/^[0-9a-f]{16}$/.test(signal)) throw new InvalidArgument('signal', signal.slice(0, 40), '16 hex digits');
  if (Buffer.byteLength(by) > BY_BYTES_MAX)
    throw new InvalidArgument('by', by.slice(0, 40), `at most ${BY_BYTES_MAX} bytes`);
  const known = rollback.plans.find(signal);
  if (known === undefined) throw new NotFound(`no signal has the id ${signal}; signals are remembered for 90 days`);
  if (step !== '' && step !== known.step.eventId) {
    throw new InvalidArgument('step', step.slice(0, 40), `${known.step.eventId}, the event of this signal, or unset`);
  }
  if (reason !== '') checkReason(reason);
  if (dryRun) {
    const { record, step: shown } = known;
    return { step: stepMessage(shown, record.steps.indexOf(shown) + 1), first: shown.state !== 'done' };
  }
  const { record, step: acknowledged, first } = (await rollback.plans.acknowledge(signal, by, reason, actor))!;
  return { step: stepMessage(acknowledged, record.steps.indexOf(acknowledged) + 1), first };
}

export interface OverrideRequest {
  readonly scope?: string;
  readonly mode?: string;
  readonly ttl?: Time;
  readonly reason?: string;
  readonly dryRun?: boolean;
  readonly actor?: string;
}

/** @throws InvalidArgument */
export async function override(rollback: Rollback, request: OverrideRequest): Promise<object> {
  const scope = checkScope(request.scope ?? '');
  const [reason, actor, dryRun] = [checkReason(request.reason), checkActor(request.actor), request.dryRun === true];
  const lifts = (request.mode ?? 'ROLLBACK_MODE_UNSPECIFIED') === 'ROLLBACK_MODE_UNSPECIFIED';
  const mode = modeOf(request.mode ?? '');
  if (mode === undefined && !lifts)
    throw new InvalidArgument('mode', request.mode, 'OFF, OBSERVE, ENFORCE, or unset to lift');
  const ttlMs = lifts
    ? 0
    : checkTtl(request.ttl === undefined || request.ttl === null ? undefined : microseconds(request.ttl)! / 1000);
  const value = { scope, mode: mode ?? 'enforce', untilUs: rollback.parts.clock.nowUs() + ttlMs * 1000, reason, actor };
  const shown = { ...overrideMessage(value), mode: modeName(mode) };
  if (dryRun) return { override: shown, dryRun };
  rollback.controls.override(scope, lifts ? undefined : value);
  if (mode !== undefined && mode !== 'enforce') rollback.endWithin(scope, 'overridden');
  await rollback.archive.store({ type: 'override', id: scope, value: lifts ? null : value });
  rollback.archive.audit('override', actor, reason, scope, lifts ? 'lifted' : `${value.mode} for ${ttlMs / 1000} s`);
  return { override: shown, dryRun };
}

export interface KillRequest {
  readonly scope?: string;
  readonly reason?: string;
  readonly dryRun?: boolean;
  readonly actor?: string;
  readonly lift?: boolean;
}

/** @throws InvalidArgument, NotFound */
export async function kill(rollback: Rollback, request: KillRequest): Promise<object> {
  const scope = checkScope(request.scope === undefined || request.scope === '' ? 'mesh' : request.scope);
  const [reason, actor, dryRun] = [checkReason(request.reason), checkActor(request.actor), request.dryRun === true];
  const lift = request.lift === true;
  const before = rollback.controls.kills.find(one => one.scope === scope);
  if (lift && before === undefined) throw new NotFound(`there is no kill of ${scope}`);
  const value = lift ? before! : { scope, sinceUs: rollback.parts.clock.nowUs(), reason, actor };
  if (dryRun) return { kill: killMessage(value), dryRun, proxies: 0 };
  rollback.controls.kill(scope, lift ? undefined : value);
  // Others tell theirs when they read of it.
  const elsewhere = scope === 'mesh' ? rollback.peers.proxiesElsewhere() : 0;
  const proxies = lift ? 0 : rollback.killed(scope) + elsewhere;
  await rollback.archive.store({ type: 'kill', id: scope, value: lift ? null : value });
  rollback.archive.audit(
    lift ? 'lift' : 'kill',
    actor,
    reason,
    scope,
    lift ? 'lifted' : `${proxies} proxies told to forget all`,
  );
  return { kill: killMessage(value), dryRun, proxies };
}
