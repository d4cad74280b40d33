// Where the time of a transaction went. Pure. Only times of one proxy are compared with each other.

import { inOrderOfCause, type Step } from './link.js';
import { ROW_STATE, type Row } from './rows.js';

export interface Share {
  readonly step: Step;
  /** In the application, waiting for a connection, or on the way (network, proxies, retries). */
  readonly where: 'application' | 'connection' | 'way';
  readonly us: number;
}

/** The largest share of one step in one place; undefined when nothing has ended. */
export function slowest(roots: readonly Step[]): Share | undefined {
  let best: Share | undefined;
  for (const { step } of inOrderOfCause(roots)) {
    for (const share of sharesOf(step)) if (best === undefined || share.us > best.us) best = share;
  }
  return best;
}

function sharesOf(step: Step): Share[] {
  const { call, events } = step;
  const shares: Share[] = [];
  for (const event of events) {
    if (event.state === ROW_STATE.ENDED) shares.push({ step, where: 'application', us: ownTime(step, event) });
  }
  if (call === undefined || call.state !== ROW_STATE.ENDED) return shares;
  shares.push({ step, where: 'connection', us: call.waitUs });
  const known = events.reduce((sum, event) => sum + event.durationUs, call.waitUs);
  shares.push({ step, where: 'way', us: Math.max(0, call.durationUs - known) });
  return shares;
}

/** Time of an event in which none of its calls ran. */
export function ownTime(step: Step, event: Row): number {
  const calls = step.children.filter(child => child.parentRow === event).flatMap(child => child.call ?? []);
  let covered = 0;
  let untilUs = event.startUs;
  for (const call of calls.sort((a, b) => a.startUs - b.startUs)) {
    const from = Math.max(untilUs, call.startUs);
    const to = Math.min(event.endUs, call.startUs + call.durationUs);
    if (to <= from) continue;
    covered += to - from;
    untilUs = to;
  }
  return Math.max(0, event.durationUs - covered);
}
