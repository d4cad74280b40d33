import { storeContract } from './store-contract.js';
import { redisStore } from './redis-support.js';
import { RedisServer } from '../support/redis.js';

let server: RedisServer;
before(async () => {
  server = await RedisServer.start();
});
after(() => server.stop());

storeContract('Redis', () => redisStore(server.url));
