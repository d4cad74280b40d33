/** Directives as the collector writes them. */
import type { Directive } from './wire.js';

export const Kind = { Doom: 1, End: 2, Clear: 3, Flush: 4, Down: 5, Up: 6, Signal: 7 } as const;
export const Mode = { Off: 1, Observe: 2, Enforce: 3 } as const;

const MASK = 0xffffffffffffffffn;

/** FNV-1a, 64 bits, of `destination LF operation`, as decimal text. */
export function nameHash(destination: string, operation: string): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(`${destination}\n${operation}`))
    hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & MASK;
  return String(hash);
}

/** 32 hex digits as two numbers. */
export function idWords(hex: string): string[] {
  const digits = hex.replaceAll('-', '');
  return [digits.slice(0, 16), digits.slice(16)].map(half => String(BigInt(`0x${half}`)));
}

/** A list of names in the order that the contract wants. */
export function hashes(...names: readonly (readonly [destination: string, operation: string])[]): string[] {
  return names
    .map(([destination, operation]) => nameHash(destination, operation))
    .toSorted((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1));
}

let version = 0;

/** Completed with a version above all before, a TTL of 30 s, `enforce` and an id. */
export function directive(kind: number, parts: Partial<Directive> = {}): Directive {
  return { version: String(++version), ttlMs: 30_000, kind, mode: Mode.Enforce, id: 'v-1', ...parts };
}
