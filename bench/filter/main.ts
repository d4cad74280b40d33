// What does the filter cost a request? Run by `make bench`; see README.md for the arms and how to read it.
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { takeSubnet } from '../../demo/src/mesh/address.js';
import { envoyBinary, FILTER_WASM, ROOT } from '../../demo/src/mesh/envoy.js';
import { type Arm, type Direction, LOAD_CORE, NONE, PROXY_CORE, standardArms, type Surroundings } from './arms.js';
import { AckCollector } from './collector.js';
import { responseBytes } from './messages.js';
import { pin } from './process-clock.js';
import { seeded } from './random.js';
import { findKnee, type Round, runRound, type Settings } from './rounds.js';
import { tables } from './table.js';
import { Upstream } from './upstream.js';
import { verify } from './verify.js';

/** Of the rate that a proxy without a filter can just serve. */
const LOAD_SHARE = 0.6;
const README = join(ROOT, 'bench/filter/README.md');
const RESULT_FILE = join(ROOT, 'build/bench/filter.json');
const RESULTS = /(<!-- results -->\n)[^]*(<!-- end of results -->)/;

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '12' },
    slices: { type: 'string', default: '10' },
    'slice-ms': { type: 'string', default: '250' },
    'warm-ms': { type: 'string', default: '400' },
    connections: { type: 'string', default: '32' },
    /** Requests per second; default 60 % of the knee. */
    rate: { type: 'string' },
    seed: { type: 'string', default: '1' },
    /** More arms: `name=module.wasm`, each a Wasm filter with our settings. */
    module: { type: 'string', multiple: true, default: [] },
    /** Rewrites the table in README.md. */
    readme: { type: 'boolean', default: false },
  },
});

await main();

async function main(): Promise<void> {
  pin(process.pid, LOAD_CORE);
  const dir = await mkdtemp(join(tmpdir(), 'bench-'));
  const subnet = await takeSubnet();
  const collector = await AckCollector.start();
  pin(collector.pid, LOAD_CORE);
  const around: Surroundings = {
    subnet: subnet.prefix,
    dir,
    collector: collector.address,
    app: { host: `${subnet.prefix}.5.1`, port: 18080 },
    peer: { host: `${subnet.prefix}.5.2`, port: 8080 },
  };
  const upstreams: Record<Direction, Upstream> = {
    inbound: await Upstream.start(around.app, responseBytes(false)),
    outbound: await Upstream.start(around.peer, responseBytes(true)),
  };
  try {
    await measure([...standardArms(modules(dir)), ...moreArms()], around, upstreams, collector);
  } finally {
    await upstreams.inbound.stop();
    await upstreams.outbound.stop();
    collector.stop();
    subnet.release();
    await rm(dir, { recursive: true, force: true });
  }
}

async function measure(
  arms: Arm[],
  around: Surroundings,
  upstreams: Record<Direction, Upstream>,
  collector: AckCollector,
): Promise<void> {
  const random = seeded(Number(flags.seed));
  const wires = await verify(arms, around, upstreams);
  say('verified: ours and Lua put the same bytes on the wire; other headers are unchanged\n');
  say([...wires.outbound.request, '', ...wires.inbound.response].map(line => `    ${line}`).join('\n'));
  const none = arms.find(arm => arm.name === NONE);
  const settings = await settingsFor(none ?? fail('no arm without a filter'), around, random);
  const rounds: Round[] = [];
  const rowsBefore = await collector.rows();
  while (rounds.length < settings.rounds) {
    const round = await runRound(arms, around, settings, random);
    rounds.push(round);
    say(progress(rounds.length, round));
  }
  const rows = (await collector.rows()) - rowsBefore;
  const text = report(arms, rounds, settings, rows);
  say(`\n${text}`);
  save(rounds, text);
}

async function settingsFor(none: Arm, around: Surroundings, random: () => number): Promise<Settings> {
  const connections = Number(flags.connections);
  const knee = flags.rate ? undefined : await findKnee(none, around, connections, random);
  if (knee) say(`\nknee without a filter: ${knee.toFixed(0)} requests/s`);
  return {
    rounds: Number(flags.rounds),
    slicesPerRound: Number(flags.slices),
    sliceMs: Number(flags['slice-ms']),
    warmMs: Number(flags['warm-ms']),
    connections,
    rate: flags.rate ? Number(flags.rate) : Math.round((LOAD_SHARE * (knee ?? NaN)) / 100) * 100,
  };
}

/** Builds the empty filter; copies ours, so that a build in mid-run changes nothing. */
function modules(dir: string): { empty: string; ours: string } {
  if (!existsSync(FILTER_WASM)) fail('build/meshpulse.wasm is missing: run `make build` first');
  const ours = join(dir, 'ours.wasm');
  copyFileSync(FILTER_WASM, ours);
  const empty = join(dir, 'empty.wasm');
  const asc = join(ROOT, 'node_modules/assemblyscript/bin/asc.js');
  const folder = 'bench/filter/assembly';
  const args = [asc, `${folder}/empty.ts`, '--config', `${folder}/asconfig.json`, '--outFile', empty];
  execFileSync(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
  return { empty, ours };
}

function moreArms(): Arm[] {
  return flags.module.map(text => {
    const [name = '', file] = text.split('=');
    if (!file) fail(`--module ${text}: expected name=module.wasm`);
    return { name, title: name, proxy: { wasm: { file } } };
  });
}

function progress(number: number, round: Round): string {
  const cells = [...round.figures].map(([name, both]) => {
    const text = Object.values(both).map(
      m => `${m.processUs.toFixed(1)}${m.failed > 0 ? ` (${m.failed} failed)` : ''}`,
    );
    return `${name} ${text.join('/')}`;
  });
  return `round ${number}: CPU per request, µs, outbound/inbound: ${cells.sort().join(', ')}`;
}

function report(arms: Arm[], rounds: Round[], settings: Settings, rows: number): string {
  const requests = rounds.flatMap(round => [...round.figures.values()].flatMap(both => Object.values(both)));
  const failed = requests.reduce((sum, m) => sum + m.failed, 0);
  const total = requests.reduce((sum, m) => sum + m.requests, 0);
  const envoy =
    /\/(\d+\.\d+\.\d+)\//.exec(execFileSync(envoyBinary(), ['--version'], { encoding: 'utf8' }))?.[1] ?? '?';
  const cpu = cpus();
  return [
    `${rounds.length} rounds, each with a fresh proxy per arm; ${settings.rate} requests/s open loop, ${settings.slicesPerRound} slices of ` +
      `${settings.sliceMs} ms per arm, direction and round, ${settings.connections} connections; ${total} requests timed, ${failed} failed; ` +
      `${rows} rows were reported and acknowledged meanwhile (warm-up included).`,
    `Envoy ${envoy}, one worker on core ${PROXY_CORE}; load, application and collector on core ${LOAD_CORE}. ` +
      `${cpu.length} x ${cpu[0]?.model.trim() ?? '?'}, Linux ${release()}, Node ${process.version}.`,
    tables(arms, rounds, seeded(2)),
  ].join('\n\n');
}

function save(rounds: Round[], text: string): void {
  mkdirSync(join(ROOT, 'build/bench'), { recursive: true });
  const plain = rounds.map(round => ({
    figures: Object.fromEntries(round.figures),
    residentBytes: Object.fromEntries(round.residentBytes),
  }));
  writeFileSync(RESULT_FILE, JSON.stringify({ flags, rounds: plain }, null, 1));
  if (!flags.readme) return;
  writeFileSync(
    README,
    readFileSync(README, 'utf8').replace(RESULTS, (_, open: string, close: string) => `${open}\n${text}\n\n${close}`),
  );
}

function say(text: string): void {
  console.log(text);
}

function fail(text: string): never {
  console.error(`bench: ${text}`);
  process.exit(1);
}
