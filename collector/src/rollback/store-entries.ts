// What of rollback outlives a restart: each entry replaces the one before of its type and id.

import type { Audit, StoredLedger } from './ledger.js';
import type { Kill, Override } from './modes.js';
import type { VerdictRecord } from './verdicts.js';

/**
 * `claims`: ids that only one entry may have, by type and id; the first in the log gets them, and a later
 * one that claims any of them is void. The latest entry of a type and id brings all that it claims.
 */
export type RollbackEntry = EntryValue & { readonly claims?: readonly string[] };

/** An application has undone a step, or someone says so. Kept by itself only where several replicas take them. */
export interface StoredAck {
  readonly signal: string;
  readonly by: string;
  /** Who says so, for the audit. */
  readonly actor: string;
  readonly reason: string;
  readonly atUs: number;
}

/** JSON-ready; `null` = gone. */
type EntryValue =
  | { readonly type: 'ack'; readonly id: string; readonly value: StoredAck }
  | { readonly type: 'verdict'; readonly id: string; readonly value: VerdictRecord }
  | { readonly type: 'override'; readonly id: string; readonly value: Override | null }
  | { readonly type: 'kill'; readonly id: string; readonly value: Kill | null }
  | { readonly type: 'audit'; readonly id: string; readonly value: Audit }
  /** In snapshots only: it is rebuilt from rows. */
  | { readonly type: 'ledger'; readonly id: string; readonly value: StoredLedger };
