// Stores on a real Redis, each test under keys of its own.

import { randomBytes } from 'node:crypto';
import { parseRedis, redacted } from '../../collector/src/store/redis/address.js';
import type { RedisAccess } from '../../collector/src/store/redis/connect.js';
import { RedisStore, type RedisStoreOptions } from '../../collector/src/store/redis/redis-store.js';
import type { SnapshotSource } from '../../collector/src/store/store.js';
import { EMPTY, Recovered } from './store-contract.js';

export const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

export const freshPrefix = (): string => `t${randomBytes(4).toString('hex')}`;

export function access(url: string, user = '', password = ''): RedisAccess {
  const address = parseRedis(url);
  return { address, shown: redacted(url), user: user || address.user, password: password || address.password };
}

export const redisStore = (url: string, prefix = freshPrefix(), extra: Partial<RedisStoreOptions> = {}): RedisStore =>
  new RedisStore({
    access: extra.access ?? access(url),
    prefix,
    waitFor: 0,
    retainMs: 900_000,
    logBytesMax: 1e9,
    positionsMax: 1000,
    log: quiet,
    behind: () => undefined,
    ...extra,
  });

/** An open store, and what it gives back: at the start, and while it runs. */
export async function openStore(
  url: string,
  prefix: string,
  extra: Partial<RedisStoreOptions> = {},
  source: SnapshotSource = EMPTY,
): Promise<{ store: RedisStore; recovered: Recovered }> {
  const store = redisStore(url, prefix, extra);
  const recovered = new Recovered();
  await store.open(recovered, source);
  return { store, recovered };
}
