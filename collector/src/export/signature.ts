// Signatures of webhooks, by the Standard Webhooks scheme (HMAC-SHA256 over `id.timestamp.body`), which receivers have
// libraries for. Pure.

import { createHmac } from 'node:crypto';
import { ConfigError } from '../errors.js';

/** A key shorter than this can be guessed. */
const KEY_BYTES_MIN = 16;

/** Keys at once: the old and the new one while receivers change over. */
const KEYS_MAX = 4;

const BASE64_PREFIX = 'whsec_';

/**
 * One key a line: plain text, or `whsec_` and base64. The first line's key signs first.
 *
 * @param where the text is from, for the error
 * @throws ConfigError
 */
export function parseKeys(text: string, where: string): Buffer[] {
  const lines = text.split('\n').map(line => line.trim());
  const keys = lines.filter(line => line !== '').map(keyOf);
  if (keys.length === 0 || keys.length > KEYS_MAX) {
    throw new ConfigError(`${where} holds ${keys.length} keys, must be 1 to ${KEYS_MAX}; write one a line`);
  }
  const short = keys.find(key => key.length < KEY_BYTES_MIN);
  if (short !== undefined) {
    throw new ConfigError(
      `${where} holds a key of ${short.length} bytes, must be ${KEY_BYTES_MIN} or more; make one with: openssl rand -hex 32`,
    );
  }
  return keys;
}

const keyOf = (line: string): Buffer =>
  line.startsWith(BASE64_PREFIX) ? Buffer.from(line.slice(BASE64_PREFIX.length), 'base64') : Buffer.from(line);

/** Headers that a receiver checks: what is signed, when, and once for every key. `seconds` since 1970. */
export function signed(keys: readonly Buffer[], id: string, seconds: number, body: Buffer): Record<string, string> {
  const signatures = keys.map(key => {
    const hmac = createHmac('sha256', key).update(`${id}.${seconds}.`).update(body);
    return `v1,${hmac.digest('base64')}`;
  });
  return { 'webhook-id': id, 'webhook-timestamp': String(seconds), 'webhook-signature': signatures.join(' ') };
}
