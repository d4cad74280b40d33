// Medians and how far to trust them.

/** Of a list in any order; NaN for an empty one. */
export function median(values: readonly number[]): number {
  return quantile(
    [...values].sort((a, b) => a - b),
    0.5,
  );
}

/** @param sorted ascending; between two neighbours it is interpolated */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  const at = (sorted.length - 1) * q;
  const low = sorted[Math.floor(at)] ?? NaN;
  const high = sorted[Math.ceil(at)] ?? NaN;
  return low + (high - low) * (at - Math.floor(at));
}

/** A median with its 95 % bootstrap interval. */
export interface Estimate {
  value: number;
  low: number;
  high: number;
}

const RESAMPLES = 5000;

/** @param values one per round; rounds are what is drawn from, as processes differ for their whole life */
export function estimate(values: readonly number[], random: () => number): Estimate {
  const medians: number[] = [];
  for (let i = 0; i < RESAMPLES; i++) {
    medians.push(median(values.map(() => values[Math.floor(random() * values.length)] ?? NaN)));
  }
  medians.sort((a, b) => a - b);
  return { value: median(values), low: quantile(medians, 0.025), high: quantile(medians, 0.975) };
}
