// `x-forwarded-client-cert` as Envoy writes it: `Key=value;Key="quoted value",Key=…`, one element a proxy, the
// nearest last. Only the last is the word of the own sidecar; those before it are hearsay. Pure.

import { IdentityError, parseSpiffe, type Workload } from './spiffe.js';

/** Bytes of the header, at most: a chain of certificates may be in it. */
const HEADER_BYTES_MAX = 64 * 1024;

type Element = readonly (readonly [key: string, value: string])[];

/**
 * Whom the last element names.
 *
 * @param values the header's values as they came: more than one line is refused, since nobody says which is last
 * @throws IdentityError
 */
export function workloadOfXfcc(values: readonly string[]): Workload {
  const [text] = values;
  if (text === undefined || values.length > 1) {
    throw new IdentityError(`x-forwarded-client-cert is there ${values.length} times, must be once`);
  }
  if (text.length > HEADER_BYTES_MAX)
    throw new IdentityError(`x-forwarded-client-cert is longer than ${HEADER_BYTES_MAX} bytes`);
  const uris = parseXfcc(text)
    .at(-1)!
    .filter(([key]) => key === 'uri');
  if (uris.length !== 1) {
    throw new IdentityError(`the last element of x-forwarded-client-cert has ${uris.length} URIs, must have one`);
  }
  return parseSpiffe(uris[0]![1]);
}

/** Keys in lower case. @throws IdentityError */
export function parseXfcc(text: string): Element[] {
  const pair = /([A-Za-z]{1,16})=(?:"((?:[^"\\]|\\.)*)"|([^",;\0]*))/sy;
  const elements: [string, string][][] = [[]];
  for (;;) {
    const match = pair.exec(text);
    if (match === null) throw new IdentityError('x-forwarded-client-cert is not KEY=VALUE;KEY=VALUE,…');
    const [, key, quoted, plain] = match;
    elements.at(-1)!.push([key!.toLowerCase(), quoted === undefined ? plain! : quoted.replace(/\\(.)/gs, '$1')]);
    if (pair.lastIndex === text.length) return elements;
    const separator = text[pair.lastIndex];
    if (separator === ',') elements.push([]);
    else if (separator !== ';') throw new IdentityError('x-forwarded-client-cert has text behind a closing quote');
    pair.lastIndex += 1;
  }
}
