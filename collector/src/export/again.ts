// Verdicts told again: whoever acted for them before may not have got to it.

import type { Rollback } from '../rollback/controller.js';
import type { VerdictRecord } from '../rollback/verdicts.js';

/** Verdicts decided at most so long ago are told again, us. */
const REPEATED_US = 5 * 60 * 1e6;

/** Those that this replica acts for, oldest first. */
const recentOf = ({ verdicts, peers }: Pick<Rollback, 'verdicts' | 'peers'>, nowUs: number): VerdictRecord[] =>
  [...verdicts.all()].filter(({ id, decidedUs }) => decidedUs >= nowUs - REPEATED_US && peers.owns(id)).reverse();

/**
 * Tells them at a start, and when replicas have come or gone.
 *
 * @param members a new list whenever they have
 * @returns       to be called about four times a second
 */
export function tellAgain(
  rollback: Pick<Rollback, 'verdicts' | 'peers'>,
  members: () => readonly string[],
  tell: (records: Iterable<VerdictRecord>) => void,
): (nowUs: number) => void {
  let known: readonly string[] | undefined;
  return nowUs => {
    const now = members();
    if (now === known) return;
    known = now;
    tell(recentOf(rollback, nowUs));
  };
}
