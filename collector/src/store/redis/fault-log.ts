// Faults of a Redis in the log: each kind when it begins, then once in a while, and not per command.

import type { StoreLog } from '../store.js';
import { faultOf } from './faults.js';

/** The same fault is told again after this long, ms. */
const REPEAT_MS = 10_000;

export class FaultLog {
  private readonly toldMs = new Map<string, number>();
  count = 0;

  constructor(
    private readonly shown: string,
    private readonly log: StoreLog,
  ) {}

  note(error: unknown): void {
    this.count += 1;
    const { kind, text } = faultOf(error);
    const nowMs = performance.now();
    const lastMs = this.toldMs.get(kind);
    if (lastMs !== undefined && nowMs - lastMs < REPEAT_MS) return;
    this.toldMs.set(kind, nowMs);
    this.log.warn({ store: this.shown, fault: kind }, `the store does not take part: ${text}`);
  }
}
