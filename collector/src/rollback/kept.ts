// What the store keeps of rollback, and how it comes back: after a restart, and from other replicas while this one
// runs. Entries can come twice, and do no more then than once.

import type { ControlsBook } from './controls-book.js';
import type { Ledger } from './ledger.js';
import { entryOf } from './archive.js';
import { mergeVerdict } from './merge.js';
import type { Kill, Override } from './modes.js';
import type { Plans } from './plans.js';
import type { RollbackEntry, StoredAck } from './store-entries.js';
import type { Verdicts, VerdictRecord } from './verdicts.js';

export interface Kept {
  readonly verdicts: Verdicts;
  readonly ledger: Ledger;
  readonly controls: ControlsBook;
  readonly plans: Plans;
  /** Told of a verdict that was not known, and of one that may have ended or grown. */
  adopt(record: VerdictRecord): void;
  advanced(record: VerdictRecord): void;
  /** What people said holds from now on. */
  overridden(scope: string, value: Override | undefined): void;
  switched(scope: string, value: Kill | undefined): void;
  acknowledged(ack: StoredAck): void;
}

/** Everything as it is now, oldest first. */
export function* entriesOf({ verdicts, ledger, controls }: Kept): Generator<RollbackEntry> {
  yield { type: 'ledger', id: '', value: ledger.snapshot() };
  for (const value of [...verdicts.all()].reverse()) yield entryOf(value);
  for (const value of controls.overrides) yield { type: 'override', id: value.scope, value };
  for (const value of controls.kills) yield { type: 'kill', id: value.scope, value };
  for (const value of ledger.audits.all().reverse()) yield { type: 'audit', id: value.id!, value };
}

/** Takes one entry. `counted`: the ledger holds what it adds already. */
export function restoreEntry(kept: Kept, entry: RollbackEntry, counted: boolean): void {
  const { ledger } = kept;
  if (entry.type === 'ledger') ledger.restore(entry.value);
  else if (entry.type === 'override') kept.overridden(entry.id, entry.value ?? undefined);
  else if (entry.type === 'kill') kept.switched(entry.id, entry.value ?? undefined);
  else if (entry.type === 'ack') kept.acknowledged(entry.value);
  else if (entry.type === 'audit') ledger.audit(entry.value);
  else restoreVerdict(kept, entry.value, counted);
}

function restoreVerdict(kept: Kept, record: VerdictRecord, counted: boolean): void {
  const { verdicts, ledger } = kept;
  const known = verdicts.get(record.id);
  const wasWrong = known?.succeeded === true;
  if (!counted && known === undefined) ledger.verdict(record);
  if (!counted && record.succeeded === true && !wasWrong) ledger.wrong(record);
  if (known === undefined) return kept.adopt(record);
  mergeVerdict(known, record);
  kept.advanced(known);
}
