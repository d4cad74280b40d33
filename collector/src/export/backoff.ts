// How long to wait before the next try. Pure.

/** The first wait, and the longest, ms: a sink that comes back is served again within 10 s. */
export const WAIT_MS_MIN = 250;
export const WAIT_MS_MAX = 5000;

/**
 * Twice as long each time, and a random half of it, so that replicas do not knock together.
 *
 * @param failures in a row, 1 or more
 * @param random   in [0, 1)
 * @param wishMs   what the sink asked for; heeded up to WAIT_MS_MAX
 */
export function waitMs(failures: number, random: number, wishMs = 0): number {
  const whole = Math.min(WAIT_MS_MAX, WAIT_MS_MIN * 2 ** Math.min(16, failures - 1));
  return Math.max(Math.min(wishMs, WAIT_MS_MAX), whole / 2 + (whole / 2) * random);
}
