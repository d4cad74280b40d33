// Ways to put events into a Redis. Each prepares what it will store before the clock runs.
import { Redis } from 'ioredis';
import { decodeReport } from '../../collector/src/ingest/decode-report.js';
import { RedisStore } from '../../collector/src/store/redis/redis-store.js';
import type { StoredBatch } from '../../collector/src/store/store.js';
import { EMPTY, Recovered } from '../../test/collector/store-contract.js';
import { access } from '../../test/collector/redis-support.js';
import type { RedisServer } from '../../test/support/redis.js';
import { Fleet } from '../collector/traffic.js';

export interface Arm {
  readonly name: string;
  readonly server: RedisServer;
  /** What stores about so many events, and settles with how many when they are stored. */
  prepare(events: number): Promise<() => Promise<number>>;
  /** Frees what was stored. */
  clear(): Promise<void>;
  close(): Promise<void>;
}

/** One event on its own: about what a row of a batch takes. */
export const EVENT_BYTES = 100;

/** Sidecars are five for each; that many streams wait for acknowledgements at the same time. */
const FLEETS = 20;

/** Commands that one pipeline sends. */
const PIPELINE = 256;

const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

/** The collector's store, as the ingest uses it: batches of 200 rows, each sidecar waits for its acknowledgement. */
export async function storeArm(name: string, server: RedisServer): Promise<Arm> {
  const store = new RedisStore({
    access: access(server.url),
    prefix: name.replace(/\W+/g, '-'),
    waitFor: 0,
    retainMs: 60_000,
    logBytesMax: 1e9,
    positionsMax: 10_000,
    log: quiet,
    behind: error => {
      throw error;
    },
  });
  await store.open(new Recovered(), EMPTY);
  const fleets = Array.from({ length: FLEETS }, (_, i) => new Fleet(i, 0));
  return {
    name,
    server,
    prepare: events => Promise.resolve(storing(store, sidecars(fleets, events))),
    clear: () => Promise.resolve(),
    close: () => store.close(),
  };
}

/** By sidecar, its next batches. */
function sidecars(fleets: readonly Fleet[], events: number): StoredBatch[][] {
  const found = new Map<string, StoredBatch[]>();
  let made = 0;
  while (made < events) {
    for (const [i, fleet] of fleets.entries()) {
      for (const [hop, message] of fleet.block()) {
        const proxyId = `sidecar~10.0.${i}.${hop}~step${hop}-${i}.shop~shop.svc.cluster.local`;
        const cuid = `00000000-0000-4000-8${String(i).padStart(3, '0')}-${String(hop + 1).padStart(12, '0')}`;
        // The message is made in a buffer that the next one overwrites.
        const [batch] = decodeReport(Buffer.from(message)).batches;
        const own = found.get(proxyId) ?? [];
        own.push({ cuid, proxyId, receivedUs: Date.now() * 1000, batch: batch! });
        found.set(proxyId, own);
        made += batch!.events!.rows;
      }
      if (made >= events) break;
    }
  }
  return [...found.values()];
}

const storing = (store: RedisStore, batches: readonly StoredBatch[][]) => async (): Promise<number> => {
  let events = 0;
  await Promise.all(
    batches.map(async own => {
      for (const batch of own) {
        const [result] = await store.putBatches([batch]);
        if (result?.fresh !== true) throw new Error('a batch was not new');
        events += batch.batch.events!.rows;
      }
    }),
  );
  return events;
};

/** One command for each event, sent in pipelines by ioredis: the usual way. */
export function pipelineArm(name: string, server: RedisServer, command: 'xadd' | 'hset'): Arm {
  const client = new Redis(server.port, '127.0.0.1', { protocol: 2 });
  const row = Buffer.alloc(EVENT_BYTES, 'x');
  return {
    name,
    server,
    prepare: events =>
      Promise.resolve(async () => {
        for (let at = 0; at < events; at += PIPELINE) {
          const pipeline = client.pipeline();
          for (let i = at; i < Math.min(at + PIPELINE, events); i++) {
            if (command === 'xadd') pipeline.xadd(`events:{${i % 16}}`, '*', 'row', row);
            else pipeline.hset(`event:${i}`, 'row', row);
          }
          for (const [error] of (await pipeline.exec()) ?? []) if (error !== null) throw error;
        }
        return events;
      }),
    clear: async () => void (await client.flushall()),
    close: () => Promise.resolve(client.disconnect()),
  };
}
