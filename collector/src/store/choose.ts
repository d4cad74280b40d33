// Which store the settings ask for.

import type { Config } from '../config.js';
import { MemoryStore } from './memory.js';
import { RedisStore } from './redis/redis-store.js';
import type { Store, StoreLog } from './store.js';

/** Producers remembered a life: one a worker thread of its proxy, and those of former starts. */
const POSITIONS_PER_LIFE = 8;

/**
 * The store, not open yet.
 *
 * @param behind this process can no longer follow the others and has to end, to start over as a new one
 */
export function chooseStore(config: Config, log: StoreLog, behind: (error: Error) => void): Store {
  const common = {
    retainMs: config.retainFailedMs,
    positionsMax: config.instancesMax * POSITIONS_PER_LIFE,
    log,
  };
  const { store } = config;
  if (store.type === 'memory') {
    const folder = config.dataDir === undefined ? {} : { dataDir: config.dataDir };
    return new MemoryStore({ ...common, ...folder, logBytesMax: config.dataDirBytesMax });
  }
  const { access, prefix, waitFor, logBytesMax } = store;
  return new RedisStore({ ...common, access, prefix, waitFor, logBytesMax, behind });
}
