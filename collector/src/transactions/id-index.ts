// Ids -> small numbers, in typed arrays.
//
// 200,000 transactions have a million event ids. A Map of strings costs some 100 bytes for each; here
// an entry is a few words side by side, so that a look-up touches two places of memory: its bucket and
// the entry. Buckets are chains; the seed keeps senders from choosing ids that all fall into one bucket.

/** What `get` answers when the id is not there. */
export const NONE = -1;

const START_SIZE = 1024; // entries; doubles when full

/** Words of an entry: the id, its value, the next entry of its bucket, and room up to a power of two. */
const WORDS = 8;
const VALUE = 4;
const NEXT = 5;

/** 128-bit ids, given as four 32-bit words. Values are 0 or more. */
export class IdIndex {
  private heads = new Int32Array(START_SIZE).fill(NONE);
  private entries = new Int32Array(WORDS * START_SIZE);
  private used = 0;
  private free = NONE;
  private count = 0;

  /** @param seed any 32-bit number, best a random one */
  constructor(private readonly seed: number) {}

  get size(): number {
    return this.count;
  }

  /** The value of an id, or NONE. */
  get(a: number, b: number, c: number, d: number): number {
    const { entries } = this;
    a |= 0;
    b |= 0;
    c |= 0;
    d |= 0;
    let entry = this.heads[this.bucket(a, b, c, d)]!;
    while (entry !== NONE) {
      const at = WORDS * entry;
      const same = entries[at] === a && entries[at + 1] === b && entries[at + 2] === c && entries[at + 3] === d;
      if (same) return entries[at + VALUE]!;
      entry = entries[at + NEXT]!;
    }
    return NONE;
  }

  /** Sets or replaces. */
  set(a: number, b: number, c: number, d: number, value: number): void {
    const bucket = this.bucket(a, b, c, d);
    for (let entry = this.heads[bucket]!; entry !== NONE; entry = this.entries[WORDS * entry + NEXT]!) {
      if (!this.is(entry, a, b, c, d)) continue;
      this.entries[WORDS * entry + VALUE] = value;
      return;
    }
    this.add(a, b, c, d, value);
  }

  /** Removes the id if it has this value. */
  delete(a: number, b: number, c: number, d: number, value: number): void {
    const { entries, heads } = this;
    const bucket = this.bucket(a, b, c, d);
    let before = NONE;
    for (let entry = heads[bucket]!; entry !== NONE; before = entry, entry = entries[WORDS * entry + NEXT]!) {
      if (!this.is(entry, a, b, c, d)) continue;
      const at = WORDS * entry;
      if (entries[at + VALUE] !== value) return;
      if (before === NONE) heads[bucket] = entries[at + NEXT]!;
      else entries[WORDS * before + NEXT] = entries[at + NEXT]!;
      entries[at + NEXT] = this.free;
      this.free = entry;
      this.count -= 1;
      return;
    }
  }

  private add(a: number, b: number, c: number, d: number, value: number): void {
    const entry = this.take();
    const { entries } = this;
    const at = WORDS * entry;
    entries[at] = a;
    entries[at + 1] = b;
    entries[at + 2] = c;
    entries[at + 3] = d;
    entries[at + VALUE] = value;
    this.chain(entry);
    this.count += 1;
  }

  private is(entry: number, a: number, b: number, c: number, d: number): boolean {
    const at = WORDS * entry;
    const { entries } = this;
    return (
      entries[at] === (a | 0) &&
      entries[at + 1] === (b | 0) &&
      entries[at + 2] === (c | 0) &&
      entries[at + 3] === (d | 0)
    );
  }

  private take(): number {
    const entry = this.free;
    if (entry !== NONE) {
      this.free = this.entries[WORDS * entry + NEXT]!;
      return entry;
    }
    if (this.used === this.heads.length) this.grow();
    return this.used++;
  }

  private grow(): void {
    const size = 2 * this.heads.length;
    const entries = new Int32Array(WORDS * size);
    entries.set(this.entries);
    this.entries = entries;
    this.heads = new Int32Array(size).fill(NONE);
    // The free list is empty whenever we get here, so every entry is in use.
    for (let entry = 0; entry < this.used; entry++) this.chain(entry);
  }

  private chain(entry: number): void {
    const { entries } = this;
    const at = WORDS * entry;
    const bucket = this.bucket(entries[at]!, entries[at + 1]!, entries[at + 2]!, entries[at + 3]!);
    entries[at + NEXT] = this.heads[bucket]!;
    this.heads[bucket] = entry;
  }

  private bucket(a: number, b: number, c: number, d: number): number {
    // One round for all but the last word: ids that differ differ after it as well, and that is all it takes.
    let h = Math.imul(this.seed ^ a, 0x9e3779b1) ^ b;
    h = Math.imul(h ^ (h >>> 15), 0x85ebca6b) ^ c;
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35) ^ d;
    return mix(h) & (this.heads.length - 1);
  }
}

/** The finalizer of MurmurHash3: every bit of the input changes half of the output. */
export function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}
