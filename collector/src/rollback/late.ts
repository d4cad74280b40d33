// Transactions under a verdict whose rows are still of interest, so that one comparison a row passes over
// all others.

import { idOfHex } from '../transactions/ids.js';
import type { VerdictRecord } from './verdicts.js';

/** Late rows still change a plan for this long after the TTL of its directive, us. */
const LATE_US = 60e6;

export class Late {
  private readonly until = new Map<string, { record: VerdictRecord; untilUs: number }>();
  /** Last words of their ids, and how many have each. */
  private readonly words = new Map<number, number>();

  add(record: VerdictRecord, nowUs: number): void {
    this.until.set(record.id, { record, untilUs: nowUs + record.ttlMs * 1000 + LATE_US });
    for (const word of wordsOf(record)) this.words.set(word, (this.words.get(word) ?? 0) + 1);
  }

  get size(): number {
    return this.until.size;
  }

  /** Whether some id ends with this word; a false yes does no harm. */
  has(word: number): boolean {
    return this.words.has(word);
  }

  expire(nowUs: number): void {
    for (const { record, untilUs } of this.until.values()) if (nowUs >= untilUs) this.forget(record);
  }

  forget(record: VerdictRecord): void {
    if (this.until.delete(record.id)) for (const word of wordsOf(record)) this.drop(word);
  }

  private drop(word: number): void {
    const count = (this.words.get(word) ?? 1) - 1;
    if (count === 0) this.words.delete(word);
    else this.words.set(word, count);
  }
}

const wordsOf = ({ keys, requests }: VerdictRecord): Set<number> =>
  new Set([...keys, ...requests].map(hex => idOfHex(hex)[3]));
