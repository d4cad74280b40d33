// Mutual TLS between sidecars, with SPIFFE names as Istio gives them.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { any, type Json } from './json.js';
import { spiffeId } from './node.js';

const run = promisify(execFile);
/** Certificates of a mesh that lives for minutes. */
const VALID_DAYS = 30;
const EC_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

export interface Certificate {
  certFile: string;
  keyFile: string;
  caFile: string;
}

/** Makes a certificate authority in `dir`. Needs `openssl` on PATH. */
export async function createAuthority(dir: string): Promise<Authority> {
  const certFile = join(dir, 'ca.crt');
  const keyFile = join(dir, 'ca.key');
  await openssl([...EC_KEY, '-keyout', keyFile, '-out', certFile, '-subj', '/O=meshpulse demo CA']);
  return new Authority(dir, certFile, keyFile);
}

export class Authority {
  constructor(
    private readonly dir: string,
    readonly certFile: string,
    private readonly keyFile: string,
  ) {}

  /** A certificate for one workload; its only name is the SPIFFE id, plus `hosts` if given. */
  async issue(service: string, namespace: string, hosts: string[] = []): Promise<Certificate> {
    const certFile = join(this.dir, `${service}.${namespace}.crt`);
    const keyFile = join(this.dir, `${service}.${namespace}.key`);
    const names = [`URI:${spiffeId(service, namespace)}`, ...hosts.map(host => `DNS:${host}`)];
    await openssl([
      ...[...EC_KEY, '-keyout', keyFile, '-out', certFile, '-subj', '/O=cluster.local'],
      ...['-addext', `subjectAltName=critical,${names.join(',')}`, '-addext', 'basicConstraints=critical,CA:FALSE'],
      ...['-CA', this.certFile, '-CAkey', this.keyFile],
    ]);
    return { certFile, keyFile, caFile: this.certFile };
  }
}

async function openssl(args: string[]): Promise<void> {
  await run('openssl', ['req', '-x509', '-days', String(VALID_DAYS), ...args]);
}

function commonContext(certificate: Certificate, alpn: string[]): Json {
  return {
    alpn_protocols: alpn,
    tls_certificates: [
      { certificate_chain: { filename: certificate.certFile }, private_key: { filename: certificate.keyFile } },
    ],
    validation_context: { trusted_ca: { filename: certificate.caFile } },
  };
}

/** For an inbound filter chain. `requireClient` false is TLS without a client identity. */
export function downstreamTls(certificate: Certificate, requireClient = true): Json {
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: any('envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext', {
      require_client_certificate: requireClient,
      common_tls_context: commonContext(certificate, ['h2', 'http/1.1']),
    }),
  };
}

/** For a cluster of in-mesh peers. */
export function upstreamTls(certificate: Certificate, sni: string, alpn: string[]): Json {
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: any('envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext', {
      sni,
      common_tls_context: commonContext(certificate, alpn),
    }),
  };
}
