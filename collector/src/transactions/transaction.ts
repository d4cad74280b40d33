// One transaction while it is kept: what lists and states need. Its rows are in Rows.

import type { Id } from './ids.js';
import { NONE } from './id-index.js';

export type StateName = 'UNSPECIFIED' | 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'DECLINED' | 'CANCELLED';

/** `Outcome` of the wire, by number. */
export const OUTCOME = { OK: 1, FAILED: 2, DECLINED: 3, CANCELLED: 4, REFUSED: 5 } as const;

/** How far the wait for late rows has come. */
export const STAGE = {
  /** Rows came within SETTLE_US. */
  ARRIVING: 0,
  /** Quiet since; the flow has learned from it. */
  SETTLED: 1,
  /** Quiet for GRACE_US: what has not come is taken as missing. */
  FINAL: 2,
} as const;

/** Which list of kept transactions it is in: they expire and are given up one after the other. */
export type Shelf = 'arriving' | 'settled' | 'running' | 'noise' | 'ended' | 'failed';

const KEY_SOURCE_REQUEST_ID = 9;

/** Ids of one transaction that it can be found by, at most; what comes after them joins by another. */
export const IDS_MAX = 64;

export interface IndexedId {
  readonly index: 'key' | 'request';
  readonly id: Id;
}

export class Transaction {
  readonly ids: IndexedId[] = [];
  key: Id = [0, 0, 0, 0];
  keySource = 0;
  keyText = '';
  /** Of the row that the key is from, by the collector's clock. */
  private keyStartUs = Number.POSITIVE_INFINITY;
  private keyRank = Number.POSITIVE_INFINITY;
  /** First row of the list in Rows, and how many there are; those of events, and those left out. */
  first = NONE;
  rows = 0;
  events = 0;
  omitted = 0;
  /** Earliest start of any row, by the collector's clock. */
  startedUs = Number.POSITIVE_INFINITY;
  /** Latest end of any row that ended, by the collector's clock. */
  lastEndUs = 0;
  entries = 0;
  entryStartUs = Number.POSITIVE_INFINITY;
  /** End and outcome of the entry event that ended last. */
  entryEndUs = Number.NEGATIVE_INFINITY;
  entryOutcome = 0;
  entryDurationUs = 0;
  /** `service OPERATION` of the first entry event. */
  kind = '';
  /** Rows that run now, and the entry events among them. */
  running = 0;
  entriesRunning = 0;
  /** Ended entry events. */
  entriesEnded = 0;
  /** Some row is evidence: no probe, shadow or own request. */
  evidence = false;
  /** When a row or list last told of it, by the collector's clock. */
  heardUs = 0;
  stage: number = STAGE.ARRIVING;
  shelf: Shelf = 'arriving';
  learned = false;
  /** Read back after a restart: what it has to tell was counted before. */
  rebuilt = false;
  /** Events whose cause should be known and is not: as counted, and as found when it last settled. */
  unlinked = 0;
  unlinkedFound = 0;
  /** Rows say how it ended although no entry event was heard; found when it last settled. */
  endedWithoutEntry: StateName = 'UNSPECIFIED';
  /** A verdict in force says that it cannot succeed any more. */
  doomed = false;
  /** The state and kind that watchers were told last. */
  told = '';
  /** It has become part of this one. */
  mergedInto: Transaction | undefined;

  /** @param slot position in the table; serials only grow */
  constructor(
    readonly slot: number,
    readonly serial: number,
  ) {}

  /** Where it begins, by the collector's clock: the first entry event, or the earliest row. */
  get beginUs(): number {
    return this.entryStartUs === Number.POSITIVE_INFINITY ? this.startedUs : this.entryStartUs;
  }

  /** When it ended, by the collector's clock; undefined while it runs. */
  get endUs(): number | undefined {
    if (this.state === 'RUNNING') return undefined;
    if (this.entriesEnded > 0) return this.entryEndUs;
    return this.lastEndUs === 0 ? undefined : this.lastEndUs;
  }

  /** How long it took, us, never negative; undefined while it runs. One entry: by its own clock. */
  get durationUs(): number | undefined {
    const { endUs } = this;
    if (endUs === undefined) return undefined;
    return this.entries === 1 && this.entriesEnded === 1 ? this.entryDurationUs : Math.max(0, endUs - this.beginUs);
  }

  get state(): StateName {
    if (this.entriesRunning > 0) return 'RUNNING';
    if (this.entriesEnded > 0) return stateOf(this.entryOutcome);
    if (this.running > 0 || this.stage === STAGE.ARRIVING) return 'RUNNING';
    // All that was heard of has ended. An entry may run on above it, and be told of later.
    return this.stage === STAGE.FINAL ? this.endedWithoutEntry : 'UNSPECIFIED';
  }

  /** As it is shown: one that runs may be doomed. */
  get shownState(): StateName | 'DOOMED' {
    return this.doomed && this.state === 'RUNNING' ? 'DOOMED' : this.state;
  }

  /**
   * Offers a key, read from a row that started at `startUs` by the collector's clock. A trace context is
   * preferred to a request id, then the key of the earliest row: whatever the order of arrival, it is
   * the same one in the end.
   */
  offerKey(id: Id, source: number, text: string, startUs: number): void {
    if (text !== '' && this.keyText === '') this.keyText = text;
    const rank = source === 0 ? 2 : source === KEY_SOURCE_REQUEST_ID ? 1 : 0;
    if (rank > this.keyRank || (rank === this.keyRank && startUs >= this.keyStartUs)) return;
    this.key = id;
    this.keySource = source;
    this.keyRank = rank;
    this.keyStartUs = startUs;
  }

  entryStarted(kind: string, startUs: number): void {
    this.entries += 1;
    this.entryFrom(kind, startUs);
  }

  entryEnded(startUs: number, endUs: number, durationUs: number, outcome: number): void {
    this.entriesEnded += 1;
    // While it ran its start was known to the millisecond only.
    this.entryStartUs = this.entries === 1 ? startUs : Math.min(this.entryStartUs, startUs);
    if (endUs < this.entryEndUs) return;
    this.entryEndUs = endUs;
    this.entryOutcome = outcome;
    this.entryDurationUs = durationUs;
  }

  /** Takes over all that `other` knows but its rows and ids. */
  absorb(other: Transaction): void {
    this.offerKey(other.key, other.keySource, other.keyText, other.keyStartUs);
    this.events += other.events;
    this.omitted += other.omitted;
    this.startedUs = Math.min(this.startedUs, other.startedUs);
    this.lastEndUs = Math.max(this.lastEndUs, other.lastEndUs);
    if (other.entries > 0) this.entryFrom(other.kind, other.entryStartUs);
    this.entries += other.entries;
    if (other.entriesEnded > 0 && other.entryEndUs >= this.entryEndUs) {
      this.entryEndUs = other.entryEndUs;
      this.entryOutcome = other.entryOutcome;
      this.entryDurationUs = other.entryDurationUs;
    }
    this.entriesEnded += other.entriesEnded;
    this.running += other.running;
    this.entriesRunning += other.entriesRunning;
    this.evidence ||= other.evidence;
    this.heardUs = Math.max(this.heardUs, other.heardUs);
    this.learned ||= other.learned;
    this.doomed ||= other.doomed;
    this.unlinked = Math.max(this.unlinked, other.unlinked);
    if (this.told === '') this.told = other.told;
  }

  private entryFrom(kind: string, startUs: number): void {
    if (startUs >= this.entryStartUs && this.kind !== '') return;
    this.entryStartUs = startUs;
    this.kind = kind;
  }
}

/** How a transaction ended whose entry had this outcome. Refused by us is no failure. */
export function stateOf(outcome: number): StateName {
  if (outcome === OUTCOME.FAILED) return 'FAILED';
  if (outcome === OUTCOME.DECLINED || outcome === OUTCOME.REFUSED) return 'DECLINED';
  if (outcome === OUTCOME.CANCELLED) return 'CANCELLED';
  return outcome === OUTCOME.OK ? 'SUCCEEDED' : 'UNSPECIFIED';
}
