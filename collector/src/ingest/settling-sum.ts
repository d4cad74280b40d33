// A counter of something that can turn out not to have happened. Pure.
//
// Loss is known as soon as a later batch arrives, but the missing batch may only be late: then the loss
// is taken back. A counter must not go down, or readers take it for a restart and count it all again. So
// an amount counts once it has stood for SETTLE_MS. What comes back even later is owed to the counter,
// and set against what is lost next: in the long run it counts what was lost, and it never goes back.

/**
 * How long a batch may be late without being counted: those that overtake each other on different
 * connections, or in single messages sent at the same time, lie some hundred milliseconds apart.
 */
export const SETTLE_MS = 2000;

/** Amounts that come this close together wait as one, so that few wait at a time. */
const TOGETHER_MS = 100;

export interface SettlingState {
  readonly counted: number;
  readonly owed: number;
  readonly waiting: number;
}

export class SettlingSum {
  private counted = 0;
  private owed = 0;
  /** Oldest first. */
  private readonly waiting: { readonly sinceMs: number; amount: number }[] = [];

  /** @param amount below 0: taken back */
  add(amount: number, nowMs: number): void {
    this.settle(nowMs);
    if (amount < 0) return this.takeBack(-amount);
    const last = this.waiting.at(-1);
    if (last !== undefined && nowMs - last.sinceMs < TOGETHER_MS) last.amount += amount;
    else if (amount > 0) this.waiting.push({ sinceMs: nowMs, amount });
  }

  /** What counts by now; never less than before. */
  value(nowMs: number): number {
    this.settle(nowMs);
    return this.counted;
  }

  state(): SettlingState {
    const waiting = this.waiting.reduce((sum, { amount }) => sum + amount, 0);
    return { counted: this.counted, owed: this.owed, waiting };
  }

  static from({ counted, owed, waiting }: SettlingState, nowMs: number): SettlingSum {
    const sum = new SettlingSum();
    sum.counted = counted;
    sum.owed = owed;
    sum.add(waiting, nowMs);
    return sum;
  }

  private settle(nowMs: number): void {
    while (this.waiting.length > 0 && nowMs - this.waiting[0]!.sinceMs >= SETTLE_MS) {
      const { amount } = this.waiting.shift()!;
      const paid = Math.min(amount, this.owed);
      this.owed -= paid;
      this.counted += amount - paid;
    }
  }

  private takeBack(amount: number): void {
    let left = amount;
    for (const entry of [...this.waiting].reverse()) {
      const taken = Math.min(left, entry.amount);
      entry.amount -= taken;
      left -= taken;
    }
    this.owed += left;
  }
}
