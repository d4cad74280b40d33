// What a caller of some namespaces is shown of what crosses others. Pure.
//
// The rule: both ends of a call know each other, so a step is shown to whoever was granted one of its ends. Any
// other step is there as `hidden`, with when it ran and whether it failed: without it nobody could tell where the
// time of the own steps went. What shows nothing of the caller's own is not there at all.

import type { Grant } from './caller.js';

export const HIDDEN = 'hidden';

interface CallMessage {
  readonly callerService: string;
}

interface EventMessage {
  readonly eventId: string;
  readonly service: string;
  readonly call?: CallMessage;
}

/** A transaction without its events. */
export interface HeadMessage {
  readonly kind: string;
}

export interface TransactionMessage extends HeadMessage {
  readonly events: readonly EventMessage[];
}

interface LineMessage {
  readonly eventId: string;
  readonly evidence: readonly string[];
}

export interface ExplanationMessage {
  readonly transaction: TransactionMessage;
  readonly lines: readonly LineMessage[];
  readonly summary: string;
}

/** Of `service OPERATION`, or '' while it is not known. */
export const serviceOfKind = (kind: string): string => kind.split(' ')[0]!;

export const shownKind = (kind: string, grant: Grant): string =>
  kind === '' || grant.all || grant.covers(serviceOfKind(kind)) ? kind : HIDDEN;

const isSeen = ({ service, call }: EventMessage, grant: Grant): boolean =>
  grant.covers(service) || (call !== undefined && grant.covers(call.callerService));

/** A transaction of a list, without events: only its kind can tell of others. */
export const hideHead = <T extends HeadMessage>(head: T, grant: Grant): T =>
  grant.all ? head : { ...head, kind: shownKind(head.kind, grant) };

/** Undefined when none of it may be seen. */
export function hideTransaction<T extends TransactionMessage>(transaction: T, grant: Grant): T | undefined {
  if (!transaction.events.some(event => isSeen(event, grant))) return undefined;
  return { ...hideHead(transaction, grant), events: transaction.events.map(event => hideEvent(event, grant)) };
}

function hideEvent(event: EventMessage, grant: Grant): EventMessage {
  if (grant.covers(event.service)) return event;
  // The caller's side of it is the caller's own; what only the callee knows of itself is not.
  if (isSeen(event, grant)) return { ...event, ...{ node: '', details: '' } };
  const { eventId, parentEventId, started, duration, ended, outcome, entry } = event as EventMessage &
    Readonly<Record<string, unknown>>;
  const known = Object.entries({ parentEventId, started, duration, ended, outcome, entry });
  return {
    eventId,
    service: HIDDEN,
    ...Object.fromEntries(known.filter(([, value]) => value !== undefined)),
  };
}

/** Its lines must not hold decisions: those name what has not happened yet. Undefined when none of it may be seen. */
export function hideExplanation<T extends ExplanationMessage>(explanation: T, grant: Grant): T | undefined {
  const transaction = hideTransaction(explanation.transaction, grant);
  if (transaction === undefined) return undefined;
  const { events } = explanation.transaction;
  const seen = new Map(events.map(event => [event.eventId, event]));
  const lines = explanation.lines.map(line => {
    const event = seen.get(line.eventId);
    if (line.eventId === '' || (event !== undefined && grant.covers(event.service))) return line;
    if (event !== undefined && isSeen(event, grant)) {
      return { ...line, evidence: line.evidence.filter(fact => !fact.startsWith('node=')) };
    }
    return { ...line, text: 'a step in a namespace that you were not granted', evidence: [] };
  });
  const away = events.filter(event => !isSeen(event, grant)).length;
  const hides = away > 0 || transaction.kind === HIDDEN;
  const summary = `${away} of its ${events.length} steps are in namespaces that you were not granted.`;
  return { ...explanation, transaction, lines, summary: hides ? summary : explanation.summary };
}

export interface FlowMessage {
  readonly kind: string;
  readonly steps: readonly { readonly service: string }[];
  readonly edges: readonly { readonly fromService: string; readonly toService: string }[];
}

/** Flows that touch what was granted: own steps, and the edges that begin or end there. */
export function hideFlows<T extends FlowMessage>(flows: readonly T[], grant: Grant): T[] {
  return flows.flatMap(flow => {
    const steps = flow.steps.filter(({ service }) => grant.covers(service));
    if (steps.length === 0) return [];
    const edges = flow.edges.filter(
      ({ fromService, toService }) => grant.covers(fromService) || grant.covers(toService),
    );
    const kind = shownKind(flow.kind, grant);
    const counts = kind === HIDDEN ? { transactions: '0', transactionsAbstained: '0', singleEntryRatio: 0 } : {};
    return [{ ...flow, ...counts, kind, steps, edges }];
  });
}
