// `make demo`: the shop on real Envoys, the collector, and a story of about a minute that ends by itself.
//
//   KEEP=1 or --keep   stay up afterwards, with traffic, and print the addresses
//   STORE=redis        the collector keeps its state in a Redis that the demo starts
//   REPLICAS=2         so many collectors on that Redis, each with its share of the sidecars
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CollectorView } from './collector-view.js';
import { format, isFree, trySubnet, type Address } from './mesh/address.js';
import { Collector } from './mesh/collector.js';
import { Redis } from './mesh/redis.js';
import { PolicyFile } from './policy-file.js';
import { Scenario } from './scenario.js';
import { screen } from './screen.js';
import { CONSUMER, SERVICES, Shop } from './shop/shop.js';

const INTERRUPTED = 130;
const COLLECTOR_GRPC: Address = { host: '127.0.0.1', port: 50051 };
const COLLECTOR_HTTP: Address = { host: '127.0.0.1', port: 9464 };

const keep = process.env['KEEP'] === '1' || process.argv.includes('--keep');
/** What must be ended, the latest first. */
const endings: (() => Promise<void> | void)[] = [];
let ending: Promise<void> | undefined;
/** Something was not seen: the logs stay for whoever looks into it. */
let failed = false;
const logs: string[] = [];

/** Ends everything that was started, once, however often it is asked for. */
function end(): Promise<void> {
  ending ??= (async () => {
    for (const one of endings.reverse()) {
      try {
        await one();
      } catch (error) {
        // What is left must end all the same.
        console.error(error);
      }
    }
  })();
  return ending;
}

/** What the environment asks for. @throws Error that names what is wrong and what to write */
function wanted(): { redis: boolean; replicas: number } {
  const [store = 'memory', replicas = '1'] = [process.env['STORE'] || undefined, process.env['REPLICAS'] || undefined];
  if (store !== 'memory' && store !== 'redis') throw new Error(`STORE is ${store}, must be memory or redis`);
  if (!/^[1-4]$/.test(replicas)) throw new Error(`REPLICAS is ${replicas}, must be 1 to 4`);
  if (replicas !== '1' && store !== 'redis') {
    throw new Error(`REPLICAS is ${replicas}, but collectors share nothing in memory: write STORE=redis as well`);
  }
  return { redis: store === 'redis', replicas: Number(replicas) };
}

async function startStore(dir: string, redis: boolean): Promise<string[]> {
  if (!redis) return [];
  const server = await Redis.start(dir);
  endings.push(() => server.stop());
  screen.step(`redis        ${server.url}`);
  return ['--store', server.url];
}

async function startCollectors(dir: string): Promise<{ collectors: Collector[]; policy: PolicyFile }> {
  const { redis, replicas } = wanted();
  // The usual addresses, so that `bin/meshpulse` in another terminal finds it; any free ones if they are taken.
  const usual = (await isFree(COLLECTOR_GRPC)) && (await isFree(COLLECTOR_HTTP));
  const policy = new PolicyFile(join(dir, 'rollback.yaml'));
  await policy.write('off');
  const args = ['--rollback-policy', policy.path, ...(await startStore(dir, redis))];
  const collectors: Collector[] = [];
  for (let n = 1; n <= replicas; n++) {
    const own = join(dir, `collector-${n}`);
    await mkdir(own);
    const addresses = usual && n === 1 ? { grpc: COLLECTOR_GRPC, http: COLLECTOR_HTTP } : {};
    const collector = await Collector.start({ dir: own, ...addresses, args });
    endings.push(() => collector.stop());
    const name = replicas === 1 ? 'collector  ' : `collector ${n}`;
    screen.step(`${name}  grpc ${format(collector.grpc)}   http ${format(collector.http)}`);
    collectors.push(collector);
  }
  return { collectors, policy };
}

async function startShop(collectors: readonly Collector[]): Promise<Shop> {
  const subnet = await trySubnet('127.0');
  const shop = await Shop.create({ collector: collectors.map(({ grpc }) => grpc), ...(subnet ? { subnet } : {}) });
  logs.push(shop.mesh.dir);
  endings.push(() => {
    shop.mesh.keepFiles = failed;
    return shop.stop();
  });
  const began = Date.now();
  await shop.start();
  const services = [...SERVICES, CONSUMER].map(name => `${name} x${shop.mesh.instances(name).length}`).join(', ');
  screen.step(
    `${shop.mesh.proxies.length} Envoys   ready in ${((Date.now() - began) / 1000).toFixed(1)} s: ${services}`,
  );
  return shop;
}

async function play(): Promise<number> {
  const dir = await mkdtemp(join(tmpdir(), 'meshpulse-demo-'));
  endings.push(() => (failed ? undefined : rm(dir, { recursive: true, force: true })));
  logs.push(dir);
  const { collectors, policy } = await startCollectors(dir);
  const collector = collectors[0]!;
  const shop = await startShop(collectors);
  const view = new CollectorView(collectors);
  endings.push(() => view.close());
  const scenario = new Scenario(shop, collector, view, policy);
  endings.push(() => scenario.stop());
  const unseen = await scenario.play();
  if (collectors.length > 1) {
    const answered = view.answered.map((count, n) => `collector ${n + 1} ${count}`).join(', ');
    screen.note(`who answered the demo's questions: ${answered}; sidecars reported to each in turn`);
  }
  if (keep) await stay(shop, collector, scenario);
  return unseen;
}

async function stay(shop: Shop, collector: Collector, scenario: Scenario): Promise<void> {
  scenario.startTraffic();
  screen.title('Staying up, with traffic; Ctrl-C ends it');
  screen.note(`gateway    http://${format(shop.mesh.proxy('gateway').inbound)}/catalog`);
  screen.note(`collector  http://${format(collector.http)}/   grpc ${format(collector.grpc)}`);
  screen.note(`command    bin/meshpulse status --collector ${format(collector.grpc)}`);
  screen.note(`files      ${shop.mesh.dir}`);
  await new Promise<never>(() => {});
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    screen.step('ending');
    void end().finally(() => process.exit(INTERRUPTED));
  });
}

try {
  const unseen = await play();
  failed = unseen > 0;
  await end();
} catch (error) {
  // What was cut off by an interrupt is no news.
  if (!ending) {
    console.error(error);
    failed = true;
    await end();
  }
}
if (failed) {
  screen.note(`logs stay in ${logs.join(' and ')}`);
  process.exitCode = 1;
}
