// Places in a log: ids of stream entries, `MS-N`, as text. Pure.

export const START = '0-0';

/** Below 0: `a` is before `b`. */
export function comparePlaces(a: string, b: string): number {
  const [aMs, aN] = parts(a);
  const [bMs, bN] = parts(b);
  return aMs - bMs || aN - bN;
}

/** By the clock of the node that gave the id, ms since 1970. */
export const placeMs = (place: string): number => parts(place)[0];

/** The place `ms` before, at the earliest the start. */
export const placeBefore = (place: string, ms: number): string => `${Math.max(0, placeMs(place) - ms)}-0`;

function parts(place: string): [number, number] {
  const dash = place.indexOf('-');
  return [Number(place.slice(0, dash)), Number(place.slice(dash + 1))];
}
