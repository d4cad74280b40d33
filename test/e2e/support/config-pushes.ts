// A proxy whose filter gets one new configuration after the other while it serves: what its VMs then hold,
// and whether every request is still answered and counted.
import { strict as assert } from 'node:assert';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { App } from '../../../demo/src/mesh/app.js';
import { until } from '../../../demo/src/mesh/child.js';
import { Collector, CollectorClient } from '../../../demo/src/mesh/collector.js';
import { FILTER_WASM, type Envoy } from '../../../demo/src/mesh/envoy.js';
import type { Json } from '../../../demo/src/mesh/json.js';
import { Load, quantile, total, type LoadReport } from '../../../demo/src/mesh/load.js';
import { Mesh } from '../../../demo/src/mesh/mesh.js';
import { PushedConfig, type PushBy } from './pushed-config.js';
import { linearMemories } from './wasm-memory.js';

export interface Plan {
  by: PushBy;
  pushes: number;
  ratePerSecond: number;
  /** Of the load; the pushes are spread over it evenly. */
  durationMs: number;
  sampleMs: number;
}

export interface Sample {
  atMs: number;
  vms: number;
  /** Sum of the VMs' linear memories. */
  linearBytes: number;
  linearResidentBytes: number;
  /** Of the whole process. */
  residentBytes: number;
}

export interface Findings {
  load: LoadReport;
  samples: Sample[];
  /** Configurations that Envoy refused. */
  refused: number;
  /** HTTP status -> lines of the access log. */
  logged: Map<number, number>;
  /** What the collector says of the proxy's only life. */
  life: Life;
}

export interface Life {
  events: string;
  events_lost: string;
  reports_lost: string;
  status: { in_flight: number; calls_in_flight: number };
  config_errors: string[];
}

const ARRIVAL_MS = 60_000;
const IN_FLIGHT_MS = 10_000;
const SERVICE = 'back';
/** What may come to be once in a while, such as a row in a table; 500 configurations that leak one page each do not pass. */
const SLOPE_KIB_MAX = 50;
/** The first minutes of a VM touch its tables page by page: what is touched is judged in longer runs only. */
const TABLES_FULL_MS = 600_000;

export async function configPushes(plan: Plan): Promise<Findings> {
  const dir = await mkdtemp(join(tmpdir(), 'pushes-'));
  const collector = await Collector.start({ dir, args: ['--log-level', 'warn'] });
  const pushed = new PushedConfig(plan.by, join(dir, 'pushed'));
  const patch = (bootstrap: Json) => {
    shortLog(bootstrap);
    pushed.takeOver(bootstrap);
  };
  const mesh = await Mesh.create({
    services: [{ name: SERVICE }],
    collector: collector.grpc,
    proxy: { wasm: { file: FILTER_WASM }, concurrency: 2, patch },
  });
  const proxy = mesh.proxy(SERVICE);
  const app = await App.start(proxy.app, undefined, () => ({ status: 200 }));
  const client = new CollectorClient(collector.grpc);
  try {
    await mesh.start();
    await until('the proxy known', ARRIVAL_MS, () => lifeOf(client));
    const load = Load.start({
      targets: [proxy.inbound],
      host: SERVICE,
      rate: plan.ratePerSecond,
      // A drained listener closes its connections, however busy the client is with them.
      next: () => ({
        ...{ operation: 'GET /x', method: 'GET', path: '/x' },
        ...(plan.by === 'listener' ? { headers: { connection: 'close' } } : {}),
      }),
    });
    const samples = await pushAll(plan, pushed, proxy.envoy);
    const report = await load.stop();
    const logged = await logOf(proxy.envoy);
    const life = await accounted(
      client,
      [...logged.values()].reduce((sum, n) => sum + n, 0),
    );
    return { load: report, samples, refused: await pushed.refused(proxy.envoy), logged, life };
  } finally {
    client.close();
    await mesh.stop('kill');
    await app.stop();
    await collector.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

/** Each push in its time, once Envoy has taken the one before. */
async function pushAll(plan: Plan, pushed: PushedConfig, envoy: Envoy): Promise<Sample[]> {
  const began = Date.now();
  const samples: Sample[] = [];
  let pushes = 0;
  for (;;) {
    const elapsed = Date.now() - began;
    if (elapsed >= samples.length * plan.sampleMs) samples.push(await sample(envoy, elapsed));
    if (pushes < plan.pushes && elapsed >= ((pushes + 1) * plan.durationMs) / (plan.pushes + 1)) {
      await pushed.push(envoy);
      pushes++;
    } else if (elapsed >= plan.durationMs) {
      return samples;
    } else {
      await sleep(50);
    }
  }
}

async function sample(envoy: Envoy, atMs: number): Promise<Sample> {
  const memories = await linearMemories(envoy.pid);
  return {
    atMs,
    vms: memories.length,
    linearBytes: memories.reduce((sum, { bytes }) => sum + bytes, 0),
    linearResidentBytes: memories.reduce((sum, { residentBytes }) => sum + residentBytes, 0),
    residentBytes: await envoy.residentBytes(),
  };
}

async function logOf(envoy: Envoy): Promise<Map<number, number>> {
  await until('no request in work', ARRIVAL_MS, async () => ((await envoy.requests()).active === 0 ? true : undefined));
  const { total } = await envoy.requests();
  const lines = await until('the whole access log', ARRIVAL_MS, async () => {
    const log = await envoy.accessLog();
    return log.length >= total ? log : undefined;
  });
  const counts = new Map<number, number>();
  for (const { code } of lines) counts.set(code, (counts.get(code) ?? 0) + 1);
  return counts;
}

async function lifeOf(client: CollectorClient): Promise<Life | undefined> {
  const { instances } = await client.call<{ instances: Life[] }>('Registry', 'ListInstances');
  if (instances.length > 1) throw new Error(`${instances.length} lives, expected one`);
  return instances[0];
}

/** Waits until the collector has heard of so many events and of a quiet proxy; then what it says. */
async function accounted(client: CollectorClient, events: number): Promise<Life> {
  let last: Life | undefined;
  await until(`${events} events`, ARRIVAL_MS, async () => {
    last = await lifeOf(client);
    return last && Number(last.events) + Number(last.events_lost) >= events ? true : undefined;
  }).catch((error: unknown) => {
    throw new Error(`${last?.events} events and ${last?.events_lost} lost, expected ${events}`, { cause: error });
  });
  return until('nothing in flight', IN_FLIGHT_MS, async () => {
    const life = await lifeOf(client);
    return life?.status.in_flight === 0 ? life : undefined;
  });
}

/** A million lines are counted, not read. */
function shortLog(bootstrap: Json): void {
  const text = JSON.stringify(bootstrap).replaceAll(
    /"json_format":\{[^}]*\}/g,
    '"json_format":{"code":"%RESPONSE_CODE%"}',
  );
  Object.assign(bootstrap, JSON.parse(text));
}

/** Growth in KiB a minute: the least-squares line through the last half of the samples. */
export function slopeKibPerMinute(samples: Sample[], of: (sample: Sample) => number): number {
  const late = samples.slice(Math.floor(samples.length / 2));
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const minutes = late.map(({ atMs }) => atMs / 60_000);
  const kib = late.map(sample => of(sample) / 1024);
  const [x, y] = [mean(minutes), mean(kib)];
  const covariance = mean(late.map((_, i) => ((minutes[i] ?? x) - x) * ((kib[i] ?? y) - y)));
  return covariance / mean(minutes.map(minute => (minute - x) ** 2));
}

/** Every request answered and counted, nothing lost, nothing left in flight, and memory as it was. */
export function assertSound(findings: Findings, plan: Plan): void {
  const { load, samples, life, logged } = findings;
  const sent = total(load);
  assert.equal(
    total(load, status => status === 200),
    sent,
    load.errors.join('\n'),
  );
  assert.ok(sent >= (plan.ratePerSecond * plan.durationMs) / 1000, `${sent} requests`);
  assert.deepEqual([...logged], [[200, sent]]);
  assert.equal(findings.refused, 0, 'configurations refused');
  assert.deepEqual([life.events, life.events_lost, life.reports_lost], [String(sent), '0', '0']);
  assert.deepEqual([life.status.in_flight, life.config_errors], [0, []]);
  assert.ok(
    samples.every(({ vms }) => vms >= 3),
    'the VMs of two workers and of the main thread were found',
  );
  const judged =
    plan.durationMs >= TABLES_FULL_MS ? (['linearBytes', 'linearResidentBytes'] as const) : (['linearBytes'] as const);
  for (const what of judged) {
    const slope = slopeKibPerMinute(samples, sample => sample[what]);
    assert.ok(slope <= SLOPE_KIB_MAX, `${what}: ${slope.toFixed(1)} KiB/min\n${shown(findings)}`);
  }
}

/** The findings in a few lines. */
export function shown({ load, samples, life }: Findings): string {
  const kib = (bytes: number) => Math.round(bytes / 1024);
  const [first, last] = [samples[0], samples.at(-1)];
  const line = (what: 'linearBytes' | 'linearResidentBytes' | 'residentBytes') =>
    `${what}: ${kib(first?.[what] ?? NaN)} to ${kib(last?.[what] ?? NaN)} KiB, ` +
    `at last ${slopeKibPerMinute(samples, sample => sample[what]).toFixed(1)} KiB/min`;
  const latency = [0.5, 0.99, 1].map(q => quantile(load.latencies, q).toFixed(2)).join(', ');
  return [
    `${load.sent} requests, ${total(load, status => status !== 200)} failed, ${(100 * load.lateRatio).toFixed(2)} % started late`,
    `latency p50, p99, max: ${latency} ms`,
    `events ${life.events}, events lost ${life.events_lost}, reports lost ${life.reports_lost}`,
    `VMs: ${first?.vms} to ${last?.vms}`,
    ...(['linearBytes', 'linearResidentBytes', 'residentBytes'] as const).map(line),
  ].join('\n');
}
