/**
 * Chance by name: what happens to a call depends on the seed, the transaction and the call's name alone, never
 * on how many others were drawn before. So a transaction meets the same faults whatever else is refused.
 */

const FNV_PRIME = 0x01000193;

/** A whole number from 0 to 2^32 - 1: FNV-1a over `name`, started at `start`, then the finalizer of MurmurHash3. */
export function hash32(start: number, name: string): number {
  let hash = start >>> 0;
  for (let at = 0; at < name.length; at++) hash = Math.imul(hash ^ name.charCodeAt(at), FNV_PRIME);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

export class Draws {
  private readonly start: number;

  constructor(seed: number, index: number) {
    this.start = hash32(hash32(0x811c9dc5, String(seed)), String(index));
  }

  /** 0 to 1, without 1. */
  share(name: string): number {
    return hash32(this.start, name) / 2 ** 32;
  }

  chance(name: string, share: number): boolean {
    return this.share(name) < share;
  }

  /** A number from `least` to `most`. */
  between(name: string, least: number, most: number): number {
    return least + (most - least) * this.share(name);
  }

  pick<T>(name: string, items: readonly T[]): T {
    const item = items[Math.floor(this.share(name) * items.length)];
    if (item === undefined) throw new RangeError(`nothing to pick from for ${name}`);
    return item;
  }

  /** That many digits of hexadecimal, in groups of eight. */
  hex(name: string, groups: number): string {
    return Array.from({ length: groups }, (_, group) =>
      hash32(this.start, `${name} ${String(group)}`)
        .toString(16)
        .padStart(8, '0'),
    ).join('');
  }
}
