// Values that many rows share (names, instances), each kept once while any row refers to it.

interface Entry<T> {
  readonly key: string;
  readonly value: T;
  references: number;
}

export class Interner<T> {
  private readonly numbers = new Map<string, number>();
  private readonly entries: (Entry<T> | undefined)[] = [];
  private readonly free: number[] = [];

  get size(): number {
    return this.numbers.size;
  }

  /** The number of `key`, whose value is made on first use. Takes one reference. */
  acquire(key: string, make: () => T): number {
    const known = this.numbers.get(key);
    if (known !== undefined) {
      this.entries[known]!.references += 1;
      return known;
    }
    const number = this.free.pop() ?? this.entries.length;
    this.entries[number] = { key, value: make(), references: 1 };
    this.numbers.set(key, number);
    return number;
  }

  /** Takes another reference to a number that has one. */
  retain(number: number): void {
    this.entries[number]!.references += 1;
  }

  /** Gives one reference back; with the last one the number may come to mean something else. */
  release(number: number): void {
    const entry = this.entries[number]!;
    entry.references -= 1;
    if (entry.references > 0) return;
    this.numbers.delete(entry.key);
    this.entries[number] = undefined;
    this.free.push(number);
  }

  /** The value of a number that has a reference. */
  get(number: number): T {
    return this.entries[number]!.value;
  }
}
