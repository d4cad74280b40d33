/** Several collectors that share a log, and shops whose sidecars report to any of them. */
import { ManualClock } from '../../../collector/src/clock.js';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Plain } from '../ingest-support.js';
import { start, until, type TestCollector } from '../rpc-support.js';
import { Shop, Sidecar, SERVICES, type Name } from '../rollback/shop.js';
import { freshPrefix, redisStore } from '../redis-support.js';
import { SharedLog, type LogStore } from './shared-log.js';
import type { Store } from '../../../collector/src/store/store.js';

export const ENFORCE = 'ROLLBACK_MODE_ENFORCE';

export function policyFile(text: string): string {
  const path = join(mkdtempSync(join(tmpdir(), 'meshpulse-replicas-')), 'policy.yaml');
  writeFileSync(path, text);
  return path;
}

/** What collectors share: a log in this process, or a Redis. */
export interface Ground {
  /** Replicas open a store each. */
  open(): Store;
  /** Cuts a replica off for good, as when its process is killed. */
  forget(store: Store): void;
  /** Gives what is on its way the time to arrive. */
  settle(): Promise<void>;
  /** Simulated time that may pass without that, ms. */
  readonly strideMs: number;
}

/** Everything in this process. */
export class LogGround implements Ground {
  readonly log = new SharedLog();
  readonly stores: LogStore[] = [];
  readonly strideMs = 250;

  open(): LogStore {
    this.stores.push(this.log.open());
    return this.stores.at(-1)!;
  }

  forget(store: LogStore): void {
    this.log.stores.delete(store);
    this.stores.splice(this.stores.indexOf(store), 1);
    store.cut();
  }

  async settle(): Promise<void> {
    for (let n = 0; n < 16; n++) await new Promise(resolve => setImmediate(resolve));
  }
}

/** A real Redis; each fleet has keys of its own. */
export class RedisGround implements Ground {
  private readonly prefix = freshPrefix();
  readonly strideMs = 2000;

  constructor(private readonly url: string) {}

  open(): Store {
    return redisStore(this.url, this.prefix);
  }

  forget(): void {
    // Whoever is killed closes its connections, and that is all.
  }

  async settle(): Promise<void> {
    await new Promise(resolve => setTimeout(resolve, 60));
  }
}

/** Collectors that share, with one clock that is turned by hand. */
export class Fleet {
  readonly clock = new ManualClock();
  readonly collectors: TestCollector[] = [];
  private readonly stores: Store[] = [];
  private passedMs = 0;

  constructor(private readonly ground: Ground = new LogGround()) {}

  static async start(count: number, policy?: string, ground?: Ground): Promise<Fleet> {
    const fleet = new Fleet(ground);
    for (let n = 0; n < count; n++) await fleet.add(policy);
    return fleet;
  }

  async add(policy?: string, args: readonly string[] = []): Promise<TestCollector> {
    const store = this.ground.open();
    const named = policy === undefined ? [] : ['--rollback-policy', policyFile(policy)];
    const collector = await start([...named, ...args], this.clock, {}, store);
    this.collectors.push(collector);
    this.stores.push(store);
    await this.pass(0.25);
    return collector;
  }

  /** Time passes, and everyone hears everyone. */
  async pass(seconds: number): Promise<void> {
    for (let ms = 0; ms < seconds * 1000; ms += 250) {
      this.clock.advanceMs(250);
      for (const { running } of this.collectors) running.tick();
      this.passedMs += 250;
      if (this.passedMs % this.ground.strideMs === 0) await this.settle();
    }
    await this.settle();
  }

  settle(): Promise<void> {
    return this.ground.settle();
  }

  /** As if its process had been killed: it says nothing any more, and nobody hears it. */
  async kill(at: number): Promise<void> {
    const [collector] = this.collectors.splice(at, 1);
    const [store] = this.stores.splice(at, 1);
    this.ground.forget(store!);
    collector!.clients.close();
    await collector!.running.stop();
  }

  async stop(): Promise<void> {
    for (const collector of this.collectors) await collector.stop();
  }
}

/** A shop whose sidecars are spread: `at` says at which collector each is. */
export async function spreadShop(fleet: Fleet, at: Readonly<Record<Name, number>>): Promise<Shop> {
  const sidecars = SERVICES.map(
    async name => [name, await new Sidecar(fleet.collectors[at[name]]!, name, ENFORCE).open()] as const,
  );
  const shop = Shop.of(fleet.collectors[0]!, Object.fromEntries(await Promise.all(sidecars)) as Record<Name, Sidecar>);
  await fleet.pass(0.5);
  return shop;
}

/** Whole transactions that went well, so that their kind is known. */
export async function teach(fleet: Fleet, shop: Shop): Promise<void> {
  const rows = Array.from({ length: 120 }, () => shop.newKey()).flatMap(key => [
    shop.call(key, 'reserve'),
    shop.call(key, 'charge'),
    shop.call(key, 'ship'),
    shop.entry(key, 'ok'),
  ]);
  await shop.sidecars.gateway.rows(...rows);
  await fleet.pass(5);
}

export async function verdictsAt(collector: TestCollector): Promise<Plain[]> {
  return ((await collector.call('Rollback.List', { pageSize: 1000 }))['verdicts'] ?? []) as Plain[];
}

/** Value of each series of a metric, by its labels. */
export async function series(collector: TestCollector, name: string): Promise<Map<string, number>> {
  const { text } = await collector.get('/metrics');
  const lines = text
    .split('\n')
    .filter(line => line.startsWith(`meshpulse_${name}{`) || line.startsWith(`meshpulse_${name} `));
  return new Map(
    lines.map(line => {
      const at = line.lastIndexOf(' ');
      return [line.slice(`meshpulse_${name}`.length, at), Number(line.slice(at + 1))];
    }),
  );
}

/** The sum over all replicas, and how often a series came from more than one of them. */
export async function summed(
  collectors: readonly TestCollector[],
  name: string,
): Promise<{ sum: number; twice: number }> {
  const seen = new Map<string, number>();
  let sum = 0;
  for (const collector of collectors) {
    for (const [labels, value] of await series(collector, name)) {
      sum += value;
      seen.set(labels, (seen.get(labels) ?? 0) + 1);
    }
  }
  return { sum, twice: [...seen.values()].filter(count => count > 1).length };
}

export { until };
