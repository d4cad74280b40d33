// Long work in slices, so that reports never wait for an answer to someone else.
//
// A list over 30,000 lives or a scrape of 50,000 series takes a good part of a second of the only thread.
// Work of that kind is written as a generator that yields wherever others may be let in; who runs it
// decides how long it may go on before they are.

/** Work that yields where it may be interrupted. What it reads may change meanwhile. */
export type Pieces<T> = Generator<void, T, void>;

/** How long one slice takes, ms: about as much as a report in its queue can be made to wait. */
export const SLICE_MS = 3;

/** Items of a list that are looked at between two points of interruption; looking is cheap. */
export const LOOKED_AT = 256;

/** Items that are made into messages between two points of interruption. */
export const MADE = 16;

/** Whether `value` is work still to be done rather than its result. */
export function isPieces<T>(value: T | Pieces<T>): value is Pieces<T> {
  return typeof value === 'object' && value !== null && Symbol.iterator in value && 'next' in value;
}

/** Does all of it now. */
export function atOnce<T>(work: Pieces<T>): T {
  for (;;) {
    const step = work.next();
    if (step.done === true) return step.value;
  }
}

/** Goes on for at most `sliceMs`; the last step says whether it is done. */
export function slice<T>(work: Pieces<T>, sliceMs = SLICE_MS): IteratorResult<void, T> {
  const endMs = performance.now() + sliceMs;
  for (;;) {
    const step = work.next();
    if (step.done === true || performance.now() >= endMs) return step;
  }
}

/** Settles when whatever else is ready has had its turn. */
export const othersFirst = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

/** After work of `ms` as long again is everyone else's, so that it takes half of the thread at most. */
export const resting = (ms: number): Promise<void> =>
  new Promise(resolve => setTimeout(resolve, Math.min(REST_MS_MAX, Math.max(1, ms))));

/** A slice that took longer than this, ms, was itself held up by others. */
const REST_MS_MAX = 10;

/** Does all of it, letting others in between slices. */
export async function inSlices<T>(work: Pieces<T>, sliceMs = SLICE_MS): Promise<T> {
  for (;;) {
    const step = slice(work, sliceMs);
    if (step.done === true) return step.value;
    await othersFirst();
  }
}
