// Rows of one batch as rollback reads them: who failed, what was refused, what ended. One pass over
// typed arrays; only rows that matter become objects.

import {
  attemptsOf,
  highWord,
  lowWord,
  NEVER_EVIDENCE,
  outcomeOf,
  ROW_FLAG,
  type Column64,
  type EventColumns,
} from '../ingest/columns.js';
import { STRINGS_MAX } from '../ingest/decode-columns.js';
import { hexOfId, type Id } from '../transactions/ids.js';
import { OUTCOME } from '../transactions/transaction.js';

/** Rows that say what was refused, or would have been. */
const TELLING = ROW_FLAG.WOULD_REFUSE | ROW_FLAG.WITHHELD | ROW_FLAG.NO_RETRIES | ROW_FLAG.RETRY_REFUSED;

const IGNORED = NEVER_EVIDENCE | ROW_FLAG.STREAM;

export interface Ids {
  readonly key: Id;
  readonly request: Id;
}

/** `refused`: requests; `retriesSuppressed`: calls of which further attempts were not made. */
export type Account = 'refused' | 'wouldRefuse' | 'withheld' | 'retriesSuppressed';

/** What a row means for rollback; undefined = nothing. Exactly one side of each refusal counts. */
export function accountOf(flags: number): Account | undefined {
  if (outcomeOf(flags) === OUTCOME.REFUSED) {
    // Refused further on: the row of the filter that did it tells.
    return (flags & ROW_FLAG.LOCAL_REPLY) === 0 ? undefined : 'refused';
  }
  if ((flags & TELLING) === 0) return undefined;
  if ((flags & ROW_FLAG.RETRY_REFUSED) !== 0)
    return (flags & ROW_FLAG.WOULD_REFUSE) === 0 ? 'retriesSuppressed' : undefined;
  if ((flags & ROW_FLAG.WITHHELD) !== 0) return 'withheld';
  if ((flags & ROW_FLAG.WOULD_REFUSE) !== 0) return 'wouldRefuse';
  return outcomeOf(flags) === OUTCOME.FAILED && attemptsOf(flags) <= 1 ? 'retriesSuppressed' : undefined;
}

export interface Seen {
  readonly failing: Map<string, Ids>;
  /** Transactions under a verdict that the rows tell of. */
  readonly watched: Map<string, Ids>;
  readonly accounts: { readonly row: number; readonly what: Account }[];
  readonly entries: number[];
  /** By callee's host: calls that ended, and those that failed. */
  readonly calls: Map<number, { calls: number; failures: number }>;
}

/**
 * @param declined whether declined calls may be failures as well
 * @param watches  whether some word is the last of an id under a verdict; false positives do no harm. Undefined: none is
 */
export function scan(columns: EventColumns, declined: boolean, watches: ((word: number) => boolean) | undefined): Seen {
  const seen: Seen = { failing: new Map(), watched: new Map(), accounts: [], entries: [], calls: new Map() };
  const { rows, flags: allFlags, keyLo, requestLo, strings } = columns;
  for (let peer = 0; peer < strings.length; peer++) callsTo[peer] = failuresOf[peer] = 0;
  for (let row = 0; row < rows; row++) {
    const flags = allFlags[row]!;
    if ((flags & IGNORED) !== 0) continue;
    const outcome = outcomeOf(flags);
    // Nearly all rows are plain successes, of which there is no account.
    if (outcome !== OUTCOME.OK || (flags & TELLING) !== 0) noteAccount(seen, row, flags);
    if ((flags & ROW_FLAG.CALL) === 0) {
      if ((flags & ROW_FLAG.ENTRY) !== 0) seen.entries.push(row);
    } else {
      noteCall(columns, row, outcome);
      const fails = outcome === OUTCOME.FAILED || (declined && outcome === OUTCOME.DECLINED);
      if (fails) add(seen.failing, columns, row);
    }
    if (watches !== undefined && (watches(keyLo[2 * row]!) || watches(requestLo[2 * row]!)))
      add(seen.watched, columns, row);
  }
  for (let peer = 0; peer < strings.length; peer++) {
    if (callsTo[peer] !== 0) seen.calls.set(peer, { calls: callsTo[peer]!, failures: failuresOf[peer]! });
  }
  return seen;
}

/** Of the batch that is being read, by callee: its host's place among the strings. */
const callsTo = new Float64Array(STRINGS_MAX);
const failuresOf = new Float64Array(STRINGS_MAX);

function noteAccount({ accounts }: Seen, row: number, flags: number): void {
  const what = accountOf(flags);
  if (what !== undefined) accounts.push({ row, what });
}

function noteCall(columns: EventColumns, row: number, outcome: number): void {
  if (outcome === OUTCOME.REFUSED || outcome === OUTCOME.CANCELLED || outcome === 0) return;
  const peer = columns.peerService[row]!;
  const weight = columns.weight[row]!;
  callsTo[peer]! += weight;
  if (outcome === OUTCOME.FAILED) failuresOf[peer]! += weight;
}

function add(into: Map<string, Ids>, columns: EventColumns, row: number): void {
  const ids = idsOf(columns, row);
  into.set(`${hexOfId(ids.key)}${hexOfId(ids.request)}`, ids);
}

export const idsOf = (columns: EventColumns, row: number): Ids => ({
  key: idAt(columns.keyHi, columns.keyLo, row),
  request: idAt(columns.requestHi, columns.requestLo, row),
});

const idAt = (high: Column64, low: Column64, row: number): Id => [
  highWord(high, row),
  lowWord(high, row),
  highWord(low, row),
  lowWord(low, row),
];
