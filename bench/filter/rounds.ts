// The measurement itself. A round starts one fresh proxy per arm and gives each short slices of load in
// shuffled order; a proxy differs from the next of its kind for its whole life, so rounds are what counts.
import { type Arm, type Direction, DIRECTIONS, Sidecar, type Surroundings } from './arms.js';
import { requestBytes } from './messages.js';
import { OpenLoop } from './open-loop.js';
import { usage } from './process-clock.js';
import { shuffled } from './random.js';
import { quantile } from './statistics.js';

export interface Settings {
  rounds: number;
  slicesPerRound: number;
  sliceMs: number;
  warmMs: number;
  connections: number;
  /** Requests per second. */
  rate: number;
}

/** One arm, one direction, one round. */
export interface Measured {
  requests: number;
  failed: number;
  /** User and system time per request, us. */
  processUs: number;
  workerUs: number;
  p50Ms: number;
  p99Ms: number;
}

export interface Round {
  /** arm -> direction -> figures */
  figures: Map<string, Record<Direction, Measured>>;
  residentBytes: Map<string, number>;
}

/** A sidecar of this round with its load and sums. */
interface Lane {
  sidecar: Sidecar;
  direction: Direction;
  loop: OpenLoop;
  processUs: number;
  workerUs: number;
  failed: number;
  latenciesMs: number[];
}

export async function runRound(
  arms: Arm[],
  around: Surroundings,
  settings: Settings,
  random: () => number,
): Promise<Round> {
  const sidecars: Sidecar[] = [];
  try {
    // One after the other: which comes first must not always be the same one.
    for (const arm of shuffled(arms, random)) sidecars.push(await Sidecar.start(arm, arms.indexOf(arm), around));
    const lanes = (await Promise.all(sidecars.map(open(settings)))).flat();
    for (const lane of shuffled(lanes, random)) await lane.loop.run(settings.rate, settings.warmMs, random);
    for (let i = 0; i < settings.slicesPerRound; i++) {
      for (const lane of shuffled(lanes, random)) await slice(lane, settings, random);
    }
    const residentBytes = new Map<string, number>();
    for (const sidecar of sidecars) residentBytes.set(sidecar.arm.name, await sidecar.residentBytes());
    for (const lane of lanes) lane.loop.close();
    return { figures: figures(lanes), residentBytes };
  } finally {
    await Promise.all(sidecars.map(sidecar => sidecar.stop()));
  }
}

function open(settings: Settings) {
  return (sidecar: Sidecar): Promise<Lane[]> =>
    Promise.all(
      DIRECTIONS.map(async direction => {
        const request = requestBytes(direction === 'inbound');
        const loop = await OpenLoop.open(sidecar.listener(direction), request, settings.connections);
        return { sidecar, direction, loop, processUs: 0, workerUs: 0, failed: 0, latenciesMs: [] };
      }),
    );
}

async function slice(lane: Lane, settings: Settings, random: () => number): Promise<void> {
  const before = usage(lane.sidecar.pid);
  const result = await lane.loop.run(settings.rate, settings.sliceMs, random);
  const after = usage(lane.sidecar.pid);
  lane.processUs += after.process - before.process;
  lane.workerUs += after.worker - before.worker;
  lane.failed += result.failed;
  for (const latency of result.latenciesMs) lane.latenciesMs.push(latency);
}

function figures(lanes: Lane[]): Round['figures'] {
  const result: Round['figures'] = new Map();
  for (const lane of lanes) {
    const { name } = lane.sidecar.arm;
    const both = result.get(name) ?? ({} as Record<Direction, Measured>);
    both[lane.direction] = measured(lane);
    result.set(name, both);
  }
  return result;
}

function measured(lane: Lane): Measured {
  const sorted = Float64Array.from(lane.latenciesMs).sort();
  const requests = sorted.length;
  return {
    requests,
    failed: lane.failed,
    processUs: lane.processUs / requests,
    workerUs: lane.workerUs / requests,
    p50Ms: quantile(sorted, 0.5),
    p99Ms: quantile(sorted, 0.99),
  };
}

/** Rates tried, and how one leads to the next. */
const KNEE_FIRST = 4000;
const KNEE_STEP = 1.3;
const KNEE_LAST = 60_000;
const KNEE_MS = 700;
/** Share of its core at which a proxy counts as nearly busy. */
const KNEE_BUSY = 0.9;
/** With less than this share of the requests served in time, something else is at its limit. */
const KNEE_SERVED = 0.97;

/**
 * The rate, per second, at which an arm's outbound listener would keep its core busy.
 *
 * Found from CPU time at rising load rather than from the first late answers: neighbours on the machine delay
 * answers, but cost the proxy little CPU.
 */
export async function findKnee(
  arm: Arm,
  around: Surroundings,
  connections: number,
  random: () => number,
): Promise<number> {
  const sidecar = await Sidecar.start(arm, 0, around);
  const loop = await OpenLoop.open(sidecar.listener('outbound'), requestBytes(false), connections);
  try {
    let knee = 0;
    for (let rate = KNEE_FIRST; rate < KNEE_LAST; rate *= KNEE_STEP) {
      const began = performance.now();
      const before = usage(sidecar.pid);
      const { answered } = await loop.run(rate, KNEE_MS, random);
      const seconds = (performance.now() - began) / 1000;
      const busy = (usage(sidecar.pid).process - before.process) / 1e6 / seconds;
      const served = answered / seconds;
      knee = Math.max(knee, served / busy);
      if (busy > KNEE_BUSY || served < rate * KNEE_SERVED) break;
    }
    return knee;
  } finally {
    loop.close();
    await sidecar.stop();
  }
}
