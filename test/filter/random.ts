/** A seeded generator for the long randomised suites: much faster than a shrinking library, and repeatable. */

export class Random {
  private state: number;

  constructor(readonly seed: number) {
    this.state = seed >>> 0 || 1;
  }

  /** 0 to 2^32 - 1. */
  u32(): number {
    this.state ^= this.state << 13;
    this.state ^= this.state >>> 17;
    this.state ^= this.state << 5;
    this.state >>>= 0;
    return this.state;
  }

  /** 0 to `limit` - 1. */
  below(limit: number): number {
    return this.u32() % limit;
  }

  chance(share: number): boolean {
    return this.u32() / 2 ** 32 < share;
  }

  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new RangeError('nothing to pick from');
    return items[this.below(items.length)] as T;
  }

  /** A byte string of any bytes. */
  bytes(length: number): string {
    if (length > 64) return String.fromCharCode(this.below(256)).repeat(length - 16) + this.bytes(16);
    let text = '';
    for (let i = 0; i < length; i++) text += String.fromCharCode(this.below(256));
    return text;
  }
}
