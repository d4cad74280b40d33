// Names as filters compare them: FNV-1a, 64 bits. Pure.

const OFFSET = 0xcbf29ce484222325n;
const PRIME = 0x100000001b3n;
const MASK = 0xffffffffffffffffn;

/** Hashes kept; there are as many as there are operations in the mesh. */
const KNOWN_MAX = 65_536;

const known = new Map<string, bigint>();

export function fnv64(text: string): bigint {
  let hash = OFFSET;
  for (const byte of Buffer.from(text)) hash = ((hash ^ BigInt(byte)) * PRIME) & MASK;
  return hash;
}

/** 16 hex digits. */
export const fnvHex = (text: string): string => fnv64(text).toString(16).padStart(16, '0');

/**
 * Of `destination LF operation`, UTF-8. Inbound the destination is empty; DOWN and UP have an empty
 * operation.
 */
export function nameHash(destination: string, operation: string): bigint {
  const text = `${destination}\n${operation}`;
  let hash = known.get(text);
  if (hash !== undefined) return hash;
  hash = fnv64(text);
  if (known.size < KNOWN_MAX) known.set(text, hash);
  return hash;
}
