// One transaction as decisions, learning and plans look at it: plain data, made from its linked rows. Pure.

import { grpcStatusOf, httpStatusOf, NEVER_EVIDENCE, outcomeOf, ROW_FLAG } from '../ingest/columns.js';
import type { Id } from '../transactions/ids.js';
import { inOrderOfCause, type Step } from '../transactions/link.js';
import { timesOf } from '../transactions/message.js';
import { nameOfStep, type Naming } from '../transactions/names.js';
import { ROW_STATE, type Row } from '../transactions/rows.js';
import { OUTCOME, type StateName, type Transaction } from '../transactions/transaction.js';

/** One request. Times are us since 1970 by the collector's clock, never before their cause. */
export interface ViewStep {
  readonly eventId: string;
  /** Position of the step that caused it; -1 = none is known. Causes come before effects. */
  readonly parent: number;
  /** Calls with the same group were made by one parent: its event, or what is known of it while it runs. */
  readonly group: string;
  /** Service and life of the caller; '' = not known. */
  readonly caller: string;
  readonly callerCuid: string;
  readonly service: string;
  readonly operation: string;
  /** The callee by its host name, as its caller's filter names it; '' = not known. */
  readonly destination: string;
  /** The life that answered; '' = not known. */
  readonly cuid: string;
  readonly entry: boolean;
  /** Its caller's side is known. */
  readonly call: boolean;
  readonly ended: boolean;
  /** As the caller saw it, or the callee if only that is known; 0 while it runs. */
  readonly outcome: number;
  readonly http: number;
  readonly grpc: number | undefined;
  /** The caller got no answer of the callee: it may have taken effect. */
  readonly unknown: boolean;
  readonly beganUs: number;
  /** While it runs: when it was last heard of. */
  readonly endUs: number;
  /** At the callee if it was heard there, us. */
  readonly workUs: number;
}

export interface View {
  /** 32 hex digits. */
  readonly key: string;
  /** All ids it goes by. */
  readonly keys: readonly Id[];
  readonly requests: readonly Id[];
  /** `service OPERATION` of the entry; '' = not known yet. */
  readonly kind: string;
  /** Kinds of all entries, ended or not. */
  readonly kinds: readonly string[];
  readonly entries: number;
  readonly state: StateName;
  /** Some of its rows stand for others, or others of it were not sent. */
  readonly thinned: boolean;
  readonly steps: readonly ViewStep[];
}

/** What is no evidence: neither decided by nor learned from. */
const IGNORED = NEVER_EVIDENCE | ROW_FLAG.STREAM;

/** Envoy's flags that mean: the callee may have done it, but nobody knows. */
const NO_ANSWER =
  (1 << 2) | // UT upstream request timeout
  (1 << 3) | // LR local reset
  (1 << 4) | // UR upstream reset
  (1 << 6) | // UC connection termination
  (1 << 16) | // SI stream idle timeout
  (1 << 22); // DT duration timeout

const GRPC_DEADLINE_EXCEEDED = 4;

/** @param thinned some of its rows can be missing on purpose */
export function viewOf(transaction: Transaction, roots: readonly Step[], naming: Naming, thinned: boolean): View {
  const times = timesOf(roots);
  const steps: ViewStep[] = [];
  const positions = new Map<Step, number>();
  const kinds: string[] = [];
  for (const { step } of inOrderOfCause(roots)) {
    if (isIgnored(step, positions)) continue;
    const at = stepOf(step, positions, times, naming);
    if (at.entry) kinds.push(`${at.service} ${at.operation}`);
    positions.set(step, steps.push(at) - 1);
  }
  const ids = (index: 'key' | 'request'): Id[] => transaction.ids.filter(id => id.index === index).map(({ id }) => id);
  return {
    key: hexOf(transaction.key),
    keys: ids('key'),
    requests: ids('request'),
    kind: transaction.kind,
    kinds: kinds.length > 0 || transaction.kind === '' ? kinds : [transaction.kind],
    entries: transaction.entries,
    state: transaction.state,
    thinned,
    steps,
  };
}

/** What a shadow, probe, own request or stream caused goes with it. */
function isIgnored({ call, events, parent }: Step, known: ReadonlyMap<Step, number>): boolean {
  if (parent !== undefined && !known.has(parent)) return true;
  if (call !== undefined && (call.flags & IGNORED) !== 0) return true;
  return call === undefined && events.every(event => (event.flags & IGNORED) !== 0);
}

function stepOf(
  step: Step,
  positions: ReadonlyMap<Step, number>,
  times: ReadonlyMap<Row, number>,
  naming: Naming,
): ViewStep {
  const { call, events, parent, eventId } = step;
  const event = events.at(-1);
  const row = call ?? event!;
  const { service, operation } = nameOfStep(step, naming);
  const beganUs = times.get(row)!;
  const ended = row.state === ROW_STATE.ENDED;
  return {
    eventId,
    parent: parent === undefined ? -1 : (positions.get(parent) ?? -1),
    group: groupOf(step),
    caller: call?.instance.service ?? '',
    callerCuid: call?.instance.cuid ?? event?.peerCuid ?? '',
    service,
    operation,
    destination: call?.peerService ?? '',
    cuid: event?.instance.cuid ?? call?.peerCuid ?? '',
    entry: step.entry,
    call: call !== undefined,
    ended,
    outcome: ended ? outcomeOf(row.flags) : 0,
    http: httpStatusOf(row.status),
    grpc: grpcStatusOf(row.status),
    unknown: ended && call !== undefined && hasNoAnswer(call),
    beganUs,
    endUs: beganUs + row.durationUs,
    workUs: event?.state === ROW_STATE.ENDED ? event.durationUs : row.durationUs,
  };
}

/**
 * While the parent runs its row is missing, but its calls share its service and the span that it was given. Not its
 * life: when the caller's proxy repeats the parent elsewhere, what that one calls again is a repeat too.
 */
function groupOf({ call, parentRow, eventId }: Step): string {
  if (call === undefined) return eventId;
  return parentRow === undefined
    ? `${call.instance.service} ${call.spanIn}`
    : `${parentRow.eventId} ${call.instance.service}`;
}

function hasNoAnswer({ flags, status, responseFlags }: Row): boolean {
  if (outcomeOf(flags) !== OUTCOME.FAILED && outcomeOf(flags) !== OUTCOME.CANCELLED) return false;
  if ((responseFlags & NO_ANSWER) !== 0) return true;
  return grpcStatusOf(status) === GRPC_DEADLINE_EXCEEDED || (httpStatusOf(status) === 0 && responseFlags === 0);
}

const hexOf = (id: Id): string => id.map(word => word.toString(16).padStart(8, '0')).join('');
