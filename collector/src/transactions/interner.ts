// Values that many rows share (names, instances), each kept once while any row refers to it.

import { mix } from './id-index.js';

interface Entry<T> {
  readonly key: string;
  readonly value: T;
  /** Of the key: the same for as long as the process lives, whatever number it has. */
  readonly hash: number;
}

const START_SIZE = 256; // numbers; doubles when full

export class Interner<T> {
  private readonly numbers = new Map<string, number>();
  private readonly entries: (Entry<T> | undefined)[] = [];
  private references = new Int32Array(START_SIZE);
  private readonly free: number[] = [];

  get size(): number {
    return this.numbers.size;
  }

  /** The number of `key`, whose value is made on first use. Takes one reference. */
  acquire(key: string, make: () => T): number {
    const known = this.numbers.get(key);
    if (known !== undefined) {
      this.references[known]! += 1;
      return known;
    }
    const number = this.free.pop() ?? this.entries.length;
    this.entries[number] = { key, value: make(), hash: hashOf(key) };
    if (number >= this.references.length) this.grow();
    this.references[number] = 1;
    this.numbers.set(key, number);
    return number;
  }

  /** Takes another reference to a number that has one. */
  retain(number: number): void {
    this.references[number]! += 1;
  }

  /** Gives one reference back; with the last one the number may come to mean something else. */
  release(number: number): void {
    const left = this.references[number]! - 1;
    this.references[number] = left;
    if (left > 0) return;
    this.numbers.delete(this.entries[number]!.key);
    this.entries[number] = undefined;
    this.free.push(number);
  }

  /** The value of a number that has a reference. */
  get(number: number): T {
    return this.entries[number]!.value;
  }

  /** A 32-bit hash of the key of a number that has a reference. */
  hash(number: number): number {
    return this.entries[number]!.hash;
  }

  private grow(): void {
    const larger = new Int32Array(2 * this.references.length);
    larger.set(this.references);
    this.references = larger;
  }
}

function hashOf(text: string): number {
  let hash = text.length;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return mix(hash);
}
