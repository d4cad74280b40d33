// What it is compared with: a real Redis, and PUBLISH to a subscriber over TCP.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { Redis } from 'ioredis';
import { freePort } from '../../demo/src/mesh/address.js';

const START_MS = 10_000;

export class RedisServer {
  private constructor(
    private readonly child: ChildProcess,
    readonly port: number,
  ) {}

  static async start(): Promise<RedisServer> {
    const port = await freePort();
    const options = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'];
    const child = spawn('redis-server', options, { stdio: 'ignore' });
    const failed = once(child, 'error').then(([error]) => {
      throw new Error(`redis-server does not start (${(error as Error).message}); run scripts/setup.sh redis`);
    });
    await Promise.race([answers(port), failed]);
    return new RedisServer(child, port);
  }

  static version(): string {
    const { stdout } = spawnSync('redis-server', ['--version'], { encoding: 'utf8' });
    return / v=(\S+)/.exec(stdout)?.[1] ?? '?';
  }

  get pid(): number {
    return this.child.pid!;
  }

  stop(): void {
    this.child.kill('SIGKILL');
  }
}

/** A publisher and a subscriber, each with its connection. */
export class PubSub {
  private heard: (atMs: number) => void = () => undefined;

  private constructor(
    private readonly publisher: Redis,
    private readonly subscriber: Redis,
    private readonly channel: string,
  ) {
    subscriber.on('messageBuffer', () => this.heard(performance.now()));
  }

  static async open(port: number, channel: string): Promise<PubSub> {
    const [publisher, subscriber] = [new Redis(port, '127.0.0.1'), new Redis(port, '127.0.0.1')];
    await subscriber.subscribe(channel);
    await publisher.ping();
    return new PubSub(publisher, subscriber, channel);
  }

  /** From PUBLISH to the message, ms. */
  async publish(payload: Buffer): Promise<number> {
    const message = new Promise<number>(resolve => (this.heard = resolve));
    const sentMs = performance.now();
    const answered = this.publisher.publish(this.channel, payload);
    const tookMs = (await message) - sentMs;
    await answered;
    return tookMs;
  }

  close(): void {
    this.publisher.disconnect();
    this.subscriber.disconnect();
  }
}

async function answers(port: number): Promise<void> {
  const probe = new Redis(port, '127.0.0.1', { retryStrategy: () => 50, maxRetriesPerRequest: null });
  // Refused until it listens.
  probe.on('error', () => undefined);
  const late = AbortSignal.timeout(START_MS);
  try {
    await Promise.race([
      probe.ping(),
      once(late, 'abort').then(() => {
        throw new Error(`redis-server is not there after ${START_MS / 1000} s`);
      }),
    ]);
  } finally {
    probe.disconnect();
  }
}
