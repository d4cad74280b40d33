// What finished transactions taught, by kind, in rings: the old goes when the new comes, so that a
// repaired application shows. Of enforced ones, `the whole failed too` is always true: they teach only what
// must not be refused.

import { NONE_DECLINED, type Declined } from './outcome.js';
import { KindStats, type StoredKind } from './kind-stats.js';
import { hasFailed, repeatsOf, sampleOf } from './sample.js';
import type { View } from './view.js';

/** Kinds learned from, at most; the one not seen for longest goes first. */
export const KINDS_MAX = 500;

/** Raised when the layout changes; another layout is not read. */
const VERSION = 2;

export class Learner {
  /** Least recently seen first. */
  private readonly kinds = new Map<string, KindStats>();

  /** @param declined codes that the policy in force takes for failures */
  constructor(private readonly declined: () => Declined = () => NONE_DECLINED) {}

  get(kind: string): KindStats | undefined {
    return this.kinds.get(kind);
  }

  all(): Iterable<KindStats> {
    return this.kinds.values();
  }

  /** Counts one in which everything went well; false: its kind wants to have a look at it. */
  skim(kind: string, atUs: number): boolean {
    if (this.kinds.get(kind)?.wantsSuccess(atUs) !== false) return false;
    this.of(kind).trace(true);
    return true;
  }

  /** A transaction has ended and was left alone. */
  add(view: View, atUs: number): void {
    const single = view.entries === 1;
    for (const kind of new Set(view.kinds)) this.of(kind).trace(single);
    if (!single || view.kind === '') return;
    const stats = this.of(view.kind);
    if (view.thinned) {
      stats.thinnedUs = atUs;
      return;
    }
    const declined = this.declined();
    stats.repeats.add(repeatsOf(view, declined), atUs);
    const failed = hasFailed(view, declined);
    if (failed !== undefined) stats.add(sampleOf(view, failed, declined, atUs));
  }

  /** A transaction has ended that was interfered with. */
  addEnforced(view: View, atUs: number): void {
    const stats = this.kinds.get(view.kind);
    if (stats === undefined || view.entries !== 1 || view.thinned) return;
    const declined = this.declined();
    stats.addEnforced(sampleOf(view, hasFailed(view, declined) === true, declined, atUs, 'done'));
  }

  /** One of `kind` that counted as a trace with one entry had another one later. */
  secondEntry(kind: string, second: string): void {
    this.kinds.get(kind)?.notSingle();
    if (second !== kind) this.of(second).trace(false);
  }

  snapshot(): unknown {
    return { version: VERSION, kinds: [...this.kinds.values()].map(kind => kind.stored()) };
  }

  /** Takes back what a snapshot held; what is none of this version is passed over. */
  restore(state: unknown): void {
    const { version, kinds } = (state ?? {}) as { version?: number; kinds?: readonly StoredKind[] };
    if (version !== VERSION || !Array.isArray(kinds)) return;
    this.kinds.clear();
    for (const kind of kinds as readonly StoredKind[]) this.kinds.set(kind.kind, new KindStats(kind.kind, kind));
  }

  private of(kind: string): KindStats {
    const stats = this.kinds.get(kind) ?? new KindStats(kind);
    this.kinds.delete(kind);
    this.kinds.set(kind, stats);
    if (this.kinds.size > KINDS_MAX) this.kinds.delete(this.kinds.keys().next().value!);
    return stats;
  }
}
