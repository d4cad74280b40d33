// TLS of the collector: its certificate and the CA of its clients, from files that may change while it runs.
//
// A client certificate is asked for and not insisted on: people come with a token instead, and a certificate that
// does not hold is refused with a sentence and an audit record, not with a closed connection. Sessions are not
// resumed: who comes again shows the certificate again, to the CA as it is then.

import { constants, createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, type SecureContextOptions, type Server, type TLSSocket } from 'node:tls';
import type { TlsSettings } from './settings.js';
import { ConfigError } from '../errors.js';
import type { Logger } from '../log.js';
import { IdentityError, workloadOf, type Workload } from './spiffe.js';
import { WatchedFiles } from './watched-file.js';

/** A client that has not shaken hands after this time is cut off, ms. */
const HANDSHAKE_MS = 10_000;

const PROTOCOL = 'TLSv1.2';

/** What a connection says of who is behind it: neither = no certificate. */
export interface TlsPeer {
  readonly workload?: Workload;
  /** What is wrong with the certificate. */
  readonly fault?: string;
}

export class TlsFiles {
  private readonly files: WatchedFiles<Loaded>;
  private readonly listeners = new Set<(context: SecureContextOptions) => void>();

  /** @throws ConfigError when a file cannot be read or does not fit the others */
  constructor(settings: TlsSettings, log: Logger) {
    const { cert, key, clientCa } = settings;
    const paths = [cert, key, ...(clientCa === undefined ? [] : [clientCa])];
    this.files = new WatchedFiles('TLS certificate', paths, () => readContext(settings), log);
  }

  get context(): SecureContextOptions {
    return this.files.value.context;
  }

  /** When the own certificate ends, ms since 1970. */
  get notAfterMs(): number {
    return this.files.value.notAfterMs;
  }

  get refused(): string {
    return this.files.refused;
  }

  /** Calls back with what new connections are to use; open ones go on as they are. */
  onChange(listener: (context: SecureContextOptions) => void): void {
    this.listeners.add(listener);
  }

  look(nowMs: number): void {
    if (!this.files.look(nowMs)) return;
    for (const listener of this.listeners) listener(this.context);
  }
}

interface Loaded {
  readonly context: SecureContextOptions;
  readonly notAfterMs: number;
}

function readContext({ cert, key, clientCa }: TlsSettings): Loaded {
  const read = <T>(setting: string, path: string, parse: (text: Buffer) => T): { bytes: Buffer; parsed: T } => {
    try {
      const bytes = readFileSync(path);
      return { bytes, parsed: parse(bytes) };
    } catch (error) {
      throw new ConfigError(`--${setting} ${path} cannot be used (${(error as Error).message}); give a file in PEM`);
    }
  };
  const certificate = read('tls-cert', cert, bytes => new X509Certificate(bytes));
  const privateKey = read('tls-key', key, createPrivateKey);
  if (!certificate.parsed.checkPrivateKey(privateKey.parsed)) {
    throw new ConfigError(`--tls-key ${key} is not the key of --tls-cert ${cert}; give the two that belong together`);
  }
  const ca = clientCa === undefined ? undefined : read('tls-client-ca', clientCa, bytes => new X509Certificate(bytes));
  const context = {
    cert: certificate.bytes,
    key: privateKey.bytes,
    ...(ca === undefined ? {} : { ca: ca.bytes }),
    minVersion: PROTOCOL,
    secureOptions: constants.SSL_OP_NO_TICKET,
  } as const;
  return { context, notAfterMs: Date.parse(certificate.parsed.validTo) };
}

/** Listens with TLS and hands over each connection, with what its certificate says. */
export function createTlsListener(
  files: TlsFiles,
  asksClients: boolean,
  onConnection: (socket: TLSSocket, peer: TlsPeer) => void,
  onFault: (address: string, error: Error) => void,
): Server {
  const server = createServer({
    ...files.context,
    requestCert: asksClients,
    rejectUnauthorized: false,
    ALPNProtocols: ['h2'],
    handshakeTimeout: HANDSHAKE_MS,
  });
  server.on('secureConnection', socket => {
    // A connection that breaks is an everyday event: the streams on it end, and that is counted there.
    socket.on('error', () => socket.destroy());
    onConnection(socket, peerOf(socket));
  });
  server.on('tlsClientError', (error, socket) => onFault(socket.remoteAddress ?? '', error));
  files.onChange(context => server.setSecureContext(context));
  return server;
}

function peerOf(socket: TLSSocket): TlsPeer {
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return {};
  if (!socket.authorized) {
    const why = (socket.authorizationError as Error | string | undefined) ?? 'not verified';
    return { fault: `the client certificate does not hold: ${typeof why === 'string' ? why : why.message}` };
  }
  try {
    return { workload: workloadOf(certificate) };
  } catch (error) {
    if (error instanceof IdentityError) return { fault: error.message };
    throw error;
  }
}
