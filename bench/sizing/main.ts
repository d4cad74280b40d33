// What do sidecars and rows cost one replica, and Redis? The unit costs of docs/sizing.md. See README.md.

import { fork, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Redis } from 'ioredis';
import { service } from '../../collector/src/rpc/protos.js';
import { hello, type Plain } from '../../test/collector/ingest-support.js';
import { spawnCollector, usageOf, type Child } from '../../test/collector/process-support.js';

const { values: flags } = parseArgs({
  options: {
    sidecars: { type: 'string', default: '1000' },
    rate: { type: 'string', default: '20000' },
    rows: { type: 'string', default: '300000' },
    port: { type: 'string', default: '17399' },
  },
});
const [SIDECARS, RATE, ROWS, PORT] = [flags.sidecars, flags.rate, flags.rows, flags.port].map(Number) as [
  number,
  number,
  number,
  number,
];

/** A collector does what it puts off within this time, ms. */
const PUT_OFF_MS = 11_500;
const MESSAGES_EACH = 10;

/** CPU time of all threads so far, us. */
const cpuUs = (pid: number): number =>
  readdirSync(`/proc/${pid}/task`).reduce(
    (sum, task) => sum + Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]) / 1000,
    0,
  );

async function end(children: readonly Child[]): Promise<void> {
  for (const child of children) child.process.kill('SIGKILL');
  await Promise.all(children.map(child => child.exited));
}

/** A gRPC message on the wire. */
function framed(report: Plain): Buffer {
  const bytes = service('Ingest')['Report']!.requestSerialize(report);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

/** Sidecars with nothing to tell but that they are there, each over a connection of its own. */
async function sidecars(): Promise<void> {
  const child = await spawnCollector([]);
  const pid = child.process.pid!;
  const sessions: ClientHttp2Session[] = [];
  try {
    await pause(3000);
    const before = usageOf(pid).rssMib;
    const streams: ClientHttp2Stream[] = [];
    for (let i = 0; i < SIDECARS; i++) {
      const session = connect(`http://${child.grpc}`, { localAddress: `127.0.1.${1 + (i % 250)}` } as object);
      sessions.push(session);
      const headers = { ':method': 'POST', ':path': '/meshpulse.v1.Ingest/Report', te: 'trailers' };
      const stream = session.request({ ...headers, 'content-type': 'application/grpc' });
      stream.resume();
      const cuid = `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`;
      const who = { proxyId: `sidecar~${i}`, cuid, ip: `10.0.${i >> 8}.${i & 255}`, service: `s${i % 300}.shop` };
      stream.write(framed({ hello: hello({ ...who, producers: [{ id: String(i + 1), nextSeq: '1' }] }) }));
      streams.push(stream);
      if (i % 50 === 49) await pause(50);
    }
    await pause(8000);
    const kib = ((usageOf(pid).rssMib - before) * 1024) / SIDECARS;
    const message = framed({
      status: { inFlight: 3, queue: 1, queueSource: 1, ageMs: 4, windowMs: 1000, requests: 5 },
    });
    const began = cpuUs(pid);
    for (let i = 0; i < MESSAGES_EACH * SIDECARS; i++) {
      streams[i % SIDECARS]!.write(message);
      if (i % 20 === 19) await pause(20);
    }
    await pause(1500);
    const us = (cpuUs(pid) - began) / (MESSAGES_EACH * SIDECARS);
    console.log(`${SIDECARS} sidecars: ${kib.toFixed(1)} KiB each, ${us.toFixed(0)} us of CPU a message without rows`);
  } finally {
    for (const session of sessions) session.destroy();
    await end([child]);
  }
}

/** Rows into one of two replicas on a Redis of their own. */
async function replicas(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'meshpulse-sizing-'));
  const args = ['--port', String(PORT), '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'no'];
  const server = spawn('redis-server', args, { stdio: 'ignore' });
  const children: Child[] = [];
  let sender: ChildProcess | undefined;
  const redis = new Redis(PORT, '127.0.0.1', { lazyConnect: true });
  try {
    await pause(700);
    await redis.connect();
    for (let i = 0; i < 2; i++) children.push(await spawnCollector(['--store', `redis://127.0.0.1:${PORT}`]));
    sender = fork(fileURLToPath(new URL('../collector/sender.js', import.meta.url)), [
      children[0]!.grpc,
      'reports',
      '4',
      '0.001',
    ]);
    await once(sender, 'message');
    const pids = [...children.map(child => child.process.pid!), server.pid!];
    const idleBegan = pids.map(cpuUs);
    await pause(5000);
    const idle = pids.map((pid, at) => (cpuUs(pid) - idleBegan[at]!) / 5e6);
    const info = async (name: string): Promise<number> =>
      Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(await redis.info())![1]);
    const names = ['used_memory', 'total_net_input_bytes', 'total_net_output_bytes'];
    const numbers = (): Promise<number[]> => Promise.all(names.map(info));
    const [bytesBefore, cpuBefore] = [await numbers(), pids.map(cpuUs)];
    sender.send({ rows: ROWS, perSecond: RATE });
    const [{ rows }] = (await once(sender, 'message')) as [{ rows: number }];
    await pause(PUT_OFF_MS);
    const each = (now: readonly number[], before: readonly number[]): string[] =>
      now.map((value, at) => ((value - before[at]!) / rows).toFixed(1));
    const [taker, reader, store] = each(pids.map(cpuUs), cpuBefore);
    const [memory, input, output] = each(await numbers(), bytesBefore);
    console.log(`idle: ${idle.map(cores => cores.toFixed(3)).join(', ')} cores (taker, reader, Redis)`);
    console.log(`${RATE} rows/s: ${taker} us a row at the taker, ${reader} at the reader, ${store} at Redis`);
    console.log(`Redis, bytes a row: ${memory} of memory, ${input} in, ${output} out with one reader`);
  } finally {
    redis.disconnect();
    sender?.disconnect();
    await end(children);
    server.kill('SIGTERM');
    await once(server, 'exit');
    rmSync(folder, { recursive: true });
  }
}

await sidecars();
await replicas();
