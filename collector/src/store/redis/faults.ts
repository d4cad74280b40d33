// What a Redis answers when something is wrong, in words that say what to do about it. Pure.

import { shown } from '../../errors.js';

export interface Fault {
  /** The same for the same cause: to be logged once. */
  readonly kind: string;
  /** What is wrong, and the remedy. Never has a password in it. */
  readonly text: string;
  /** Trying again with the same settings cannot help. */
  readonly settled: boolean;
}

interface Rule {
  readonly kind: string;
  readonly matches: RegExp;
  readonly settled: boolean;
  readonly says: (message: string) => string;
}

/** What the collector's ACL user must be allowed to do. */
export const ACL_NEEDED =
  '+info +eval +evalsha +wait +get +set +del +unlink +persist +exists +hget +hgetall +hkeys +hlen +hset ' +
  '+hdel +expire +pexpire +xadd +xrange +xtrim +xinfo|stream +spublish +ssubscribe +cluster|slots +cluster|info ' +
  '~PREFIX:* &PREFIX:*';

const away = (message: string): string =>
  `it cannot be reached (${shown(message)}); check the address, and that it runs`;

const RULES: readonly Rule[] = [
  {
    kind: 'wrong password',
    matches: /WRONGPASS|invalid (username-)?password|AUTH <password> called without any password/i,
    settled: true,
    says: () =>
      'the user or password is refused; check the user in --store and --redis-user, and the password in --store, ' +
      'MESHPULSE_REDIS_PASSWORD or --redis-password-file',
  },
  {
    kind: 'no password',
    matches: /NOAUTH|HELLO must be called with the client already authenticated/,
    settled: true,
    says: () => 'it wants a password; give one with MESHPULSE_REDIS_PASSWORD or --redis-password-file',
  },
  {
    kind: 'no permission',
    matches: /NOPERM|No permissions to access a (key|channel)|this user has no permissions/i,
    settled: true,
    says: message => `its ACL refuses the user (${shown(message)}); the user needs ${ACL_NEEDED}`,
  },
  {
    kind: 'not a cluster',
    matches: /cluster support disabled/i,
    settled: true,
    says: () => 'it is not a cluster; write --store redis://HOST:PORT',
  },
  {
    kind: 'a cluster',
    matches: /^(MOVED|ASK) |CROSSSLOT/,
    settled: false,
    says: () => 'it is a node of a cluster; write --store redis-cluster://HOST:PORT',
  },
  {
    kind: 'taken',
    matches: /^WRONGTYPE|WRONGTYPE Operation/,
    settled: true,
    says: () => 'keys of this prefix are used by something else; choose another --redis-prefix',
  },
  {
    kind: 'full',
    matches: /^OOM|OOM command not allowed/,
    settled: false,
    says: () => 'its memory is full (maxmemory, noeviction); raise maxmemory or lower --redis-log-bytes-max',
  },
  {
    kind: 'read-only',
    matches: /^READONLY|READONLY You can't write/,
    settled: false,
    says: () => 'it is a replica that takes no writes; name the primary, or wait for the failover to end',
  },
  {
    kind: 'down',
    matches:
      /CLUSTERDOWN|None of startup nodes|Too many Cluster redirections|Cluster isn't ready|Failed to refresh slots/i,
    settled: false,
    says: message => `the cluster does not serve all its slots (${shown(message)}); see CLUSTER INFO on its nodes`,
  },
  {
    kind: 'hangs',
    matches: /timed out|Socket timeout/i,
    settled: false,
    says: () => 'it does not answer in time; see its load, and the network in between',
  },
  {
    kind: 'certificate',
    matches: /certificate|altnames|self[- ]signed|wrong version number|SSL routines|tlsv1|EPROTO/i,
    settled: true,
    says: message =>
      `TLS fails (${shown(message)}); check --redis-ca, --redis-cert and --redis-key, and that it speaks TLS on this port`,
  },
  {
    kind: 'away',
    matches: /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|ETIMEDOUT|ECONNRESET|Connection is closed/,
    settled: false,
    says: away,
  },
];

/** Names the cause of an error of the client library. */
export function faultOf(error: unknown): Fault {
  for (const cause of chain(error)) {
    const message = cause.message;
    const rule = RULES.find(({ matches }) => matches.test(message));
    if (rule !== undefined) return { kind: rule.kind, text: rule.says(message), settled: rule.settled };
  }
  return { kind: 'away', text: away(chain(error)[0]!.message), settled: false };
}

/** The error, and what the library found at the last node that it tried. */
function chain(error: unknown): Error[] {
  const found: Error[] = [];
  let next: unknown = error;
  while (next instanceof Error && found.length < 4) {
    found.push(next);
    next = (next as { lastNodeError?: unknown }).lastNodeError ?? (next as { cause?: unknown }).cause;
  }
  return found.length > 0 ? found.reverse() : [new Error(String(error))];
}
