// What the exports are told: their settings, and the secrets that these name.

import { ConfigError } from '../errors.js';
import { parseKeys } from './signature.js';
import { parseSinks, type SinkSpec } from './sinks.js';

export interface ExportSettings {
  readonly sinks: readonly SinkSpec[];
  readonly denyPrivate: boolean;
  readonly queueBytesMax: number;
  readonly filesBytesMax: number;
  /** Sent to OTLP sinks: names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly keys: readonly Buffer[];
}

export interface ExportTexts {
  /** `KIND=TARGET`, one a sink. */
  readonly exports: readonly string[];
  readonly denyPrivate: boolean;
  readonly queueBytesMax: number;
  readonly filesBytesMax: number;
  /** '' = none. */
  readonly headersFile: string;
  readonly keyFile: string;
  /** The key itself; '' = none. */
  readonly key: string;
}

/** Where the key may be given itself: a command line is for all to see. */
const KEY_VARIABLE = 'MESHPULSE_EXPORT_WEBHOOK_KEY';

/** Headers of one file. */
const HEADERS_MAX = 32;

/** @throws ConfigError */
export function readExports(texts: ExportTexts, readFile: (path: string) => string): ExportSettings {
  const { denyPrivate, queueBytesMax, filesBytesMax, headersFile, keyFile, key } = texts;
  const sinks = parseSinks(texts.exports, denyPrivate);
  const read = (name: string, path: string): string => {
    try {
      return readFile(path);
    } catch (error) {
      throw new ConfigError(`--${name} ${path} cannot be read (${(error as Error).message}); give the path of a file`);
    }
  };
  const headers = headersFile === '' ? {} : parseHeaders(read('export-headers-file', headersFile), headersFile);
  let keys: Buffer[] = [];
  if (keyFile !== '')
    keys = parseKeys(read('export-webhook-key-file', keyFile), `--export-webhook-key-file ${keyFile}`);
  else if (key !== '') keys = parseKeys(key, KEY_VARIABLE);
  if (keys.length === 0 && sinks.some(({ kind }) => kind === 'webhook')) {
    throw new ConfigError(
      `--export webhook=… needs a key that its receivers can check; give one with --export-webhook-key-file FILE or ${KEY_VARIABLE}`,
    );
  }
  return { sinks, denyPrivate, queueBytesMax, filesBytesMax, headers, keys };
}

function parseHeaders(text: string, path: string): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [at, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    const match = /^([A-Za-z0-9-]{1,64}):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)[ \t\r]*$/.exec(line);
    // The line itself may be a secret, so only its number is told.
    if (match === null) {
      throw new ConfigError(`--export-headers-file ${path}: line ${at + 1} is no header; write NAME: VALUE`);
    }
    headers[match[1]!.toLowerCase()] = match[2]!;
  }
  if (Object.keys(headers).length > HEADERS_MAX) {
    throw new ConfigError(`--export-headers-file ${path} has more than ${HEADERS_MAX} headers; leave some out`);
  }
  return headers;
}
