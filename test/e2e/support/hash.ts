import { createHash } from 'node:crypto';

/** The first 16 hex digits of SHA-256: how plain names leave a proxy. */
export function sha256Prefix(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
