// "Did you mean": names that are nearly what was written. Pure.

/** A part of a name says which one is meant only from this length on. */
const PART_CHARS_MIN = 3;

/** Known names close to `name`, the closest first, at most three. */
export function near(name: string, known: readonly string[]): string[] {
  const limit = Math.max(2, Math.floor(name.length / 3));
  const scored = known.map(candidate => ({
    candidate,
    distance: name.length >= PART_CHARS_MIN && candidate.includes(name) ? 0 : distance(candidate, name),
  }));
  return scored
    .filter(one => one.distance <= limit)
    .sort((a, b) => a.distance - b.distance || (a.candidate < b.candidate ? -1 : 1))
    .slice(0, 3)
    .map(one => one.candidate);
}

/** `; did you mean A or B?`, or '' when nothing is near. */
export function didYouMean(name: string, known: readonly string[]): string {
  const names = near(name, known);
  return names.length === 0 ? '' : `; did you mean ${names.join(' or ')}?`;
}

/** Levenshtein distance. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
