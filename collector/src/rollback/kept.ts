// What the store keeps of rollback, and how it comes back.

import type { ControlsBook } from './controls-book.js';
import type { Ledger } from './ledger.js';
import type { Plans } from './plans.js';
import type { RollbackEntry } from './store-entries.js';
import type { Verdicts, VerdictRecord } from './verdicts.js';

export interface Kept {
  readonly verdicts: Verdicts;
  readonly ledger: Ledger;
  readonly controls: ControlsBook;
  readonly plans: Plans;
}

/** Everything as it is now, oldest first. */
export function* entriesOf({ verdicts, ledger, controls }: Kept): Generator<RollbackEntry> {
  yield { type: 'ledger', id: '', value: ledger.snapshot() };
  for (const value of [...verdicts.all()].reverse()) yield { type: 'verdict', id: value.id, value };
  for (const value of controls.overrides) yield { type: 'override', id: value.scope, value };
  for (const value of controls.kills) yield { type: 'kill', id: value.scope, value };
  for (const value of ledger.audits.all().reverse()) yield { type: 'audit', id: value.id!, value };
}

/** Takes back one entry. `counted`: the ledger holds what it adds already. */
export function restoreEntry(kept: Kept, entry: RollbackEntry, counted: boolean): void {
  const { ledger, controls } = kept;
  if (entry.type === 'ledger') ledger.restore(entry.value);
  else if (entry.type === 'override') controls.override(entry.id, entry.value ?? undefined);
  else if (entry.type === 'kill') controls.kill(entry.id, entry.value ?? undefined);
  else if (entry.type === 'audit') ledger.audit(entry.value);
  else restoreVerdict(kept, entry.value, counted);
}

function restoreVerdict({ verdicts, ledger, plans }: Kept, record: VerdictRecord, counted: boolean): void {
  const before = verdicts.get(record.id);
  if (!counted && before === undefined) ledger.verdict(record);
  if (!counted && record.succeeded === true && before?.succeeded !== true) ledger.wrong(record);
  verdicts.put(record);
  plans.track(record);
}
