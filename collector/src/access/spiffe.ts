// Workload identities: `spiffe://trust-domain/ns/NS/sa/SA`, from a client certificate. Pure.

import type { X509Certificate } from 'node:crypto';

export interface Workload {
  /** The whole id. */
  readonly id: string;
  readonly trustDomain: string;
  readonly namespace: string;
  readonly account: string;
}

/** A certificate or header that names nobody, or more than one. The message says what is wrong with it. */
export class IdentityError extends Error {
  override readonly name = 'IdentityError';
}

/** Bytes of a SPIFFE id, at most. */
const ID_BYTES_MAX = 2048;

const LABEL = '[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?';
const SPIFFE = new RegExp(`^spiffe://([a-z0-9](?:[-._a-z0-9]{0,254}))/ns/(${LABEL})/sa/(${LABEL}(?:\\.${LABEL})*)$`);

/** @throws IdentityError when the text is none, to the letter */
export function parseSpiffe(text: string): Workload {
  const match = text.length > ID_BYTES_MAX ? null : SPIFFE.exec(text);
  if (match === null) {
    throw new IdentityError(
      `${JSON.stringify(text.slice(0, 80))} is not spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`,
    );
  }
  return { id: text, trustDomain: match[1]!, namespace: match[2]!, account: match[3]! };
}

/**
 * The one SPIFFE id of a certificate that the client CA signed.
 *
 * Node writes names with unusual characters (a NUL, a comma, a quote) between quotes; none of them belongs
 * into a certificate of a workload, so one that has any is refused whole.
 *
 * @throws IdentityError
 */
export function workloadOf({ subjectAltName }: Pick<X509Certificate, 'subjectAltName'>): Workload {
  if (subjectAltName === undefined || subjectAltName === '') {
    throw new IdentityError('the client certificate has no subjectAltName, must have one URI spiffe://…');
  }
  if (/["\\\0]/.test(subjectAltName)) {
    throw new IdentityError('the client certificate has a subjectAltName with characters that no name may have');
  }
  const uris = subjectAltName.split(', ').filter(name => name.startsWith('URI:'));
  if (uris.length !== 1) {
    throw new IdentityError(`the client certificate has ${uris.length} URIs as subjectAltName, must have one`);
  }
  return parseSpiffe(uris[0]!.slice('URI:'.length));
}
