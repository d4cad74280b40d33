// What does one event cost the collector? See README.md.
import { cpus } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { usageOf } from '../../test/collector/process-support.js';
import { seeded, shuffled } from '../filter/random.js';
import { estimate, median, type Estimate } from '../filter/statistics.js';
import { Arm, type ArmOptions } from './arms.js';

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    /** Events of one slice of the collector and of Go; the plain server gets a tenth. */
    events: { type: 'string', default: '600000' },
    /** Groups of five sidecars, one stream each. */
    fleets: { type: 'string', default: '4' },
    /** Share of transactions that fail. */
    failing: { type: 'string', default: '0.001' },
    /** Only these arms, comma between. */
    arms: { type: 'string', default: 'plain,go,ours,ours again' },
    /** Arguments of Node and of the collector, a space between: `--node=--cpu-prof`. */
    node: { type: 'string', default: '' },
    collector: { type: 'string', default: '' },
    /** Instead: as many events per second as they say, for so many seconds. */
    rate: { type: 'string' },
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: '1' },
  },
});

type Name = 'plain' | 'go' | 'ours' | 'ours again';

const words = (text: string): string[] => text.split(' ').filter(word => word !== '');

const options: ArmOptions = {
  fleets: Number(flags.fleets),
  failing: Number(flags.failing),
  collector: words(flags.collector),
  node: words(flags.node),
};

/** Work that the collector puts off (learning from what has ended) is done this long after the last row, ms. */
const PUT_OFF_MS = 11_500;

const GOALS: Partial<Record<string, number>> = { 'ours / plain': 1 / 30, 'ours / go': 1.25 };

const arms: Arm[] = [];

const start = (name: Name): Promise<Arm> =>
  name === 'plain' ? Arm.plain(name, options) : name === 'go' ? Arm.go(name, options) : Arm.ours(name, options);

async function compare(): Promise<void> {
  const names = flags.arms.split(',') as Name[];
  for (const name of names) arms.push(await start(name));
  const random = seeded(Number(flags.seed));
  for (const arm of arms) await arm.send(rowsOf(arm) / 2);
  await pause(PUT_OFF_MS);
  const costs = new Map<string, number[]>(names.map(name => [name, []]));
  for (let round = 0; round < Number(flags.rounds); round++) {
    const before = new Map(arms.map(arm => [arm, arm.cpuUs()]));
    const sent = new Map<Arm, number>();
    for (const arm of shuffled(arms, random)) sent.set(arm, (await arm.send(rowsOf(arm))).rows);
    await pause(PUT_OFF_MS);
    for (const arm of arms) {
      const cost = (arm.cpuUs() - before.get(arm)!) / sent.get(arm)!;
      costs.get(arm.name)!.push(cost);
    }
    console.error(
      `round ${round + 1}: ${names.map(name => `${name} ${costs.get(name)!.at(-1)!.toFixed(3)}`).join(', ')}`,
    );
  }
  console.log(table(names, costs, random));
}

const rowsOf = ({ name }: Arm): number => Number(flags.events) / (name === 'plain' ? 10 : 1);

function table(names: readonly Name[], costs: ReadonlyMap<string, number[]>, random: () => number): string {
  const lines = ['| server | CPU per event, µs |', '|---|---|'];
  for (const name of names) lines.push(`| ${name} | ${shown(estimate(costs.get(name)!, random))} |`);
  lines.push('', '| ratio, median of rounds (95 %) | | goal |', '|---|---|---|');
  for (const [a, b] of [
    ['ours', 'plain'],
    ['ours', 'go'],
    ['ours again', 'ours'],
  ] as const) {
    if (!names.includes(a) || !names.includes(b)) continue;
    const ratios = costs.get(a)!.map((cost, i) => cost / costs.get(b)![i]!);
    const goal = GOALS[`${a} / ${b}`];
    const met = goal === undefined ? '' : `<= ${goal.toFixed(3)}: ${median(ratios) <= goal ? 'met' : 'missed'}`;
    lines.push(`| ${a} / ${b} | ${shown(estimate(ratios, random))} | ${met} |`);
  }
  lines.push('', `Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model.trim() ?? '?'}.`);
  return lines.join('\n');
}

const shown = ({ value, low, high }: Estimate): string =>
  `${value.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`;

/** What the collector says of itself, without labels. */
async function gaugesOf({ http }: Arm): Promise<Map<string, number>> {
  const text = await (await fetch(`http://${http}/metrics`)).text();
  const lines = text.split('\n').filter(line => /^[a-z_]+ /.test(line));
  return new Map(lines.map(line => [line.split(' ')[0]!, Number(line.split(' ')[1])]));
}

/** One collector, as many events per second as it takes; CPU, memory and what was really taken, every 5 s. */
async function hold(perSecond: number, seconds: number): Promise<void> {
  const EVERY_S = 5;
  const arm = await start('ours');
  arms.push(arm);
  let cpu = arm.cpuUs();
  for (let at = 0; at < seconds; at += EVERY_S) {
    const sent = await arm.send(perSecond * EVERY_S, perSecond);
    const now = arm.cpuUs();
    const { rssMib } = usageOf(arm.pid);
    const gauges = await gaugesOf(arm);
    const mib = (name: string): number => Math.round((gauges.get(name) ?? 0) / 2 ** 20);
    console.log(
      `${at + EVERY_S} s: ${Math.round(sent.rows / sent.seconds)} events/s, ${((now - cpu) / 1e6 / sent.seconds).toFixed(2)} cores, ` +
        `${((now - cpu) / sent.rows).toFixed(3)} µs an event, ${Math.round(rssMib)} MiB (${mib('nodejs_heap_size_used_bytes')} heap, ` +
        `${mib('nodejs_external_memory_bytes')} arrays), ${gauges.get('meshpulse_transactions')} transactions`,
    );
    cpu = now;
  }
}

try {
  if (flags.rate === undefined) await compare();
  else await hold(Number(flags.rate), Number(flags.seconds));
} finally {
  for (const arm of arms) await arm.stop();
}
