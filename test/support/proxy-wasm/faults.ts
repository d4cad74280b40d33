/**
 * Makes chosen host calls fail with a chosen status, without doing anything.
 *
 * WASI functions are named like the others (`random_get`) and answer the number as their errno.
 */

export interface Fault {
  /** Import name without module, e.g. `proxy_get_property`. */
  readonly call: string;
  readonly status: number;
  /** Fails this call? `n` counts this name's calls from 1. Default: every one. */
  readonly when?: (n: number) => boolean;
}

export class Faults {
  private readonly rules = new Map<string, Fault>();
  private readonly seen = new Map<string, number>();
  /** How often each rule struck. */
  readonly struck = new Map<string, number>();

  set(fault: Fault): void {
    this.rules.set(fault.call, fault);
    this.seen.set(fault.call, 0);
  }

  clear(): void {
    this.rules.clear();
    this.seen.clear();
  }

  get active(): boolean {
    return this.rules.size > 0;
  }

  /** @returns the status to answer with, or `undefined` to do the call. */
  check(call: string): number | undefined {
    const rule = this.rules.get(call);
    if (rule === undefined) return undefined;
    const n = (this.seen.get(call) ?? 0) + 1;
    this.seen.set(call, n);
    if (rule.when !== undefined && !rule.when(n)) return undefined;
    this.struck.set(call, (this.struck.get(call) ?? 0) + 1);
    return rule.status;
  }
}
