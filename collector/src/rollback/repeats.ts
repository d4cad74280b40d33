// How often applications repeat a call that failed. Pure.

import type { Repeats } from './sample.js';

/** Evidence is forgotten after this long, us. */
export const EVIDENCE_US = 24 * 3600 * 1e6;

/** Callers' operations whose repeats are remembered, of one kind. */
const REPEATS_MAX = 256;

export interface Seen {
  readonly repeats: number;
  readonly atUs: number;
}

/** The most repeats of each call within 24 h: a falling staircase of maxima, the newest at its end. */
export class RepeatsSeen {
  /** Least recently seen first. */
  private readonly calls: Map<string, Seen[]>;

  constructor(stored: readonly (readonly [string, readonly Seen[]])[] = []) {
    this.calls = new Map(stored.map(([call, seen]) => [call, [...seen]]));
  }

  add(all: readonly Repeats[], atUs: number): void {
    for (const { call, repeats } of all) {
      const before = this.calls.get(call) ?? [];
      const seen = before.filter(one => one.repeats > repeats && one.atUs >= atUs - EVIDENCE_US);
      seen.push({ repeats, atUs });
      this.calls.delete(call);
      this.calls.set(call, seen);
      if (this.calls.size > REPEATS_MAX) this.calls.delete(this.calls.keys().next().value!);
    }
  }

  most(call: string, nowUs: number): number {
    return this.calls.get(call)?.find(one => one.atUs >= nowUs - EVIDENCE_US)?.repeats ?? 0;
  }

  stored(): [string, readonly Seen[]][] {
    return [...this.calls];
  }
}
