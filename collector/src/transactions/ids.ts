// What people paste to find a transaction, and the ids it can mean. Pure.

import { createHash } from 'node:crypto';
import { hexOfWords } from '../ingest/columns.js';

/** 128 bits as four words, most significant first. */
export type Id = readonly [number, number, number, number];

export interface Candidate {
  readonly index: 'key' | 'request' | 'event';
  readonly id: Id;
}

/**
 * The ids a text can mean, the likeliest first: a UUID is an x-request-id; 32 hex digits are a key, or
 * an x-request-id without dashes; 16 are an event id, or a short trace id; fewer are a trace id without
 * its leading zeros; digits alone can be a decimal trace id; everything else is a plain text, hashed.
 */
export function candidates(text: string): Candidate[] {
  const found: Candidate[] = [];
  const hex = text.toLowerCase();
  if (/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(hex)) {
    const id = idOfHex(hex.replaceAll('-', ''));
    found.push({ index: 'request', id }, { index: 'key', id });
  } else if (/^[0-9a-f]{1,32}$/.test(hex)) {
    const id = idOfHex(hex);
    if (hex.length === 16) found.push({ index: 'event', id });
    found.push({ index: 'key', id });
    if (hex.length === 32) found.push({ index: 'request', id });
  }
  if (/^\d{1,20}$/.test(text) && BigInt(text) < 1n << 64n) {
    found.push({ index: 'key', id: idOfHex(BigInt(text).toString(16)) });
  }
  const hash = hashed(text);
  found.push({ index: 'key', id: hash }, { index: 'request', id: hash });
  return found;
}

/** First 16 bytes of SHA-256 of a text. */
export function hashed(text: string): Id {
  return idOfHex(createHash('sha256').update(text, 'utf8').digest('hex').slice(0, 32));
}

/** Up to 32 hex digits, padded on the left. */
export function idOfHex(hex: string): Id {
  const full = hex.padStart(32, '0');
  const word = (at: number): number => Number.parseInt(full.slice(at, at + 8), 16);
  return [word(0), word(8), word(16), word(24)];
}

export const hexOfId = (id: Id): string => hexOfWords(id[0], id[1]) + hexOfWords(id[2], id[3]);

/**
 * Envoy packs why it traces a request into the version digit of x-request-id, so one request's id can
 * differ there from hop to hop: its second word is compared without that digit.
 */
export const TRACE_REASON_MASK = 0xffff0fff;

/** An x-request-id as it was sent if it was a UUID, else its hash as 32 hex digits. */
export function requestIdText(id: Id): string {
  const hex = hexOfId(id);
  // Version 4, or one of the digits by which Envoy says why it traces; variant 10xx.
  if (!/^.{12}[49ab].{3}[89ab]/.test(hex)) return hex;
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
