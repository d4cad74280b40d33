// What a collector with too much to do asks of filters: reports less often, then rows of fewer transactions.
//
// Counts stay exact either way, and failures are told at once. So under load the collector gives up what it
// can do without, step by step, instead of falling behind: acknowledgements that come late fill the windows
// of filters, and what then goes is what nobody chose. It takes a wish back only when it would bear what
// comes then, or it would ask for less and for more in turns. Pure but for what sessions were told.

import type { Hints } from './moves.js';

/** Steps of giving up, in order. `relief`: how much more comes when the step is taken back, at most. */
const STEPS: readonly { readonly intervalMs: number; readonly sampleRatio: number; readonly relief: number }[] = [
  { intervalMs: 0, sampleRatio: 1, relief: 1 },
  { intervalMs: 2000, sampleRatio: 1, relief: 1.3 },
  { intervalMs: 5000, sampleRatio: 1, relief: 1.3 },
  { intervalMs: 5000, sampleRatio: 0.5, relief: 2 },
  { intervalMs: 5000, sampleRatio: 0.25, relief: 2 },
  { intervalMs: 5000, sampleRatio: 0.1, relief: 2.5 },
  { intervalMs: 5000, sampleRatio: 0.03, relief: 3.3 },
];

/** Busy for longer than this share of its time for this long, the collector asks for less. */
export const BUSY_RATIO_MAX = 0.85;
export const BUSY_MS = 3000;

/** It asks for more again when what comes then would keep it below this share, seen for this long. */
export const CALM_RATIO_MAX = 0.7;
export const CALM_MS = 20_000;

/** Filters believe a wish for 60 s: it is said again in time. */
const AGAIN_MS = 20_000;

/** Where the collector is, and since when it has been too busy or calm, by the monotonic clock. */
export interface Pressure {
  /** 0 to LEVEL_MAX: a place in STEPS. */
  readonly level: number;
  readonly busySinceMs?: number;
  readonly calmSinceMs?: number;
}

export const LEVEL_MAX = STEPS.length - 1;

export const NO_PRESSURE: Pressure = { level: 0 };

/**
 * The next state, from how busy the collector was since the last. To be asked about once a second.
 *
 * @param busyRatio share of its time in which it worked, 0 to 1
 */
export function next(before: Pressure, busyRatio: number, nowMs: number): Pressure {
  const { level } = before;
  if (busyRatio > BUSY_RATIO_MAX) {
    const busySinceMs = before.busySinceMs ?? nowMs;
    if (nowMs - busySinceMs < BUSY_MS || level === LEVEL_MAX) return { level, busySinceMs };
    return { level: level + 1 };
  }
  if (level === 0 || busyRatio * STEPS[level]!.relief > CALM_RATIO_MAX) return { level };
  const calmSinceMs = before.calmSinceMs ?? nowMs;
  return nowMs - calmSinceMs < CALM_MS ? { level, calmSinceMs } : { level: level - 1 };
}

/** What filters are asked for at a level. */
export function wishOf({ level }: Pressure): Required<Pick<Hints, 'intervalMs' | 'sampleRatio'>> {
  const { intervalMs, sampleRatio } = STEPS[level]!;
  return { intervalMs, sampleRatio };
}

/** Who was told which wish, and when. */
export class Wishes<Session extends object> {
  private pressure = NO_PRESSURE;
  private readonly told = new WeakMap<Session, { readonly level: number; readonly atMs: number }>();

  /** @param busyRatio since this was asked last */
  look(busyRatio: number, nowMs: number): void {
    this.pressure = next(this.pressure, busyRatio, nowMs);
  }

  get wish(): ReturnType<typeof wishOf> {
    return wishOf(this.pressure);
  }

  /** What the next reply of a session should say; nothing when it knows. */
  hints(session: Session, nowMs: number): { readonly hints?: Hints } {
    const { level } = this.pressure;
    const told = this.told.get(session);
    // Most have never been told anything, and need not be.
    if (level === 0 && told === undefined) return NOTHING;
    if (told?.level === level && (level === 0 || nowMs - told.atMs < AGAIN_MS)) return NOTHING;
    this.told.set(session, { level, atMs: nowMs });
    return { hints: this.wish };
  }
}

const NOTHING = {};
