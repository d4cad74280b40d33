// Edges that are never refused, because something besides the normal course may need them. Pure.
//
// What compensates runs after failures, and shows in the transactions that failed. Yet what a compensation
// calls in turn may be what the normal course calls too, one operation may both do and take back, and a
// consumer of messages works under its sender's ids: none of that shows in how often an edge is seen.

import { DETACHED, type EdgeSeen, type Sample } from './sample.js';

/** An edge this many times likelier after a failure than without is there because of the failure. */
export const AFTER_FAILURE_RATIO = 1.5;

/** Shares of the transactions that had an edge: of those without failure, and after one. */
export interface Rate {
  normally: number;
  afterFailure: number;
}

/** How often each edge, by name, is seen without failures, and once something has failed. */
export function ratesOf(successes: readonly Sample[], failures: readonly Sample[]): Map<string, Rate> {
  const rates = new Map<string, Rate>();
  const count = (samples: readonly Sample[], names: (sample: Sample) => Set<string>, field: keyof Rate): void => {
    for (const sample of samples) {
      for (const name of names(sample)) {
        const rate = rates.get(name) ?? { normally: 0, afterFailure: 0 };
        rate[field] += 1 / samples.length;
        rates.set(name, rate);
      }
    }
  };
  count(successes, ({ edges }) => new Set(edges.map(({ edge }) => edge.name)), 'normally');
  count(failures, namesAfterFailure, 'afterFailure');
  return rates;
}

/** By name: what compensations need, what takes back, and what other work under the same id needs. */
export function sparedEdges(
  successes: readonly Sample[],
  failures: readonly Sample[],
  rates: ReadonlyMap<string, Rate>,
): Set<string> {
  const spared = new Set<string>();
  for (const sample of failures) for (const name of belowCompensation(sample, rates)) spared.add(name);
  for (const name of doneAgain(successes, failures)) spared.add(name);
  for (const { edges } of [...successes, ...failures]) {
    for (const { edge, under } of edges) if (under === DETACHED) spared.add(edge.name);
  }
  return spared;
}

export const isAfterFailure = (rate: Rate | undefined): boolean =>
  rate !== undefined && rate.afterFailure > AFTER_FAILURE_RATIO * rate.normally;

/** Edges that began when something had failed for good. */
function namesAfterFailure(sample: Sample): Set<string> {
  const first = firstFailureUs(sample);
  const { edges } = sample;
  return new Set(edges.filter(({ beganUs }) => beganUs >= first).map(({ edge }) => edge.name));
}

const firstFailureUs = ({ failures }: Sample): number => Math.min(...failures.map(({ endUs }) => endUs));

/** Edges with a compensation above them: `release` may need the very `adjust` that `reserve` needs. */
function belowCompensation({ edges }: Sample, rates: ReadonlyMap<string, Rate>): string[] {
  const below = new Set<number>();
  edges.forEach(({ under }, at) => {
    // Causes began before, so they stand before.
    if (under >= 0 && (below.has(under) || isAfterFailure(rates.get(edges[under]!.edge.name)))) below.add(at);
  });
  return [...below].map(at => edges[at]!.edge.name);
}

/** Edges that go well a second time once something has failed, and not otherwise: they undo what they did. */
function doneAgain(successes: readonly Sample[], failures: readonly Sample[]): string[] {
  const normally = sharesOf(successes.map(({ edges }) => doneIn(edges)));
  const after = sharesOf(
    failures.map(sample => {
      const endUs = firstFailureUs(sample);
      const again = doneIn(sample.edges.filter(({ beganUs }) => beganUs >= endUs));
      const before = doneIn(sample.edges.filter(({ beganUs }) => beganUs < endUs));
      return new Map([...before].map(([name]) => [name, again.has(name) ? 2 : 1]));
    }),
  );
  return [...after].flatMap(([name, share]) => (share > AFTER_FAILURE_RATIO * (normally.get(name) ?? 0) ? [name] : []));
}

/** Of the transactions in which an edge was done, the share in which it was done more than once. */
function sharesOf(done: readonly ReadonlyMap<string, number>[]): Map<string, number> {
  const sums = new Map<string, { once: number; again: number }>();
  for (const counts of done) {
    for (const [name, count] of counts) {
      const sum = sums.get(name) ?? { once: 0, again: 0 };
      sum.once += 1;
      if (count > 1) sum.again += 1;
      sums.set(name, sum);
    }
  }
  return new Map([...sums].map(([name, { once, again }]) => [name, again / once]));
}

function doneIn(edges: readonly EdgeSeen[]): Map<string, number> {
  const done = new Map<string, number>();
  for (const { edge, ok } of edges) if (ok) done.set(edge.name, (done.get(edge.name) ?? 0) + 1);
  return done;
}
