// Where events and signals go: the values of `--export`, checked before anything is started. Pure.

import { ConfigError } from '../errors.js';
import { addressFault } from './addresses.js';

export type SinkKind = 'otlp' | 'jsonl' | 'webhook';

export interface SinkSpec {
  readonly kind: SinkKind;
  /** In metrics and the log: the kind, from the second of a kind on with its number (`otlp-2`). */
  readonly name: string;
  /** A URL, or a folder. */
  readonly target: string;
}

/** Sinks of one collector, at most: each has a queue of its own. */
export const SINKS_MAX = 8;

/** What OTLP/HTTP says is appended to a URL without a path. */
const OTLP_PATH = '/v1/logs';

/**
 * @param texts       `KIND=TARGET`, one a sink
 * @param denyPrivate loopback and private addresses are refused as well
 * @throws ConfigError naming the value and the remedy
 */
export function parseSinks(texts: readonly string[], denyPrivate: boolean): SinkSpec[] {
  if (texts.length > SINKS_MAX) {
    throw new ConfigError(`--export is given ${texts.length} times, must be at most ${SINKS_MAX}; leave some out`);
  }
  const specs: SinkSpec[] = [];
  for (const text of texts) {
    const spec = parseSink(text, denyPrivate, specs);
    if (specs.some(({ kind, target }) => kind === spec.kind && target === spec.target)) {
      throw new ConfigError(`--export ${masked(text)} is given twice; give it once`);
    }
    specs.push(spec);
  }
  return specs;
}

function parseSink(text: string, denyPrivate: boolean, before: readonly SinkSpec[]): SinkSpec {
  const match = /^(otlp|jsonl|webhook)=(.+)$/s.exec(text);
  if (match === null) {
    throw new ConfigError(
      `--export is ${JSON.stringify(masked(text))}, must be otlp=URL, jsonl=DIR or webhook=URL; write one sink each`,
    );
  }
  const kind = match[1] as SinkKind;
  const number = before.filter(spec => spec.kind === kind).length + 1;
  const target = kind === 'jsonl' ? match[2]! : urlOf(kind, match[2]!, denyPrivate);
  return { kind, name: number === 1 ? kind : `${kind}-${number}`, target };
}

function urlOf(kind: SinkKind, text: string, denyPrivate: boolean): string {
  const fault = (what: string): ConfigError => new ConfigError(`--export ${kind}=${maskedUrl(text)} ${what}`);
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw fault('is not a URL of http or https; write it like http://collector.observability:4318');
  }
  if (url.username !== '' || url.password !== '') {
    throw fault('holds a user or password, which logs would show; put credentials into --export-headers-file');
  }
  const refused = addressFault(url.hostname, denyPrivate);
  if (refused !== undefined) throw fault(`names ${refused}; name the sink itself`);
  if (kind === 'otlp' && url.pathname === '/') url.pathname = OTLP_PATH;
  return url.href;
}

/** Without what may be a secret: path and query of a webhook's URL often are. */
export function masked(text: string): string {
  const at = text.indexOf('=');
  return at < 0 || text.startsWith('jsonl=') ? text : `${text.slice(0, at + 1)}${maskedUrl(text.slice(at + 1))}`;
}

function maskedUrl(text: string): string {
  if (!URL.canParse(text)) return '…';
  const { protocol, host, pathname, search } = new URL(text);
  return `${protocol}//${host}${pathname === '/' && search === '' ? '' : '/…'}`;
}
