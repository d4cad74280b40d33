// Connections to a Redis or a cluster, for which away and hanging are normal: every command has an end,
// nothing is queued by the library, and trying again has a pace.

import { Cluster, Redis, type ClusterOptions, type RedisOptions } from 'ioredis';
import { ConfigError } from '../../errors.js';
import type { RedisAddress } from './address.js';
import { faultOf, type Fault } from './faults.js';
import { withScripts, type Client, type Scripted } from './scripts.js';

export interface RedisAccess {
  readonly address: RedisAddress;
  /** As it may be shown. */
  readonly shown: string;
  readonly user: string;
  readonly password: string;
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
}

/** What a Redis does with what it is told. */
export interface Persistence {
  /** It has an append-only file. */
  readonly persists: boolean;
  /** By which policy it throws keys away when its memory is full; '' = it refuses instead. */
  readonly evicts: string;
}

/** A command without an answer fails after this long, ms. */
export const COMMAND_MS = 1000;

/** A connection that owes an answer for this long (ms) is given up: it hangs, and would never tell. */
const SOCKET_MS = 1500;

const CONNECT_MS = 2000;
const KEEP_ALIVE_MS = 10_000;

/** Pause before a connection is tried again: doubles from the first to the last, ms, with up to half as much again. */
const RETRY_MS_MIN = 50;
const RETRY_MS_MAX = 1000;

/** How often a cluster is asked who has which slots, ms; a redirection asks at once. */
const SLOTS_MS = 1000;

/** At start: how long a Redis may be away before the collector gives up, ms. */
export const START_MS = 30_000;

const REDIS_MIN = 7;

/** The n-th pause, ms: doubling, bounded, and different for everyone. */
export function pauseMs(times: number, max = RETRY_MS_MAX): number {
  const base = Math.min(RETRY_MS_MIN * 2 ** Math.min(times - 1, 16), max);
  return Math.round(base * (1 + Math.random() / 2));
}

/** A client for commands. It connects by itself; `ready` waits for that. */
export function connect(access: RedisAccess): Scripted {
  const { address } = access;
  const client = address.cluster
    ? new Cluster([...address.nodes], clusterOptions(access, false))
    : new Redis(redisOptions(access));
  return withScripts(client);
}

/** A client that only subscribes; without our timeouts, as it may wait for long. */
export function connectSubscriber(access: RedisAccess): Client {
  const { address } = access;
  if (address.cluster) return new Cluster([...address.nodes], clusterOptions(access, true));
  // What is subscribed to while it connects may wait for that.
  const options = { ...redisOptions(access), enableOfflineQueue: true, maxRetriesPerRequest: null };
  delete options.commandTimeout;
  delete options.socketTimeout;
  return new Redis(options);
}

/**
 * Waits until the client is connected, and checks that it is what the settings say.
 *
 * @throws ConfigError when the settings are wrong, or nothing is there for `waitMs`
 */
export async function ready(client: Client, access: RedisAccess, waitMs = START_MS): Promise<Persistence> {
  const endMs = performance.now() + waitMs;
  let fault: Fault | undefined;
  const note = (error: unknown): void => void (fault = faultOf(error));
  // That a command could not be sent says less than why there is no connection.
  const unsent = (error: unknown): void => {
    if (fault === undefined || !/enableOfflineQueue/.test(String(error))) note(error);
  };
  client.on('error', note).on('node error', note);
  try {
    for (let times = 1; ; times++) {
      const info = await ended(client.info(), COMMAND_MS).catch(unsent);
      if (typeof info === 'string') return checkInfo(info, access);
      if (fault?.settled === true || performance.now() > endMs) {
        throw new ConfigError(`--store ${access.shown}: ${fault?.text ?? 'no answer'}`);
      }
      await new Promise(resolve => setTimeout(resolve, pauseMs(times)));
    }
  } finally {
    client.off('error', note).off('node error', note);
  }
}

/** Tries again what may be repeated, until it is done, cannot be done with these settings, or `endMs` is past. */
export async function persistently<T>(work: () => Promise<T>, endMs: number): Promise<T> {
  for (let times = 1; ; times++) {
    try {
      return await work();
    } catch (error) {
      if (faultOf(error).settled || performance.now() > endMs) throw error;
      await new Promise(resolve => setTimeout(resolve, pauseMs(times)));
    }
  }
}

/** An end for what the library may never settle. */
export function ended<T>(work: Promise<T>, ms: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`timed out after ${ms} ms`)), ms);
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/**
 * Whether what INFO says fits the settings.
 *
 * @throws ConfigError when it does not fit
 */
export function checkInfo(info: string, { address, shown }: RedisAccess): Persistence {
  const value = (name: string): string => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1] ?? '';
  const version = value('redis_version');
  const isCluster = value('cluster_enabled') === '1';
  if (Number.parseInt(version) < REDIS_MIN) {
    throw new ConfigError(
      `--store ${shown}: it is Redis ${version}, must be ${REDIS_MIN}.0 or newer (sharded Pub/Sub)`,
    );
  }
  if (isCluster && !address.cluster) {
    throw new ConfigError(`--store ${shown}: it is a node of a cluster; write --store redis-cluster://HOST:PORT`);
  }
  if (!isCluster && address.cluster) {
    throw new ConfigError(`--store ${shown}: it is not a cluster; write --store redis://HOST:PORT`);
  }
  const policy = value('maxmemory_policy');
  const evicts = policy !== 'noeviction' && Number(value('maxmemory')) > 0 ? policy : '';
  return { persists: value('aof_enabled') === '1', evicts };
}

type Options = Omit<RedisOptions, 'replyMapping'>;

const redisOptions = (access: RedisAccess): Options => ({
  ...access.address.nodes[0],
  ...common(access),
  db: access.address.db,
  enableOfflineQueue: false,
  retryStrategy: times => pauseMs(times),
});

function clusterOptions(
  access: RedisAccess,
  subscriber: boolean,
): Omit<ClusterOptions, 'redisOptions'> & { redisOptions: Options } {
  const { commandTimeout, socketTimeout, ...rest } = common(access);
  return {
    enableOfflineQueue: subscriber,
    redisOptions: subscriber ? rest : { ...rest, commandTimeout, socketTimeout },
    clusterRetryStrategy: times => pauseMs(times),
    slotsRefreshInterval: SLOTS_MS,
    slotsRefreshTimeout: COMMAND_MS,
    maxRedirections: 4,
    shardedSubscribers: subscriber,
  };
}

const common = ({ user, password, tls }: RedisAccess): Options => ({
  ...(user === '' ? {} : { username: user }),
  ...(password === '' ? {} : { password }),
  ...(tls === undefined ? {} : { tls: { ...tls } }),
  protocol: 2,
  connectionName: 'meshpulse',
  connectTimeout: CONNECT_MS,
  commandTimeout: COMMAND_MS,
  socketTimeout: SOCKET_MS,
  keepAlive: KEEP_ALIVE_MS,
  maxRetriesPerRequest: 1,
  autoResendUnfulfilledCommands: false,
});
