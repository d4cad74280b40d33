// One real Envoy as a child process.
import { existsSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Child, until } from './child.js';
import type { Json } from './json.js';
import type { AccessLogLine } from './listeners.js';

/** Compiling the module takes about a second; a loaded machine starts a dozen proxies at once. */
const READY_TIMEOUT_MS = 60_000;
const ADMIN_TIMEOUT_MS = 5_000;
const STOP_GRACE_MS = 10_000;
/** Longest path of a Unix socket on Linux. */
const SOCKET_PATH_MAX = 107;
/** A drain that never becomes quiet is given up after this. */
const DRAINED_TIMEOUT_MS = 30_000;
/** A draining listener takes connections for so long, and then closes. */
const DRAIN_S = 1;
/** A report's interval and a half: what ended last has been told by then. */
const SETTLE_MS = 1500;

export { FILTER_WASM } from '../../../collector/src/paths.js';

/** The checkout's root, from build/js/demo/src/mesh. */
export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../../../../..');

/** The Envoy to run: ENVOY_BIN, else the one that set-up found. */
export function envoyBinary(): string {
  const file = process.env['ENVOY_BIN'] ?? foundBySetup();
  if (!file || !existsSync(file)) throw new Error('no Envoy: run `make setup`, or set ENVOY_BIN');
  return file;
}

function foundBySetup(): string | undefined {
  const pointer = join(ROOT, '.cache/envoy/path');
  return existsSync(pointer) ? readFileSync(pointer, 'utf8').trim() : undefined;
}

export interface EnvoyOptions {
  name: string;
  /** Directory of its own for configuration, logs and the admin socket. */
  dir: string;
  bootstrap: Json;
  adminSocket: string;
  accessLogFile?: string;
  concurrency?: number;
  /** Flags of hot restart (`--base-id`, `--restart-epoch`...); default: hot restart is off. */
  hotRestart?: string[];
  /** Default `warning`; e.g. `info` or `warning,wasm:debug`. */
  logLevel?: string;
}

export class Envoy {
  private constructor(
    private readonly options: EnvoyOptions,
    private readonly child: Child,
  ) {}

  /** Starts the process and returns at once; `ready` waits for it. */
  static async start(options: EnvoyOptions): Promise<Envoy> {
    if (options.adminSocket.length > SOCKET_PATH_MAX) throw new Error(`socket path too long: ${options.adminSocket}`);
    const config = join(options.dir, 'envoy.json');
    await writeFile(config, JSON.stringify(options.bootstrap, null, 1));
    const [level = 'warning', ...components] = (options.logLevel ?? 'warning').split(',');
    const args = [
      ...['-c', config, '--concurrency', String(options.concurrency ?? 1)],
      ...(options.hotRestart ?? ['--disable-hot-restart']),
      ...['--log-level', level, '--file-flush-interval-msec', '100'],
      ...['--drain-time-s', String(DRAIN_S), '--drain-strategy', 'immediate'],
      ...(components.length > 0 ? ['--component-log-level', components.join(',')] : []),
    ];
    const child = Child.start(options.name, envoyBinary(), args, { logFile: join(options.dir, 'envoy.log') });
    return new Envoy(options, child);
  }

  get name(): string {
    return this.options.name;
  }

  get pid(): number {
    return this.child.pid;
  }

  get running(): boolean {
    return this.child.running;
  }

  /** @throws Error with Envoy's last words if it ends first. */
  async ready(): Promise<void> {
    await until(`${this.name} ready`, READY_TIMEOUT_MS, async () => {
      if (!this.running) return 'ended';
      return (await this.admin('/ready')).trim() === 'LIVE' ? 'live' : undefined;
    });
    if (!this.running) throw new Error(`${this.name} ended (${this.child.end}):\n${this.child.lastWords()}`);
  }

  /** The body that the admin interface answers. */
  admin(path: string, method: 'GET' | 'POST' = 'GET'): Promise<string> {
    return new Promise((done, fail) => {
      const call = request(
        { socketPath: this.options.adminSocket, path, method, timeout: ADMIN_TIMEOUT_MS },
        answer => {
          let body = '';
          answer.setEncoding('utf8');
          answer.on('data', chunk => (body += chunk));
          answer.on('end', () => done(body));
          answer.on('error', fail);
        },
      );
      call.on('timeout', () => call.destroy(new Error(`${this.name}: admin ${path} timed out`)));
      call.on('error', fail);
      call.end();
    });
  }

  /** Counters and gauges whose name matches the regular expression `filter`. */
  async stats(filter = ''): Promise<Map<string, number>> {
    const text = await this.admin(`/stats?filter=${encodeURIComponent(filter)}`);
    const result = new Map<string, number>();
    for (const line of text.split('\n')) {
      const colon = line.lastIndexOf(': ');
      const value = Number(line.slice(colon + 2));
      if (colon > 0 && Number.isFinite(value)) result.set(line.slice(0, colon), value);
    }
    return result;
  }

  /** One counter or gauge; 0 if Envoy does not know it (it hides what was never touched). */
  async stat(name: string): Promise<number> {
    return (await this.stats(`^${name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`)).get(name) ?? 0;
  }

  /** Envoy's own account of its heap, bytes, as strings: allocated, heap_size, ... */
  async memory(): Promise<Record<string, string>> {
    return JSON.parse(await this.admin('/memory')) as Record<string, string>;
  }

  /** Resident set, bytes. */
  async residentBytes(): Promise<number> {
    const status = await readFile(`/proc/${this.pid}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024;
  }

  /** CPU time used so far, user and system, ms. */
  async cpuMs(): Promise<number> {
    const stat = await readFile(`/proc/${this.pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const ticks = Number(fields[11]) + Number(fields[12]);
    return ticks * 10; // Linux's USER_HZ is 100 everywhere
  }

  /** Requests that listeners have in work, and have had since the start. */
  async requests(): Promise<{ active: number; total: number }> {
    const stats = await this.stats('^http\\.(inbound|outbound|gateway)_.*downstream_rq_(active|total)$');
    const sum = (end: string) => [...stats].reduce((n, [name, value]) => (name.endsWith(end) ? n + value : n), 0);
    return { active: sum('_active'), total: sum('_total') };
  }

  /**
   * Takes no new connections, asks clients to leave, and waits until nothing was in work and nothing came
   * in for `settleMs`: idle connections of peers bring a last request each before they close.
   */
  async drain(settleMs = SETTLE_MS): Promise<void> {
    await this.admin('/drain_listeners?graceful', 'POST');
    await sleep(DRAIN_S * 1000);
    let quietSince = Date.now();
    let before = -1;
    await until(
      `${this.name} drained`,
      DRAINED_TIMEOUT_MS,
      async () => {
        const { active, total } = await this.requests();
        if (active > 0 || total !== before) quietSince = Date.now();
        before = total;
        return Date.now() - quietSince >= settleMs ? true : undefined;
      },
      100,
    );
  }

  /** Drain, then SIGTERM: what an orchestrator does that wants no request to fail. */
  async stopGracefully(settleMs = SETTLE_MS): Promise<void> {
    if (this.running) await this.drain(settleMs);
    await this.stop();
  }

  async stop(): Promise<void> {
    await this.child.stop(STOP_GRACE_MS);
  }

  /** Asks it by its admin interface to end, and waits; SIGTERM if it does not. */
  async quit(): Promise<void> {
    await this.admin('/quitquitquit', 'POST');
    await Promise.race([this.child.exited(), sleep(STOP_GRACE_MS, undefined, { ref: false })]);
    await this.stop();
  }

  async kill(): Promise<void> {
    await this.child.kill();
  }

  /** SIGSTOP and SIGCONT. */
  signal(signal: NodeJS.Signals): void {
    this.child.signal(signal);
  }

  /** All of Envoy's own log. */
  async log(): Promise<string> {
    return readFile(join(this.options.dir, 'envoy.log'), 'utf8');
  }

  /** The access log so far, both listeners; written at the latest 100 ms after a request. */
  async accessLog(): Promise<AccessLogLine[]> {
    const file = this.options.accessLogFile;
    if (!file || !existsSync(file)) return [];
    const lines = (await readFile(file, 'utf8')).split('\n');
    return lines.filter(line => line !== '').map(line => JSON.parse(line) as AccessLogLine);
  }
}
