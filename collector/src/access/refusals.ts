// Refused callers: each is an audit record, but nobody can fill the store or the log by asking again. Who is refused the same thing again within five minutes is counted, and the count is told at their end.

/** How long the same refusal is only counted, ms. */
export const WINDOW_MS = 5 * 60_000;

/** Different refusals that are told of one caller, and of all, in one window; the rest is one number. */
export const TOLD_PER_CALLER_MAX = 50;
export const TOLD_MAX = 500;

export interface Refused {
  /** Who they are, or, without an identity, from which address they ask. */
  readonly who: string;
  readonly call: string;
  /** Why, in a sentence. */
  readonly why: string;
  /** Why, in a word of a bounded set: for the metric. */
  readonly cause: 'unauthenticated' | 'role' | 'scope' | 'tls';
}

export type Tell = (who: string, call: string, why: string, result: string) => void;

export class Refusals {
  /** By cause, all of them. */
  readonly total = new Map<Refused['cause'], number>();
  private readonly again = new Map<string, { refused: Refused; more: number }>();
  private readonly told = new Map<string, number>();
  private untold = 0;
  private endMs = 0;

  constructor(private readonly tell: Tell) {}

  note(refused: Refused): void {
    const { who, call, why, cause } = refused;
    this.total.set(cause, (this.total.get(cause) ?? 0) + 1);
    const name = `${who}\n${call}\n${why}`;
    const known = this.again.get(name);
    const told = this.told.get(who) ?? 0;
    if (known !== undefined) known.more += 1;
    else if (told >= TOLD_PER_CALLER_MAX || this.again.size >= TOLD_MAX) this.untold += 1;
    else {
      this.again.set(name, { refused, more: 0 });
      this.told.set(who, told + 1);
      this.say(refused, 'refused');
    }
  }

  /** To be called now and then: tells what was only counted once its window is over. */
  tick(nowMs: number): void {
    if (nowMs < this.endMs) return;
    this.endMs = nowMs + WINDOW_MS;
    for (const { refused, more } of this.again.values()) {
      if (more > 0) this.say(refused, `refused ${more} times more in ${WINDOW_MS / 60_000} minutes`);
    }
    if (this.untold > 0) {
      const others = { who: 'others', call: '', why: 'more refusals than are told one by one', cause: 'role' } as const;
      this.say(others, `refused ${this.untold} times in ${WINDOW_MS / 60_000} minutes`);
    }
    this.again.clear();
    this.told.clear();
    this.untold = 0;
  }

  private say({ who, call, why }: Refused, result: string): void {
    this.tell(who, call, why, result);
  }
}
