// A Redis of the demo's own, on loopback, with nothing on disk.
import { connect } from 'node:net';
import { freePort } from './address.js';
import { Child, until } from './child.js';

const READY_TIMEOUT_MS = 10_000;
const STOP_GRACE_MS = 5000;

export class Redis {
  private constructor(
    private readonly child: Child,
    readonly url: string,
  ) {}

  /** @param dir for its log @throws Error when there is no redis-server, or it does not start */
  static async start(dir: string): Promise<Redis> {
    const port = await freePort();
    const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', dir];
    const child = Child.start('redis', 'redis-server', args, { logFile: `${dir}/redis.log` });
    const redis = new Redis(child, `redis://127.0.0.1:${port}`);
    await until('redis ready', READY_TIMEOUT_MS, async () => {
      if (!child.running) return 'ended';
      return (await answers(port)) ? 'ready' : undefined;
    });
    if (!child.running) throw new Error(`redis-server ended (${child.end}):\n${child.lastWords()}`);
    return redis;
  }

  async stop(): Promise<void> {
    await this.child.stop(STOP_GRACE_MS);
  }
}

function answers(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.once('connect', () => socket.write('PING\r\n'));
    socket.once('data', bytes => {
      resolve(bytes.toString('latin1').startsWith('+PONG'));
      socket.destroy();
    });
    socket.once('error', () => resolve(false));
  });
}
