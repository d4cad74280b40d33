// What producers say is running now. A list replaces the one before; one that is not renewed expires.

/** Periods after which a list that was not renewed is not believed any more. */
const PERIODS = 3;

/** The period at least, and if it is not said: the default of `report.inFlightMs`. */
const PERIOD_US_MIN = 5_000_000;

/** Producers with a list, at most; the one unheard for longest goes first. */
const LISTS_MAX = 100_000;

interface List<T> {
  heardUs: number;
  periodUs: number;
  items: Map<string, T>;
}

export class InFlightLists<T> {
  /** Longest unheard first. */
  private readonly lists = new Map<string, List<T>>();
  dropped = 0;

  /** @param gone told of every item that a list held and does not hold any more */
  constructor(private readonly gone: (item: T) => void) {}

  get size(): number {
    return this.lists.size;
  }

  /** The new list of a producer, which renews it once in `periodUs`; 0 = it does not say. */
  replace(producer: string, items: Map<string, T>, periodUs: number, nowUs: number): void {
    const before = this.lists.get(producer);
    this.lists.delete(producer);
    if (items.size > 0) {
      this.lists.set(producer, { heardUs: nowUs, periodUs: Math.max(PERIOD_US_MIN, periodUs), items });
    }
    for (const [id, item] of before?.items ?? []) if (!items.has(id)) this.gone(item);
    if (this.lists.size > LISTS_MAX) this.dropOldest();
  }

  /** Drops the lists that were not renewed. */
  expire(nowUs: number): void {
    for (const [producer, list] of this.lists) {
      if (nowUs - list.heardUs <= PERIODS * PERIOD_US_MIN) return;
      if (nowUs - list.heardUs <= PERIODS * list.periodUs) continue;
      this.lists.delete(producer);
      for (const item of list.items.values()) this.gone(item);
    }
  }

  private dropOldest(): void {
    const [producer, list] = this.lists.entries().next().value!;
    this.lists.delete(producer);
    this.dropped += 1;
    for (const item of list.items.values()) this.gone(item);
  }
}
