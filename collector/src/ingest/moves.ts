// Which streams are asked to go elsewhere: all when this replica leaves, some when it has more than its share.
//
// A proxy chooses a replica when it opens a stream, and streams live long. So a replica that was added, or
// restarted last, would have next to none. Those with more than the mean ask a part of what they have too much,
// again and again: a stream that is asked may come back to the same replica, and others ask at the same time.

import type { Clock } from '../clock.js';

export interface Hints {
  readonly intervalMs?: number;
  readonly drainMs?: number;
  readonly retryAfterMs?: number;
  readonly sampleRatio?: number;
}

/** How often a replica looks whether it has too many streams, ms; what it asks for is done by then. */
export const RELIEVE_EVERY_MS = 10_000;
const RELIEVE_MS = 8000;

/** So much above the mean is chance: streams choose at random. */
const CHANCE_RATIO = 0.1;
const CHANCE_STREAMS = 2;

/** Part of the excess that is asked at once, and how many streams at most. */
const ASKED_RATIO = 0.25;
const ASKED_MAX = 500;

/**
 * How many streams a replica should ask to go elsewhere now.
 *
 * @param own     streams it has
 * @param others  streams of each other replica that is alive
 * @returns       0 to ASKED_MAX; 0 when it is alone or has no more than chance gives
 */
export function surplus(own: number, others: readonly number[]): number {
  if (others.length === 0) return 0;
  const mean = others.reduce((sum, streams) => sum + streams, own) / (others.length + 1);
  if (own <= mean * (1 + CHANCE_RATIO) + CHANCE_STREAMS) return 0;
  return Math.min(ASKED_MAX, Math.ceil((own - mean) * ASKED_RATIO));
}

export class Moves<Session extends object> {
  /** By the monotonic clock; undefined = we stay. */
  private leavingAtMs: number | undefined;
  private readonly asked = new WeakSet<Session>();

  constructor(private readonly clock: Clock) {}

  /** From now on every stream is told to go, within what is left of `drainMs`; 0 = none is. */
  leave(drainMs: number): Hints {
    if (drainMs > 0) this.leavingAtMs = this.clock.monotonicMs() + drainMs;
    return { drainMs };
  }

  /** What goes with every reply. */
  hints(): { readonly hints?: Hints } {
    if (this.leavingAtMs === undefined) return {};
    return { hints: { drainMs: Math.max(1, Math.ceil(this.leavingAtMs - this.clock.monotonicMs())) } };
  }

  /** Of these, oldest first, those to be told `hints`: `count` that were not asked before. */
  choose(sessions: Iterable<Session>, count: number): { readonly chosen: readonly Session[]; readonly hints: Hints } {
    const chosen: Session[] = [];
    for (const session of sessions) {
      if (chosen.length >= count) break;
      if (this.asked.has(session)) continue;
      this.asked.add(session);
      chosen.push(session);
    }
    return { chosen, hints: { drainMs: RELIEVE_MS } };
  }
}
