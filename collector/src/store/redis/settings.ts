// From settings to the way into a Redis. Passwords come from the environment or a file, and go nowhere else.

import { ConfigError } from '../../errors.js';
import { parseRedis, redacted } from './address.js';
import type { RedisAccess } from './connect.js';

/** Settings of a shared store, as written; '' = not set. */
export interface RedisTexts {
  readonly store: string;
  readonly prefix: string;
  readonly user: string;
  readonly password: string;
  readonly passwordFile: string;
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  /** Go without credentials to a host that is not this one. */
  readonly insecure: boolean;
}

const PREFIX = /^[A-Za-z0-9_.:-]{1,64}$/;

/**
 * @param readFile   reads the files that the settings name
 * @param isLoopback whether a host is this machine
 * @throws ConfigError with what is wrong, and the remedy
 */
export function redisAccess(
  texts: RedisTexts,
  readFile: (path: string) => string,
  isLoopback: (host: string) => boolean,
): RedisAccess {
  const address = parseRedis(texts.store);
  const shown = redacted(texts.store);
  if (!PREFIX.test(texts.prefix)) {
    throw new ConfigError(`--redis-prefix is ${JSON.stringify(texts.prefix)}, must be 1 to 64 of A-Z a-z 0-9 _ . : -`);
  }
  const user = once('user', texts.user, address.user);
  const fromFile = texts.passwordFile === '' ? '' : read('redis-password-file', texts.passwordFile, readFile).trim();
  const password = once('password', once('password', texts.password, fromFile), address.password);
  const tls = tlsOf(texts, readFile);
  if (tls !== undefined && !address.tls) {
    throw new ConfigError(`--redis-ca, --redis-cert and --redis-key are for TLS; write --store ${withTls(shown)}`);
  }
  const far = address.nodes.find(({ host }) => !isLoopback(host));
  if (far !== undefined && password === '' && tls?.cert === undefined && !texts.insecure) {
    throw new ConfigError(
      `--store ${shown}: ${far.host} is not this machine, and there are no credentials; give MESHPULSE_REDIS_PASSWORD, ` +
        '--redis-password-file or --redis-cert, or accept the risk with --insecure-redis',
    );
  }
  return { address, shown, user, password, ...(address.tls ? { tls: tls ?? {} } : {}) };
}

function tlsOf({ ca, cert, key }: RedisTexts, readFile: (path: string) => string): RedisAccess['tls'] {
  if ((cert === '') !== (key === '')) {
    throw new ConfigError(
      `--redis-cert and --redis-key belong together; give ${cert === '' ? 'the certificate' : 'the key'} too`,
    );
  }
  if (ca === '' && cert === '') return undefined;
  return {
    ...(ca === '' ? {} : { ca: read('redis-ca', ca, readFile) }),
    ...(cert === '' ? {} : { cert: read('redis-cert', cert, readFile), key: read('redis-key', key, readFile) }),
  };
}

function once(what: string, setting: string, other: string): string {
  if (setting !== '' && other !== '' && setting !== other) {
    throw new ConfigError(`the ${what} of the store is given twice, and not the same; give it once`);
  }
  return setting === '' ? other : setting;
}

function read(name: string, path: string, readFile: (path: string) => string): string {
  try {
    return readFile(path);
  } catch (error) {
    throw new ConfigError(`--${name} ${path} cannot be read (${(error as Error).message}); give the path of a file`);
  }
}

const withTls = (shown: string): string => shown.replace(/^redis/, 'rediss');
