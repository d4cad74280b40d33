// Touches what the rows of a batch will need, before they are taken one after the other.
//
// What rows need lies anywhere in hundreds of megabytes, and a row that waits for memory four times in a
// row costs half a microsecond. Here the same places are read for all rows of a batch in short loops whose
// steps do not depend on each other, so the processor waits for many of them at once; when the rows are
// taken they are in its cache. Nothing is remembered: a wrong guess costs time, never a wrong answer.

import { ROWS_MAX, type EventColumns } from '../ingest/columns.js';
import { hash2, hash4, NONE } from './id-index.js';
import { IS } from './slots.js';
import type { Table } from './table.js';

/** Below this many rows there is nothing to gain. */
const ROWS_MIN = 8;

const eventHashes = new Int32Array(ROWS_MAX);
const keyHashes = new Int32Array(ROWS_MAX);

/** @returns something that depends on all that was read, so that no reading can be left out */
export function warm({ keys, events, rows, slots, seed }: Table, columns: EventColumns): number {
  const count = columns.rows;
  if (count < ROWS_MIN) return 0;
  const { eventId, keyHi, keyLo } = columns;
  let sum = 0;
  for (let row = 0; row < count; row++) {
    const low = 2 * row;
    const event = hash2(seed, eventId[low + 1]! | 0, eventId[low]! | 0);
    const key = hash4(seed, keyHi[low + 1]! | 0, keyHi[low]! | 0, keyLo[low + 1]! | 0, keyLo[low]! | 0);
    eventHashes[row] = event;
    keyHashes[row] = key;
    sum ^= events.peek(event) ^ keys.peek(key);
  }
  for (let row = 0; row < count; row++) {
    const known = events.peek(eventHashes[row]!);
    const slot = keys.peek(keyHashes[row]!);
    if (known !== NONE) sum ^= rows.peek(known);
    if (slot !== NONE) sum ^= slots.peek(slot);
    sum ^= rows.peekFree(row);
  }
  return sum;
}

/** Transactions given up one after the other whose rows are read together. */
export const TOGETHER = 32;

/** Rows of each that are read: most have fewer, and of the others the first ones are better than none. */
const DEPTH = 12;

const leavingRows = new Int32Array(TOGETHER);

/** The same for transactions that are given up, `first` and those behind it on its shelf. */
export function warmLeaving({ slots, rows, events, seed }: Table, first: number): number {
  let count = 0;
  let sum = 0;
  for (let slot = first; slot !== NONE && count < TOGETHER; slot = slots.after(slot)) {
    leavingRows[count++] = slots.word(slot, IS.FIRST);
  }
  // Their lists are walked side by side: each step waits for the one before in its own list only.
  for (let depth = 0; depth < DEPTH; depth++) {
    for (let i = 0; i < count; i++) {
      const row = leavingRows[i]!;
      if (row === NONE) continue;
      sum ^= rows.peek(row) ^ events.peek(hash2(seed, rows.eventHigh(row), rows.eventLow(row)));
      leavingRows[i] = rows.next(row);
    }
  }
  return sum;
}
