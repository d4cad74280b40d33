// Lives at other replicas whose sidecars make callbacks: where a signal is sent when no sidecar here can.

import type { Life } from '../registry/life.js';

export class Callbacks {
  private readonly replicaOf = new Map<Life, string>();
  private readonly byService = new Map<string, Set<Life>>();

  /** Whether a life takes callbacks at a replica, as that says. */
  note(replica: string, life: Life, takes: boolean): void {
    if (takes) {
      if (!this.replicaOf.has(life)) this.index(life);
      this.replicaOf.set(life, replica);
    } else if (this.replicaOf.get(life) === replica) this.drop(life);
  }

  left(replica: string): void {
    for (const [life, at] of this.replicaOf) if (at === replica) this.drop(life);
  }

  has(life: Life): boolean {
    return this.replicaOf.has(life);
  }

  /** Any of a service. */
  of(service: string): Life | undefined {
    return this.byService.get(service)?.values().next().value;
  }

  private index(life: Life): void {
    const lives = this.byService.get(life.service) ?? new Set();
    this.byService.set(life.service, lives.add(life));
  }

  private drop(life: Life): void {
    this.replicaOf.delete(life);
    // A life can change its service's name.
    for (const [service, lives] of this.byService) {
      if (lives.delete(life) && lives.size === 0) this.byService.delete(service);
    }
  }
}
