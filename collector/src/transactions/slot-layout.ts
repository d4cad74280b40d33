// Where what is known of a transaction lies in its slot, and what its words can say.

import type { Id } from './ids.js';

/** Which list of kept transactions it is in: they expire and are given up one after the other. */
export const SHELVES = ['arriving', 'settled', 'running', 'noise', 'ended', 'failed'] as const;
export type Shelf = (typeof SHELVES)[number];

/** How far the wait for late rows has come. */
export const STAGE = {
  /** Rows came within SETTLE_US. */
  ARRIVING: 0,
  /** Quiet since; the flow has learned from it. */
  SETTLED: 1,
  /** Quiet for GRACE_US: what has not come is taken as missing. */
  FINAL: 2,
} as const;

const KEY_SOURCE_REQUEST_ID = 9;

/** Ids of one transaction that it can be found by, at most; what comes after them joins by another. */
export const IDS_MAX = 64;

export interface IndexedId {
  readonly index: 'key' | 'request';
  readonly id: Id;
}

/**
 * A slot is four lines of a cache, 64 bytes each. What each row reads or writes is in the first two: five
 * doubles, and words from the eleventh on. Entries, and what is asked for when it has ended, are in the others.
 */
export const DOUBLES = 32;
export const AT = {
  /** When a row or list last told of it, by the collector's clock; so are all times here. */
  HEARD: 0,
  /** Earliest start of any row. */
  STARTED: 1,
  /** Latest end of any row that ended. */
  LAST_END: 2,
  /** Start of the row that the key is from. */
  KEY_START: 3,
  SERIAL: 4,
  /** Start of its first entry event, end of the one that ended last. */
  ENTRY_START: 16,
  ENTRY_END: 17,
  ENTRY_DURATION: 18,
} as const;

export const WORDS = 2 * DOUBLES;
export const IS = {
  /** First row of its list, and how many there are; those of events. */
  FIRST: 10,
  ROWS: 11,
  EVENTS: 12,
  /** Of FLAG. */
  FLAGS: 13,
  STAGE: 14,
  SHELF: 15,
  BEFORE: 16,
  AFTER: 17,
  KEY_RANK: 18,
  /** Sums and pairs of its rows: see shapes.ts. */
  SHAPE_A: 19,
  SHAPE_B: 20,
  PAIRS: 21,
  /** Ids that it can be found by: how many; the first of each sort in words, and whether there is one. */
  IDS: 22,
  HAS: 23,
  FIRST_KEY: 24,
  FIRST_REQUEST: 28,
  ENTRIES: 38,
  /** Those of the entry events that ended. */
  ENTRIES_ENDED: 39,
  ENTRY_OUTCOME: 40,
  /** Rows that run now, and the entry events among them. */
  RUNNING: 41,
  ENTRIES_RUNNING: 42,
  /** Events left out. */
  OMITTED: 43,
  KEY_SOURCE: 44,
  /** Number of its kind, NONE = no entry was heard of. */
  KIND: 45,
  /** Events whose cause should be known and is not: as counted, and as found when it last settled. */
  UNLINKED: 46,
  UNLINKED_FOUND: 47,
  KEY: 48,
} as const;

/** Bits of HAS. */
export const HAS = { KEY: 1, REQUEST: 2 } as const;

export const FLAG = {
  /** Some row is evidence: no probe, shadow or own request. */
  EVIDENCE: 1,
  LEARNED: 2,
  /** Read back after a restart: what it has to tell was counted before. */
  REBUILT: 4,
  /** A verdict in force says that it cannot succeed any more. */
  DOOMED: 8,
  /** Some row is no plain success, so its shape does not say all. */
  ODD: 16,
} as const;

/** The lower, the better. */
export const rankOf = (source: number): number => (source === 0 ? 2 : source === KEY_SOURCE_REQUEST_ID ? 1 : 0);

/** Above the rank of every key. */
export const RANK_NONE = 9;
