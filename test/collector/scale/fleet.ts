// A fleet of sidecars: real Report streams, many over each HTTP/2 connection, to one collector or several.
//
// Runs in a process of its own, so that it neither shares the collector's thread nor the test's. Each
// connection has a loopback address of its own, as each node of a mesh has.

import { connect, constants, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import type { IncomingHttpHeaders } from 'node:http';
import { connect as connectTcp } from 'node:net';
import { EVENTS, Member } from './member.js';

export interface FleetPlan {
  /** `HOST:PORT` of each collector; a connection that ends tries the next. */
  readonly collectors: readonly string[];
  readonly services: number;
  readonly instances: number;
  readonly perConnection: number;
  /** Every member sends a message in this time, ms; evenly spread. */
  readonly everyMs: number;
  /** One in so many messages has a batch in it, the others are heartbeats. */
  readonly batchEvery: number;
}

export interface FleetFigures {
  readonly connected: number;
  /** Events of all batches made so far, and of those acknowledged. */
  readonly made: number;
  readonly acked: number;
  readonly unacknowledgedMembers: number;
  /** Streams begun since the start. */
  readonly streams: number;
  /** How streams ended, by gRPC status or error code. */
  readonly ends: Readonly<Record<string, number>>;
  /** The thread's longest delay of a timer, ms: if it is long, the fleet was slow, not the collector. */
  readonly lateMs: number;
}

const RETRY_MS = 500;
const TICK_MS = 50;

/** Hellos sent and not answered on one connection, at most. */
const OPENING_MAX = 50;

const HEADERS = {
  ':method': 'POST',
  ':path': '/meshpulse.v1.Ingest/Report',
  'content-type': 'application/grpc',
  te: 'trailers',
};

export class Fleet {
  private readonly members: Member[];
  private readonly lines: Line[];
  private readonly timer: NodeJS.Timeout;
  readonly ends: Record<string, number> = {};
  streams = 0;
  more = true;
  private lateMs = 0;
  private tickMs = performance.now();
  private turn = 0;
  private sent = 0;

  constructor(readonly plan: FleetPlan) {
    this.members = Array.from({ length: plan.instances }, (_, i) => new Member(i, plan.services));
    this.lines = [];
    for (let from = 0; from < plan.instances; from += plan.perConnection) {
      this.lines.push(new Line(this, this.lines.length, this.members.slice(from, from + plan.perConnection)));
    }
    this.timer = setInterval(() => this.tick(), TICK_MS);
  }

  figures(): FleetFigures {
    const sum = (of: (member: Member) => number): number => this.members.reduce((total, one) => total + of(one), 0);
    const { streams, ends, lateMs } = this;
    this.lateMs = 0;
    return {
      connected: sum(one => (one.connected ? 1 : 0)),
      made: EVENTS * sum(one => one.made),
      acked: EVENTS * sum(one => one.acked),
      unacknowledgedMembers: sum(one => (one.unacknowledged > 0 ? 1 : 0)),
      streams,
      ends: { ...ends },
      lateMs,
    };
  }

  stop(): void {
    clearInterval(this.timer);
    for (const line of this.lines) line.close();
  }

  ended(how: string): void {
    this.ends[how] = (this.ends[how] ?? 0) + 1;
  }

  /** The share of the members whose turn it is says something. */
  private tick(): void {
    const nowMs = performance.now();
    const { instances, everyMs, perConnection, batchEvery } = this.plan;
    const due = Math.min(instances, Math.ceil((instances * (nowMs - this.tickMs)) / everyMs));
    this.lateMs = Math.max(this.lateMs, nowMs - this.tickMs - TICK_MS);
    this.tickMs = nowMs;
    for (let i = 0; i < due; i++) {
      this.turn = (this.turn + 1) % instances;
      const withBatch = this.more && this.sent++ % batchEvery === 0;
      this.lines[Math.floor(this.turn / perConnection)]!.say(this.members[this.turn]!, withBatch);
    }
    for (const line of this.lines) line.open();
  }
}

const usable = ({ closed, destroyed, connecting }: ClientHttp2Session): boolean => !closed && !destroyed && !connecting;

/** One connection and the members that share it. */
class Line {
  private session: ClientHttp2Session | undefined;
  private readonly streams = new Map<Member, ClientHttp2Stream>();
  private readonly waiting: Member[];
  private opening = 0;
  private at: number;
  private closed = false;
  private moving = false;

  constructor(
    private readonly fleet: Fleet,
    private readonly index: number,
    members: readonly Member[],
  ) {
    this.waiting = [...members];
    this.at = index;
    this.connect();
  }

  /** Opens streams for those that have none, a few at a time. */
  open(): void {
    while (
      !this.moving &&
      this.session !== undefined &&
      usable(this.session) &&
      this.opening < OPENING_MAX &&
      this.waiting.length > 0
    ) {
      this.begin(this.session, this.waiting.shift()!);
    }
  }

  say(member: Member, withBatch: boolean): void {
    const stream = member.connected ? this.streams.get(member) : undefined;
    if (stream?.writable === true) stream.write(member.report(withBatch));
  }

  close(): void {
    this.closed = true;
    this.session?.destroy();
  }

  private connect(): void {
    if (this.closed) return;
    this.moving = false;
    const { collectors } = this.fleet.plan;
    const [host, port] = collectors[this.at++ % collectors.length]!.split(':') as [string, string];
    // 127.0.0.1 is everyone's; the nodes begin behind it.
    const localAddress = `127.1.${Math.floor(this.index / 250)}.${1 + (this.index % 250)}`;
    const session = connect(`http://${host}:${port}`, {
      createConnection: () => connectTcp({ host, port: Number(port), localAddress }),
      maxSessionMemory: 1000,
    });
    this.session = session;
    session.on('error', () => undefined);
    session.on('close', () => setTimeout(() => this.connect(), RETRY_MS * (0.5 + Math.random())));
    session.on('connect', () => this.open());
  }

  /** The collector is leaving: everything is said, what was said is answered, and then to the next. */
  private move(session: ClientHttp2Session, drainMs: number): void {
    if (this.moving) return;
    this.moving = true;
    setTimeout(
      () => {
        for (const stream of this.streams.values()) stream.end();
        if (this.streams.size === 0) session.close();
      },
      drainMs * 0.8 * Math.random(),
    );
  }

  private begin(session: ClientHttp2Session, member: Member): void {
    const { fleet } = this;
    this.opening += 1;
    fleet.streams += 1;
    const stream = session.request(HEADERS);
    this.streams.set(member, stream);
    let open = true;
    const opened = (): void => {
      if (open) this.opening -= 1;
      open = false;
      this.open();
    };
    let status = 'cut';
    stream.on('data', (bytes: Buffer) => {
      member.take(bytes);
      if (member.connected) opened();
      if (member.drainMs > 0) this.move(session, member.drainMs);
    });
    const note = (headers: IncomingHttpHeaders): void => {
      const said = headers['grpc-status'];
      if (typeof said === 'string') status = said;
    };
    stream.on('response', note);
    stream.on('trailers', note);
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (status === 'cut') status = error.code ?? error.message;
    });
    stream.on('close', () => {
      fleet.ended(status);
      member.connected = false;
      this.streams.delete(member);
      opened();
      if (this.moving && this.streams.size === 0) session.close();
      const waitMs = member.waitMs + RETRY_MS * Math.random();
      setTimeout(() => this.waiting.push(member), waitMs).unref();
    });
    stream.on('end', () => stream.close(constants.NGHTTP2_NO_ERROR));
    stream.write(member.greeting());
  }
}
