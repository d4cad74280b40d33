// The collector's settings: read from the command line, then the environment, then the file, then the
// defaults; the first that says something wins. Everything is checked before anything is started.

import { parseDocument } from 'yaml';
import { readAccess, type AccessSettings, type TlsSettings } from './access/settings.js';
import { ConfigError } from './errors.js';
import { readExports, type ExportSettings } from './export/settings.js';
import { masked } from './export/sinks.js';
import type { LogLevel } from './log.js';
import { didYouMean } from './near.js';
import type { Retention } from './rollback/retention.js';
import { rangeOf, SETTINGS, type Kind, type Setting, type SettingName } from './settings.js';
import { isRedis, redacted } from './store/redis/address.js';
import type { RedisAccess } from './store/redis/connect.js';
import { redisAccess } from './store/redis/settings.js';

export interface Address {
  readonly host: string;
  /** 0 = any free one. */
  readonly port: number;
}

/** Where state is kept: in this process, or in a log that several collectors share. */
export type StoreConfig =
  | { readonly type: 'memory' }
  | {
      readonly type: 'redis';
      readonly access: RedisAccess;
      readonly prefix: string;
      readonly waitFor: number;
      readonly logBytesMax: number;
    };

export interface Config {
  readonly grpc: Address;
  readonly http: Address;
  readonly store: StoreConfig;
  readonly dataDir: string | undefined;
  /** File of the rollback policy; undefined = the defaults. */
  readonly rollbackPolicy: string | undefined;
  readonly dataDirBytesMax: number;
  readonly insecure: boolean;
  readonly tls: TlsSettings | undefined;
  /** Undefined = whoever reaches the addresses may do everything. */
  readonly access: AccessSettings | undefined;
  readonly logLevel: LogLevel;
  readonly retainLivesMs: number;
  readonly retainLivesMax: number;
  readonly retainEventsMs: number;
  readonly retainFailedMs: number;
  readonly retainFlowMs: number;
  readonly retention: Retention;
  readonly transactionsMax: number;
  readonly instancesMax: number;
  readonly metricsSeriesMax: number;
  readonly messageBytesMax: number;
  readonly streamsMax: number;
  readonly peerStreamsMax: number;
  readonly peerMessagesPerSecond: number;
  readonly readsMax: number;
  readonly sessionMemoryMax: number;
  readonly drainMs: number;
  readonly exports: ExportSettings;
  /** Sentences about what was adjusted, for the log. */
  readonly notes: readonly string[];
  /** Name to value, as written or by default, for the log. */
  readonly effective: Readonly<Record<string, string>>;
}

type Origin = 'flag' | 'environment' | 'file' | 'default';

interface Value {
  readonly text: string;
  readonly origin: Origin;
}

/**
 * @param args     arguments after `collector`
 * @param env      the environment
 * @param readFile reads the file that `--config` names
 * @throws ConfigError with one line that names field, value, range and remedy
 */
export function readConfig(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  readFile: (path: string) => string,
): Config {
  const flags = parseFlags(args);
  const file = parseFile(flags.get('config') ?? env['MESHPULSE_CONFIG'], readFile);
  const valueOf = (name: SettingName): Value => {
    const flag = flags.get(name);
    if (flag !== undefined) return { text: flag, origin: 'flag' };
    const variable = env[variableOf(name)];
    if (variable !== undefined && variable !== '') return { text: variable, origin: 'environment' };
    const line = file.get(name);
    if (line !== undefined) return { text: line, origin: 'file' };
    return { text: SETTINGS[name].default, origin: 'default' };
  };
  return build(valueOf, readFile);
}

export const variableOf = (name: string): string => `MESHPULSE_${name.toUpperCase().replaceAll('-', '_')}`;

function build(valueOf: (name: SettingName) => Value, readFile: (path: string) => string): Config {
  const notes: string[] = [];
  const parse = <T>(name: SettingName, read: (name: SettingName, value: Value) => T): T => read(name, valueOf(name));
  const insecure = parse('insecure', flag);
  const { tls, access, isProtected } = readAccess(name => valueOf(name).text);
  const anywhere = insecure || isProtected;
  const retainEventsMs = parse('retain-events', range);
  const dataDir = valueOf('data-dir').text;
  const config: Config = {
    grpc: parse('grpc', (name, value) => address(name, value, anywhere, access !== undefined)),
    http: parse('http', (name, value) => address(name, value, anywhere, access !== undefined)),
    store: storeOf(valueOf, readFile, notes),
    dataDir: dataDir === '' ? undefined : dataDir,
    rollbackPolicy: valueOf('rollback-policy').text || undefined,
    dataDirBytesMax: parse('data-dir-bytes-max', range),
    insecure,
    tls,
    access,
    logLevel: parse('log-level', choice) as LogLevel,
    retainLivesMs: parse('retain-lives', range),
    retainLivesMax: parse('retain-lives-max', range),
    retainEventsMs,
    retainFailedMs: atLeast(retainEventsMs, parse('retain-failed', range), valueOf, notes),
    retainFlowMs: parse('retain-flow', range),
    retention: {
      signalsUs: parse('retain-signals', range) * US_PER_MS,
      verdictsMax: parse('verdicts-max', range),
      ledgerUs: parse('retain-ledger', range) * US_PER_MS,
      auditUs: parse('retain-audit', range) * US_PER_MS,
      auditMax: parse('audit-max', range),
    },
    transactionsMax: parse('transactions-max', range),
    instancesMax: parse('instances-max', range),
    metricsSeriesMax: parse('metrics-series-max', range),
    messageBytesMax: parse('message-bytes-max', range),
    streamsMax: parse('streams-max', range),
    peerStreamsMax: parse('peer-streams-max', range),
    peerMessagesPerSecond: parse('peer-messages-per-second', range),
    readsMax: parse('reads-max', range),
    sessionMemoryMax: parse('session-memory-max', range),
    drainMs: parse('drain-time', range),
    exports: readExports(
      {
        exports: listOf(valueOf('export').text),
        denyPrivate: parse('export-deny-private', flag),
        queueBytesMax: parse('export-queue-bytes-max', range),
        filesBytesMax: parse('export-files-bytes-max', range),
        headersFile: valueOf('export-headers-file').text,
        keyFile: valueOf('export-webhook-key-file').text,
        key: valueOf('export-webhook-key').text,
      },
      readFile,
    ),
    notes,
    effective: Object.fromEntries(NAMES.map(name => [name, effective(name, valueOf(name).text)])),
  };
  return config;
}

const US_PER_MS = 1000;

const NAMES = Object.keys(SETTINGS) as SettingName[];

/** Several sinks: one a line, or apart by spaces. A path may have spaces of its own. */
const listOf = (text: string): string[] =>
  text
    .split(/\n|\s+(?=(?:otlp|jsonl|webhook)=)/)
    .map(one => one.trim())
    .filter(one => one !== '');

const mayRepeat = (name: string): boolean => name in SETTINGS && SETTINGS[name as SettingName].kind.type === 'sinks';

/** `--name value`, `--name=value`, and `--name` alone for flags. */
function parseFlags(args: readonly string[]): Map<string, string> {
  const flags = new Map<string, string>();
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    const match = /^--([a-z][a-z-]*)(?:=(.*))?$/s.exec(arg);
    const name = match?.[1] ?? '';
    if (name !== 'config' && !(name in SETTINGS)) throw unknown('option', arg.split('=')[0]!);
    const before = flags.get(name);
    if (before !== undefined && !mayRepeat(name)) throw new ConfigError(`--${name} is given twice; give it once`);
    const set = (value: string): void => void flags.set(name, before === undefined ? value : `${before}\n${value}`);
    if (match?.[2] !== undefined) set(match[2]);
    else if (name in SETTINGS && SETTINGS[name as SettingName].kind.type === 'flag') set('true');
    else if (i + 1 < args.length) set(args[++i]!);
    else throw new ConfigError(`--${name} has no value; write --${name} VALUE`);
  }
  return flags;
}

function parseFile(path: string | undefined, readFile: (path: string) => string): Map<string, string> {
  const values = new Map<string, string>();
  if (path === undefined || path === '') return values;
  for (const [key, value] of Object.entries(parseYaml(path, readFile))) {
    if (!(key in SETTINGS)) throw unknown('key', key, ` in ${path}`);
    if (mayRepeat(key) && Array.isArray(value) && value.every(one => typeof one === 'string')) {
      values.set(key, value.join('\n'));
      continue;
    }
    if (value === null || typeof value === 'object') {
      throw new ConfigError(`${key} in ${path} is not a single value; write ${key}: VALUE`);
    }
    values.set(key, String(value as string | number | boolean));
  }
  return values;
}

function parseYaml(path: string, readFile: (path: string) => string): object {
  let text: string;
  try {
    text = readFile(path);
  } catch (error) {
    throw new ConfigError(
      `--config ${path} cannot be read (${(error as Error).message}); give the path of a YAML file`,
    );
  }
  const document = parseDocument(text);
  const fault = document.errors[0];
  if (fault !== undefined) throw new ConfigError(`--config ${path}: ${fault.message.split('\n')[0]}`);
  const content: unknown = document.toJS({ maxAliasCount: 0 });
  if (content === null) return {};
  if (typeof content !== 'object' || Array.isArray(content)) {
    throw new ConfigError(`--config ${path} is not a list of settings; write one NAME: VALUE a line`);
  }
  return content;
}

function unknown(what: string, name: string, where = ''): ConfigError {
  const bare = name.replace(/^-+/, '');
  const hint = didYouMean(bare, NAMES) || `; the settings are ${NAMES.join(', ')}`;
  return new ConfigError(`${name}${where} is not a known ${what}${hint}`);
}

function fault(name: SettingName, value: Value, remedy?: string): ConfigError {
  const where = { flag: `--${name}`, environment: variableOf(name), file: `${name} in the file`, default: name }[
    value.origin
  ];
  const allowed = rangeOf((SETTINGS[name] as Setting).kind).replaceAll('`', '');
  return new ConfigError(
    `${where} is ${JSON.stringify(effective(name, value.text))}, must be ${allowed}${remedy === undefined ? '' : `; ${remedy}`}`,
  );
}

function flag(name: SettingName, value: Value): boolean {
  if (value.text === 'true') return true;
  if (value.text === 'false') return false;
  throw fault(name, value);
}

function choice(name: SettingName, value: Value): string {
  const { kind } = SETTINGS[name] as Setting;
  if (kind.type === 'choice' && kind.of.includes(value.text)) return value.text;
  throw fault(name, value);
}

/** A count, time or size within its range: plain, in ms, or in bytes. */
function range(name: SettingName, value: Value): number {
  const { kind } = SETTINGS[name] as Setting;
  const [read, unit] = READERS[kind.type] ?? [];
  if (read === undefined || !('min' in kind)) throw new RangeError(`${name} has no range`);
  const number = read(value.text);
  if (number === undefined || number < read(String(kind.min))! || number > read(String(kind.max))!) {
    throw fault(name, value, unit);
  }
  return number;
}

const READERS: Partial<Record<Kind['type'], [(text: string) => number | undefined, string?]>> = {
  count: [text => (/^\d{1,15}$/.test(text) ? Number(text) : undefined)],
  time: [
    text => withUnit(text, { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }),
    'write it like 30s or 15m',
  ],
  bytes: [
    text => withUnit(text, { '': 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 }),
    'write it like 64KiB or 4MiB',
  ],
};

function withUnit(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^(\d{1,12})([A-Za-z]*)$/.exec(text);
  const factor = match === null ? undefined : units[match[2]!];
  return factor === undefined ? undefined : Number(match![1]) * factor;
}

/** @param known callers are known, if only by what travels in the clear */
function address(name: SettingName, value: Value, anywhere: boolean, known: boolean): Address {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(value.text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65_535) throw fault(name, value, 'write it like 127.0.0.1:50051 or [::1]:50051');
  if (!anywhere && !isLoopback(host)) {
    if (known) {
      throw new ConfigError(
        `--${name} is ${JSON.stringify(value.text)}, must be a loopback address while tokens come in the clear; ` +
          'add --tls-cert and --tls-key, or accept the risk with --insecure',
      );
    }
    throw new ConfigError(
      `--${name} is ${JSON.stringify(value.text)}, must be a loopback address while there is no authentication; ` +
        'use 127.0.0.1, ask callers who they are (docs/access.md), or accept the risk with --insecure',
    );
  }
  return { host, port };
}

export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host);

function storeOf(
  valueOf: (name: SettingName) => Value,
  readFile: (path: string) => string,
  notes: string[],
): StoreConfig {
  const store = valueOf('store');
  const text = (name: SettingName): string => valueOf(name).text;
  const password = valueOf('redis-password');
  if (password.origin === 'flag') {
    throw new ConfigError(
      '--redis-password would show in the list of processes; give it as MESHPULSE_REDIS_PASSWORD or --redis-password-file',
    );
  }
  const waitFor = range('redis-wait', valueOf('redis-wait'));
  const logBytesMax = range('redis-log-bytes-max', valueOf('redis-log-bytes-max'));
  if (store.text === 'memory') return { type: 'memory' };
  if (!isRedis(store.text)) throw fault('store', store);
  if (text('data-dir') !== '') {
    throw new ConfigError('--data-dir is for --store memory: Redis keeps what is stored; leave one of them out');
  }
  const insecure = flag('insecure-redis', valueOf('insecure-redis'));
  const access = redisAccess(
    {
      store: store.text,
      prefix: text('redis-prefix'),
      user: text('redis-user'),
      password: password.text,
      passwordFile: text('redis-password-file'),
      ca: text('redis-ca'),
      cert: text('redis-cert'),
      key: text('redis-key'),
      insecure,
    },
    readFile,
    isLoopback,
  );
  if (insecure) notes.push('--insecure-redis: whoever reaches the Redis can read and change everything');
  return {
    type: 'redis',
    access,
    prefix: text('redis-prefix'),
    waitFor,
    logBytesMax,
  };
}

/** As it may be shown. */
function effective(name: SettingName, text: string): string {
  if (name === 'store') return redacted(text);
  if (name === 'export') return listOf(text).map(masked).join(' ');
  return (SETTINGS[name] as Setting).kind.type === 'secret' && text !== '' ? '***' : text;
}

/** `retain-failed` below `retain-events` is a mistake if someone wrote it, else it is raised. */
function atLeast(eventsMs: number, failedMs: number, valueOf: (name: SettingName) => Value, notes: string[]): number {
  if (failedMs >= eventsMs) return failedMs;
  const failed = valueOf('retain-failed');
  const events = valueOf('retain-events');
  if (failed.origin !== 'default') {
    throw fault('retain-failed', failed, `it must not be less than retain-events (${events.text})`);
  }
  notes.push(`retain-failed is raised from its default ${failed.text} to retain-events (${events.text})`);
  return eventsMs;
}
