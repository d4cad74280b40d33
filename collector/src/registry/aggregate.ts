// Exact counts of one batch: its rows grouped by what counts are kept by. Pure.

import { ROW_FLAG, ROWS_MAX, type EventColumns } from '../ingest/columns.js';

/** Rows of one batch that are alike. Texts are indexes into the batch's `strings`. */
export interface Group {
  readonly operation: number;
  readonly status: number;
  readonly responseFlags: number;
  /** ROW_FLAG bits and outcome; key source, attempts and what does not set rows apart are 0. */
  readonly flags: number;
  /** 0 for events. */
  readonly peerService: number;
  /** 0 for events. */
  readonly peerCuid: number;
  count: number;
  durationUsSum: number;
}

/** What of `flags` counts are kept by: what labels are made of, and the outcome. */
export const COUNTED_FLAGS =
  ROW_FLAG.CALL |
  ROW_FLAG.STREAM |
  ROW_FLAG.PROBE |
  ROW_FLAG.SHADOW |
  ROW_FLAG.OWN |
  ROW_FLAG.UNSEEN |
  ROW_FLAG.EXTERNAL |
  ROW_FLAG.LOCAL_REPLY |
  0xf0000;

/** Slots of the hash table: twice the rows, a power of two. */
const SLOTS = 2 * ROWS_MAX;
const slots = new Int32Array(SLOTS);

/** Groups the rows, in order of first appearance. One group per combination that occurs. */
export function groupRows(columns: EventColumns): Group[] {
  slots.fill(-1);
  const groups: Group[] = [];
  for (let row = 0; row < columns.rows; row++) {
    const group = groupOf(columns, row, groups);
    group.count += columns.weight[row]!;
    group.durationUsSum += columns.durationUs[row]!;
  }
  return groups;
}

function groupOf(columns: EventColumns, row: number, groups: Group[]): Group {
  const operation = columns.operation[row]!;
  const status = columns.status[row]! & 0xffffff;
  const responseFlags = columns.responseFlags[row]!;
  const flags = columns.flags[row]! & COUNTED_FLAGS;
  const call = (flags & ROW_FLAG.CALL) !== 0;
  const peerService = call ? columns.peerService[row]! : 0;
  const peerCuid = call ? columns.peerCuid[row]! : 0;
  let hash = Math.imul(operation ^ Math.imul(status, 0x9e3779b1), 0x85ebca6b);
  hash = Math.imul(hash ^ responseFlags ^ Math.imul(flags, 0xc2b2ae35), 0x27d4eb2f);
  hash = Math.imul(hash ^ peerService ^ (peerCuid << 10), 0x165667b1);
  for (let slot = (hash >>> 15) & (SLOTS - 1); ; slot = (slot + 1) & (SLOTS - 1)) {
    const index = slots[slot]!;
    if (index < 0) {
      slots[slot] = groups.length;
      const group = { operation, status, responseFlags, flags, peerService, peerCuid, count: 0, durationUsSum: 0 };
      groups.push(group);
      return group;
    }
    const group = groups[index]!;
    const same =
      group.operation === operation &&
      group.status === status &&
      group.responseFlags === responseFlags &&
      group.flags === flags &&
      group.peerService === peerService &&
      group.peerCuid === peerCuid;
    if (same) return group;
  }
}
