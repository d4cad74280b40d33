// One change told to a thousand watchers: CPU of the server for each message delivered, beside a Redis
// that publishes as many bytes to as many subscribers.

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { frame, RawClient } from '../../test/collector/raw-calls.js';
import { hello } from '../../test/collector/ingest-support.js';
import { usageOf } from '../../test/collector/process-support.js';
import { Clients } from '../../test/collector/rpc-support.js';
import { spawnMeasured } from '../../test/collector/scale/measured.js';
import { service } from '../../collector/src/rpc/protos.js';
import { RedisServer } from '../signal/redis.js';

const WATCHERS = 1000;
const PER_CONNECTION = 100;
const CHANGES = 50;
const ROUNDS = 5;

/** Watchers are told of changes this often, ms; each change waits for its turn. */
const INTERVAL_MS = 100;

interface Arm {
  /** Makes one change and settles when all have it. */
  change(nth: number): Promise<void>;
  readonly pid: number;
  end(): Promise<void> | void;
}

async function collectorArm(): Promise<Arm & { readonly bytes: number }> {
  const collector = await spawnMeasured(['--log-level', 'info']);
  const clients = new Clients(collector.grpc);
  const stream = clients.report();
  await stream.ask({ hello: hello() });
  const watchers: RawClient[] = [];
  let [got, bytes, wanted] = [0, 0, 0];
  let reached = (): void => undefined;
  const request = frame(service('Registry')['WatchStatus']!.requestSerialize({ minIntervalMs: INTERVAL_MS }));
  const headers = {
    ':method': 'POST',
    ':path': '/meshpulse.v1.Registry/WatchStatus',
    'content-type': 'application/grpc',
  };
  for (let n = 0; n < WATCHERS; n++) {
    if (n % PER_CONNECTION === 0) watchers.push(new RawClient(collector.grpc));
    const call = watchers.at(-1)!.session.request({ ...headers, te: 'trailers' });
    call.on('data', (chunk: Buffer) => {
      bytes = chunk.length;
      if (++got >= wanted) reached();
    });
    call.end(request);
  }
  await new Promise(resolve => setTimeout(resolve, 2000));
  return {
    pid: collector.process.pid!,
    get bytes() {
      return bytes;
    },
    async change(nth) {
      [got, wanted] = [0, WATCHERS];
      const all = new Promise<void>(resolve => (reached = resolve));
      await stream.ask({ status: { inFlight: nth } });
      await all;
    },
    async end() {
      for (const watcher of watchers) watcher.close();
      clients.close();
      await collector.kill();
    },
  };
}

async function redisArm(payload: Buffer): Promise<Arm> {
  const server = await RedisServer.start();
  let [got, wanted] = [0, 0];
  let reached = (): void => undefined;
  const sockets: Socket[] = [];
  for (let n = 0; n < WATCHERS; n++) {
    const socket = connect(server.port, '127.0.0.1');
    await once(socket, 'connect');
    socket.write('SUBSCRIBE c\r\n');
    await once(socket, 'data');
    socket.on('data', () => {
      if (++got >= wanted) reached();
    });
    sockets.push(socket);
  }
  const publisher = connect(server.port, '127.0.0.1');
  publisher.resume();
  return {
    pid: server.pid,
    async change() {
      [got, wanted] = [0, WATCHERS];
      const all = new Promise<void>(resolve => (reached = resolve));
      publisher.write(`*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$${payload.length}\r\n`);
      publisher.write(payload);
      publisher.write('\r\n');
      await all;
      await new Promise(resolve => setTimeout(resolve, INTERVAL_MS));
    },
    end() {
      for (const socket of [...sockets, publisher]) socket.destroy();
      server.stop();
    },
  };
}

/** CPU for each message delivered, us. */
async function measure(arm: Arm, round: number): Promise<number> {
  const before = usageOf(arm.pid).cpuSeconds;
  for (let n = 0; n < CHANGES; n++) await arm.change(round * CHANGES + n + 1);
  return ((usageOf(arm.pid).cpuSeconds - before) * 1e6) / (CHANGES * WATCHERS);
}

const median = (values: readonly number[]): string => [...values].sort((a, b) => a - b)[values.length >> 1]!.toFixed(2);

const ours = await collectorArm();
await ours.change(1);
const redis = await redisArm(Buffer.alloc(ours.bytes, 97));
const figures: { ours: number[]; redis: number[] } = { ours: [], redis: [] };
for (let round = 0; round < ROUNDS; round++) {
  figures.ours.push(await measure(ours, round + 1));
  figures.redis.push(await measure(redis, round + 1));
}
await ours.end();
await redis.end();
console.log(`${WATCHERS} watchers, ${ours.bytes} bytes a message, ${ROUNDS} rounds of ${CHANGES} changes, in turn`);
console.log(`| server | CPU for each message delivered, us |\n|---|---|`);
console.log(
  `| collector, WatchStatus | ${median(figures.ours)} |\n| Redis ${RedisServer.version()}, PUBLISH | ${median(figures.redis)} |`,
);
process.exit(0);
