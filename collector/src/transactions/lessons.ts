// What a linked transaction gives to the flow: nodes for learning, and the links that are missing. Pure.

import { attemptsOf, NEVER_EVIDENCE, outcomeOf, ROW_FLAG } from '../ingest/columns.js';
import type { FlowNode } from '../flow/learn.js';
import { beganUs, inOrderOfCause, type Step } from './link.js';
import { nameOf, type Naming } from './names.js';
import type { Row } from './rows.js';
import { OUTCOME, stateOf, type StateName } from './transaction.js';

/** Shadows, probes and our own requests are no evidence; of streams nothing is learned. */
const NOT_LEARNED = NEVER_EVIDENCE | ROW_FLAG.STREAM;

/** Nodes in order of cause. What a shadow, probe, own request or stream caused is left out with it. */
export function nodesOf(roots: readonly Step[], naming: Naming): FlowNode[] {
  const nodes: FlowNode[] = [];
  const positions = new Map<Step, number>();
  for (const { step } of inOrderOfCause(roots)) {
    if (step.parent !== undefined && !positions.has(step.parent)) continue;
    if (step.parentRow !== undefined && !isLearned(step.parentRow)) continue;
    const events = step.events.filter(isLearned);
    const call = step.call !== undefined && isLearned(step.call) ? step.call : undefined;
    if (call === undefined && (events.length === 0 || step.call !== undefined)) continue;
    positions.set(step, nodes.length);
    nodes.push(nodeOf(step, events, positions.get(step.parent!) ?? -1, naming));
  }
  return nodes;
}

/** `events`: those of the step that are learned from. */
function nodeOf(step: Step, events: readonly Row[], parent: number, naming: Naming): FlowNode {
  const { call, entry } = step;
  const event = events.at(-1);
  const { service, operation, external } = nameOf(call, event, naming);
  const startUs = beganUs(step, step.parentRow);
  return {
    service,
    operation,
    external,
    parent,
    entry,
    events: Math.max(1, events.length),
    eventsFailed: event === undefined ? Number(hasFailed(call!)) : events.filter(hasFailed).length,
    failed: hasFailed((call ?? event)!),
    attempts: call === undefined ? 1 : Math.max(1, attemptsOf(call.flags)),
    durationUs: (event ?? call)!.durationUs,
    startUs,
    endUs: startUs + (call ?? event)!.durationUs,
  };
}

const isLearned = (row: Row): boolean => (row.flags & NOT_LEARNED) === 0;
const hasFailed = (row: Row): boolean => outcomeOf(row.flags) === OUTCOME.FAILED;

/**
 * Events whose cause should be known and is not. Either the caller's side is missing, or it is there but
 * lies in no event of this transaction although the caller serves requests: it did not forward the trace
 * headers.
 *
 * @param serves whether a proxy has served requests lately
 */
export function countUnlinked(roots: readonly Step[], serves: (proxyId: string) => boolean): number {
  let count = 0;
  for (const { entry, call, events } of roots) {
    if (entry || events.every(event => (event.flags & NEVER_EVIDENCE) !== 0)) continue;
    if (call === undefined || serves(call.instance.proxyId)) count += 1;
  }
  return count;
}

/** Whether some row of it can be missing on purpose: it, or the other side of it, is from a life that thins. */
export function isThinned(roots: readonly Step[], thins: (cuid: string) => boolean): boolean {
  for (const { step } of inOrderOfCause(roots)) {
    const rows = step.call === undefined ? step.events : [step.call, ...step.events];
    if (rows.some(row => thins(row.instance.cuid) || thins(row.peerCuid))) return true;
  }
  return false;
}

/** How a transaction without entry event ended: as the last of what nobody is known to have caused. */
export function endWithoutEntry(roots: readonly Step[]): StateName {
  let last: Row | undefined;
  for (const { call, events } of roots) {
    const row = call ?? events.at(-1)!;
    if (outcomeOf(row.flags) === 0) continue;
    if (last === undefined || row.endUs - row.offsetUs >= last.endUs - last.offsetUs) last = row;
  }
  return last === undefined ? 'UNSPECIFIED' : stateOf(outcomeOf(last.flags));
}
