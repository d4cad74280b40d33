/** Certificates, tokens, and a collector that asks who one is. */
import { credentials } from '@grpc/grpc-js';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Clients } from '../rpc-support.js';

const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

export interface Pair {
  readonly cert: string;
  readonly key: string;
}

/** A folder of its own with what openssl makes in it. */
export class Folder {
  readonly path = mkdtempSync(join(tmpdir(), 'meshpulse-access-'));

  file(name: string): string {
    return join(this.path, name);
  }

  write(name: string, text: string): string {
    writeFileSync(this.file(name), text);
    return this.file(name);
  }

  /** A CA of this name. */
  authority(name: string): Pair {
    const pair = { cert: this.file(`${name}.pem`), key: this.file(`${name}.key`) };
    openssl(['req', '-x509', ...EC, '-keyout', pair.key, '-out', pair.cert, '-subj', `/CN=${name}`, '-days', '2']);
    return pair;
  }

  /** A certificate that `by` signed; `san` as openssl writes it. Expired when `days` is below 0. */
  certificate(name: string, by: Pair, san: string, days = 2): Pair {
    const pair = { cert: this.file(`${name}.pem`), key: this.file(`${name}.key`) };
    const request = this.file(`${name}.csr`);
    const extension = san === '' ? [] : ['-addext', `subjectAltName=${san}`];
    openssl(['req', '-new', ...EC, '-keyout', pair.key, '-out', request, '-subj', `/CN=${name}`, ...extension]);
    const signed = ['-CA', by.cert, '-CAkey', by.key, '-CAcreateserial', '-copy_extensions', 'copy'];
    openssl(['x509', '-req', '-in', request, ...signed, '-days', String(days), '-out', pair.cert]);
    return pair;
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

function openssl(args: readonly string[]): void {
  execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'], timeout: 20_000 });
}

export const spiffe = (namespace: string, account = 'default'): string =>
  `spiffe://cluster.local/ns/${namespace}/sa/${account}`;

/** A subjectAltName with this URI byte for byte, also one that openssl would not write. */
export function derUri(uri: string): string {
  const name = Buffer.concat([Buffer.from([0x86, uri.length]), Buffer.from(uri, 'latin1')]);
  return `DER:${Buffer.concat([Buffer.from([0x30, name.length]), name]).toString('hex')}`;
}

export const hashOf = (token: string): string => `sha256:${createHash('sha256').update(token).digest('hex')}`;

/** A client over TLS, with a certificate of its own if it has one. */
export function tlsClients(
  address: string,
  ca: Pair,
  own?: Pair,
  sent: Readonly<Record<string, string>> = {},
): Clients {
  const root = readFileSync(ca.cert);
  const channel =
    own === undefined
      ? credentials.createSsl(root)
      : credentials.createSsl(root, readFileSync(own.key), readFileSync(own.cert));
  return new Clients(address, channel, sent);
}

export const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });
