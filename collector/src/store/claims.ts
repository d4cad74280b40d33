// Which entries of rollback stand: of several that claim the same id, the first in the log. Pure.
//
// Replicas see failures of one transaction at different places at the same time, and each may propose a
// verdict. All of them read the same log, so all come to the same answer without asking each other.

import type { RollbackEntry } from '../rollback/store-entries.js';

/** Claims remembered, at most; those made first go first. */
export const CLAIMS_MAX = 100_000;

export class Claims {
  /** Claim -> the entry that holds it, oldest first. */
  private readonly holders = new Map<string, string>();

  constructor(private readonly max: number = CLAIMS_MAX) {}

  get size(): number {
    return this.holders.size;
  }

  /**
   * The next entry of the log. It stands when each id that it claims is free or its own already; then it
   * holds all of them. One that claims nothing always stands.
   */
  take({ type, id, claims = [] }: RollbackEntry): boolean {
    const holder = `${type} ${id}`;
    if (claims.some(claim => (this.holders.get(claim) ?? holder) !== holder)) return false;
    for (const claim of claims) {
      if (!this.holders.has(claim)) this.hold(claim, holder);
    }
    return true;
  }

  private hold(claim: string, holder: string): void {
    this.holders.set(claim, holder);
    if (this.holders.size > this.max) this.holders.delete(this.holders.keys().next().value!);
  }
}
