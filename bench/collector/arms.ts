// The servers that are compared, each a process of its own with the sender that feeds it.

import { execFileSync, fork, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { spawnCollector } from '../../test/collector/process-support.js';
import { usage } from '../filter/process-clock.js';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const ROOT = here('../../../../');
const GO_SOURCE = join(ROOT, 'bench/collector/go');
const GO_BUILD = join(ROOT, 'build/bench-collector');

export interface ArmOptions {
  /** Streams are five a fleet. */
  readonly fleets: number;
  readonly failing: number;
  /** Further arguments of the collector, and of its Node. */
  readonly collector: readonly string[];
  readonly node: readonly string[];
}

export interface Sent {
  readonly rows: number;
  readonly seconds: number;
}

export class Arm {
  private constructor(
    readonly name: string,
    readonly http: string | undefined,
    private readonly server: ChildProcess,
    private readonly sender: ChildProcess,
  ) {}

  /** The collector as it is shipped. */
  static async ours(name: string, options: ArmOptions): Promise<Arm> {
    const args = ['--peer-messages-per-second', '1000000', ...options.collector];
    const { process: server, grpc, http } = await spawnCollector(args, {}, options.node);
    return new Arm(name, http, server, await feed(grpc, 'reports', options));
  }

  static async plain(name: string, options: ArmOptions): Promise<Arm> {
    const server = spawn(process.execPath, [here('./plain.js')], { stdio: ['ignore', 'pipe', 'inherit'] });
    return new Arm(name, undefined, server, await feed(await firstLine(server), 'events', options));
  }

  static async go(name: string, options: ArmOptions): Promise<Arm> {
    const server = spawn(buildGo(), [], { stdio: ['ignore', 'pipe', 'inherit'] });
    return new Arm(name, undefined, server, await feed(await firstLine(server), 'reports', options));
  }

  async send(rows: number, perSecond = Infinity): Promise<Sent> {
    const answer = once(this.sender, 'message');
    this.sender.send({ rows, perSecond: Math.min(perSecond, 1e12) });
    return ((await answer) as [Sent])[0];
  }

  /** CPU time of the server so far, all threads, us. */
  cpuUs(): number {
    return usage(this.server.pid!).process;
  }

  get pid(): number {
    return this.server.pid!;
  }

  async stop(): Promise<void> {
    if (this.sender.connected) this.sender.disconnect();
    const exited = once(this.server, 'exit');
    this.server.kill('SIGTERM');
    const late = setTimeout(() => this.server.kill('SIGKILL'), STOP_MS);
    await exited;
    clearTimeout(late);
  }
}

const STOP_MS = 15_000;

async function feed(address: string, kind: string, { fleets, failing }: ArmOptions): Promise<ChildProcess> {
  const sender = fork(here('./sender.js'), [address, kind, String(fleets), String(failing)]);
  await once(sender, 'message');
  return sender;
}

async function firstLine(server: ChildProcess): Promise<string> {
  const [line] = (await once(createInterface({ input: server.stdout! }), 'line')) as [string];
  return line;
}

/** Generates and builds the Go server, into build/. @throws when Go or its modules cannot be had */
function buildGo(): string {
  const binary = join(GO_BUILD, 'server');
  if (existsSync(binary)) return binary;
  mkdirSync(GO_BUILD, { recursive: true });
  execFileSync(join(GO_SOURCE, 'build.sh'), [GO_BUILD], { stdio: ['ignore', 'ignore', 'inherit'] });
  return binary;
}
