// What the settings say of access, checked together.

import { isIP } from 'node:net';
import { ConfigError } from '../errors.js';

export interface TlsSettings {
  /** Paths of PEM files. */
  readonly cert: string;
  readonly key: string;
  readonly clientCa?: string;
}

export interface TokenReviewSettings {
  /** https://HOST:PORT, or `in-cluster`. */
  readonly url: string;
  readonly ca?: string;
  /** Path of the collector's own token. */
  readonly token?: string;
  /** '' = that of the API. */
  readonly audience: string;
}

export interface AccessSettings {
  /** Empty = any. */
  readonly trustDomains: readonly string[];
  /** `loopback` and addresses. */
  readonly trustXfcc: readonly string[];
  readonly tokenFile?: string;
  readonly tokenReview?: TokenReviewSettings;
}

export interface AccessConfig {
  readonly tls?: TlsSettings;
  /** Absent = no authentication. */
  readonly access?: AccessSettings;
  /** Others than this machine may ask: they are known, and what they say on the way is not. */
  readonly isProtected: boolean;
}

type Name =
  | 'tls-cert'
  | 'tls-key'
  | 'tls-client-ca'
  | 'trust-domain'
  | 'trust-xfcc'
  | 'token-file'
  | 'token-review'
  | 'token-review-ca'
  | 'token-review-token'
  | 'token-review-audience';

/** @throws ConfigError naming the setting and the remedy */
export function readAccess(textOf: (name: Name) => string): AccessConfig {
  const needs = (name: Name, other: Name, why: string): void => {
    if (textOf(name) !== '' && textOf(other) === '') {
      throw new ConfigError(`--${name} is given without --${other}, ${why}; give both`);
    }
  };
  needs('tls-cert', 'tls-key', 'its private key');
  needs('tls-key', 'tls-cert', 'its certificate');
  needs('tls-client-ca', 'tls-cert', 'without which nobody shows a certificate');
  needs('token-review', 'token-file', 'which says what users and groups may do');
  for (const name of ['token-review-ca', 'token-review-token', 'token-review-audience'] as const) {
    needs(name, 'token-review', 'the API that it is for');
  }
  const tls = tlsOf(textOf);
  const [tokenFile, trustXfcc] = [textOf('token-file'), addresses(textOf('trust-xfcc'))];
  const knows = tls?.clientCa !== undefined || trustXfcc.length > 0 || tokenFile !== '';
  const trustDomains = listOf(textOf('trust-domain'));
  if (!knows && trustDomains.length > 0) {
    throw new ConfigError(
      '--trust-domain is given and nothing vouches for workloads; add --tls-client-ca or --trust-xfcc',
    );
  }
  const tokenReview = reviewOf(textOf);
  return {
    ...(tls === undefined ? {} : { tls }),
    ...(knows
      ? {
          access: {
            trustDomains,
            trustXfcc,
            ...(tokenFile === '' ? {} : { tokenFile }),
            ...(tokenReview === undefined ? {} : { tokenReview }),
          },
        }
      : {}),
    isProtected: knows && (tls !== undefined || trustXfcc.length > 0),
  };
}

const listOf = (text: string): string[] =>
  text
    .split(',')
    .map(item => item.trim())
    .filter(item => item !== '');

const optional = <K extends string>(key: K, value: string): { [P in K]?: string } =>
  (value === '' ? {} : { [key]: value }) as { [P in K]?: string };

function tlsOf(textOf: (name: Name) => string): TlsSettings | undefined {
  const cert = textOf('tls-cert');
  if (cert === '') return undefined;
  return { cert, key: textOf('tls-key'), ...optional('clientCa', textOf('tls-client-ca')) };
}

function addresses(text: string): string[] {
  const all = listOf(text);
  const bad = all.find(one => one !== 'loopback' && isIP(one) === 0);
  if (bad === undefined) return all;
  throw new ConfigError(
    `--trust-xfcc has ${JSON.stringify(bad)}, must have \`loopback\` or addresses, comma-separated; behind Istio's sidecar 127.0.0.6,::6`,
  );
}

function reviewOf(textOf: (name: Name) => string): TokenReviewSettings | undefined {
  const url = textOf('token-review');
  if (url === '') return undefined;
  if (url !== 'in-cluster' && !/^https:\/\/[^/\s?#@]+\/?$/.test(url)) {
    throw new ConfigError(`--token-review is ${JSON.stringify(url)}, must be https://HOST:PORT or in-cluster`);
  }
  return {
    url,
    ...optional('ca', textOf('token-review-ca')),
    ...optional('token', textOf('token-review-token')),
    audience: textOf('token-review-audience'),
  };
}
