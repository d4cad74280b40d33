// 128-bit ids -> small numbers, in typed arrays.
//
// 200,000 transactions have a million event ids. A Map of strings costs some 100 bytes for each; here
// an entry takes 24, plus 4 for its bucket. Buckets are chains through `next`; the seed keeps senders
// from choosing ids that all fall into one bucket.

/** What `get` answers when the id is not there. */
export const NONE = -1;

const START_SIZE = 1024; // entries; doubles when full

export class IdIndex {
  private heads = new Int32Array(START_SIZE).fill(NONE);
  private words = new Uint32Array(4 * START_SIZE);
  private values = new Int32Array(START_SIZE);
  private next = new Int32Array(START_SIZE);
  private used = 0;
  private free = NONE;
  private count = 0;

  /** @param seed any 32-bit number, best a random one */
  constructor(private readonly seed: number) {}

  get size(): number {
    return this.count;
  }

  /** The value of an id given as four 32-bit words, or NONE. */
  get(a: number, b: number, c: number, d: number): number {
    const entry = this.find(a, b, c, d);
    return entry === NONE ? NONE : this.values[entry]!;
  }

  /** Sets or replaces. `value` is 0 or more. */
  set(a: number, b: number, c: number, d: number, value: number): void {
    const known = this.find(a, b, c, d);
    if (known !== NONE) {
      this.values[known] = value;
      return;
    }
    const entry = this.take();
    this.words.set([a, b, c, d], 4 * entry);
    this.values[entry] = value;
    const bucket = this.bucket(a, b, c, d);
    this.next[entry] = this.heads[bucket]!;
    this.heads[bucket] = entry;
    this.count += 1;
  }

  /** Removes the id if it has this value. */
  delete(a: number, b: number, c: number, d: number, value: number): void {
    const bucket = this.bucket(a, b, c, d);
    let before = NONE;
    for (let entry = this.heads[bucket]!; entry !== NONE; before = entry, entry = this.next[entry]!) {
      if (!this.is(entry, a, b, c, d)) continue;
      if (this.values[entry] !== value) return;
      if (before === NONE) this.heads[bucket] = this.next[entry]!;
      else this.next[before] = this.next[entry]!;
      this.next[entry] = this.free;
      this.free = entry;
      this.count -= 1;
      return;
    }
  }

  private find(a: number, b: number, c: number, d: number): number {
    let entry = this.heads[this.bucket(a, b, c, d)]!;
    while (entry !== NONE && !this.is(entry, a, b, c, d)) entry = this.next[entry]!;
    return entry;
  }

  private is(entry: number, a: number, b: number, c: number, d: number): boolean {
    const at = 4 * entry;
    const { words } = this;
    return words[at] === a && words[at + 1] === b && words[at + 2] === c && words[at + 3] === d;
  }

  private take(): number {
    const entry = this.free;
    if (entry !== NONE) {
      this.free = this.next[entry]!;
      return entry;
    }
    if (this.used === this.values.length) this.grow();
    return this.used++;
  }

  private grow(): void {
    const size = 2 * this.values.length;
    this.words = enlarged(this.words, new Uint32Array(4 * size));
    this.values = enlarged(this.values, new Int32Array(size));
    this.next = enlarged(this.next, new Int32Array(size));
    this.heads = new Int32Array(size).fill(NONE);
    // The free list is empty whenever we get here, so every entry is in use.
    for (let entry = 0; entry < this.used; entry++) {
      const at = 4 * entry;
      const bucket = this.bucket(this.words[at]!, this.words[at + 1]!, this.words[at + 2]!, this.words[at + 3]!);
      this.next[entry] = this.heads[bucket]!;
      this.heads[bucket] = entry;
    }
  }

  private bucket(a: number, b: number, c: number, d: number): number {
    let h = mix(this.seed ^ a);
    h = mix(h ^ b);
    h = mix(h ^ c);
    h = mix(h ^ d);
    return h & (this.heads.length - 1);
  }
}

/** The finalizer of MurmurHash3: every bit of the input changes half of the output. */
function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}

function enlarged<T extends Uint32Array | Int32Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
