import assert from 'node:assert/strict';
import type { RollbackEntry } from '../../collector/src/rollback/store-entries.js';
import { encodeBatch, encodeFrame, RECORD } from '../../collector/src/store/frames.js';
import { KEEPER } from '../../collector/src/store/redis/keeper.js';
import { shardOf } from '../../collector/src/store/redis/keys.js';
import type { RedisStore } from '../../collector/src/store/redis/redis-store.js';
import type { Snapshots } from '../../collector/src/store/redis/snapshots.js';
import type { SnapshotSource } from '../../collector/src/store/store.js';
import { RedisServer, waitFor } from '../support/redis.js';
import { freshPrefix, openStore, redisStore } from './redis-support.js';
import { EMPTY, life, Recovered, storeContract, stored } from './store-contract.js';
import { draws } from './store-model.js';

let server: RedisServer;
before(async () => {
  server = await RedisServer.start();
});
after(() => server.stop());

const open: RedisStore[] = [];
async function start(
  prefix: string,
  extra: Parameters<typeof openStore>[2] = {},
  source: SnapshotSource = EMPTY,
): ReturnType<typeof openStore> {
  const opened = await openStore(server.url, prefix, extra, source);
  open.push(opened.store);
  return opened;
}
afterEach(() => Promise.all(open.splice(0).map(store => store.close())));

storeContract('Redis', () => redisStore(server.url));

/** Everything that a replica applies of one proxy, in its order: own batches and those of others. */
class Order extends Recovered {
  readonly applied: number[] = [];
  override batch(stored: Parameters<Recovered['batch']>[0], counted: boolean): void {
    super.batch(stored, counted);
    this.applied.push(stored.batch.seq);
  }
}

async function startOrdered(prefix: string): Promise<{ store: RedisStore; order: Order }> {
  const store = redisStore(server.url, prefix);
  const order = new Order();
  await store.open(order, EMPTY);
  open.push(store);
  return { store, order };
}

/** One in ten commands is not sent, and one in six of the answers is not heard. */
function failing(store: RedisStore, draw: (below: number) => number): number {
  type Send = (...args: never[]) => Promise<unknown>;
  const { client } = store as unknown as { client: Record<'mpAppendBuffer' | 'mpReadBuffer', Send> };
  for (const name of ['mpAppendBuffer', 'mpReadBuffer'] as const) {
    const send: Send = client[name].bind(client);
    client[name] = async (...args) => {
      if (draw(10) === 0) throw new Error('Command timed out');
      const reply = await send(...args);
      if (draw(6) === 0) throw new Error('Command timed out');
      return reply;
    };
  }
  return 1;
}

describe('several stores on one Redis', function () {
  this.timeout(30_000);

  it('apply what the others put, each batch once, in the same order', () => agree(() => undefined));

  it('do so when commands fail, and answers get lost', async () => {
    let failed = 0;
    await agree(store => {
      failed += failing(store, draws(store.replicaId.charCodeAt(0) + 1));
    });
    assert.equal(failed, 3);
  });

  async function agree(disturb: (store: RedisStore) => void): Promise<void> {
    const prefix = freshPrefix();
    const replicas = await Promise.all([startOrdered(prefix), startOrdered(prefix), startOrdered(prefix)]);
    for (const { store } of replicas) disturb(store);
    const puts: Promise<unknown>[] = [];
    for (let seq = 1; seq <= 200; seq++) {
      // Each batch is reported to two of the three: as after a proxy moved on.
      for (const { store, order } of [replicas[seq % 3]!, replicas[(seq + 1) % 3]!]) {
        const put = store.putBatches([stored(seq)], ({ batch }, { fresh }) => {
          if (fresh) order.applied.push(batch.seq);
        });
        puts.push(put);
      }
      // The first one by itself: counting starts with the first number that is heard.
      if (seq === 1 || seq % 10 === 0) await Promise.all(puts.splice(0));
    }
    await waitFor('all batches everywhere', () => replicas.every(({ order }) => order.applied.length === 200));
    const [first, ...others] = replicas.map(({ order }) => order.applied);
    for (const other of others) assert.deepEqual(other, first);
    assert.equal(new Set(first).size, 200);
  }

  it('find the same losses, each told to everyone once', async () => {
    const prefix = freshPrefix();
    const [a, b] = [await start(prefix), await start(prefix)];
    await a.store.putBatches([stored(1), stored(4, [{}], { firstEvent: '10' })]);
    await waitFor('the loss at b', () => b.recovered.losses.length === 1);
    assert.deepEqual(b.recovered.losses, [{ reports: 2, events: 8 }]);
    assert.deepEqual(a.recovered.losses, [], 'who put it knows it from the result');
    const told = { id: 11n, nextSeq: 9, droppedEvents: 3, batchedEvents: 20 };
    assert.deepEqual(await b.store.announce('x', 'p1', [told]), { reports: 0, events: 3 });
    await waitFor('the drops at a', () => a.recovered.losses.length === 1);
    assert.deepEqual(await a.store.announce('x', 'p1', [told]), { reports: 0, events: 0 });
  });

  it('let one claim stand, whoever makes it, and give only that one to the others', async () => {
    const prefix = freshPrefix();
    const replicas = await Promise.all([start(prefix), start(prefix), start(prefix)]);
    for (let round = 0; round < 30; round++) {
      const results = await Promise.all(
        replicas.map(({ store }, i) =>
          store.putRollback([{ type: 'kill', id: `${round}/${i}`, value: null, claims: [`t${round}`] }]),
        ),
      );
      assert.equal(results.filter(({ stands }) => stands[0]).length, 1);
    }
    await waitFor('the entries of others', () => replicas.every(({ recovered }, i) => count(recovered, i) === 30));
    /** What stands: what came from the others, and what the others do not have of all. */
    function count({ rollbacks }: Recovered, i: number): number {
      return new Set([...rollbacks.map(({ entry }) => entry.id), ...own(i)]).size;
    }
    function own(i: number): string[] {
      const elsewhere = replicas.filter((_, j) => j !== i).map(({ recovered }) => recovered.rollbacks);
      return elsewhere[0]!.map(({ entry }) => entry.id).filter(id => id.endsWith(`/${i}`));
    }
  });

  it('end with the same override, whoever says it and whoever hears of another one first', async () => {
    const prefix = freshPrefix();
    const replicas = await Promise.all([start(prefix), start(prefix), start(prefix)]);
    const override = (actor: string, untilUs: number): RollbackEntry => ({
      ...{ type: 'override', id: 'mesh' },
      value: { scope: 'mesh', mode: 'off', untilUs, reason: 'a test', actor },
    });
    for (let round = 1; round <= 20; round++) {
      await Promise.all(replicas.map(({ store }, i) => store.putRollback([override(String(i), round)])));
      await waitFor('all of them', () => replicas.every(({ recovered }) => recovered.rollbacks.length === 3 * round));
    }
    const [first, ...others] = replicas.map(({ recovered }) => recovered.rollbacks.map(({ entry }) => entry.value));
    for (const other of others) assert.deepEqual(other, first);
  });

  it('pass over a record that cannot be used, and no other', async () => {
    const prefix = freshPrefix();
    class Picky extends Recovered {
      override rollback(one: RollbackEntry, counted: boolean): void {
        if (one.id === 'bad') throw new RangeError('no room');
        super.rollback(one, counted);
      }
    }
    const [a, b, picky] = [await start(prefix), redisStore(server.url, prefix), new Picky()];
    await b.open(picky, EMPTY);
    open.push(b);
    await a.store.putRollback(['good', 'bad', 'better'].map(id => ({ type: 'override', id, value: null })));
    await waitFor('what is behind it', () => picky.rollbacks.length === 2);
    assert.deepEqual([picky.rollbacks.map(({ entry: { id } }) => id), b.stats().quarantined], [['good', 'better'], 1]);
  });

  it('tell each other what only matters now', async () => {
    const prefix = freshPrefix();
    const [a, b] = [await start(prefix), await start(prefix)];
    const heard: [string, string][] = [];
    b.store.shared.bus.subscribe((from, bytes) => heard.push([from, bytes.toString()]));
    a.store.shared.bus.subscribe(() => assert.fail('what it said itself'));
    a.store.shared.bus.publish(Buffer.from('hello'));
    await waitFor('the message', () => heard.length === 1);
    assert.deepEqual(heard, [[a.store.replicaId, 'hello']]);
  });

  it('have a lease one at a time, and let go of it when they end', async () => {
    const prefix = freshPrefix();
    const [a, b] = [await start(prefix), await start(prefix)];
    assert.deepEqual([await a.store.shared.lease('x', 60_000), await b.store.shared.lease('x', 60_000)], [true, false]);
    assert.equal(await a.store.shared.lease('x', 60_000), true, 'again');
    await b.store.shared.release('x');
    assert.equal(await b.store.shared.lease('x', 60_000), false, 'it was not theirs to release');
    await a.store.close();
    assert.equal(await b.store.shared.lease('x', 60_000), true);
    assert.equal(await b.store.shared.lease('y', 20), true);
    await new Promise(resolve => setTimeout(resolve, 40));
    const c = await start(prefix);
    assert.equal(await c.store.shared.lease('y', 20), true, 'it ran out');
  });

  it('give a new one everything: snapshot, what it counted, and the log since', async () => {
    const prefix = freshPrefix();
    const source: SnapshotSource = {
      ...EMPTY,
      lives: () => [life({ events: 4 })],
      countingSinceUs: () => 77,
      flow: () => ({ kinds: 3 }),
      rollback: () => [entry('a', 'x')],
    };
    const a = await start(prefix, {}, source);
    await a.store.putBatches([stored(1), stored(2)]);
    await a.store.putRollback([entry('a', 'x')]);
    assert.equal(await a.store.keeper.snapshotNow(), true);
    await a.store.putBatches([stored(3)]);
    await a.store.putLife(life({ cuid: 'later' }));
    const b = await start(prefix);
    const { recovered } = b;
    assert.deepEqual([recovered.lives.get(life().cuid)?.events, recovered.lives.has('later')], [4, true]);
    assert.deepEqual([recovered.since, recovered.flowState], [77, { kinds: 3 }]);
    assert.deepEqual(
      recovered.batches.map(({ seq, counted }) => [seq, counted]),
      [
        [1, true],
        [2, true],
        [3, false],
      ],
    );
    const again = await b.store.putBatches([stored(2), stored(3), stored(4)]);
    assert.deepEqual(
      again.map(({ fresh }) => fresh),
      [false, false, true],
    );
    assert.deepEqual((await b.store.putRollback([entry('b', 'x')])).stands, [false], 'claims are in the snapshot');
  });

  it('keep the lease while a large snapshot is written, and stop writing when another has it', async () => {
    const prefix = freshPrefix();
    const a = await start(prefix);
    const { snapshots } = a.store as unknown as { snapshots: Snapshots };
    const frames = [encodeFrame(RECORD.LIFE, Buffer.alloc(1000)), encodeFrame(RECORD.END, Buffer.from('null'))];
    assert.equal(await snapshots.write(frames, [], KEEPER, () => Promise.resolve(false)), undefined);
    const renew = (): Promise<boolean> => a.store.shared.lease(KEEPER, 10_000);
    assert.equal((await snapshots.write(frames, [], KEEPER, renew))?.number, 1, 'the lease was taken on the way');
  });

  it('write a snapshot of many chunks, and keep the one before until the next', async () => {
    const prefix = freshPrefix();
    const lives = Array.from({ length: 5000 }, (_, i) => life({ cuid: `c${i}`, workload: 'w'.repeat(500) }));
    const a = await start(prefix, {}, { ...EMPTY, lives: () => lives });
    for (let i = 0; i < 3; i++) assert.equal(await a.store.keeper.snapshotNow(), true);
    const keys = (await server.command('keys', `${prefix}:{keep}:snapshot:*`)) as string[];
    assert.deepEqual(keys.sort(), [`${prefix}:{keep}:snapshot:2`, `${prefix}:{keep}:snapshot:3`]);
    assert.ok(Number(await server.command('hlen', keys[1]!)) >= 4);
    assert.equal(Number(await server.command('ttl', keys[1]!)), -1);
    await server.command('hdel', keys[1]!, '2');
    const b = await start(prefix);
    assert.equal(b.recovered.lives.size, 5000, 'from the one before, as the newest lacks a chunk');
  });

  it('do not let a replica write a snapshot that is no longer the keeper', async () => {
    const prefix = freshPrefix();
    const [a, b] = [await start(prefix), await start(prefix)];
    assert.equal(await a.store.keeper.snapshotNow(), true);
    assert.equal(await b.store.keeper.snapshotNow(), false);
  });
});

describe('the log in Redis', function () {
  this.timeout(30_000);

  it('is cut off behind snapshots by bytes, and who has not read it says so', async () => {
    const prefix = freshPrefix();
    const behind: Error[] = [];
    const a = await start(prefix, { logBytesMax: 16 * 300_000, behind: error => behind.push(error) });
    const log = `${prefix}:{${shardOf('p1')}}:log`;
    const rows = Array.from({ length: 200 }, () => ({}));
    let seq = 0;
    const fill = async (): Promise<void> => {
      for (let i = 0; i < 80; i++)
        await a.store.putBatches([stored(++seq, rows, { firstEvent: String((seq - 1) * 200) })]);
      assert.equal(await a.store.keeper.snapshotNow(), true);
    };
    const reader = await start(prefix);
    await fill();
    await a.store.keeper.trimNow();
    assert.equal(Number(await server.command('xlen', log)), 80, 'no snapshot before the newest covers anything');
    await fill();
    await a.store.keeper.trimNow();
    const left = Number(await server.command('xlen', log));
    assert.ok(left < 160 && left > 20, `${left} blobs left`);
    await waitFor('what the log holds, at a reader too', () => reader.store.stats().bytes === a.store.stats().bytes);
    const b = await start(prefix);
    assert.equal(b.recovered.batches.length, left);
    assert.deepEqual(
      (await b.store.putBatches([stored(1), stored(160), stored(161, rows, { firstEvent: '32000' })])).map(r => [
        r.fresh,
        r.loss.events,
      ]),
      [
        [false, 0],
        [false, 0],
        [true, 0],
      ],
    );
    // As if this one had been cut off from Redis for longer than the log reaches.
    await server.command('hset', `${prefix}:{${shardOf('p1')}}:seen`, 'trimmed', '99999999999999-0');
    await waitFor('who is behind', () => behind.length > 0);
    assert.match(behind[0]!.message, /was cut off at 99999999999999-0.*start over from the snapshot/);
  });

  it('goes on after it lost its end, with what was lost appended again', async () => {
    const prefix = freshPrefix();
    const [a, b] = [await start(prefix), await start(prefix)];
    const shard = shardOf('p1');
    const keys = [`${prefix}:{${shard}}:log`, `${prefix}:{${shard}}:seen`];
    await a.store.putBatches([stored(1)]);
    const dumps = await Promise.all(keys.map(key => dump(key)));
    for (let seq = 2; seq <= 5; seq++) await a.store.putBatches([stored(seq)]);
    await b.store.putBatches([stored(6)]);
    await waitFor('all of it', () => b.recovered.batches.length === 5 && a.recovered.batches.length === 1);
    // A failover to a copy that had not got the last of it.
    for (const [i, key] of keys.entries()) await restore(key, dumps[i]!);
    await a.store.putBatches([stored(7)]);
    await b.store.putBatches([stored(8)]);
    await waitFor('batches of after', () => b.recovered.batches.length === 6 && a.recovered.batches.length === 2);
    assert.deepEqual(seqs(b.recovered), [1, 2, 3, 4, 5, 7], 'nothing twice');
    assert.deepEqual(seqs(a.recovered), [6, 8]);
    const c = await start(prefix);
    assert.deepEqual([...seqs(c.recovered)].sort(), [1, 2, 3, 4, 5, 6, 7, 8], 'and for a new one all of it');
    assert.deepEqual([a.store.stats().shared?.blobsAgain, a.store.stats().shared?.blobsLost], [4, 0]);
  });

  it('is read to the last, even where a new primary whose clock is behind gave ids that lie before others', async () => {
    const prefix = freshPrefix();
    const a = await start(prefix);
    const keys = [`${prefix}:{${shardOf('p1')}}:log`, `${prefix}:{${shardOf('p1')}}:seen`];
    await a.store.putBatches([stored(1)]);
    const dumps = await Promise.all(keys.map(key => dump(key)));
    await new Promise(resolve => setTimeout(resolve, 20));
    await a.store.putBatches([stored(2)]);
    for (const [i, key] of keys.entries()) await restore(key, dumps[i]!);
    // From another replica, 10 ms before what was read last.
    const [ms] = a.store.lanes[shardOf('p1')]!.reached.split('-');
    const { batch } = stored(7, [{}], { producer: '12' });
    const frame = encodeBatch({ cuid: 'c', proxyId: 'p1', receivedUs: 1 }, batch.bytes);
    await server.command('xadd', keys[0]!, `${Number(ms) - 10}-0`, 'r', 'other', 'n', 1, 'b', frame);
    await server.command('hset', keys[1]!, 'other', 1);
    await waitFor('the batch of the other', () => a.recovered.batches.length === 1);
    await a.store.putBatches([stored(3)]);
    const b = await start(prefix);
    assert.deepEqual(seqs(b.recovered).sort(), [1, 2, 3, 7]);
    assert.deepEqual(seqs(a.recovered), [7]);
  });

  it('goes on after Redis forgot everything, from what the replicas know', async () => {
    const prefix = freshPrefix();
    const source: SnapshotSource = { ...EMPTY, lives: () => [life({ events: 3 })] };
    const a = await start(prefix, {}, source);
    await a.store.putBatches([stored(1), stored(2)]);
    assert.equal(await a.store.keeper.snapshotNow(), true);
    for (const key of (await server.command('keys', `${prefix}:*`)) as string[]) await server.command('del', key);
    await a.store.putBatches([stored(3)]);
    await waitFor('another snapshot', async () => (await server.command('exists', `${prefix}:{keep}:snapshot`)) === 1);
    const b = await start(prefix);
    assert.equal(b.recovered.lives.get(life().cuid)?.events, 3);
    assert.deepEqual(
      (await b.store.putBatches([stored(1), stored(2), stored(3), stored(4)])).map(({ fresh }) => fresh),
      [false, false, false, true],
    );
  });

  it('takes no more than may wait while Redis hangs, says since when, and goes on', async () => {
    const own = await RedisServer.start();
    try {
      const { store } = await openStore(own.url, freshPrefix(), { waitingBytesMax: 20_000 });
      await store.putBatches([stored(1)]);
      own.signal('SIGSTOP');
      const waiting: Promise<unknown>[] = [];
      let refused: Error | undefined;
      for (let seq = 2; seq < 2000 && refused === undefined; seq++) {
        const put = store.putBatches([stored(seq)]);
        put.catch((error: Error) => (refused = error));
        waiting.push(put);
        await Promise.resolve();
      }
      assert.match(String(refused), /^Exhausted: \d+ bytes wait for the store/);
      await waitFor('it to be stale', () => store.shared.staleMs() > 1000);
      assert.equal(store.stats().durable, false);
      own.signal('SIGCONT');
      const settled = await Promise.allSettled(waiting);
      assert.ok(settled.filter(({ status }) => status === 'fulfilled').length > 10);
      await waitFor('it to be fresh', () => store.shared.staleMs() === 0);
      assert.equal(store.stats().shared?.waitingBytes, 0);
      await store.close();
    } finally {
      await own.stop();
    }
  });
});

const entry = (id: string, ...claims: string[]): RollbackEntry => ({ type: 'kill', id, value: null, claims });
const seqs = ({ batches }: Recovered): number[] => batches.map(({ seq }) => seq);

/** As hex, because a connection that reads text would spoil it. */
async function dump(key: string): Promise<string> {
  const script = `local d = redis.call('DUMP', KEYS[1]) return (d:gsub('.', function(c) return string.format('%02x', c:byte()) end))`;
  return String(await server.command('eval', script, 1, key));
}

async function restore(key: string, hex: string): Promise<void> {
  const script = `local d = ARGV[1]:gsub('..', function(h) return string.char(tonumber(h, 16)) end) redis.call('RESTORE', KEYS[1], 0, d, 'REPLACE') return 1`;
  await server.command('eval', script, 1, key, hex);
}
