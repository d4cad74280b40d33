// What does it cost a collector to put an event into Redis? See README.md.
import { execFileSync } from 'node:child_process';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { RedisServer, redisVersion } from '../../test/support/redis.js';
import { usage } from '../filter/process-clock.js';
import { seeded, shuffled } from '../filter/random.js';
import { EVENT_BYTES, pipelineArm, storeArm, type Arm } from './arms.js';
import { table, type Slice } from './table.js';

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '10' },
    /** Events that each arm stores in a slice. */
    events: { type: 'string', default: '100000' },
    seed: { type: 'string', default: '1' },
  },
});

/** Commands of redis-benchmark in a round, its pipeline, and its connections. */
const COMMANDS = 200_000;
const PIPELINE = 64;
const CLIENTS = 50;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Rounds before those that count: the code is compiled while it runs. */
const WARM_UP = 3;

await main();

async function main(): Promise<void> {
  const [ours, theirs] = [await RedisServer.start(), await RedisServer.start()];
  const arms: Arm[] = [];
  try {
    arms.push(await storeArm('store', ours), await storeArm('store, again', ours));
    arms.push(
      pipelineArm('XADD, pipeline of 256', theirs, 'xadd'),
      pipelineArm('HSET, pipeline of 256', theirs, 'hset'),
    );
    const slices: Slice[] = [];
    const random = seeded(Number(flags.seed));
    for (let warm = 0; warm < WARM_UP; warm++) await round(arms, -1, random);
    for (let n = 0; n < Number(flags.rounds); n++) slices.push(...(await round(arms, n, random)), benchmark(theirs, n));
    const machine = `Redis ${redisVersion()}, Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model ?? '?'}`;
    const plan = `${flags.rounds} rounds of ${Number(flags.events).toLocaleString('en')} events per arm, in shuffled order; ${machine}.`;
    process.stdout.write(`${plan}\n\n${table(slices, random)}\n`);
  } finally {
    for (const arm of arms) await arm.close();
    await Promise.all([ours.stop(), theirs.stop()]);
  }
}

async function round(arms: readonly Arm[], n: number, random: () => number): Promise<Slice[]> {
  const slices: Slice[] = [];
  for (const arm of shuffled(arms, random)) {
    const store = await arm.prepare(Number(flags.events));
    // What was made to be stored is not the arm's garbage.
    collectGarbage();
    const [clientBefore, serverBefore, startMs] = [
      process.cpuUsage(),
      usage(arm.server.pid).process,
      performance.now(),
    ];
    const events = await store();
    const [tookMs, client] = [performance.now() - startMs, process.cpuUsage(clientBefore)];
    const serverUs = usage(arm.server.pid).process - serverBefore;
    const clientUs = client.user + client.system;
    slices.push({ arm: arm.name, round: n, events, tookMs, clientUs, serverUs });
    await arm.clear();
  }
  return slices;
}

/** The fastest that a client in C does with one command for each event. */
function benchmark(server: RedisServer, n: number): Slice {
  const command = ['hset', 'event:__rand_int__', 'row', 'x'.repeat(EVENT_BYTES)];
  const plan = ['-p', server.port, '-P', PIPELINE, '-c', CLIENTS, '-n', COMMANDS, '-r', COMMANDS, '--csv', '-q'].map(
    String,
  );
  const before = usage(server.pid).process;
  const out = execFileSync('redis-benchmark', [...plan, ...command], { encoding: 'utf8' });
  const perSecond = Number(/","([\d.]+)"/.exec(out.split('\n').at(-2) ?? '')?.[1]);
  const serverUs = usage(server.pid).process - before;
  execFileSync('redis-cli', ['-p', String(server.port), 'flushall']);
  const tookMs = (COMMANDS / perSecond) * 1000;
  return {
    arm: `HSET, redis-benchmark -P ${PIPELINE}`,
    round: n,
    events: COMMANDS,
    tookMs,
    clientUs: Number.NaN,
    serverUs,
  };
}
