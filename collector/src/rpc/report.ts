// Ingest.Report and Ingest.ReportOnce: bytes in, acknowledgements out.

import {
  Metadata,
  status as Code,
  type sendUnaryData,
  type ServerDuplexStream,
  type ServerUnaryCall,
} from '@grpc/grpc-js';
import type { Gate } from '../access/gate.js';
import { Owners, refusalOfHello } from '../access/reporter.js';
import { callOf } from '../access/roles.js';
import type { Clock } from '../clock.js';
import { Exhausted, statusOf } from '../errors.js';
import { decodeReport } from '../ingest/decode-report.js';
import type { Ingest, Peer, Reply, Session } from '../ingest/ingest.js';
import type { Report } from '../ingest/report.js';
import type { IngestTotals } from '../ingest/totals.js';
import type { Logger } from '../log.js';
import type { Registry } from '../registry/registry.js';
import { hostOf, type PeerLimiter } from './limits.js';

export interface ReportParts {
  readonly ingest: Ingest;
  readonly limiter: PeerLimiter;
  readonly totals: IngestTotals;
  readonly clock: Clock;
  readonly log: Logger;
  /** Who may report whom; absent = everybody everyone. */
  readonly speakers?: Speakers;
}

/** Keeps workloads from speaking for others. */
export class Speakers {
  private readonly owners = new Owners();

  constructor(
    private readonly gate: Gate,
    private readonly registry: Registry,
  ) {}

  /**
   * @returns to be called once the report is taken: the life is the caller's then
   * @throws PermissionDenied, audited
   */
  check(call: { readonly metadata: Metadata; getPath(): string }, report: Report): () => void {
    const { hello } = report;
    if (hello === undefined) return () => undefined;
    const { gate, registry, owners } = this;
    const caller = gate.callerOf(call.metadata);
    if (caller === undefined) throw new Error('a report came past the gate');
    const why = refusalOfHello(caller, hello, registry, owners);
    if (why !== undefined) throw gate.access.deny(caller, callOf(call.getPath()), why);
    return () => {
      const life = registry.find(hello.cuid);
      if (life !== undefined) owners.claim(life, caller.name);
    };
  }
}

/** Messages of one stream being stored; past it we stop reading until they are. */
const PENDING_MAX = 64;

/** Replies not yet taken by a client that does not read; past it the stream ends. */
const UNREAD_REPLIES_MAX = 1000;

const REPLY_RETRY_MS = 1000;

type Call = ServerDuplexStream<Buffer, Reply>;

/** The stream of one proxy, until either side ends it. */
export function report(parts: ReportParts, call: Call): void {
  new ReportStream(parts, call).start();
}

/** One message; the same as a stream that sends one. */
export function reportOnce(parts: ReportParts, call: ServerUnaryCall<Buffer, Reply>, done: sendUnaryData<Reply>): void {
  const peer: Peer = { transport: 'unary', fail: () => undefined, tell: () => undefined };
  const work = async (): Promise<Reply> => {
    checkRate(parts, hostOf(call.getPeer()));
    parts.totals.bytes += call.request.length;
    return take(parts, call, parts.ingest.open(peer), decodeReport(call.request));
  };
  work().then(
    reply => done(null, reply),
    (error: unknown) => done(refusal(parts, error)),
  );
}

class ReportStream implements Peer {
  readonly transport = 'stream';
  private session: Session | undefined;
  private pending = 0;
  private unread = 0;
  private over = false;
  /** Of the peer, once it has sent something. */
  private host: string | undefined;

  constructor(
    private readonly parts: ReportParts,
    private readonly call: Call,
  ) {}

  start(): void {
    const { call, parts } = this;
    call.on('data', (bytes: Buffer) => this.onMessage(bytes));
    call.on('end', () => void this.onEnd());
    call.on('cancelled', () => this.leave());
    call.on('error', () => this.leave());
    call.on('drain', () => (this.unread = 0));
    try {
      this.session = parts.ingest.open(this);
    } catch (error) {
      this.fail(error as Error);
    }
  }

  /** Says something; a client that never reads is ended instead of buffered for. */
  tell(reply: Reply): void {
    if (this.over) return;
    this.unread = this.call.write(reply) ? 0 : this.unread + 1;
    if (this.unread > UNREAD_REPLIES_MAX) this.fail(new Exhausted('replies are not being read', REPLY_RETRY_MS));
  }

  /** Ends the stream from our side; past a limit, a last reply says when to come back. */
  fail(error: Error): void {
    if (this.over) return;
    if (error instanceof Exhausted) this.call.write(retryReply(error));
    this.leave();
    this.call.emit('error', refusal(this.parts, error));
  }

  private onMessage(bytes: Buffer): void {
    if (this.over || this.session === undefined) return;
    this.pending += 1;
    if (this.pending === PENDING_MAX) this.call.pause();
    this.take(this.session, bytes)
      .then(reply => this.tell(reply))
      .catch((error: unknown) => this.fail(error as Error))
      .finally(() => {
        this.pending -= 1;
        if (this.pending === PENDING_MAX - 1) this.call.resume();
      });
  }

  private async take(session: Session, bytes: Buffer): Promise<Reply> {
    checkRate(this.parts, (this.host ??= hostOf(this.call.getPeer())));
    this.parts.totals.bytes += bytes.length;
    return take(this.parts, this.call, session, decodeReport(bytes));
  }

  /** The proxy has said its last word: answer what is under way, then end. */
  private async onEnd(): Promise<void> {
    await this.session?.settled;
    if (this.over) return;
    this.leave();
    setImmediate(() => this.call.end());
  }

  private leave(): void {
    this.over = true;
    if (this.session !== undefined) this.parts.ingest.close(this.session);
  }
}

function take(
  { ingest, speakers }: ReportParts,
  call: { readonly metadata: Metadata; getPath(): string },
  session: Session,
  report: Report,
): Promise<Reply> {
  const claim = speakers?.check(call, report);
  // What only matters now is taken at once, so the life is there when this returns.
  const reply = ingest.take(session, report);
  claim?.();
  return reply;
}

/** @throws Exhausted when this host sends more than it may */
function checkRate({ limiter, clock }: ReportParts, host: string): void {
  const waitMs = limiter.take(host, clock.monotonicMs());
  if (waitMs > 0) throw new Exhausted('more messages than peer-messages-per-second allows', waitMs);
}

function refusal({ totals, log }: ReportParts, error: unknown): { code: Code; details: string; metadata: Metadata } {
  const { code, details, known } = statusOf(error);
  totals.refuse(Code[code]);
  if (!known) log.error({ err: error }, 'a report could not be taken');
  const metadata = new Metadata();
  if (error instanceof Exhausted) metadata.set('retry-after-ms', String(error.retryAfterMs));
  return { code, details, metadata };
}

function retryReply(error: Exhausted): Reply {
  return { acks: [], hints: { retryAfterMs: error.retryAfterMs }, receivedUnixUs: '0', echoSentUnixUs: '0' };
}
