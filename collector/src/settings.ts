// Every setting of the collector, declared once: the command line, the environment, the configuration
// file, the checks and the table in docs/collector.md all come from here.

import { LOG_LEVELS } from './log.js';

export type Kind =
  | { readonly type: 'address' }
  | { readonly type: 'text' }
  | { readonly type: 'store' }
  | { readonly type: 'word' }
  /** Shown to nobody; not taken from the command line. */
  | { readonly type: 'secret' }
  /** Text that is checked where it is used. */
  | { readonly type: 'names'; readonly range: string }
  | { readonly type: 'flag' }
  /** `otlp=URL`, `jsonl=DIR` or `webhook=URL`; may be given more than once. */
  | { readonly type: 'sinks' }
  | { readonly type: 'choice'; readonly of: readonly string[] }
  /** Whole numbers, both ends allowed. */
  | { readonly type: 'count'; readonly min: number; readonly max: number }
  /** Written with a unit (500ms 30s 15m 24h 30d); milliseconds inside, both ends allowed. */
  | { readonly type: 'time'; readonly min: string; readonly max: string }
  /** Written with a unit (64KiB 4MiB 1GiB) or as plain bytes; both ends allowed. */
  | { readonly type: 'bytes'; readonly min: string; readonly max: string };

export interface Setting {
  readonly kind: Kind;
  /** As one would write it; '' = not set. */
  readonly default: string;
  readonly help: string;
}

const time = (min: string, max: string): Kind => ({ type: 'time', min, max });
const count = (min: number, max: number): Kind => ({ type: 'count', min, max });
const bytes = (min: string, max: string): Kind => ({ type: 'bytes', min, max });

/** By name: `--name`, `MESHPULSE_NAME` (upper case, `_` for `-`), and `name:` in the file. */
export const SETTINGS = {
  grpc: { kind: { type: 'address' }, default: '127.0.0.1:50051', help: 'Where proxies report and the API is served.' },
  http: {
    kind: { type: 'address' },
    default: '127.0.0.1:9464',
    help: 'Where metrics, health and the read API as JSON are served.',
  },
  store: {
    kind: { type: 'store' },
    default: 'memory',
    help: 'Where state is kept. Collectors with the same Redis and prefix act as one.',
  },
  'redis-prefix': { kind: { type: 'word' }, default: 'mp', help: 'In front of every key and channel in Redis.' },
  'redis-user': { kind: { type: 'word' }, default: '', help: 'ACL user in Redis, if not in the URL.' },
  'redis-password': {
    kind: { type: 'secret' },
    default: '',
    help: 'Its password: from the environment or the file, not as an option.',
  },
  'redis-password-file': { kind: { type: 'text' }, default: '', help: 'File with that password.' },
  'redis-ca': {
    kind: { type: 'text' },
    default: '',
    help: 'Certificates that Redis is checked against (PEM), for `rediss://`; the system’s if not set.',
  },
  'redis-cert': { kind: { type: 'text' }, default: '', help: 'Our certificate for Redis (PEM).' },
  'redis-key': { kind: { type: 'text' }, default: '', help: 'Its key (PEM).' },
  'redis-wait': {
    kind: count(0, 16),
    default: '0',
    help: 'Copies in Redis that must have confirmed what counts as durable; 0 = what a Redis with AOF has.',
  },
  'redis-log-bytes-max': {
    kind: bytes('16MiB', '1TiB'),
    default: '1GiB',
    help: 'Size of the log in Redis that snapshots cover, at most; oldest batches go first.',
  },
  'insecure-redis': {
    kind: { type: 'flag' },
    default: 'false',
    help: 'Use a Redis on another machine without credentials.',
  },
  'rollback-policy': {
    kind: { type: 'text' },
    default: '',
    help: 'File with the policy of early rollback; read again when it changes.',
  },
  'data-dir': { kind: { type: 'text' }, default: '', help: 'Folder that makes the memory store durable.' },
  'data-dir-bytes-max': {
    kind: bytes('1MiB', '1TiB'),
    default: '256MiB',
    help: 'Size of all log files kept for their batches, at most; oldest go first.',
  },
  'tls-cert': {
    kind: { type: 'text' },
    default: '',
    help: 'Certificate chain of the collector, PEM; with `tls-key` both addresses speak TLS. Read again when it changes.',
  },
  'tls-key': { kind: { type: 'text' }, default: '', help: 'Private key of `tls-cert`, PEM.' },
  'tls-client-ca': {
    kind: { type: 'text' },
    default: '',
    help: 'CA of client certificates, PEM: a workload is who its certificate says (`spiffe://…`).',
  },
  'trust-domain': {
    kind: { type: 'names', range: 'names, comma-separated' },
    default: '',
    help: 'Trust domains of workloads that are let in; unset = all that the CA, or the sidecar, vouches for.',
  },
  'trust-xfcc': {
    kind: { type: 'names', range: '`loopback` or addresses, comma-separated' },
    default: '',
    help: 'Addresses of the own sidecar, whose `x-forwarded-client-cert` says who a workload is. Istio: `127.0.0.6,::6`.',
  },
  'token-file': {
    kind: { type: 'text' },
    default: '',
    help: 'Access file: who has which token and which roles. Read again when it changes.',
  },
  'token-review': {
    kind: { type: 'names', range: 'https://HOST:PORT or `in-cluster`' },
    default: '',
    help: 'Kubernetes API that says whose the tokens are that the access file does not know.',
  },
  'token-review-ca': { kind: { type: 'text' }, default: '', help: 'CA of that API, PEM; in a cluster its own.' },
  'token-review-token': {
    kind: { type: 'text' },
    default: '',
    help: 'File with the token to ask that API with; in a cluster the pod’s own.',
  },
  'token-review-audience': {
    kind: { type: 'names', range: 'a name' },
    default: '',
    help: 'Audience that those tokens must be for; unset = that of the API itself.',
  },
  export: {
    kind: { type: 'sinks' },
    default: '',
    help: 'Where events (otlp, jsonl) and signals (webhook) go. May be given several times; in the environment with spaces between them.',
  },
  'export-queue-bytes-max': {
    kind: bytes('1MiB', '1GiB'),
    default: '16MiB',
    help: 'Size of what waits for one sink, at most; oldest go first.',
  },
  'export-files-bytes-max': {
    kind: bytes('1MiB', '16TiB'),
    default: '10GiB',
    help: 'Size of the finished files in one folder of `jsonl=`, at most; oldest go first.',
  },
  'export-headers-file': {
    kind: { type: 'text' },
    default: '',
    help: 'File of headers for OTLP sinks, `NAME: VALUE` a line.',
  },
  'export-webhook-key-file': {
    kind: { type: 'text' },
    default: '',
    help: 'File of the keys that webhooks are signed with, one a line.',
  },
  'export-webhook-key': {
    kind: { type: 'secret' },
    default: '',
    help: 'Such a key itself: from the environment or the file, not as an option.',
  },
  'export-deny-private': {
    kind: { type: 'flag' },
    default: 'false',
    help: 'Refuse sinks at loopback and private addresses too; link-local and metadata addresses always are.',
  },
  insecure: {
    kind: { type: 'flag' },
    default: 'false',
    help: 'Listen on other than loopback addresses without authentication.',
  },
  'log-level': { kind: { type: 'choice', of: LOG_LEVELS }, default: 'info', help: 'Least important lines to log.' },
  'retain-lives': {
    kind: time('1m', '3650d'),
    default: '30d',
    help: 'How long ended lives and their addresses are remembered.',
  },
  'retain-lives-max': {
    kind: count(1, 10_000_000),
    default: '1000000',
    help: 'Ended lives remembered, at most; longest ended go first.',
  },
  'retain-events': {
    kind: time('1s', '30d'),
    default: '15m',
    help: 'How long transactions are kept after they ended.',
  },
  'retain-failed': {
    kind: time('1s', '30d'),
    default: '24h',
    help: 'How long failed transactions are kept; not less than retain-events.',
  },
  'retain-flow': {
    kind: time('1m', '3650d'),
    default: '14d',
    help: 'After how long unseen a learned step is forgotten.',
  },
  'retain-signals': {
    kind: time('1m', '3650d'),
    default: '90d',
    help: 'How long verdicts, their plans, signals and acknowledgements are kept.',
  },
  'verdicts-max': { kind: count(100, 1_000_000), default: '20000', help: 'Verdicts kept, at most; oldest go first.' },
  'retain-ledger': {
    kind: time('1m', '3650d'),
    default: '90d',
    help: 'After how long without news a line of the ledger goes into `other`; there are at most 1000.',
  },
  'retain-audit': { kind: time('1m', '3650d'), default: '90d', help: 'How long audit records are kept.' },
  'audit-max': {
    kind: count(100, 1_000_000),
    default: '10000',
    help: 'Audit records kept, at most, and as many of refused callers; oldest go first.',
  },
  'transactions-max': { kind: count(100, 10_000_000), default: '200000', help: 'Transactions kept, at most.' },
  'instances-max': {
    kind: count(1, 10_000_000),
    default: '100000',
    help: 'Lives that have not ended, at most; new ones are refused.',
  },
  'metrics-series-max': {
    kind: count(100, 1_000_000),
    default: '50000',
    help: 'Metric series, at most; what is new is counted as `other`.',
  },
  'message-bytes-max': {
    kind: bytes('64KiB', '64MiB'),
    default: '4MiB',
    help: 'Size of one message from a client, at most.',
  },
  'streams-max': { kind: count(1, 1_000_000), default: '10000', help: 'Report streams open at once, at most.' },
  'peer-streams-max': {
    kind: count(1, 100_000),
    default: '1000',
    help: 'Calls open at once on one connection, at most.',
  },
  'peer-messages-per-second': {
    kind: count(1, 1_000_000),
    default: '2000',
    help: 'Messages from one address, at most; twice as many in a burst.',
  },
  'reads-max': {
    kind: count(1, 100_000),
    default: '200',
    help: 'Reads of the API in line or under way, at most; more are told when to come back.',
  },
  'session-memory-max': {
    kind: bytes('1MiB', '1GiB'),
    default: '64MiB',
    help: 'Memory of one HTTP/2 connection, at most.',
  },
  'drain-time': {
    kind: time('0ms', '10m'),
    default: '5s',
    help: 'How long streams have to move elsewhere when the collector stops.',
  },
} as const satisfies Record<string, Setting>;

export type SettingName = keyof typeof SETTINGS;

/** The table of docs/collector.md. */
export function settingsTable(): string {
  const rows = Object.entries(SETTINGS as Record<string, Setting>).map(
    ([name, setting]) =>
      `| \`${name}\` | ${setting.default === '' ? '–' : `\`${setting.default}\``} | ${rangeOf(setting.kind)} | ${setting.help} |`,
  );
  return ['| name | default | allowed | |', '|---|---|---|---|', ...rows].join('\n');
}

/** What a setting may be, in words. */
export function rangeOf(kind: Kind): string {
  switch (kind.type) {
    case 'address':
      return 'HOST:PORT';
    case 'text':
      return 'a path';
    case 'names':
      return kind.range;
    case 'store':
      return '`memory`, `redis://HOST:PORT`, `redis-cluster://HOST:PORT,HOST:PORT`';
    case 'word':
      return 'a word';
    case 'secret':
      return 'a password';
    case 'flag':
      return 'true or false';
    case 'sinks':
      return '`otlp=URL`, `jsonl=DIR`, `webhook=URL`';
    case 'choice':
      return kind.of.join(', ');
    default:
      return `${kind.min} to ${kind.max}`;
  }
}
