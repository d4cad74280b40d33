// An open-loop load generator for HTTP/1.1.
//
// Requests are due at times drawn beforehand (exponential gaps, so they bunch as independent callers do),
// whatever the proxy makes of them. Latency counts from when a request was due, not from when a free
// connection let it go: a slow answer delays none of the others on paper, and nothing is left out.
import { connect, type Socket } from 'node:net';
import type { Address } from '../../demo/src/mesh/address.js';
import { RESPONSE_BODY_BYTES, SERIAL_DIGITS, serialOffsets } from './messages.js';

/** Longest wait for outstanding answers after the last request was due, ms. */
const DRAIN_MS = 3000;
/** With the next request further away than this, sleep; below it, look again at once. ms */
const SPIN_MS = 2;
const READ_BUFFER_BYTES = 16384;
const HEAD_END = Buffer.from('\r\n\r\n');
const STATUS_OK = Buffer.from('HTTP/1.1 200');

export interface LoadResult {
  /** Requests answered 200. */
  answered: number;
  /** Requests with another answer, or none. */
  failed: number;
  /** Milliseconds from due to answered, ascending. */
  latenciesMs: Float64Array;
}

/** Connections to one listener, reused from run to run. */
export class OpenLoop {
  private readonly idle: Connection[] = [];
  private serial = 0;

  private constructor(private readonly connections: Connection[]) {}

  static async open(target: Address, request: Buffer, connections: number): Promise<OpenLoop> {
    const opened = await Promise.all(Array.from({ length: connections }, () => Connection.open(target, request)));
    return new OpenLoop(opened);
  }

  /**
   * Sends for `durationMs` and waits for the answers.
   *
   * @param ratePerSecond mean rate
   * @param random        source of the schedule, in [0, 1)
   */
  async run(ratePerSecond: number, durationMs: number, random: () => number): Promise<LoadResult> {
    const run = new Run(ratePerSecond, durationMs, random);
    this.idle.length = 0;
    for (const connection of this.connections) {
      // What the last run gave up waiting for may still come, and is nobody's then.
      let stale = connection.busy;
      connection.onAnswer = (dueMs, ok) => {
        if (!stale) run.done(dueMs, ok);
        stale = false;
        const next = run.takeWaiting();
        if (next === undefined) this.idle.push(connection);
        else connection.send(next, this.serial++);
      };
      if (!stale) this.idle.push(connection);
    }
    await run.drive(dueMs => {
      const connection = this.idle.pop();
      if (!connection) return false;
      connection.send(dueMs, this.serial++);
      return true;
    });
    return run.result();
  }

  /** The last answer's head, for comparisons. */
  get lastHeads(): string[] {
    return this.connections.map(connection => connection.lastHead()).filter(head => head !== '');
  }

  close(): void {
    for (const connection of this.connections) connection.close();
  }
}

class Run {
  private readonly latencies: number[] = [];
  private failed = 0;
  private sent = 0;
  /** Due times of requests that found no free connection; `first` is the next to go. */
  private readonly waiting: number[] = [];
  private first = 0;

  constructor(
    private readonly ratePerSecond: number,
    private readonly durationMs: number,
    private readonly random: () => number,
  ) {}

  done(dueMs: number, ok: boolean): void {
    if (ok) this.latencies.push(performance.now() - dueMs);
    else this.failed++;
  }

  takeWaiting(): number | undefined {
    return this.first < this.waiting.length ? this.waiting[this.first++] : undefined;
  }

  drive(send: (dueMs: number) => boolean): Promise<void> {
    const gapMs = 1000 / this.ratePerSecond;
    let due = performance.now() + 1;
    const end = due + this.durationMs;
    return new Promise(finish => {
      const look = () => {
        const now = performance.now();
        for (; due <= now && due < end; due -= Math.log(1 - this.random()) * gapMs) {
          this.sent++;
          if (this.first < this.waiting.length || !send(due)) this.waiting.push(due);
        }
        const open = this.latencies.length + this.failed < this.sent;
        if (due >= end && (!open || now > end + DRAIN_MS)) finish();
        else if (due < end && due - now > SPIN_MS) setTimeout(look, due - now - SPIN_MS / 2);
        else setImmediate(look);
      };
      look();
    });
  }

  result(): LoadResult {
    const latenciesMs = Float64Array.from(this.latencies).sort();
    return { answered: latenciesMs.length, failed: this.sent - latenciesMs.length, latenciesMs };
  }
}

class Connection {
  onAnswer: (dueMs: number, ok: boolean) => void = () => undefined;
  /** Waits for an answer. */
  busy = false;
  private dueMs = 0;
  /** Bytes of the answer so far, at the front of `buffer`. */
  private have = 0;
  private readonly buffer = Buffer.alloc(READ_BUFFER_BYTES);
  private readonly request: Buffer;
  private readonly serialAt: number[];
  private socket!: Socket;
  private head = 0;

  private constructor(request: Buffer) {
    this.request = Buffer.from(request);
    this.serialAt = serialOffsets(request);
  }

  static open(target: Address, request: Buffer): Promise<Connection> {
    const connection = new Connection(request);
    return new Promise((resolve, reject) => {
      const chunk = Buffer.alloc(READ_BUFFER_BYTES);
      const socket = connect({
        ...target,
        noDelay: true,
        // One buffer per connection: a million answers make no garbage.
        onread: { buffer: chunk, callback: size => connection.take(chunk, size) },
      });
      connection.socket = socket;
      socket.once('connect', () => resolve(connection));
      socket.once('error', reject);
    });
  }

  send(dueMs: number, serial: number): void {
    this.busy = true;
    this.dueMs = dueMs;
    this.have = 0;
    const digits = serial.toString(16).padStart(SERIAL_DIGITS, '0');
    for (const at of this.serialAt) this.request.write(digits, at, 'latin1');
    this.socket.write(this.request);
  }

  lastHead(): string {
    return this.buffer.toString('latin1', 0, this.head);
  }

  close(): void {
    this.socket.destroy();
  }

  private take(chunk: Uint8Array, size: number): boolean {
    if (this.have + size > READ_BUFFER_BYTES) throw new Error('an answer longer than any expected');
    this.buffer.set(chunk.subarray(0, size), this.have);
    this.have += size;
    const head = this.buffer.subarray(0, this.have).indexOf(HEAD_END);
    if (head < 0 || this.have < head + HEAD_END.length + RESPONSE_BODY_BYTES) return true;
    this.head = head;
    this.busy = false;
    this.onAnswer(this.dueMs, this.buffer.compare(STATUS_OK, 0, STATUS_OK.length, 0, STATUS_OK.length) === 0);
    return true;
  }
}
