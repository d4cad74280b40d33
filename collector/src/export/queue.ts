// What waits for a sink: bounded by bytes, the oldest goes first.

/** One piece of what waits. */
export interface Item {
  readonly bytes: number;
  /** Records in it: what is counted when it goes. */
  readonly records: number;
}

export class BoundedQueue<T extends Item> {
  private items: T[] = [];
  /** Position of the oldest in `items`; what is before it is given up now and then. */
  private head = 0;
  private waiter: (() => void) | undefined;
  bytes = 0;
  records = 0;
  /** Records that went for want of room. */
  dropped = 0;

  constructor(private readonly bytesMax: number) {}

  /** Takes the item; older ones go until it fits. One that never fits is dropped itself. */
  push(item: T): void {
    if (item.bytes > this.bytesMax) {
      this.dropped += item.records;
      return;
    }
    this.items.push(item);
    this.bytes += item.bytes;
    this.records += item.records;
    while (this.bytes > this.bytesMax) this.dropped += this.shift()!.records;
    this.wake();
  }

  /** The oldest ones, at least one if there is any, within both bounds. */
  take(bytesMax: number, recordsMax: number): T[] {
    const taken: T[] = [];
    let bytes = 0;
    let records = 0;
    for (;;) {
      const next = this.items[this.head];
      if (next === undefined) return taken;
      bytes += next.bytes;
      records += next.records;
      if (taken.length > 0 && (bytes > bytesMax || records > recordsMax)) return taken;
      taken.push(this.shift()!);
    }
  }

  /** Settles when something is there, or `wake` is called. */
  arrival(): Promise<void> {
    if (this.head < this.items.length) return Promise.resolve();
    return new Promise(resolve => {
      const before = this.waiter;
      this.waiter = () => {
        before?.();
        resolve();
      };
    });
  }

  /** Lets those who wait look again. */
  wake(): void {
    const waiter = this.waiter;
    this.waiter = undefined;
    waiter?.();
  }

  private shift(): T | undefined {
    const item = this.items[this.head];
    if (item === undefined) return undefined;
    // Nothing behind the head is held on to: one item keeps the whole chunk that it lies in.
    (this.items as (T | undefined)[])[this.head] = undefined;
    this.head += 1;
    this.bytes -= item.bytes;
    this.records -= item.records;
    if (this.head > 1024 && this.head * 2 > this.items.length) {
      this.items = this.items.slice(this.head);
      this.head = 0;
    }
    return item;
  }
}
