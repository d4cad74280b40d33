// How sure a share is that was seen so often. Pure.

/** Two-sided 95 %. */
const Z = 1.959963984540054;

/**
 * Lower end of the Wilson score interval of `hits` out of `trials`; 0 when there were none. Unlike the
 * observed share it asks for enough trials by itself: 34 of 34 gives 0.898, 35 of 35 gives 0.901.
 *
 * @see E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927)
 */
export function wilsonLower(hits: number, trials: number): number {
  if (trials === 0) return 0;
  const share = hits / trials;
  const z2 = Z * Z;
  const centre = share + z2 / (2 * trials);
  const spread = Z * Math.sqrt((share * (1 - share)) / trials + z2 / (4 * trials * trials));
  return Math.max(0, (centre - spread) / (1 + z2 / trials));
}
