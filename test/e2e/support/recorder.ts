// A collector that only listens: it decodes every message, keeps every row, acknowledges, and misbehaves on
// demand. What a proxy told is then known exactly, with nothing between the wire and the assertion.
import {
  Server,
  ServerCredentials,
  status as Code,
  type sendUnaryData,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServiceDefinition,
} from '@grpc/grpc-js';
import { format, freePort, type Address } from '../../../demo/src/mesh/address.js';
import { until } from '../../../demo/src/mesh/child.js';
import {
  decodeRequest,
  encodeReply,
  rowsOf,
  type Batch,
  type Directive,
  type Hello,
  type InFlight,
  type Progress,
  type ReportReply,
  type ReportRequest,
  type Row,
  type Status,
} from '../../filter/wire.js';

/** How messages are answered. `reset` ends each stream with an error at its first message. */
export type Mode = { kind: 'ack' } | { kind: 'slow'; ms: number } | { kind: 'silent' | 'garbage' | 'reset' };

/** One proxy life: all that came under one CUID. */
export class Life {
  /** The newest hello. */
  hello: Hello;
  readonly hellos: Hello[] = [];
  /** producer -> seq -> batch. */
  readonly batches = new Map<string, Map<number, Batch>>();
  readonly statuses: { atMs: number; status: Status }[] = [];
  /** Lists of running requests, each with the time it came. */
  readonly inFlight: { atMs: number; producer: string; items: InFlight[]; omitted: number }[] = [];
  readonly progress: { atMs: number; progress: Progress }[] = [];
  /** Requests told before their time, each with the time it came. */
  readonly began: { atMs: number; item: InFlight }[] = [];
  /** Versions of the directives that it says it applied. */
  readonly applied = new Set<string>();
  readonly signalResults: { id: string; status: number }[] = [];
  goodbye: string | undefined;
  /** Times of all messages, by `Date.now()`. */
  readonly messagesMs: number[] = [];
  /** Batches that came again. */
  replays = 0;

  constructor(hello: Hello) {
    this.hello = hello;
  }

  get rows(): Row[] {
    const batches = [...this.batches.values()].flatMap(bySeq => [...bySeq.values()]);
    return batches.flatMap(batch => (batch.events ? rowsOf(batch.events) : []));
  }

  /** Batches that are known to exist and have not come, and all rows that are known to be lost. */
  get lost(): { batches: number; rows: number } {
    let batches = 0;
    let rows = 0;
    for (const bySeq of this.batches.values()) {
      const last = Math.max(0, ...bySeq.keys());
      batches += last - bySeq.size;
      // Before its last batch a producer had made this many rows; what has not come of them is lost.
      const made = Number(bySeq.get(last)?.firstEvent ?? 0);
      const came = [...bySeq].reduce((sum, [seq, batch]) => (seq < last ? sum + (batch.events?.rows ?? 0) : sum), 0);
      rows += made - came + Number(bySeq.get(last)?.droppedEvents ?? 0);
    }
    return { batches, rows };
  }
}

const BYTES_AS_THEY_ARE = (bytes: Buffer): Buffer => bytes;
const COMMON = { requestSerialize: BYTES_AS_THEY_ARE, requestDeserialize: BYTES_AS_THEY_ARE };
const REPLY = { responseSerialize: BYTES_AS_THEY_ARE, responseDeserialize: BYTES_AS_THEY_ARE };
const INGEST: ServiceDefinition = {
  Report: { path: '/meshpulse.v1.Ingest/Report', requestStream: true, responseStream: true, ...COMMON, ...REPLY },
  ReportOnce: {
    path: '/meshpulse.v1.Ingest/ReportOnce',
    requestStream: false,
    responseStream: false,
    ...COMMON,
    ...REPLY,
  },
};
/** No protobuf message: a tag with field number 0. */
const GARBAGE = Buffer.from([0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);

type Stream = ServerDuplexStream<Buffer, Buffer>;
interface Speaker {
  life?: Life;
}

function listen(server: Server, address: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    server.bindAsync(format(address), ServerCredentials.createInsecure(), error => {
      if (error) reject(error);
      else resolve();
    });
  });
}

export class Recorder {
  stream: Mode = { kind: 'ack' };
  unary: Mode = { kind: 'ack' };
  /** Go with every reply. */
  hints: ReportReply['hints'] = undefined;
  readonly lives: Map<string, Life>;
  readonly faults: string[] = [];
  streamsOpened = 0;
  calls = 0;
  /** Streams, each with the life that speaks there. */
  private readonly open = new Map<Stream, Speaker>();
  /** Directives that go with the next reply to a service. */
  private readonly waiting = new Map<string, Directive[]>();
  private readonly timers = new Set<NodeJS.Timeout>();

  private constructor(
    private server: Server,
    readonly address: Address,
    twin: Recorder | undefined,
  ) {
    this.lives = twin?.lives ?? new Map<string, Life>();
  }

  /**
   * Listens on 127.0.0.1, on a port to which `resume` can come back.
   *
   * @param twin another replica: both know what either is told, as with one store behind them
   */
  static async start(twin?: Recorder): Promise<Recorder> {
    const server = new Server();
    const address = { host: '127.0.0.1', port: await freePort() };
    await listen(server, address);
    const recorder = new Recorder(server, address, twin);
    recorder.serve();
    return recorder;
  }

  /** Ends everything at once, as if killed. */
  stop(): void {
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    this.server.forceShutdown();
    this.open.clear();
  }

  /** Listens again on the same address after `stop`, with all it knew. */
  async resume(): Promise<void> {
    this.server = new Server();
    await listen(this.server, this.address);
    this.serve();
  }

  private serve(): void {
    this.server.addService(INGEST, {
      Report: (stream: Stream) => this.onStream(stream),
      ReportOnce: (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) => this.onCall(call, done),
    });
  }

  get openStreams(): number {
    return this.open.size;
  }

  /** The only life of this service (`name` or `name.namespace`). */
  life(service: string): Life {
    const found = this.livesOf(service);
    const [life] = found;
    if (!life || found.length > 1) throw new Error(`${found.length} lives of ${service}, expected one`);
    return life;
  }

  livesOf(service: string): Life[] {
    return [...this.lives.values()].filter(
      ({ hello }) => hello.service === service || hello.service.startsWith(`${service}.`),
    );
  }

  /** All rows of a service. */
  rows(service: string): Row[] {
    return this.livesOf(service).flatMap(life => life.rows);
  }

  /** Waits until every one of these services has greeted. */
  async greeted(...services: string[]): Promise<void> {
    await until(`hello of ${services.join(', ')}`, GREETING_MS, () =>
      services.every(service => this.livesOf(service).length > 0) ? true : undefined,
    );
  }

  /**
   * Waits for `count` rows of a service, and then for `quietMs` more, in which no further one may come that
   * a count of `count` would hide.
   */
  async rowsOf(service: string, count: number, quietMs = 600, timeoutMs = ROWS_MS): Promise<Row[]> {
    await until(`${count} rows of ${service}`, timeoutMs, () =>
      this.rows(service).length >= count ? true : undefined,
    ).catch((error: unknown) => {
      throw new Error(`${service}: ${this.rows(service).length} rows, expected ${count}`, { cause: error });
    });
    await new Promise(done => setTimeout(done, quietMs));
    return this.rows(service);
  }

  /** Sends directives, now, on every stream of a service; how many streams that were. */
  direct(service: string, ...directives: Directive[]): number {
    const lives = new Set(this.livesOf(service));
    const streams = [...this.open].filter(([, { life }]) => life && lives.has(life));
    for (const [stream] of streams) stream.write(encodeReply({ directives }));
    return streams.length;
  }

  /** Sends directives with the next reply to a service, by stream or call. */
  later(service: string, ...directives: Directive[]): void {
    this.waiting.set(this.life(service).hello.cuid, directives);
  }

  /** Sends directives to a service of one life, and waits until it says that it holds them. */
  async hold(service: string, ...directives: Directive[]): Promise<void> {
    await until(`a stream of ${service}`, GREETING_MS, () =>
      this.direct(service, ...directives) > 0 ? true : undefined,
    );
    await until(`directives held by ${service}`, GREETING_MS, () =>
      directives.every(({ version }) => this.life(service).applied.has(version)) ? true : undefined,
    );
  }

  /** Says to every stream, now, what goes with every reply until it is said otherwise. */
  tell(hints: ReportReply['hints']): void {
    this.hints = hints;
    for (const stream of this.open.keys()) stream.write(encodeReply({ ...(hints ? { hints } : {}) }));
  }

  private onStream(stream: Stream): void {
    this.streamsOpened++;
    const state: Speaker = {};
    this.open.set(stream, state);
    stream.on('data', (bytes: Buffer) => {
      const mode = this.stream;
      if (mode.kind === 'reset') {
        stream.emit('error', { code: Code.UNAVAILABLE, details: 'reset on purpose' });
        return;
      }
      const reply = this.take(state, bytes);
      this.answer(mode, reply, answer => {
        if (this.open.has(stream)) stream.write(answer);
      });
    });
    const gone = () => this.open.delete(stream);
    stream.on('end', () => {
      gone();
      stream.end();
    });
    stream.on('cancelled', gone);
    stream.on('error', gone);
    stream.on('close', gone);
  }

  private onCall(call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>): void {
    this.calls++;
    const mode = this.unary;
    if (mode.kind === 'reset') {
      done({ code: Code.UNAVAILABLE, details: 'reset on purpose' });
      return;
    }
    const reply = this.take({}, call.request);
    this.answer(mode, reply, answer => done(null, answer));
  }

  private answer(mode: Mode, reply: ReportReply, send: (bytes: Buffer) => void): void {
    if (mode.kind === 'ack') send(encodeReply(reply));
    if (mode.kind === 'garbage') send(GARBAGE);
    if (mode.kind === 'slow') {
      const timer = setTimeout(() => {
        this.timers.delete(timer);
        send(encodeReply(reply));
      }, mode.ms);
      this.timers.add(timer);
    }
  }

  private take(state: Speaker, bytes: Buffer): ReportReply {
    const request = decodeRequest(bytes);
    const atMs = Date.now();
    if (request.hello) state.life = this.greet(request.hello);
    const { life } = state;
    if (!life) {
      this.faults.push('a message before hello');
      return {};
    }
    life.messagesMs.push(atMs);
    if (request.status) life.statuses.push({ atMs, status: request.status });
    life.inFlight.push(...request.inFlight.map(list => ({ atMs, ...list })));
    life.progress.push(...request.progress.map(progress => ({ atMs, progress })));
    life.began.push(...request.began.map(item => ({ atMs, item })));
    for (const ack of request.directiveAcks) life.applied.add(ack.version);
    life.signalResults.push(...request.signalResults);
    if (request.goodbye) life.goodbye = request.goodbye.reason;
    return this.store(life, request);
  }

  private greet(hello: Hello): Life {
    const life = this.lives.get(hello.cuid) ?? new Life(hello);
    life.hello = hello;
    life.hellos.push(hello);
    this.lives.set(hello.cuid, life);
    return life;
  }

  private store(life: Life, request: ReportRequest): ReportReply {
    const acks = new Map<string, number>();
    for (const batch of request.batches) {
      const bySeq = life.batches.get(batch.producer) ?? new Map<number, Batch>();
      life.batches.set(batch.producer, bySeq);
      if (bySeq.has(Number(batch.seq))) life.replays++;
      else bySeq.set(Number(batch.seq), batch);
      acks.set(batch.producer, Math.max(...bySeq.keys()));
    }
    const directives = this.waiting.get(life.hello.cuid) ?? [];
    this.waiting.delete(life.hello.cuid);
    return {
      directives,
      ...(this.hints ? { hints: this.hints } : {}),
      acks: [...acks].map(([producer, seq]) => ({ producer, seq: String(seq), durable: true })),
      receivedUnixUs: String(Date.now() * 1000),
      echoSentUnixUs: request.sentUnixUs,
    };
  }
}

/** A proxy's first report: compilation of the module, election of a leader, one tick. */
const GREETING_MS = 45_000;
const ROWS_MS = 30_000;
