// How the collector is spoken to: in the clear or by TLS, and as whom.

import { credentials, Metadata, type ChannelCredentials } from '@grpc/grpc-js';
import { readFileSync } from 'node:fs';
import { wrongUse } from './errors.js';

export interface SecurityOptions {
  readonly plaintext?: boolean;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly tokenFile?: string;
}

export interface Security {
  readonly channel: ChannelCredentials;
  readonly tls: boolean;
  /** Sent with every call. */
  readonly metadata: Metadata;
  readonly hasToken: boolean;
  readonly hasCertificate: boolean;
}

const isLoopback = (address: string): boolean => /^(?:localhost|127\.[\d.]+|\[::1\]):\d+$/.test(address);

/**
 * In the clear on loopback, by TLS elsewhere, unless an option says otherwise: `--plaintext` and what is only of use
 * with TLS contradict each other.
 *
 * @throws CliError that names option, value and remedy
 */
export function securityOf(address: string, options: SecurityOptions, env: NodeJS.ProcessEnv): Security {
  const { plaintext = false } = options;
  const ca = valueOf(options.ca, env['MESHPULSE_CA']);
  const cert = valueOf(options.cert, env['MESHPULSE_CERT']);
  const key = valueOf(options.key, env['MESHPULSE_KEY']);
  if ((cert === undefined) !== (key === undefined)) {
    throw wrongUse(`--cert and --key go together; ${cert === undefined ? '--cert' : '--key'} is missing`);
  }
  const said = [options.ca, options.cert, options.key].some(one => one !== undefined);
  if (plaintext && said) throw wrongUse('--plaintext goes without --ca, --cert and --key');
  const tls = !plaintext && (!isLoopback(address) || ca !== undefined || cert !== undefined);
  const token = tokenOf(options.tokenFile, env['MESHPULSE_TOKEN']);
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
  return {
    channel: tls ? tlsChannel(ca, cert, key) : credentials.createInsecure(),
    tls,
    metadata,
    hasToken: token !== undefined,
    hasCertificate: tls && cert !== undefined,
  };
}

const valueOf = (option: string | undefined, variable: string | undefined): string | undefined =>
  option ?? (variable === '' ? undefined : variable);

function tlsChannel(ca: string | undefined, cert: string | undefined, key: string | undefined): ChannelCredentials {
  // The library names the host in the handshake, also where it is an address, of which Node warns; nobody who types
  // a command can do anything about that.
  process.noDeprecation = true;
  const read = (option: string, path: string | undefined): Buffer | null => {
    if (path === undefined) return null;
    try {
      return readFileSync(path);
    } catch (error) {
      throw wrongUse(`${option} ${path} cannot be read: ${(error as Error).message}`);
    }
  };
  try {
    return credentials.createSsl(read('--ca', ca), read('--key', key), read('--cert', cert));
  } catch (error) {
    if (error instanceof Error && error.name === 'CliError') throw error;
    throw wrongUse(`--ca, --cert and --key must be files in PEM that fit each other: ${(error as Error).message}`);
  }
}

function tokenOf(path: string | undefined, variable = ''): string | undefined {
  if (path === undefined && variable === '') return undefined;
  const [text, where] = path === undefined ? [variable, 'MESHPULSE_TOKEN'] : [contentOf(path), `--token-file ${path}`];
  const token = text.trim();
  // Never shown: what is wrong with it may still be most of a token.
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw wrongUse(`${where} must hold one token, without spaces; give a file with the token alone`);
}

function contentOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw wrongUse(`--token-file ${path} cannot be read: ${(error as Error).message}`);
  }
}
