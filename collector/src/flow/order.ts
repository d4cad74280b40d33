// From how often two callees of one step ran before, after or along with each other, to their places. Pure.

/** How often the first of two edges began before the second, after it, or at the same time. */
export interface Votes {
  before: number;
  after: number;
  overlap: number;
}

export interface Place {
  /** From 1. Calls that run at the same time after the same ones share a place. */
  readonly order: number;
  /** Runs at the same time as another one. */
  readonly parallel: boolean;
}

/**
 * Places of the callees of one step. A callee stands one behind the last of those that mostly run before
 * it; callees that were never seen together do not move each other, so the branches of an `if` share
 * their places. Majorities decide: one odd run changes nothing.
 *
 * @param meanRanks of each callee, its mean place among those it was seen with: breaks circles
 * @param votes     of callee `a` against callee `b`; undefined when they were never compared
 */
export function places(meanRanks: readonly number[], votes: (a: number, b: number) => Votes | undefined): Place[] {
  const byRank = [...meanRanks.keys()].sort((a, b) => meanRanks[a]! - meanRanks[b]! || a - b);
  const order = meanRanks.map(() => 1);
  const parallel = meanRanks.map(() => false);
  byRank.forEach((b, index) => {
    for (const a of byRank.slice(0, index)) {
      const seen = votes(a, b);
      if (seen === undefined) continue;
      if (seen.before > seen.after && seen.before > seen.overlap) order[b] = Math.max(order[b]!, order[a]! + 1);
      if (seen.overlap >= seen.before + seen.after && seen.overlap > 0) parallel[a] = parallel[b] = true;
    }
  });
  return meanRanks.map((_, at) => ({ order: order[at]!, parallel: parallel[at]! }));
}
