// Memory, one Redis and a cluster, given the same random operations.

import { MemoryStore } from '../../collector/src/store/memory.js';
import type { Store } from '../../collector/src/store/store.js';
import { RedisCluster, RedisServer } from '../support/redis.js';
import { quiet, redisStore } from './redis-support.js';
import { EMPTY, Recovered } from './store-contract.js';
import { compareStores } from './store-model.js';

const LIMITS = { retainMs: 1, logBytesMax: 1, positionsMax: 100_000 };

export function randomSuite(sequences: number): void {
  describe('memory, one Redis and a cluster', function () {
    this.timeout(60_000 + sequences * 50);

    it(`answer ${sequences} random sequences of operations alike`, async () => {
      const [server, cluster] = [await RedisServer.start(), await RedisCluster.start()];
      const stores: Store[] = [
        new MemoryStore({ ...LIMITS, log: quiet }),
        redisStore(server.url, 'x', { positionsMax: LIMITS.positionsMax }),
        redisStore(cluster.url, 'x', { positionsMax: LIMITS.positionsMax }),
      ];
      try {
        for (const store of stores) await store.open(new Recovered(), EMPTY);
        await compareStores(stores, sequences, Number(process.env['SEED'] ?? 1));
      } finally {
        await Promise.all(stores.map(store => store.close()));
        await Promise.all([server.stop(), cluster.stop()]);
      }
    });
  });
}
