import assert from 'node:assert/strict';
import { connect as connectHttp2, constants, type ClientHttp2Session } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { batch, hello, type Plain } from './ingest-support.js';
import { percentile, spawnCollector, usageOf, type Child } from './process-support.js';
import { Clients } from './rpc-support.js';

/** What others wait at most while one peer misbehaves: the machine is shared by peer, collector and others. */
const OTHERS_MS_P99_MAX = 1000;
const RSS_MIB_MAX = 512;

const HEADERS = {
  ':method': 'POST',
  ':path': '/meshpulse.v1.Ingest/Report',
  'content-type': 'application/grpc',
  te: 'trailers',
};
const pause = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms));

/** What a peer does until it is done; sockets it leaves open are closed afterwards. */
type Attack = (port: number, sockets: Socket[]) => Promise<void>;

async function session(port: number, use: (session: ClientHttp2Session) => Promise<void>): Promise<void> {
  const opened = connectHttp2(`http://127.0.0.1:${port}`);
  opened.setMaxListeners(0);
  opened.on('error', () => undefined);
  await use(opened);
  opened.destroy();
}

/** 100,000 streams opened and reset at once, over as many connections as the collector lets it have. */
async function rapidReset(port: number): Promise<void> {
  for (let left = 100_000; left > 0;) {
    await session(port, async http2 => {
      for (let i = 0; i < 2000 && left > 0 && !http2.destroyed; i++, left--) {
        const stream = http2.request(HEADERS);
        stream.on('error', () => undefined);
        stream.close(constants.NGHTTP2_CANCEL);
        if (i % 100 === 0) await pause(0);
      }
      // A connection that was ended before its first request still counts as a try.
      left -= 1;
    });
  }
}

async function pingsAndSettings(port: number): Promise<void> {
  await session(port, async http2 => {
    for (let i = 0; i < 20_000 && !http2.destroyed; i++) {
      http2.ping(() => undefined);
      if (i % 10 === 0) http2.settings({ initialWindowSize: 65_535 + (i % 7) });
      if (i % 100 === 0) await pause(0);
    }
  });
}

/** Frames without an end: HEADERS without END_HEADERS, then CONTINUATION for ever. */
async function continuations(port: number, sockets: Socket[]): Promise<void> {
  const socket = open(port, sockets);
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
  socket.write(Buffer.from([0, 0, 1, 1, 0, 0, 0, 0, 1, 0x88]));
  const frame = Buffer.concat([Buffer.from([0, 0x10, 0, 9, 0, 0, 0, 0, 1]), Buffer.alloc(4096, 0x88)]);
  for (let i = 0; i < 5000 && !socket.destroyed; i++) {
    if (!socket.write(frame)) await pause(1);
  }
}

async function idle(port: number, sockets: Socket[]): Promise<void> {
  for (let i = 0; i < 2000; i++) {
    const socket = open(port, sockets);
    // Half of them begin to speak, and then say nothing.
    if (i % 2 === 0) socket.write('PRI * HTTP/2.0\r\n');
    if (i % 100 === 0) await pause(1);
  }
  await pause(2000);
}

/** A message that claims 60,000 bytes and comes byte by byte, on many streams. */
async function slowDrip(port: number): Promise<void> {
  await session(port, async http2 => {
    const streams = Array.from({ length: 200 }, () => http2.request(HEADERS));
    for (const stream of streams) {
      stream.on('error', () => undefined);
      stream.write(Buffer.from([0, 0, 0, 0xea, 0x60]));
    }
    for (let i = 0; i < 20; i++) {
      for (const stream of streams) if (!stream.destroyed) stream.write(Buffer.from([0x0a]));
      await pause(100);
    }
  });
}

function open(port: number, sockets: Socket[]): Socket {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  sockets.push(socket);
  return socket;
}

const ATTACKS: readonly [string, Attack][] = [
  ['100,000 streams reset at once', rapidReset],
  ['20,000 pings, and settings', pingsAndSettings],
  ['headers that never end', continuations],
  ['2,000 connections that say little or nothing', idle],
  ['bodies that drip', slowDrip],
];

describe('a peer that floods', function () {
  this.timeout(300_000);
  let child: Child;
  beforeEach(async () => (child = await spawnCollector(['--peer-messages-per-second', '100000'])));
  afterEach(async () => {
    child.process.kill('SIGKILL');
    await child.exited;
  });

  for (const [name, attack] of ATTACKS) {
    it(`with ${name}: others are served, and memory stays bounded`, async () => {
      const clients = new Clients(child.grpc);
      const sockets: Socket[] = [];
      const port = Number(child.grpc.split(':')[1]);
      const tookMs: number[] = [];
      let over = false;
      const others = (async () => {
        for (let seq = 1; !over || tookMs.length < 50; seq++) {
          const beganMs = performance.now();
          const { acks } = (await clients.call('Ingest.ReportOnce', {
            hello: hello(),
            batches: [batch(seq, [{}])],
          })) as {
            acks: Plain[];
          };
          assert.equal(acks[0]?.['seq'], String(seq));
          tookMs.push(performance.now() - beganMs);
          await pause(10);
        }
      })();
      try {
        await Promise.race([attack(port, sockets), others]);
        over = true;
        await others;
        const p99 = percentile(tookMs, 0.99);
        const { rssMib } = usageOf(child.process.pid!);
        console.log(`      others: ${tookMs.length} calls, p99 ${p99.toFixed(1)} ms; ${Math.round(rssMib)} MiB`);
        assert.ok(p99 <= OTHERS_MS_P99_MAX, `p99 ${p99} ms`);
        assert.ok(rssMib <= RSS_MIB_MAX, `${rssMib} MiB`);
        assert.equal(child.process.exitCode, null);
      } finally {
        over = true;
        sockets.forEach(socket => socket.destroy());
        clients.close();
      }
    });
  }
});
