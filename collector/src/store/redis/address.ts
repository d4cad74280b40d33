// `--store redis://…`: where a Redis is, who we are there, and how to show it without the password. Pure.
//
//     redis://[USER:PASSWORD@]HOST[:PORT][/DB]            one Redis
//     redis-cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT a cluster; any of its nodes will do
//     rediss://, rediss-cluster://                        the same over TLS

import { ConfigError } from '../../errors.js';

export interface RedisAddress {
  readonly cluster: boolean;
  readonly tls: boolean;
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
  readonly user: string;
  readonly password: string;
  readonly db: number;
}

const PORT = 6379;
const NODES_MAX = 64;
const DB_MAX = 15;

const FORM = /^(rediss?)(-cluster)?:\/\/(?:([^@/]*)@)?([^@/]+)(?:\/(\d{1,4})?)?$/;
const NODE = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9_.-]+))(?::(\d{1,5}))?$/;

export const isRedis = (text: string): boolean => /^rediss?(-cluster)?:/.test(text);

/** @throws ConfigError that shows what is wrong, but no password */
export function parseRedis(text: string): RedisAddress {
  const match = FORM.exec(text);
  if (match === null) throw wrong(text, 'redis://HOST:PORT or redis-cluster://HOST:PORT,HOST:PORT');
  const [, scheme, cluster, credentials, hosts, db] = match;
  const nodes = hosts!.split(',').map(host => {
    const node = NODE.exec(host);
    const port = Number(node?.[3] ?? PORT);
    if (node === null || port < 1 || port > 65_535)
      throw wrong(text, `HOST:PORT where it says ${JSON.stringify(host)}`);
    return { host: node[1] ?? node[2]!, port };
  });
  if (nodes.length > (cluster === undefined ? 1 : NODES_MAX)) {
    throw wrong(
      text,
      cluster === undefined ? 'one HOST:PORT; several are redis-cluster://' : `at most ${NODES_MAX} nodes`,
    );
  }
  if (cluster !== undefined && db !== undefined && db !== '0')
    throw wrong(text, 'without a database: a cluster has only 0');
  if (Number(db ?? 0) > DB_MAX) throw wrong(text, `a database of 0 to ${DB_MAX}`);
  const [user, password] = split(credentials ?? '', text);
  return { cluster: cluster !== undefined, tls: scheme === 'rediss', nodes, user, password, db: Number(db ?? 0) };
}

/**
 * The address as it may be shown: who, but not the password. Whatever else is wrong with it: all between the first
 * colon behind the scheme and the last @ is taken for a password.
 */
export const redacted = (text: string): string =>
  text.replace(/^([^:@]*:\/*)([^:]*)(:.*)?@/s, (_, scheme: string, user: string, password?: string) =>
    password === undefined ? `${scheme}${user}@` : `${scheme}${user}:***@`,
  );

function split(credentials: string, text: string): [string, string] {
  const colon = credentials.indexOf(':');
  const [user, password] = colon < 0 ? [credentials, ''] : [credentials.slice(0, colon), credentials.slice(colon + 1)];
  try {
    return [decodeURIComponent(user), decodeURIComponent(password)];
  } catch {
    throw wrong(text, 'a user and password in which %, @, : and / are written as %25, %40, %3A and %2F');
  }
}

// The text itself may be torn in odd places, so that no rule would find the password in it: show the front.
const wrong = (text: string, allowed: string): ConfigError =>
  new ConfigError(
    `--store is ${JSON.stringify(redacted(text.includes('@') ? text : text.slice(0, 200)))}, must be ${allowed}`,
  );
