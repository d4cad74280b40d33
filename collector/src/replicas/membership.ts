// Which replicas are alive: those heard of lately, by this replica's own monotonic clock.

import { ownerOf } from './ownership.js';

/** A replica that was not heard of for this long is taken for dead, ms; each speaks every 250 ms. */
export const DEAD_MS = 3000;

/** Replicas at once, at most: a prefix shared by mistake must not fill the memory. */
export const REPLICAS_MAX = 64;

export class Membership {
  /** When each other replica was heard last. */
  private readonly heardMs = new Map<string, number>();
  private members: readonly string[];
  private settled = false;

  constructor(readonly self: string) {
    this.members = [self];
  }

  /** This one and the others that are alive, sorted. */
  get all(): readonly string[] {
    return this.members;
  }

  /** Alive, other than this one. */
  get others(): readonly string[] {
    return this.members.filter(id => id !== this.self);
  }

  /** It was heard. True: it was not alive before. */
  heard(id: string, nowMs: number): boolean {
    if (id === this.self) return false;
    const isNew = !this.heardMs.has(id);
    if (isNew && this.heardMs.size >= REPLICAS_MAX - 1) return false;
    this.heardMs.set(id, nowMs);
    if (isNew) this.update();
    return isNew;
  }

  /** It said that it is leaving. */
  left(id: string): boolean {
    const was = this.heardMs.delete(id);
    if (was) this.update();
    return was;
  }

  /** Takes those that are silent for dead; returns them. */
  expire(nowMs: number): string[] {
    const dead = [...this.heardMs].filter(([, heardMs]) => nowMs - heardMs > DEAD_MS).map(([id]) => id);
    for (const id of dead) this.heardMs.delete(id);
    if (dead.length > 0) this.update();
    return dead;
  }

  /** Nobody could be heard for a while: those known stay, as if heard now. */
  forgive(nowMs: number): void {
    for (const id of this.heardMs.keys()) this.heardMs.set(id, nowMs);
  }

  /** From now on this replica knows the others, and takes its share. */
  settle(): void {
    this.settled = true;
  }

  /** Whether the duty of this name is this replica's. None is while it does not know the others yet. */
  owns(name: string): boolean {
    return this.settled && ownerOf(name, this.members) === this.self;
  }

  private update(): void {
    this.members = [this.self, ...this.heardMs.keys()].sort();
  }
}
