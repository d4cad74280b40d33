/** The real command line as a child process, and a real collector that it asks. */
import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../collector/src/clock.js';
import { start, until, type TestCollector } from '../collector/rpc-support.js';
import { columns, T0, type TestRow } from '../collector/transactions/rows.js';

export { until };

/** The checkout: this file runs from build/js/test/cli. */
export const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));
export const BIN = join(ROOT, 'bin/meshpulse');

export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly out: () => string;
  readonly err: () => string;
  readonly ended: Promise<Ran>;
}

/** Starts the command; `env` is all that its environment holds beside PATH. */
export function begin(args: readonly string[], env: Readonly<Record<string, string>> = {}, bin = BIN): Running {
  const child = spawn(process.execPath, [bin, ...args], { env: { PATH: process.env['PATH'] ?? '', ...env } });
  const text = { out: '', err: '' };
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text.out += chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (text.err += chunk));
  const ended = new Promise<Ran>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', code => resolve({ code, ...text }));
  });
  return { child, out: () => text.out, err: () => text.err, ended };
}

/** Runs the command to its end. */
export const meshpulse = (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ran> =>
  begin(args, env).ended;

/** A collector on free ports, and sidecars that report to it. */
export class Mesh {
  private readonly positions = new Map<string, { seq: number; events: number }>();

  private constructor(private readonly collector: TestCollector) {}

  /** @param sent headers of what the sidecars send */
  static async start(args: readonly string[] = [], sent: Readonly<Record<string, string>> = {}): Promise<Mesh> {
    return new Mesh(await start(args, systemClock(), sent));
  }

  get http(): string {
    return this.collector.running.http;
  }

  get grpc(): string {
    return this.collector.running.grpc;
  }

  /** Asks this collector. */
  ask(...args: string[]): Promise<Ran> {
    return meshpulse(args, { MESHPULSE_COLLECTOR: this.grpc });
  }

  begin(...args: string[]): Running {
    return begin(args, { MESHPULSE_COLLECTOR: this.grpc });
  }

  stop(): Promise<void> {
    return this.collector.stop();
  }

  /** One report of the sidecar of `service`; `rows` start so many us after `T0`, moved to `fromMs`. */
  async report(service: string, rows: readonly TestRow[], fromMs: number, more: object = {}): Promise<void> {
    const number = cuidNumber(service);
    const batches = rows.length === 0 ? [] : [this.batch(service, number, rows, fromMs)];
    const request = { hello: hello(service, number), sentUnixUs: String(Date.now() * 1000), batches, ...more };
    await this.collector.call('Ingest.ReportOnce', request);
  }

  private batch(service: string, number: number, rows: readonly TestRow[], fromMs: number): object {
    const { seq, events } = this.positions.get(service) ?? { seq: 1, events: 0 };
    this.positions.set(service, { seq: seq + 1, events: events + rows.length });
    return { producer: String(number), seq: String(seq), firstEvent: String(events), events: wire(rows, fromMs) };
  }
}

/** Services get lives and addresses by number. */
const numbers = new Map<string, number>();

function cuidNumber(service: string): number {
  const known = numbers.get(service) ?? numbers.size + 1;
  numbers.set(service, known);
  return known;
}

export const cuidOf = (service: string): string =>
  `00000000-0000-4000-8000-${String(cuidNumber(service)).padStart(12, '0')}`;
export const ipOf = (service: string): string => `10.0.0.${cuidNumber(service)}`;

function hello(service: string, number: number): object {
  return {
    proxyId: `sidecar~${ipOf(service)}~${service}-1~cluster.local`,
    cluster: 'east',
    network: 'net1',
    cuid: cuidOf(service),
    scope: 'CUID_SCOPE_PROXY',
    service,
    slot: `${service.split('.')[0]}-0`,
    workload: service.split('.')[0],
    node: 'node-1',
    version: '0.1.0',
    bootEpoch: '1700000000000000',
    producers: [{ id: String(number), nextSeq: '1' }],
    ip: ipOf(service),
    ports: [8080],
    reportIntervalMs: 1000,
    reportIdleMs: 60000,
    reportInFlightMs: 5000,
  };
}

function wire(rows: readonly TestRow[], fromMs: number): object {
  const { rows: count, baseUnixUs, strings, ...arrays } = columns(rows);
  const wide = ['keyHi', 'keyLo', 'requestHi', 'requestLo', 'eventId', 'spanIn', 'spanOut'];
  const packed = Object.entries(arrays).map(([name, values]) => [
    name,
    wide.includes(name) ? Array.from({ length: count }, (_, at) => words(values, at)) : [...values],
  ]);
  return {
    rows: count,
    baseUnixUs: String(baseUnixUs - T0 + fromMs * 1000),
    strings: [...strings],
    ...(Object.fromEntries(packed) as object),
  };
}

const words = (values: Readonly<Uint32Array>, at: number): string =>
  String((BigInt(values[2 * at + 1]!) << 32n) | BigInt(values[2 * at]!));
