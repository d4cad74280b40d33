import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { ConfigError } from '../../collector/src/errors.js';
import { PROTOS } from '../../collector/src/paths.js';
import { encodeBatch, encodeFrame, RECORD } from '../../collector/src/store/frames.js';
import { checkInfo, type RedisAccess } from '../../collector/src/store/redis/connect.js';
import { ACL_NEEDED } from '../../collector/src/store/redis/faults.js';
import { shardOf } from '../../collector/src/store/redis/keys.js';
import type { RedisStore, RedisStoreOptions } from '../../collector/src/store/redis/redis-store.js';
import { freePort, RedisServer, waitFor } from '../support/redis.js';
import { Folder } from './access/support.js';
import { access, freshPrefix, openStore, quiet, redisStore } from './redis-support.js';
import { EMPTY, life, Recovered, stored } from './store-contract.js';

/** Commands that fail in one second of a fault, at most: 16 lanes, each with growing pauses, and the rest. */
const FAULTS_A_SECOND_MAX = 200;

describe('a store whose Redis says no', function () {
  this.timeout(40_000);
  let server: RedisServer;
  let store: RedisStore | undefined;
  const told: string[] = [];
  const log = { ...quiet, warn: (_: object, text: string) => void told.push(text) };
  beforeEach(async () => {
    server = await RedisServer.start('--appendonly', 'yes');
    told.length = 0;
  });
  afterEach(async () => {
    await store?.close();
    store = undefined;
    await server.stop();
  });

  const starts = async (
    user: string,
    password: string,
    prefix = freshPrefix(),
    extra: Partial<RedisStoreOptions> = {},
  ): Promise<RedisStore> => {
    store = redisStore(server.url, prefix, {
      access: access(server.url, user, password),
      log,
      startMs: 3000,
      ...extra,
    });
    await store.open(new Recovered(), EMPTY);
    return store;
  };
  const refuses = async (user: string, password: string, message: RegExp): Promise<void> => {
    await assert.rejects(starts(user, password), (error: Error) => {
      assert.ok(error instanceof ConfigError, error.stack);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /secret/);
      return true;
    });
  };

  it('refuses to start with a wrong password, or none, and says where to write it', async () => {
    await server.command('acl', 'setuser', 'mp', 'on', '>right', '+@all', '~*', '&*');
    await refuses('mp', 'secret', /the user or password is refused; check .*MESHPULSE_REDIS_PASSWORD/);
    await refuses('nobody', 'secret', /the user or password is refused/);
    await server.command('config', 'set', 'requirepass', 'right');
    await refuses('', '', /it wants a password; give one with MESHPULSE_REDIS_PASSWORD/);
  });

  it('works with exactly the permissions that the message about missing ones names', async () => {
    const rules = ACL_NEEDED.replaceAll('PREFIX', 'own').split(' ');
    await server.command('acl', 'setuser', 'mp', 'on', '>right', ...rules);
    const opened = await starts('mp', 'right', 'own', { logBytesMax: 1 });
    const rows = Array.from({ length: 200 }, () => ({}));
    for (let seq = 1; seq <= 40; seq++) await opened.putBatches([stored(seq, rows)]);
    await opened.putLife(life());
    await opened.putRollback([{ type: 'kill', id: 'a', value: null }]);
    for (let i = 0; i < 3; i++) assert.equal(await opened.keeper.snapshotNow(), true);
    await opened.keeper.trimNow();
    assert.ok(Number(await server.command('xlen', `own:{${shardOf('p1')}}:log`)) < 40, 'the log was cut off');
    assert.deepEqual(told, []);
    await server.command('client', 'kill', 'user', 'mp');
    await opened.putBatches([stored(41, rows)]);
    await waitFor('it to be fresh', () => opened.shared.staleMs() === 0);
    assert.deepEqual(
      told.filter(text => !/cannot be reached/.test(text)),
      [],
    );
    await opened.close();
    await refuses('mp', 'right', /its ACL refuses the user .*\+evalsha/);
  });

  it('waits while its user may do nothing, names that once, and goes on', async () => {
    await server.command('acl', 'setuser', 'mp', 'on', '>right', '+@all', '~*', '&*');
    const opened = await starts('mp', 'right');
    await opened.putBatches([stored(1)]);
    await server.command('acl', 'setuser', 'mp', '-evalsha', '-eval');
    await fault(opened, stored(2), /its ACL refuses the user/, () => server.command('acl', 'setuser', 'mp', '+@all'));
  });

  it('waits while Redis is full, and goes on', async () => {
    const opened = await starts('', '');
    await server.command('config', 'set', 'maxmemory', '1mb');
    await fault(opened, stored(2), /its memory is full \(maxmemory, noeviction\)/, () =>
      server.command('config', 'set', 'maxmemory', '0'),
    );
  });

  it('waits while Redis is only a copy, and goes on', async () => {
    const opened = await starts('', '');
    await server.command('replicaof', '127.0.0.1', 1);
    await fault(opened, stored(2), /it is a replica that takes no writes/, () =>
      server.command('replicaof', 'no', 'one'),
    );
  });

  it('sends its scripts again to a Redis that has forgotten them', async () => {
    const opened = await starts('', '');
    await opened.putBatches([stored(1)]);
    await server.command('script', 'flush');
    assert.equal((await opened.putBatches([stored(2)]))[0]?.fresh, true);
    assert.deepEqual(told, []);
  });

  it('keeps what was acknowledged when Redis is killed and comes back, and what waits meanwhile', async () => {
    const prefix = freshPrefix();
    const opened = await starts('', '', prefix);
    // As durable as an append-only file that is synchronised each second: what is in it survives a kill.
    assert.equal((await opened.putBatches([stored(1), stored(2)]))[0]?.durable, true);
    await server.kill();
    const waiting = opened.putBatches([stored(3)]);
    await waitFor('it to be stale', () => opened.shared.staleMs() > 0);
    await server.restart();
    const [result] = await waiting;
    assert.deepEqual([result?.fresh, result?.loss.reports], [true, 0]);
    await waitFor('it to be fresh', () => opened.shared.staleMs() === 0);
    const other = await openStore(server.url, prefix);
    assert.deepEqual(
      other.recovered.batches.map(({ seq }) => seq),
      [1, 2, 3],
    );
    await other.store.close();
  });

  it('counts as durable what a copy has confirmed, if that is asked for', async () => {
    const copy = await RedisServer.start('--replicaof', `127.0.0.1 ${server.port}`, '--repl-diskless-sync-delay', '0');
    try {
      await waitFor('the copy', async () => /link_status:up/.test(String(await copy.command('info', 'replication'))));
      store = redisStore(server.url, freshPrefix(), { waitFor: 1 });
      await store.open(new Recovered(), EMPTY);
      assert.equal((await store.putBatches([stored(1)]))[0]?.durable, true);
      copy.signal('SIGSTOP');
      assert.equal((await store.putBatches([stored(2)]))[0]?.durable, false, 'AOF or not: a copy was asked for');
    } finally {
      await copy.stop();
    }
  });

  it('refuses keys that are used by something else', async () => {
    await server.command('set', 'own:{3}:log', 'x');
    await assert.rejects(starts('', '', 'own'), /^ConfigError: --store .* choose another --redis-prefix$/);
  });

  it('starts whatever is wrong with what is stored, with what can be read', async () => {
    const opened = await starts('', '', 'own');
    await opened.putBatches([stored(1)]);
    const log = `own:{${shardOf('p1')}}:log`;
    const frame = encodeBatch({ cuid: 'c', proxyId: 'p1', receivedUs: 1 }, stored(9).batch.bytes);
    const blobs = [Buffer.from('noise'), frame.subarray(0, 40), encodeFrame(RECORD.LIFE, Buffer.from('{')), frame];
    for (const [i, blob] of blobs.entries())
      await server.command('xadd', log, '*', 'r', 'other', 'n', i + 1, 'b', blob);
    await waitFor('all of it', () => opened.stats().quarantined === 3);
    await server.command('set', 'own:{keep}:snapshot', '{"number":');
    const other = await openStore(server.url, 'own');
    assert.deepEqual([other.recovered.batches.map(({ seq }) => seq), other.store.stats().quarantined], [[1, 9], 3]);
    await other.store.close();
    assert.equal(await opened.keeper.snapshotNow(), true);
    await server.command('hset', 'own:{keep}:snapshot:1', '0', 'noise');
    const third = await openStore(server.url, 'own');
    assert.equal(third.recovered.batches.length, 2, 'from the log alone');
    await third.store.close();
  });

  it('goes on when who applies a batch fails', async () => {
    const prefix = freshPrefix();
    const opened = await starts('', '', prefix);
    const bad = opened.putBatches([stored(1)], () => {
      throw new Error('cannot be applied');
    });
    const good = opened.putBatches([stored(2)]);
    await assert.rejects(bad, /cannot be applied/);
    assert.equal((await good)[0]?.fresh, true);
    opened.shared.bus.subscribe(() => {
      throw new Error('cannot be used');
    });
    await server.command('spublish', `${prefix}:{bus}`, `${'0'.repeat(16)}anything`);
    await opened.putBatches([stored(3)]);
  });

  it('uses keys of one hash tag in each command', async () => {
    const client = new Redis(server.port, '127.0.0.1');
    const monitor = await client.monitor();
    client.disconnect();
    const seen: string[][] = [];
    monitor.on('monitor', (_time: string, args: string[]) => seen.push(args));
    const prefix = freshPrefix();
    const opened = await starts('', '', prefix);
    await opened.putBatches([stored(1), { ...stored(1), proxyId: 'p2' }, { ...stored(1), proxyId: 'p3' }]);
    await opened.putRollback([{ type: 'kill', id: 'a', value: null }]);
    for (let i = 0; i < 3; i++) await opened.keeper.snapshotNow();
    await opened.keeper.trimNow();
    opened.shared.bus.publish(Buffer.from('x'));
    const other = await openStore(server.url, prefix);
    await other.store.close();
    monitor.disconnect();
    const commands = seen.filter(args => args.some(arg => arg.startsWith(`${prefix}:`)));
    assert.ok(commands.length > 100, `${commands.length} commands`);
    const tags = commands.map(
      args => new Set(args.filter(arg => arg.startsWith(`${prefix}:`)).map(key => /\{.*?\}/.exec(key)?.[0])),
    );
    for (const [i, tag] of tags.entries())
      assert.ok(tag.size === 1 && !tag.has(undefined), commands[i]!.slice(0, 6).join(' '));
    const names = new Set(commands.map(([name]) => name!.toLowerCase()));
    for (const name of ['evalsha', 'ssubscribe', 'spublish', 'hset', 'xadd', 'xrange', 'unlink']) {
      assert.ok(names.has(name), `${name} was not seen: ${[...names].join(' ')}`);
    }
  });

  /** A put that waits while something is wrong, is told of, costs little meanwhile, and settles once it is right. */
  async function fault(
    opened: RedisStore,
    batch: ReturnType<typeof stored>,
    message: RegExp,
    repair: () => Promise<unknown>,
  ): Promise<void> {
    let settled = false;
    const put = opened.putBatches([batch]).finally(() => (settled = true));
    await waitFor('the fault in the log', () => told.some(text => message.test(text)));
    const before = opened.stats().writeErrors;
    await new Promise(resolve => setTimeout(resolve, 1000));
    assert.ok(
      opened.stats().writeErrors - before < FAULTS_A_SECOND_MAX,
      `${opened.stats().writeErrors - before} faults in 1 s`,
    );
    assert.equal(told.filter(text => message.test(text)).length, 1);
    assert.equal(settled, false);
    await repair();
    assert.equal((await put)[0]?.fresh, true);
  }
});

describe('a store over TLS', function () {
  this.timeout(30_000);
  const folder = new Folder();
  after(() => folder.remove());
  const pem = (path: string): string => readFileSync(path, 'utf8');

  it('checks whom it speaks to, shows its own certificate, and says what is wrong', async () => {
    const [ca, otherCa] = [folder.authority('ca'), folder.authority('other')];
    const [own, theirs] = [folder.certificate('us', ca, ''), folder.certificate('redis', ca, 'IP:127.0.0.1')];
    const tlsPort = await freePort();
    const files = ['--tls-cert-file', theirs.cert, '--tls-key-file', theirs.key, '--tls-ca-cert-file', ca.cert];
    const server = await RedisServer.start('--tls-port', String(tlsPort), ...files);
    const at = (port: number, tls: NonNullable<RedisAccess['tls']>): RedisStore =>
      redisStore('', 'x', { access: { ...access(`rediss://127.0.0.1:${port}`), tls }, startMs: 2000 });
    const pair = { cert: pem(own.cert), key: pem(own.key) };
    try {
      const store = at(tlsPort, { ca: pem(ca.cert), ...pair });
      await store.open(new Recovered(), EMPTY);
      assert.equal((await store.putBatches([stored(1)]))[0]?.fresh, true);
      await store.close();
      const fails = (port: number, tls: NonNullable<RedisAccess['tls']>): Promise<void> =>
        assert.rejects(
          at(port, tls).open(new Recovered(), EMPTY),
          /^ConfigError: --store .*(TLS fails \(.*--redis-ca|cannot be reached)/,
        );
      await fails(tlsPort, { ca: pem(otherCa.cert), ...pair });
      await fails(tlsPort, { ca: pem(ca.cert) });
      await fails(server.port, { ca: pem(ca.cert), ...pair });
    } finally {
      await server.stop();
    }
  });
});

describe('a store at the wrong Redis', function () {
  this.timeout(20_000);
  const to = access('redis://127.0.0.1:1');
  const toCluster = access('redis-cluster://127.0.0.1:1');
  const info = (version: string, cluster: 0 | 1): string =>
    `redis_version:${version}\r\ncluster_enabled:${cluster}\r\naof_enabled:1\r\n`;

  it('says that it is too old, a cluster, or none', () => {
    assert.throws(() => checkInfo(info('6.2.14', 0), to), /it is Redis 6\.2\.14, must be 7\.0 or newer/);
    assert.throws(() => checkInfo(info('7.0.15', 1), to), /node of a cluster; write --store redis-cluster:/);
    assert.throws(() => checkInfo(info('7.0.15', 0), toCluster), /not a cluster; write --store redis:/);
    assert.deepEqual(checkInfo(info('7.0.15', 0), to), { persists: true, evicts: '' });
    const evicting = `${info('7.0.15', 0)}maxmemory:1000\r\nmaxmemory_policy:allkeys-lru\r\n`;
    assert.deepEqual(checkInfo(evicting, to), { persists: true, evicts: 'allkeys-lru' });
  });

  it('names the permissions that the page about Redis names', () => {
    const page = readFileSync(join(PROTOS, '..', 'docs', 'redis.md'), 'utf8');
    assert.ok(page.includes(`>PASSWORD ${ACL_NEEDED.replaceAll('PREFIX', 'mp')}\n`));
  });

  it('refuses to start, and says so, where a cluster is none', async () => {
    const server = await RedisServer.start();
    try {
      const store = redisStore(`redis-cluster://${server.address}`, 'x', { startMs: 3000 });
      await assert.rejects(store.open(new Recovered(), EMPTY), /it is not a cluster; write --store redis:/);
    } finally {
      await server.stop();
    }
  });
});
