import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { encodeBatch } from '../../collector/src/store/frames.js';
import { shardOf } from '../../collector/src/store/redis/keys.js';
import { RedisCluster, RedisServer, waitFor } from '../support/redis.js';
import { spawnCollector } from './process-support.js';
import { stored } from './store-contract.js';

describe('a collector process on Redis', function () {
  this.timeout(60_000);
  let server: RedisServer;
  before(async () => {
    server = await RedisServer.start();
  });
  after(() => server.stop());

  const frame = encodeBatch({ cuid: 'c', proxyId: 'p1', receivedUs: 1 }, stored(1).batch.bytes);
  const append = (prefix: string): Promise<unknown> =>
    server.command('xadd', `${prefix}:{${shardOf('p1')}}:log`, '*', 'r', 'other', 'n', 1, 'b', frame);

  it('ends with 1 when it can no longer follow the log, to start over as a new one', async () => {
    const child = await spawnCollector(['--store', server.url, '--redis-prefix', 'cut']);
    await append('cut');
    await waitFor('the blob of the other', async () =>
      /replica_records_total\{[^}]*batch[^}]*\} 1/.test(await scrape(child.http)),
    );
    await server.command('hset', `cut:{${shardOf('p1')}}:seen`, 'trimmed', '99999999999999-0');
    const [code] = await child.exited;
    assert.equal(code, 1);
    const told = child.lines.find(line => /has to start over/.test(String(line['msg'])));
    assert.match(JSON.stringify(told), /was cut off at 99999999999999-0/);
  });

  it('ends with 2 and one line when its settings cannot be right, without the password', async () => {
    await server.command('acl', 'setuser', 'mp', 'on', '>right', '+@all', '~*', '&*');
    const url = `redis://mp:secret@${server.address}`;
    const { status, stderr } = run('--store', url);
    assert.equal(status, 2);
    assert.match(
      stderr,
      /^meshpulse collector: --store redis:\/\/mp:\*\*\*@127\.0\.0\.1:\d+: the user or password is refused;.*\n$/,
    );
    assert.match(run('--store', `redis-cluster://${server.address}`).stderr, /it is not a cluster/);
  });

  it('runs on a cluster, ends by SIGTERM, and shows no password in what it logs', async () => {
    const cluster = await RedisCluster.start();
    try {
      for (const node of cluster.nodes)
        await node.command('acl', 'setuser', 'mp', 'on', '>secret', '+@all', '~*', '&*');
      const env = { MESHPULSE_REDIS_PASSWORD: 'secret' };
      const child = await spawnCollector(['--store', cluster.url, '--redis-user', 'mp'], env);
      assert.match(await scrape(child.http), /meshpulse_store_stale_seconds 0\n/);
      child.process.kill('SIGTERM');
      assert.deepEqual(await child.exited, [0, null]);
      assert.ok(child.lines.length >= 3);
      assert.doesNotMatch(JSON.stringify(child.lines), /secret/);
    } finally {
      await cluster.stop();
    }
  });
});

const scrape = async (http: string): Promise<string> => (await fetch(`http://${http}/metrics`)).text();

function run(...args: string[]): { status: number | null; stderr: string } {
  const free = ['--grpc', '127.0.0.1:0', '--http', '127.0.0.1:0'];
  return spawnSync('bin/meshpulse', ['collector', ...free, ...args], { encoding: 'utf8', timeout: 30_000 });
}
