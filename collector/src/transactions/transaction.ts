// One transaction while it is kept: what lists and states need, as a view of its slot. Its rows are in Rows.

import type { Id } from './ids.js';
import { NONE } from './id-index.js';
import { AT, FLAG, IS, STAGE, type IndexedId } from './slot-layout.js';
import type { Slots } from './slots.js';

export type StateName = 'UNSPECIFIED' | 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'DECLINED' | 'CANCELLED';

/** `Outcome` of the wire, by number. */
export const OUTCOME = { OK: 1, FAILED: 2, DECLINED: 3, CANCELLED: 4, REFUSED: 5 } as const;

/** Made when someone asks, and as good as its slot: once that holds another one, `gone`. */
export class Transaction {
  /** Serials only grow. */
  readonly serial: number;

  /** @param slot position in the table */
  constructor(
    private readonly slots: Slots,
    readonly slot: number,
  ) {
    this.serial = slots.double(slot, AT.SERIAL);
  }

  /** It has been given up, or joined into another one. */
  get gone(): boolean {
    return !this.slots.holds(this.slot, this.serial);
  }

  get ids(): readonly IndexedId[] {
    return this.slots.idsOf(this.slot);
  }

  get key(): Id {
    return this.slots.idAt(this.slot, IS.KEY);
  }

  get keySource(): number {
    return this.slots.word(this.slot, IS.KEY_SOURCE);
  }

  get keyText(): string {
    return this.slots.rarely(this.slot)?.keyText ?? '';
  }

  get events(): number {
    return this.slots.word(this.slot, IS.EVENTS);
  }

  /** Events beyond what one transaction keeps. */
  get omitted(): number {
    return this.slots.word(this.slot, IS.OMITTED);
  }

  get startedUs(): number {
    return this.slots.double(this.slot, AT.STARTED);
  }

  get entries(): number {
    return this.slots.word(this.slot, IS.ENTRIES);
  }

  get entriesEnded(): number {
    return this.slots.word(this.slot, IS.ENTRIES_ENDED);
  }

  get entriesRunning(): number {
    return this.slots.word(this.slot, IS.ENTRIES_RUNNING);
  }

  get entryEndUs(): number {
    return this.slots.double(this.slot, AT.ENTRY_END);
  }

  get running(): number {
    return this.slots.word(this.slot, IS.RUNNING);
  }

  /** `service OPERATION` of the first entry event; '' = none was heard of. */
  get kind(): string {
    const kind = this.slots.word(this.slot, IS.KIND);
    return kind === NONE ? '' : this.slots.kinds.get(kind);
  }

  get evidence(): boolean {
    return this.slots.has(this.slot, FLAG.EVIDENCE);
  }

  get heardUs(): number {
    return this.slots.double(this.slot, AT.HEARD);
  }

  get stage(): number {
    return this.slots.word(this.slot, IS.STAGE);
  }

  set stage(stage: number) {
    this.slots.setWord(this.slot, IS.STAGE, stage);
  }

  get learned(): boolean {
    return this.slots.has(this.slot, FLAG.LEARNED);
  }

  set learned(yes: boolean) {
    this.slots.mark(this.slot, FLAG.LEARNED, yes);
  }

  /** Read back after a restart: what it has to tell was counted before. */
  get rebuilt(): boolean {
    return this.slots.has(this.slot, FLAG.REBUILT);
  }

  set rebuilt(yes: boolean) {
    this.slots.mark(this.slot, FLAG.REBUILT, yes);
  }

  /** Events whose cause should be known and is not: as counted, and as found when it last settled. */
  get unlinked(): number {
    return this.slots.word(this.slot, IS.UNLINKED);
  }

  set unlinked(count: number) {
    this.slots.setWord(this.slot, IS.UNLINKED, count);
  }

  get unlinkedFound(): number {
    return this.slots.word(this.slot, IS.UNLINKED_FOUND);
  }

  set unlinkedFound(count: number) {
    this.slots.setWord(this.slot, IS.UNLINKED_FOUND, count);
  }

  /** Rows say how it ended although no entry event was heard; found when it last settled. */
  get endedWithoutEntry(): StateName {
    return (this.slots.rarely(this.slot)?.endedWithoutEntry ?? 'UNSPECIFIED') as StateName;
  }

  set endedWithoutEntry(state: StateName) {
    if (state !== this.endedWithoutEntry) this.slots.rareOf(this.slot).endedWithoutEntry = state;
  }

  /** A verdict in force says that it cannot succeed any more. */
  get doomed(): boolean {
    return this.slots.has(this.slot, FLAG.DOOMED);
  }

  set doomed(yes: boolean) {
    this.slots.mark(this.slot, FLAG.DOOMED, yes);
  }

  /** The state and kind that watchers were told last. */
  get told(): string {
    return this.slots.told(this.slot);
  }

  set told(text: string) {
    this.slots.rareOf(this.slot).told = text;
  }

  /** Where it begins, by the collector's clock: the first entry event, or the earliest row. */
  get beginUs(): number {
    const entryStartUs = this.slots.double(this.slot, AT.ENTRY_START);
    return entryStartUs === Number.POSITIVE_INFINITY ? this.startedUs : entryStartUs;
  }

  /** When it ended, by the collector's clock; undefined while it runs. */
  get endUs(): number | undefined {
    if (this.state === 'RUNNING') return undefined;
    if (this.entriesEnded > 0) return this.entryEndUs;
    const lastEndUs = this.slots.double(this.slot, AT.LAST_END);
    return lastEndUs === 0 ? undefined : lastEndUs;
  }

  /** How long it took, us, never negative; undefined while it runs. One entry: by its own clock. */
  get durationUs(): number | undefined {
    const { endUs } = this;
    if (endUs === undefined) return undefined;
    if (this.entries === 1 && this.entriesEnded === 1) return this.slots.double(this.slot, AT.ENTRY_DURATION);
    return Math.max(0, endUs - this.beginUs);
  }

  get state(): StateName {
    if (this.entriesRunning > 0) return 'RUNNING';
    if (this.entriesEnded > 0) return stateOf(this.slots.word(this.slot, IS.ENTRY_OUTCOME));
    if (this.running > 0 || this.stage === STAGE.ARRIVING) return 'RUNNING';
    // All that was heard of has ended. An entry may run on above it, and be told of later.
    return this.stage === STAGE.FINAL ? this.endedWithoutEntry : 'UNSPECIFIED';
  }

  /** As it is shown: one that runs may be doomed. */
  get shownState(): StateName | 'DOOMED' {
    return this.doomed && this.state === 'RUNNING' ? 'DOOMED' : this.state;
  }
}

/** How a transaction ended whose entry had this outcome. Refused by us is no failure. */
export function stateOf(outcome: number): StateName {
  if (outcome === OUTCOME.FAILED) return 'FAILED';
  if (outcome === OUTCOME.DECLINED || outcome === OUTCOME.REFUSED) return 'DECLINED';
  if (outcome === OUTCOME.CANCELLED) return 'CANCELLED';
  return outcome === OUTCOME.OK ? 'SUCCEEDED' : 'UNSPECIFIED';
}
