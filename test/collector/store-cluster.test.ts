import assert from 'node:assert/strict';
import { shardOf } from '../../collector/src/store/redis/keys.js';
import { RedisCluster, waitFor, type RedisServer } from '../support/redis.js';
import { freshPrefix, openStore, redisStore } from './redis-support.js';
import { storeContract, stored } from './store-contract.js';

describe('a store in Redis Cluster', function () {
  this.timeout(60_000);
  let cluster: RedisCluster;
  before(async () => {
    cluster = await RedisCluster.start();
  });
  after(() => cluster.stop());

  storeContract('Redis Cluster', () => redisStore(cluster.url));

  it('gives each replica what the others put, wherever its shard is', async () => {
    const prefix = freshPrefix();
    const [a, b] = [await openStore(cluster.url, prefix), await openStore(cluster.url, prefix)];
    const proxies = Array.from({ length: 60 }, (_, i) => `p${i}`);
    await Promise.all(proxies.map(proxyId => a.store.putBatches([{ ...stored(1), proxyId }])));
    await a.store.putRollback([{ type: 'kill', id: 'a', value: null }]);
    await waitFor('all batches', () => b.recovered.batches.length === 60 && b.recovered.rollbacks.length === 1);
    const heard: string[] = [];
    b.store.shared.bus.subscribe((from, bytes) => heard.push(`${from} ${bytes.toString()}`));
    a.store.shared.bus.publish(Buffer.from('hello'));
    await waitFor('the message', () => heard.length === 1);
    assert.deepEqual(heard, [`${a.store.replicaId} hello`]);
    for (let i = 0; i < 3; i++) assert.equal(await a.store.keeper.snapshotNow(), true);
    await a.store.keeper.trimNow();
    const c = await openStore(cluster.url, prefix);
    assert.equal(c.recovered.batches.filter(({ counted }) => counted).length, 60);
    for (const { store } of [a, b, c]) assert.equal(store.shared.staleMs(), 0);
    await Promise.all([a, b, c].map(({ store }) => store.close()));
    for (const node of cluster.nodes) {
      assert.doesNotMatch(String(await node.command('info', 'errorstats')), /CROSSSLOT/);
    }
  });

  it('goes on while a slot moves to another node, and after it', async () => {
    const prefix = freshPrefix();
    const { store } = await openStore(cluster.url, prefix);
    const key = `${prefix}:{5}:log`;
    const slot = Number(await cluster.nodes[0]!.command('cluster', 'keyslot', key));
    // A proxy whose shard is 5, so that the slot has keys.
    const proxyId = Array.from({ length: 1000 }, (_, i) => `m${i}`).find(name => shardOf(name) === 5)!;
    await store.putBatches([{ ...stored(1), proxyId }]);
    const [from, to] = await ends(slot);
    const [fromId, toId] = [String(await from.command('cluster', 'myid')), String(await to.command('cluster', 'myid'))];
    await to.command('cluster', 'setslot', slot, 'importing', fromId);
    await from.command('cluster', 'setslot', slot, 'migrating', toId);
    // While only some of a command's keys have moved, it has to wait (TRYAGAIN).
    const during = [store.putBatches([{ ...stored(2), proxyId }])];
    for (const name of (await from.command('cluster', 'getkeysinslot', slot, 100)) as string[]) {
      await from.command('migrate', '127.0.0.1', to.port, name, 0, 2000);
      during.push(store.putBatches([{ ...stored(2), proxyId }]));
      await new Promise(resolve => setTimeout(resolve, 50));
    }
    for (const node of [to, from, ...cluster.nodes]) await node.command('cluster', 'setslot', slot, 'node', toId);
    const results = await Promise.all(during);
    assert.equal(results.filter(([result]) => result!.fresh).length, 1);
    const [last] = await store.putBatches([{ ...stored(3), proxyId }]);
    assert.deepEqual([last?.fresh, last?.seq, last?.loss.reports], [true, 3, 0]);
    await waitFor('it to be fresh', () => store.shared.staleMs() === 0);
    const { store: other, recovered } = await openStore(cluster.url, prefix);
    assert.deepEqual(
      recovered.batches.map(({ seq }) => seq),
      [1, 2, 3],
    );
    await Promise.all([store.close(), other.close()]);
  });

  /** The node that has the slot's keys, and another. */
  async function ends(slot: number): Promise<[RedisServer, RedisServer]> {
    for (const node of cluster.nodes) {
      if (Number(await node.command('cluster', 'countkeysinslot', slot)) === 0) continue;
      return [node, cluster.nodes.find(other => other !== node)!];
    }
    throw new Error(`no node has keys of slot ${slot}`);
  }
});
