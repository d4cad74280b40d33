// How long until the rest of the mesh knows that a step has failed? See README.md.
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { spawnCollector, usageOf } from '../../test/collector/process-support.js';
import { seeded, shuffled } from '../filter/random.js';
import { PubSub, RedisServer } from './redis.js';
import { Shop } from './shop.js';
import { POLICY } from './messages.js';
import { table, type Lane, type Slice } from './table.js';

const { values: flags } = parseArgs({
  options: {
    /** Each gives every lane one slice without and one under load. */
    rounds: { type: 'string', default: '20' },
    /** Measurements of each lane in a slice, and from one to the next, ms. */
    probes: { type: 'string', default: '150' },
    'every-ms': { type: 'string', default: '12' },
    /** Load: rows per second, of other sidecars. */
    rows: { type: 'string', default: '5000' },
    /** Without --data-dir. */
    memory: { type: 'boolean', default: false },
    seed: { type: 'string', default: '1' },
  },
});

/** About as many bytes as the directive that a sidecar gets. */
const PAYLOAD = Buffer.alloc(160, 'x');
const WARM_UP = 200;
/** After the load was switched, ms. */
const SETTLE_MS = 500;

const pause = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, Math.max(0, ms)));

await main();

async function main(): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'bench-'));
  const policy = join(dir, 'policy.yaml');
  await writeFile(policy, POLICY);
  const stored = flags.memory ? [] : ['--data-dir', join(dir, 'data')];
  const collector = await spawnCollector(['--rollback-policy', policy, ...stored]);
  const redis = await RedisServer.start();
  const load = await startLoad(collector.grpc);
  const shop = Shop.start(collector.grpc);
  const [first, second] = [await PubSub.open(redis.port, 'a'), await PubSub.open(redis.port, 'b')];
  const lanes: Record<Lane, () => Promise<number>> = {
    redis: () => first.publish(PAYLOAD),
    'redis, again': () => second.publish(PAYLOAD),
    signal: () => shop.fail(),
  };
  try {
    await shop.teach();
    await slice(lanes, WARM_UP, false);
    shop.signals.length = 0;
    const slices = await measure(lanes, load, collector.process.pid!);
    const { verdicts, wrongVerdicts } = await shop.ledger();
    console.log(
      [
        `${flags.rounds} rounds of ${flags.probes} measurements per lane, idle and under load; ${String(verdicts)} verdicts, ` +
          `${String(wrongVerdicts)} of them wrong. The collector keeps its state ${flags.memory ? 'in memory' : 'in a folder (--data-dir)'}. ` +
          `Redis ${RedisServer.version()}, Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model.trim() ?? '?'}.`,
        table(slices, shop.signals, seeded(2)),
      ].join('\n\n'),
    );
  } finally {
    shop.close();
    for (const lane of [first, second]) lane.close();
    load.disconnect();
    redis.stop();
    collector.process.kill('SIGKILL');
    await collector.exited;
    await rm(dir, { recursive: true, force: true });
  }
}

async function measure(lanes: Record<Lane, () => Promise<number>>, load: ChildProcess, pid: number): Promise<Slice[]> {
  const random = seeded(Number(flags.seed));
  const slices: Slice[] = [];
  for (let round = 0; round < Number(flags.rounds); round++) {
    for (const loaded of shuffled([false, true], random)) {
      const [rowsBefore, cpuBefore] = [await switchLoad(load, loaded), usageOf(pid).cpuSeconds];
      const beganMs = performance.now();
      await pause(SETTLE_MS);
      const took = await slice(lanes, Number(flags.probes), true);
      const seconds = (performance.now() - beganMs) / 1000;
      const rowsPerSecond = ((await switchLoad(load, loaded)) - rowsBefore) / seconds;
      const cores = (usageOf(pid).cpuSeconds - cpuBefore) / seconds;
      slices.push({ round, loaded, took, rowsPerSecond, cores });
    }
  }
  return slices;

  async function switchLoad(child: ChildProcess, sending: boolean): Promise<number> {
    const answer = once(child, 'message');
    child.send({ sending });
    return ((await answer) as [{ rows: number }])[0].rows;
  }
}

/** Every lane `probes` times, one after the other, in an order of its own each time; ms, ascending. */
async function slice(
  lanes: Record<Lane, () => Promise<number>>,
  probes: number,
  paced: boolean,
): Promise<Slice['took']> {
  const random = seeded(Number(flags.seed));
  const took: Record<Lane, number[]> = { redis: [], 'redis, again': [], signal: [] };
  const beganMs = performance.now();
  for (let probe = 0; probe < probes; probe++) {
    if (paced) await pause(beganMs + probe * Number(flags['every-ms']) - performance.now());
    for (const lane of shuffled(Object.keys(lanes) as Lane[], random)) took[lane].push(await lanes[lane]());
  }
  for (const values of Object.values(took)) values.sort((a, b) => a - b);
  return took;
}

async function startLoad(address: string): Promise<ChildProcess> {
  const child = fork(fileURLToPath(new URL('./load.js', import.meta.url)), [address, flags.rows]);
  child.on('exit', code => {
    if (code !== 0) throw new Error('the load has ended before its time');
  });
  await once(child, 'message');
  return child;
}
