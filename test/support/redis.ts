// Real Redis servers for tests: one, or a cluster, on loopback, in folders of their own.

import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';

const START_MS = 10_000;

/** Slots of a cluster. */
const SLOTS = 16_384;

/** A node serves the bus of its cluster on this port above its own. */
const BUS_OFFSET = 10_000;
const NODE_TIMEOUT_MS = 2000;

export class RedisServer {
  private child: ChildProcess;
  private readonly folder = mkdtempSync(join(tmpdir(), 'meshpulse-redis-'));

  private constructor(
    readonly port: number,
    private readonly options: readonly string[],
  ) {
    this.child = this.spawn();
  }

  /** @param options more arguments of redis-server */
  static async start(...options: string[]): Promise<RedisServer> {
    const server = new RedisServer(await freePort(), options);
    await server.answers();
    return server;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** Kills the process, without warning. */
  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const gone = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await gone;
  }

  /** Starts it again, with what it has on disk. */
  async restart(): Promise<void> {
    await this.kill();
    this.child = this.spawn();
    await this.answers();
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** One command, from a connection of its own. */
  async command(name: string, ...args: (string | number | Buffer)[]): Promise<unknown> {
    const client = new Redis(this.port, '127.0.0.1', { protocol: 2, maxRetriesPerRequest: 0, commandTimeout: 5000 });
    client.on('error', () => undefined);
    try {
      return await client.call(name, ...args);
    } finally {
      client.disconnect();
    }
  }

  async stop(): Promise<void> {
    this.child.kill('SIGCONT');
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }

  private spawn(): ChildProcess {
    const fixed = ['--port', String(this.port), '--bind', '127.0.0.1', '--dir', this.folder, '--save', ''];
    return spawn('redis-server', [...fixed, ...this.options], { stdio: 'ignore' });
  }

  private async answers(): Promise<void> {
    const failed = once(this.child, 'error').then(([error]) => {
      throw new Error(`redis-server does not start (${(error as Error).message}); run scripts/setup.sh redis`);
    });
    await Promise.race([waitFor(`redis-server on ${this.port}`, () => this.isUp()), failed]);
  }

  private async isUp(): Promise<boolean> {
    const reply = await this.command('ping').catch((error: unknown) => String(error));
    // Whatever it says, it is there.
    return reply === 'PONG' || /NOAUTH|WRONGPASS|NOPERM/.test(String(reply));
  }
}

/** Three primaries, each with as many replicas as asked for. */
export class RedisCluster {
  private constructor(readonly nodes: readonly RedisServer[]) {}

  static async start(replicas: 0 | 1 = 0, ...options: string[]): Promise<RedisCluster> {
    const count = 3 * (1 + replicas);
    const own = ['--cluster-enabled', 'yes', '--cluster-node-timeout', String(NODE_TIMEOUT_MS)];
    const more = ['--cluster-require-full-coverage', 'no', '--repl-diskless-sync-delay', '0', ...options];
    const nodes = await Promise.all(Array.from({ length: count }, () => RedisServer.start(...own, ...more)));
    const cluster = new RedisCluster(nodes);
    try {
      await cluster.join();
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  get url(): string {
    return `redis-cluster://${this.nodes.map(({ address }) => address).join(',')}`;
  }

  async stop(): Promise<void> {
    await Promise.all(this.nodes.map(node => node.stop()));
  }

  /** The nodes that are primaries now, as the others see it. */
  async primaries(): Promise<RedisServer[]> {
    const found: RedisServer[] = [];
    for (const node of this.nodes) {
      const info = await node.command('info', 'replication').catch(() => '');
      if (/role:master/.test(String(info))) found.push(node);
    }
    return found;
  }

  private async join(): Promise<void> {
    const [first, ...others] = this.nodes;
    for (const [i, node] of this.nodes.slice(0, 3).entries()) {
      const from = Math.floor((i * SLOTS) / 3);
      const to = Math.floor(((i + 1) * SLOTS) / 3) - 1;
      await node.command('cluster', 'addslotsrange', from, to);
      await node.command('cluster', 'set-config-epoch', i + 1);
    }
    for (const node of others) await node.command('cluster', 'meet', '127.0.0.1', first!.port);
    await waitFor('the cluster to know its nodes', () =>
      this.everyNode(/cluster_known_nodes:(\d+)/, String(this.nodes.length)),
    );
    for (const [i, node] of this.nodes.slice(3).entries()) {
      const primary = String(await this.nodes[i]!.command('cluster', 'myid'));
      await node.command('cluster', 'replicate', primary);
    }
    await waitFor('the cluster', () => this.everyNode(/cluster_state:(\w+)/, 'ok'));
    for (const node of this.nodes.slice(3)) {
      await waitFor('a replica', async () =>
        /master_link_status:up/.test(String(await node.command('info', 'replication'))),
      );
    }
  }

  private async everyNode(what: RegExp, value: string): Promise<boolean> {
    for (const node of this.nodes) {
      if (what.exec(String(await node.command('cluster', 'info')))?.[1] !== value) return false;
    }
    return true;
  }
}

/** Is there a redis-server to start? */
export function redisVersion(): string {
  return / v=(\S+)/.exec(execFileSync('redis-server', ['--version'], { encoding: 'utf8' }))?.[1] ?? '';
}

export async function waitFor(what: string, check: () => Promise<boolean> | boolean, ms = START_MS): Promise<void> {
  const endMs = performance.now() + ms;
  while (!(await check())) {
    if (performance.now() > endMs) throw new Error(`${what} is not there after ${ms} ms`);
    await new Promise(resolve => setTimeout(resolve, 25));
  }
}

/** A free port that has room for the bus of a cluster above it. */
export async function freePort(): Promise<number> {
  for (;;) {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    if (port + BUS_OFFSET <= 65_535) return port;
  }
}
