// Touches what the rows of a batch will need, before they are taken one after the other.
//
// What rows need lies anywhere in hundreds of megabytes, and a row that waits for memory four times in a
// row costs half a microsecond. Here the same places are read for all rows of a batch in short loops whose
// steps do not depend on each other, so the processor waits for many of them at once; when the rows are
// taken they are in its cache. Nothing is remembered: a wrong guess costs time, never a wrong answer.

import { ROWS_MAX, type EventColumns } from '../ingest/columns.js';
import { hash2, hash4, NONE } from './id-index.js';
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
    const event = hash2(seed, eventId[low + 1]!, eventId[low]!);
    const key = hash4(seed, keyHi[low + 1]!, keyHi[low]!, keyLo[low + 1]!, keyLo[low]!);
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
