// What does the filter add to the time that a request takes? See README.md.
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { takeSubnet, type Address } from '../../demo/src/mesh/address.js';
import { bootstrap, type ProxySpec } from '../../demo/src/mesh/bootstrap.js';
import { Envoy, envoyBinary, FILTER_WASM } from '../../demo/src/mesh/envoy.js';
import type { Json } from '../../demo/src/mesh/json.js';
import { COLLECTOR_CLUSTER } from '../../demo/src/mesh/mesh.js';
import { AckCollector } from '../filter/collector.js';
import { NAMESPACE, requestBytes, responseBytes, SERVICE } from '../filter/messages.js';
import { OpenLoop } from '../filter/open-loop.js';
import { pin } from '../filter/process-clock.js';
import { seeded, shuffled } from '../filter/random.js';
import { quantile, type Estimate } from '../filter/statistics.js';
import { Upstream } from '../filter/upstream.js';

const PROXY_CORE = 0;
const LOAD_CORE = 1;
const DIRECTIONS = ['outbound', 'inbound'] as const;
type Direction = (typeof DIRECTIONS)[number];
const PORTS: Record<Direction, number> = { outbound: 15001, inbound: 8080 };
/** Listeners of each direction, on ports one after the other: the first is the one with the filter. */
const ARMS = ['filter', 'none', 'none, again'] as const;
type Arm = (typeof ARMS)[number];
const GOALS = [
  { name: 'p50', quantile: 0.5, addedMs: 0.2 },
  { name: 'p99', quantile: 0.99, addedMs: 1 },
];

/** Of the slices, from the quietest up: the one looked at. */
const QUIET_SHARE = 0.1;
const RESAMPLES = 2000;

const { values: flags } = parseArgs({
  options: {
    /** Requests per second. */
    rate: { type: 'string', default: '1000' },
    /** Each gives every listener one slice, in shuffled order. */
    rounds: { type: 'string', default: '120' },
    'slice-ms': { type: 'string', default: '300' },
    connections: { type: 'string', default: '32' },
    seed: { type: 'string', default: '1' },
  },
});

interface Lane {
  direction: Direction;
  arm: Arm;
  loop: OpenLoop;
  /** Latencies of each slice, ms, ascending. */
  slices: Float64Array[];
  failed: number;
}

await main();

async function main(): Promise<void> {
  pin(process.pid, LOAD_CORE);
  const dir = await mkdtemp(join(tmpdir(), 'bench-'));
  const subnet = await takeSubnet();
  const collector = await AckCollector.start();
  const ip = `${subnet.prefix}.10.1`;
  const app = { host: `${subnet.prefix}.5.1`, port: 18080 };
  const peer = { host: `${subnet.prefix}.5.2`, port: 8080 };
  const upstreams = [await Upstream.start(app, responseBytes(false)), await Upstream.start(peer, responseBytes(true))];
  const spec = specOf(dir, ip, app, peer, collector.address);
  const envoy = await Envoy.start({ name: 'latency', dir, bootstrap: bootstrap(spec), adminSocket: spec.adminSocket });
  try {
    await envoy.ready();
    for (const pid of [collector.pid]) pin(pid, LOAD_CORE);
    pin(envoy.pid, PROXY_CORE);
    const lanes = await measure(ip);
    console.log(report(lanes, await collector.rows()));
  } finally {
    await envoy.kill();
    for (const upstream of upstreams) await upstream.stop();
    collector.stop();
    subnet.release();
    await rm(dir, { recursive: true, force: true });
  }
}

async function measure(ip: string): Promise<Lane[]> {
  const random = seeded(Number(flags.seed));
  const lanes: Lane[] = [];
  for (const direction of DIRECTIONS) {
    for (const [i, arm] of ARMS.entries()) {
      const address = { host: ip, port: PORTS[direction] + i };
      const loop = await OpenLoop.open(address, requestBytes(direction === 'inbound'), Number(flags.connections));
      lanes.push({ direction, arm, loop, slices: [], failed: 0 });
    }
  }
  for (const lane of lanes) await lane.loop.run(Number(flags.rate), Number(flags['slice-ms']), random);
  for (let round = 0; round < Number(flags.rounds); round++) {
    for (const lane of shuffled(lanes, random)) {
      const { latenciesMs, failed } = await lane.loop.run(Number(flags.rate), Number(flags['slice-ms']), random);
      lane.slices.push(latenciesMs);
      lane.failed += failed;
    }
  }
  for (const lane of lanes) lane.loop.close();
  return lanes;
}

/** One sidecar; each of its listeners twice more, on the next ports, without the filter. */
function specOf(dir: string, ip: string, app: Address, peer: Address, collector: Address): ProxySpec {
  const destination = { service: SERVICE, namespace: NAMESPACE, port: 8080, endpoints: [peer] };
  return {
    identity: {
      kind: 'sidecar',
      ip,
      pod: 'shop-6d4cf56db6-a1000',
      service: 'shop',
      namespace: NAMESPACE,
      cluster: 'bench',
    },
    options: { wasm: { file: FILTER_WASM }, patch: addPlainListeners },
    adminSocket: join(dir, 'admin.sock'),
    inbound: { address: { host: ip, port: PORTS.inbound }, app, appProtocol: 'http1' },
    outbound: {
      address: { host: ip, port: PORTS.outbound },
      destinations: [{ ...destination, protocol: 'http1', tls: false }],
      externals: [],
    },
    collector: { address: collector, cluster: COLLECTOR_CLUSTER },
  };
}

function addPlainListeners(config: Json): void {
  const statics = config['static_resources'] as { listeners: Json[] };
  statics.listeners = statics.listeners.flatMap(listener => [listener, plain(listener, 1), plain(listener, 2)]);
}

function plain(listener: Json, offset: number): Json {
  const copy = structuredClone(listener) as {
    name: string;
    address: { socket_address: { port_value: number } };
    filter_chains: { filters: { typed_config: { http_filters: { name: string }[] } }[] }[];
  };
  copy.name += `_plain_${offset}`;
  copy.address.socket_address.port_value += offset;
  for (const { typed_config } of copy.filter_chains.flatMap(({ filters }) => filters)) {
    typed_config.http_filters = typed_config.http_filters.filter(({ name }) => name !== 'meshpulse');
  }
  return copy;
}

function report(lanes: Lane[], rows: number): string {
  const requests = lanes.flatMap(({ slices }) => slices).reduce((sum, { length }) => sum + length, 0);
  const failed = lanes.reduce((sum, lane) => sum + lane.failed, 0);
  const version = /\/(\d+\.\d+\.\d+)\//.exec(execFileSync(envoyBinary(), ['--version'], { encoding: 'utf8' }))?.[1];
  return [
    `${flags.rate} requests/s open loop, ${flags.connections} connections, ${flags.rounds} slices of ${flags['slice-ms']} ms per listener; ` +
      `${requests} requests timed, ${failed} failed, ${rows} rows acknowledged meanwhile (warm-up included).`,
    `Envoy ${version ?? '?'}, one worker on core ${PROXY_CORE}, load on core ${LOAD_CORE}; ${cpus().length} x ${cpus()[0]?.model.trim() ?? '?'}.`,
    [
      '| | no filter, ms | no filter, again: added (95 %) | filter: added (95 %) | goal |',
      '|---|---|---|---|---|',
    ].join('\n') + `\n${DIRECTIONS.flatMap(direction => GOALS.map(goal => line(lanes, direction, goal))).join('\n')}`,
  ].join('\n\n');
}

function line(lanes: Lane[], direction: Direction, goal: (typeof GOALS)[number]): string {
  const of = (arm: Arm) => {
    const lane = lanes.find(l => l.direction === direction && l.arm === arm);
    return (lane?.slices ?? []).map(slice => quantile(slice, goal.quantile));
  };
  const none = of('none');
  const [again, ours] = [added(of('none, again'), none), added(of('filter'), none)];
  const within = Math.max(Math.abs(again.low), Math.abs(again.high)) <= goal.addedMs;
  const verdict = !within ? 'not judged, A/A is too far apart' : ours.value <= goal.addedMs ? 'met' : 'not met';
  const text = ({ value, low, high }: Estimate) => `${value.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`;
  return `| ${direction}, ${goal.name} | ${quiet(none).toFixed(3)} | ${text(again)} | ${text(ours)} | <= ${goal.addedMs}: ${verdict} |`;
}

/** What the quietest slices say: neighbours on the machine only ever add. */
function quiet(values: readonly number[]): number {
  return quantile(
    [...values].sort((a, b) => a - b),
    QUIET_SHARE,
  );
}

/** Difference of the quiet slices of two listeners, with its bootstrap interval over rounds. */
function added(arm: readonly number[], none: readonly number[]): Estimate {
  const random = seeded(2);
  const resampled = Array.from({ length: RESAMPLES }, () => {
    const rounds = none.map(() => Math.floor(random() * none.length));
    const pick = (values: readonly number[]) => rounds.map(round => values[round] ?? NaN);
    return quiet(pick(arm)) - quiet(pick(none));
  }).sort((a, b) => a - b);
  return { value: quiet(arm) - quiet(none), low: quantile(resampled, 0.025), high: quantile(resampled, 0.975) };
}
