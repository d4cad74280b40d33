// An open-loop load generator: requests start when they are due, whether or not earlier ones have ended,
// so that a slow mesh is seen as slow. Every result is counted under its operation and status.
import { Agent, request } from 'node:http';
import { connect, constants, type ClientHttp2Session } from 'node:http2';
import { performance } from 'node:perf_hooks';
import { format, type Address } from './address.js';

export interface Shot {
  /** Name to count it under, e.g. `POST /checkout`. */
  operation: string;
  method: string;
  path: string;
  headers?: Record<string, string>;
  body?: string;
}

export interface LoadOptions {
  /** Taken in turn, one address per request. */
  targets: Address[];
  /** `host` of every request. */
  host: string;
  /** Requests per second. */
  rate: number;
  /** Requests in all; or until `stop`. */
  count?: number;
  /** Default `http1`; `http2` is cleartext with prior knowledge. */
  protocol?: 'http1' | 'http2';
  /** Makes the n-th request. */
  next: (n: number) => Shot;
  /** Sees every result as it comes. */
  onResult?: (result: Result) => void;
}

export interface Result {
  operation: string;
  /** 0 if no answer came. */
  status: number;
  ms: number;
  headers: Record<string, string | string[] | undefined>;
  error?: string;
}

export interface LoadReport {
  /** Exact results: operation -> status (0 = no answer) -> how many. */
  counts: Map<string, Map<number, number>>;
  sent: number;
  /** Latencies of answered requests, ms, ascending. */
  latencies: number[];
  /** Share of requests that started later than 50 ms after they were due: the generator's own trouble. */
  lateRatio: number;
  /** First few errors of requests without an answer. */
  errors: string[];
}

/** How often due requests are looked for, ms. */
const PACE_MS = 5;
const LATE_MS = 50;
const TIMEOUT_MS = 60_000;
const SOCKETS_MAX = 512;
const ERRORS_KEPT = 10;
/** Latencies kept for quantiles. */
const LATENCIES_MAX = 1_000_000;

export class Load {
  private readonly report: LoadReport = { counts: new Map(), sent: 0, latencies: [], lateRatio: 0, errors: [] };
  private readonly client: Client;
  private readonly done: Promise<void>;
  private pending = 0;
  private late = 0;
  private stopped = false;
  private finish: () => void = () => {};

  private constructor(private readonly options: LoadOptions) {
    this.client = options.protocol === 'http2' ? new Http2Client() : new Http1Client();
    this.done = new Promise(resolve => (this.finish = resolve));
    const began = performance.now();
    const timer = setInterval(() => {
      this.shootDue(performance.now() - began);
      if (this.stopped || this.report.sent >= (options.count ?? Infinity)) {
        this.stopped = true;
        clearInterval(timer);
        this.finishIfIdle();
      }
    }, PACE_MS);
  }

  static start(options: LoadOptions): Load {
    return new Load(options);
  }

  /** The report so far. */
  get soFar(): LoadReport {
    return this.report;
  }

  /** Sends no more and waits for the answers that are due. */
  async stop(): Promise<LoadReport> {
    this.stopped = true;
    return this.ended();
  }

  /** Sends no more and gives up on what is not answered yet. */
  abandon(): void {
    this.stopped = true;
    this.client.close();
  }

  /** Waits until `count` requests are answered. */
  async ended(): Promise<LoadReport> {
    await this.done;
    this.client.close();
    this.report.latencies.sort((a, b) => a - b);
    this.report.lateRatio = this.report.sent === 0 ? 0 : this.late / this.report.sent;
    return this.report;
  }

  private shootDue(elapsedMs: number): void {
    if (this.stopped) return;
    const due = Math.min(Math.floor((elapsedMs * this.options.rate) / 1000) + 1, this.options.count ?? Infinity);
    while (this.report.sent < due) {
      const n = this.report.sent++;
      if (elapsedMs - (n * 1000) / this.options.rate > LATE_MS) this.late++;
      void this.shoot(n);
    }
  }

  private async shoot(n: number): Promise<void> {
    const shot = this.options.next(n);
    const target = this.options.targets[n % this.options.targets.length];
    if (!target) throw new Error('load: no targets');
    this.pending++;
    const began = performance.now();
    let result: Result;
    try {
      const answer = await this.client.send(target, this.options.host, shot);
      result = { operation: shot.operation, ms: performance.now() - began, ...answer };
    } catch (error) {
      result = {
        operation: shot.operation,
        status: 0,
        ms: performance.now() - began,
        headers: {},
        error: String(error),
      };
    }
    this.count(result);
    this.options.onResult?.(result);
    this.pending--;
    this.finishIfIdle();
  }

  private count(result: Result): void {
    const { counts, latencies, errors } = this.report;
    const statuses = counts.get(result.operation) ?? new Map<number, number>();
    statuses.set(result.status, (statuses.get(result.status) ?? 0) + 1);
    counts.set(result.operation, statuses);
    if (result.status !== 0 && latencies.length < LATENCIES_MAX) latencies.push(result.ms);
    if (result.error && errors.length < ERRORS_KEPT) errors.push(`${result.operation}: ${result.error}`);
  }

  private finishIfIdle(): void {
    if (this.stopped && this.pending === 0) this.finish();
  }
}

/** The q-quantile of ascending numbers, q in 0..1; NaN for none. */
export function quantile(ascending: number[], q: number): number {
  return ascending[Math.min(ascending.length - 1, Math.floor(q * ascending.length))] ?? NaN;
}

/** Sum of the counts, of one status or of all. */
export function total(report: LoadReport, accepts: (status: number) => boolean = () => true): number {
  let sum = 0;
  for (const statuses of report.counts.values()) {
    for (const [status, count] of statuses) if (accepts(status)) sum += count;
  }
  return sum;
}

type Answer = Pick<Result, 'status' | 'headers'>;

interface Client {
  send(target: Address, host: string, shot: Shot): Promise<Answer>;
  close(): void;
}

class Http1Client implements Client {
  private readonly agent = new Agent({ keepAlive: true, maxSockets: SOCKETS_MAX });

  send(target: Address, host: string, shot: Shot): Promise<Answer> {
    const { method, path } = shot;
    const headers = { host, ...shot.headers };
    return new Promise((resolve, reject) => {
      const call = request({ ...target, agent: this.agent, method, path, headers, timeout: TIMEOUT_MS }, answer => {
        answer.on('error', reject);
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers }));
        answer.resume();
      });
      call.on('timeout', () => call.destroy(new Error(`no answer in ${TIMEOUT_MS} ms`)));
      call.on('error', reject);
      call.end(shot.body);
    });
  }

  close(): void {
    this.agent.destroy();
  }
}

class Http2Client implements Client {
  private readonly sessions = new Map<string, ClientHttp2Session>();

  send(target: Address, host: string, shot: Shot): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const stream = this.session(target).request({
        ':method': shot.method,
        ':path': shot.path,
        ':authority': host,
        ...shot.headers,
      });
      let answer: Answer = { status: 0, headers: {} };
      stream.setTimeout(TIMEOUT_MS, () => stream.close(constants.NGHTTP2_CANCEL));
      stream.on('response', headers => (answer = { status: headers[':status'] ?? 0, headers }));
      stream.on('error', reject);
      stream.on('close', () =>
        stream.rstCode === constants.NGHTTP2_NO_ERROR ? resolve(answer) : reject(new Error(`reset ${stream.rstCode}`)),
      );
      stream.resume();
      stream.end(shot.body);
    });
  }

  private session(target: Address): ClientHttp2Session {
    const key = format(target);
    const existing = this.sessions.get(key);
    if (existing && !existing.closed && !existing.destroyed) return existing;
    const session = connect(`http://${key}`);
    // Requests on it fail by themselves; the session's own error says nothing more.
    session.on('error', () => this.sessions.delete(key));
    this.sessions.set(key, session);
    return session;
  }

  close(): void {
    for (const session of this.sessions.values()) session.destroy();
  }
}
