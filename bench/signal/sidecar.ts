// One sidecar's Report stream over a connection of its own. Messages are bytes on both sides: a filter
// has them ready, and what it does with a directive is not asked here.
import { Client, credentials, type ClientDuplexStream } from '@grpc/grpc-js';
import { service } from '../../collector/src/rpc/protos.js';

type Plain = Record<string, unknown>;

const bytes = (value: Buffer): Buffer => value;
const { path, requestSerialize, responseDeserialize } = service('Ingest')['Report']!;

/** A reply, and when its bytes were there, ms by `performance.now()`. */
export interface Heard {
  readonly atMs: number;
  readonly reply: Plain;
}

/** A stream that is silent for 30 s is ended. It has no time of its own, so its answer is none of `ask`. */
const HEARTBEAT = requestSerialize({ heartbeat: {} });
const HEARTBEAT_MS = 10_000;

/** Longer than any answer takes on a machine that has other things to do, ms. */
const PATIENCE_MS = 30_000;

export class Sidecar {
  private readonly client: Client;
  private readonly stream: ClientDuplexStream<Buffer, Buffer>;
  private waiting: { wanted: (reply: Plain) => boolean; resolve: (heard: Heard) => void } | undefined;
  private readonly heartbeat: NodeJS.Timeout;
  private failed: Error | undefined;

  constructor(address: string, hello: Buffer) {
    this.client = new Client(address, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
    this.stream = this.client.makeBidiStreamRequest(path, bytes, bytes);
    this.stream.on('data', (reply: Buffer) => this.onReply(reply, performance.now()));
    this.stream.on('error', (error: Error) => (this.failed = error));
    this.stream.write(hello);
    this.heartbeat = setInterval(() => this.stream.write(HEARTBEAT), HEARTBEAT_MS);
  }

  /** @throws what ended the stream: a report that was refused has no answer */
  send(message: Buffer): void {
    if (this.failed !== undefined) throw this.failed;
    this.stream.write(message);
  }

  /** The next reply that is wanted. Ask before what it answers is sent. */
  next(what: string, wanted: (reply: Plain) => boolean): Promise<Heard> {
    if (this.failed !== undefined) throw this.failed;
    return new Promise((resolve, reject) => {
      const late = setTimeout(
        () => reject(this.failed ?? new Error(`no ${what} within ${PATIENCE_MS / 1000} s`)),
        PATIENCE_MS,
      );
      const settle = (heard: Heard): void => {
        clearTimeout(late);
        resolve(heard);
      };
      this.waiting = { wanted, resolve: settle };
    });
  }

  /** Sends, and waits until it is answered. */
  async ask(message: Buffer): Promise<void> {
    const answered = this.next('answer', isAnswer);
    this.send(message);
    await answered;
  }

  close(): void {
    clearInterval(this.heartbeat);
    this.stream.cancel();
    this.client.close();
  }

  private onReply(buffer: Buffer, atMs: number): void {
    if (this.waiting === undefined) return;
    const reply = responseDeserialize(buffer) as Plain;
    if (!this.waiting.wanted(reply)) return;
    const { resolve } = this.waiting;
    this.waiting = undefined;
    resolve({ atMs, reply });
  }
}

export const directivesOf = (reply: Plain): Plain[] => (reply['directives'] ?? []) as Plain[];

/** Of a message that said when it was sent. */
export const isAnswer = ({ echoSentUnixUs = '0' }: Plain): boolean => echoSentUnixUs !== '0';
