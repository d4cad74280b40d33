// Sidecars of one arm, as a process of its own: streams that are kept busy when the parent says so.

import { Client, credentials, type ClientDuplexStream } from '@grpc/grpc-js';
import { setTimeout as pause } from 'node:timers/promises';
import { service } from '../../collector/src/rpc/protos.js';
import { ACK_EVERY, plainService } from './plain.js';
import { Fleet, HOPS, ROWS } from './traffic.js';

const [address = '', kind = 'reports', fleetsText = '4', failing = '0'] = process.argv.slice(2);
const FLEETS = Number(fleetsText);

/** Reports on their way, a stream at most. */
const WINDOW = 4;

/** A stream that is silent for 30 s is ended. */
const HEARTBEAT_MS = 10_000;

const bytes = (value: Buffer): Buffer => value;
type Stream = ClientDuplexStream<Buffer, Buffer>;

class Line {
  private waiting = 0;
  private readonly stream: Stream;
  private wake: (() => void) | undefined;

  constructor(path: string, first?: Buffer) {
    const client = new Client(address, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
    this.stream = client.makeBidiStreamRequest(path, bytes, bytes);
    this.stream.on('error', (error: Error) => {
      console.error(error.message);
      process.exit(1);
    });
    this.stream.on('data', () => {
      this.waiting -= 1;
      this.wake?.();
    });
    if (first !== undefined) this.send([first]);
  }

  /** Sends what is answered once. */
  send(messages: readonly Buffer[]): void {
    this.waiting += 1;
    for (const message of messages) this.stream.write(message);
  }

  async until(waiting: number): Promise<void> {
    while (this.waiting > waiting) await new Promise<void>(resolve => (this.wake = resolve));
  }
}

/** Sends `rows` rows, or a little more, at most `perSecond` of them; answers how many. */
type Send = (rows: number, perSecond: number) => Promise<number>;

function reports(): Send {
  const { path, requestSerialize } = service('Ingest')['Report']!;
  const fleets = Array.from({ length: FLEETS }, (_, i) => new Fleet(i + 1, Number(failing)));
  const lines = fleets.map(fleet =>
    fleet.hellos.map(hello => new Line(path, requestSerialize({ hello, sentUnixUs: String(Date.now() * 1000) }))),
  );
  const heartbeat = requestSerialize({ heartbeat: {} });
  setInterval(() => lines.flat().forEach(line => line.send([heartbeat])), HEARTBEAT_MS);
  return async (rows, perSecond) => {
    const beganMs = performance.now();
    let sent = 0;
    while (sent < rows) {
      for (let fleet = 0; fleet < FLEETS; fleet++) {
        for (const [hop, message] of fleets[fleet]!.block()) {
          const line = lines[fleet]![hop]!;
          await line.until(WINDOW - 1);
          line.send([message]);
          sent += ROWS;
          const earlyMs = (sent * 1000) / perSecond - (performance.now() - beganMs);
          if (earlyMs > 1) await pause(earlyMs);
        }
      }
    }
    for (const line of lines.flat()) await line.until(0);
    return sent;
  };
}

function events(): Send {
  const { path, requestSerialize } = plainService()['Report']!;
  const lines = Array.from({ length: FLEETS * HOPS }, () => new Line(path));
  const made = Array.from({ length: ACK_EVERY }, (_, i) =>
    requestSerialize({
      keyHi: String(2n ** 63n + BigInt(i)),
      keyLo: String(2n ** 62n + BigInt(i)),
      eventId: String(2n ** 61n + BigInt(i)),
      endUnixUs: String(Date.now() * 1000 + i),
      durationUs: 10_000 + i,
      status: 200,
      flags: 0x210002,
      operation: `GET /cart/${i % 3}`,
      peerService: 'step1.shop.svc.cluster.local:8080',
      peerCuid: '',
    }),
  );
  return async rows => {
    let sent = 0;
    while (sent < rows) {
      for (const line of lines) {
        await line.until(WINDOW - 1);
        line.send(made);
        sent += ACK_EVERY;
      }
    }
    for (const line of lines) await line.until(0);
    return sent;
  };
}

const send = kind === 'events' ? events() : reports();

process.on('message', ({ rows, perSecond }: { rows: number; perSecond: number }) => {
  const beganMs = performance.now();
  void send(rows, perSecond).then(sent =>
    process.send?.({ rows: sent, seconds: (performance.now() - beganMs) / 1000 }),
  );
});
process.on('disconnect', () => process.exit(0));
process.send?.({});
