// A cluster of three primaries with a copy each, two stores that write to it, and primaries that die or hang.

import assert from 'node:assert/strict';
import type { RedisStore } from '../../collector/src/store/redis/redis-store.js';
import { RedisCluster, waitFor, type RedisServer } from '../support/redis.js';
import { freshPrefix, openStore } from './redis-support.js';
import { stored } from './store-contract.js';

export interface FailoverOptions {
  readonly kills: number;
  readonly writesPerSecond: number;
}

const NODE_TIMEOUT_MS = 2000;

/** From when a cluster has another primary until all that waited has its place, ms: slots, pauses, a backlog. */
const LATER_MS = 2000;
const KILL_EVERY_MS = 20_000;
const HANG_MS = 30_000;
const PROXIES = 100;
const TICK_MS = 20;

export function failoverSuite({ kills, writesPerSecond }: FailoverOptions): void {
  describe('two stores on a cluster whose primaries fail', function () {
    this.timeout(300_000 + kills * 2 * KILL_EVERY_MS);
    let cluster: RedisCluster;
    let prefix: string;
    let stores: RedisStore[];
    let load: Load;
    beforeEach(async () => {
      cluster = await RedisCluster.start(1);
      prefix = freshPrefix();
      const opened = [await openStore(cluster.url, prefix, LIMITS), await openStore(cluster.url, prefix, LIMITS)];
      stores = opened.map(({ store }) => store);
      load = new Load(stores, writesPerSecond);
    });
    afterEach(async () => {
      await load.stop();
      await Promise.all(stores.map(store => store.close()));
      await cluster.stop();
    });

    it(`lose nothing that was acknowledged when one is killed every 20 s, ${kills} times`, async () => {
      const waits: number[] = [];
      const promotions: number[] = [];
      for (let i = 0; i < kills; i++) {
        await sleep(KILL_EVERY_MS / 4);
        const primaries = await cluster.primaries();
        const victim = primaries[i % primaries.length]!;
        load.longestMs = 0;
        const killedMs = performance.now();
        await victim.kill();
        await waitFor('the copy in its place', async () => (await cluster.primaries()).length === 3, KILL_EVERY_MS);
        promotions.push(performance.now() - killedMs);
        await sleep(KILL_EVERY_MS / 4);
        await victim.restart();
        await waitFor('the killed node as a copy', () => isCopy(victim), KILL_EVERY_MS);
        await sleep(KILL_EVERY_MS / 4);
        waits.push(load.longestMs);
      }
      const acknowledged = await load.stop();
      console.log(
        `      acknowledged ${acknowledged}, longest waits ${waits.map(Math.round).join(' ')} ms, until a copy was promoted ${promotions.map(Math.round).join(' ')} ms, ${shownStats(stores)}`,
      );
      await verify(acknowledged);
      for (const [i, ms] of waits.entries()) {
        const promotedMs = promotions[i]!;
        // Who waited for long has much to put.
        assert.ok(
          ms <= 1.25 * promotedMs + LATER_MS,
          `a batch waited for ${Math.round(ms)} ms, ${Math.round(promotedMs)} of them for a new primary`,
        );
      }
    });

    it('go on within the time of a failover when one hangs for 30 s', async () => {
      await sleep(2000);
      load.longestMs = 0;
      const [victim] = await cluster.primaries();
      let stale = 0;
      const watch = setInterval(() => (stale = Math.max(stale, ...stores.map(({ shared }) => shared.staleMs()))), 50);
      victim!.signal('SIGSTOP');
      await sleep(HANG_MS);
      victim!.signal('SIGCONT');
      await waitFor('the one that hung as a copy', () => isCopy(victim!), HANG_MS);
      await sleep(2000);
      clearInterval(watch);
      const longestMs = load.longestMs;
      const acknowledged = await load.stop();
      console.log(
        `      acknowledged ${acknowledged}, longest wait ${Math.round(longestMs)} ms, stale for ${stale} ms, ${shownStats(stores)}`,
      );
      assert.ok(stale > 0, 'it was never stale');
      assert.ok(longestMs <= NODE_TIMEOUT_MS + 5000, `a batch waited for ${Math.round(longestMs)} ms`);
      await verify(acknowledged);
    });

    /** A new store finds each batch that was acknowledged, once. */
    async function verify(acknowledged: number): Promise<void> {
      const { store, recovered } = await openStore(cluster.url, prefix, LIMITS);
      const losses = recovered.losses.reduce((sum, { reports }) => sum + reports, 0);
      await store.close();
      assert.equal(recovered.batches.length, acknowledged, 'batches in the log');
      assert.equal(losses, 0);
    }
  });
}

const LIMITS = { positionsMax: 100_000 };

const isCopy = async (node: RedisServer): Promise<boolean> =>
  /master_link_status:up/.test(String(await node.command('info', 'replication').catch(() => '')));

const shownStats = (stores: readonly RedisStore[]): string =>
  stores.map(store => `again ${store.stats().shared?.blobsAgain} lost ${store.stats().shared?.blobsLost}`).join(', ');

/** Batches of many proxies, each in order, at a steady rate. */
class Load {
  longestMs = 0;
  private acknowledged = 0;
  private readonly seqs = new Array<number>(PROXIES).fill(0);
  private readonly pending = new Set<Promise<void>>();
  private readonly timer: NodeJS.Timeout;
  private owed = 0;
  private next = 0;
  private lastMs = performance.now();
  private failed: unknown;

  constructor(
    private readonly stores: readonly RedisStore[],
    private readonly perSecond: number,
  ) {
    this.timer = setInterval(() => this.tick(), TICK_MS);
  }

  /** Waits for what is under way; how many were acknowledged in all. */
  async stop(): Promise<number> {
    clearInterval(this.timer);
    await Promise.all(this.pending);
    if (this.failed !== undefined) throw this.failed as Error;
    return this.acknowledged;
  }

  private tick(): void {
    const nowMs = performance.now();
    this.owed = Math.min(this.owed + ((nowMs - this.lastMs) * this.perSecond) / 1000, this.perSecond);
    this.lastMs = nowMs;
    for (; this.owed >= 1; this.owed -= 1) this.put(this.next++ % PROXIES);
  }

  private put(proxy: number): void {
    const seq = ++this.seqs[proxy]!;
    const batch = { ...stored(seq, [{}], { firstEvent: String(seq - 1) }), proxyId: `p${proxy}` };
    const startMs = performance.now();
    const put = this.stores[proxy % this.stores.length]!.putBatches([batch]).then(([result]) => {
      assert.ok(result!.fresh && result!.loss.reports === 0, `batch ${seq} of ${proxy}: ${JSON.stringify(result)}`);
      this.acknowledged += 1;
      this.longestMs = Math.max(this.longestMs, performance.now() - startMs);
    });
    const done = put.catch((error: unknown) => void (this.failed ??= error)).finally(() => this.pending.delete(done));
    this.pending.add(done);
  }
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms));
