// Leases: a name belongs to one replica, for a time that it keeps prolonging.

import type { Keys } from './keys.js';
import type { Scripted } from './scripts.js';

export class Leases {
  private readonly held = new Set<string>();

  constructor(
    private readonly client: Scripted,
    private readonly keys: Keys,
    private readonly replicaId: string,
  ) {}

  /** True: it is ours for `ttlMs` from the time of this call. */
  async take(name: string, ttlMs: number): Promise<boolean> {
    const calledMs = performance.now();
    // An answer that comes when the lease has run out says nothing any more. A Redis that is away is told of
    // by the lanes; here it only means that the lease cannot be had.
    const taken = await this.client.mpLease(this.keys.lease(name), this.replicaId, ttlMs).catch(() => 0);
    const ours = taken === 1 && performance.now() - calledMs < ttlMs;
    if (ours) this.held.add(name);
    else this.held.delete(name);
    return ours;
  }

  async release(name: string): Promise<void> {
    if (!this.held.delete(name)) return;
    // If it is not heard, the lease runs out by itself.
    await this.client.mpRelease(this.keys.lease(name), this.replicaId).catch(() => 0);
  }

  async releaseAll(): Promise<void> {
    for (const name of [...this.held]) await this.release(name);
  }
}
