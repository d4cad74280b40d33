// Events and signals on their way out, as the collector's main thread sees it: a copy into a chunk, and the chunk handed to
// the thread of the exports now and then. Whatever happens there, nothing here waits.
//
// What is handed over and not taken yet is bounded; past it new rows are dropped and counted. Behind that each sink has a
// queue of its own, where the oldest go first. If the thread dies, what it had is counted as dropped.

import { hostname } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { Clock } from '../clock.js';
import { ConfigError } from '../errors.js';
import type { Batch } from '../ingest/report.js';
import type { Logger } from '../log.js';
import type { Life } from '../registry/life.js';
import type { VerdictRecord } from '../rollback/verdicts.js';
import { lockFolder } from '../store/lock.js';
import { VERSION } from '../paths.js';
import { frameBytes, writeFrame, type Origin } from './batches.js';
import { Changes } from './cloud-events.js';
import {
  NO_REPORT,
  sumOf,
  type ExportPlan,
  type FromThread,
  type SignalItem,
  type SinkReport,
  type ToThread,
} from './messages.js';
import type { ExportSettings } from './settings.js';
import { masked, type SinkSpec } from './sinks.js';

/** A chunk is handed over when it has this many bytes, or at the next tick. */
const CHUNK_BYTES = 256 * 1024;

/** Handed over and not taken yet, at most: bytes of rows, and signals. */
const UNTAKEN_BYTES_MAX = 8 * 1024 * 1024;
const SIGNALS_WAITING_MAX = 10_000;

/** How often what waits is handed over, ms. */
const TICK_MS = 100;

/** Old space of the thread beside its queues, MiB: loads being written. */
const THREAD_MIB = 128;

/** A thread that died is started again after this long, ms. */
const RESTART_MS = 1000;

/** A sink that fails is named in the log as often as this, ms. */
const COMPLAIN_MS = 60_000;

/** At a stop, sinks have this long to take what is left, ms. */
const CLOSE_MS = 2000;

export interface SinkTotals {
  readonly name: string;
  readonly kind: SinkSpec['kind'];
  readonly report: SinkReport;
}

export interface ExportsParts {
  readonly settings: ExportSettings;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Exports {
  private thread: Worker | undefined;
  private chunk = Buffer.from(new ArrayBuffer(0));
  private used = 0;
  private records = 0;
  /** Since the thread began: handed over, and taken by it. */
  private handed = { bytes: 0, records: 0, signals: 0 };
  private takenBytes = 0;
  private waiting: SignalItem[] = [];
  private readonly changes = new Changes();
  /** Sums of threads that are gone, and what was dropped here, by sink. */
  private readonly before: SinkReport[];
  private reports: SinkReport[];
  private readonly complainedMs: number[];
  private timer: NodeJS.Timeout | undefined;
  private restart: NodeJS.Timeout | undefined;
  private started = false;
  private closing = false;
  private onClosed: (() => void) | undefined;
  private readonly heads = new WeakMap<Life, { readonly origin: Origin; readonly json: Buffer }>();
  /** Threads that died. */
  deaths = 0;

  private constructor(
    private readonly parts: ExportsParts,
    private readonly unlocks: readonly (() => void)[],
  ) {
    const { sinks } = parts.settings;
    this.before = sinks.map(() => ({ ...NO_REPORT }));
    this.reports = sinks.map(() => NO_REPORT);
    this.complainedMs = sinks.map(() => -Infinity);
  }

  /**
   * Starts the exports; with no sink, nothing.
   *
   * @throws ConfigError when a folder cannot be had
   */
  static async open(parts: ExportsParts): Promise<Exports | undefined> {
    const { sinks } = parts.settings;
    if (sinks.length === 0) return undefined;
    const unlocks: (() => void)[] = [];
    try {
      for (const { kind, target } of sinks) {
        if (kind === 'jsonl') unlocks.push(await lockFolder(target, '--export jsonl='));
      }
      const exports = new Exports(parts, unlocks);
      await exports.begin();
      exports.timer = setInterval(() => exports.tick(), TICK_MS);
      return exports;
    } catch (error) {
      for (const unlock of unlocks) unlock();
      throw error;
    }
  }

  /** Rows that this replica took from a proxy, once each. */
  rows(life: Life, batch: Batch, receivedUs: number): void {
    const records = batch.events?.rows ?? 0;
    if (records === 0 || !this.parts.settings.sinks.some(({ kind }) => kind !== 'webhook')) return;
    const head = this.headOf(life);
    const bytes = frameBytes(head, batch.bytes);
    if (this.untaken + this.used + bytes > UNTAKEN_BYTES_MAX) return this.drop(records);
    if (this.used + bytes > this.chunk.length) {
      this.hand();
      const size = Math.max(CHUNK_BYTES, bytes);
      if (this.chunk.length !== size) this.chunk = Buffer.from(new ArrayBuffer(size));
    }
    const { offsetUs: clockOffsetUs } = life.clock.current;
    this.used = writeFrame(this.chunk, this.used, { head, batch: batch.bytes, receivedUs, clockOffsetUs, records });
    this.records += records;
  }

  /** Verdicts that changed, of those that this replica acts for. */
  verdicts(records: Iterable<VerdictRecord>): void {
    if (!this.parts.settings.sinks.some(({ kind }) => kind === 'webhook')) return;
    const nowUs = this.parts.clock.nowUs();
    for (const record of records) this.waiting.push(...this.changes.of(record, nowUs));
    const over = this.waiting.length - SIGNALS_WAITING_MAX;
    if (over > 0) {
      this.waiting.splice(0, over);
      this.addDropped('webhook', over);
    }
  }

  /** What became of everything, by sink. */
  *totals(): Generator<SinkTotals> {
    for (const [i, { name, kind }] of this.parts.settings.sinks.entries()) {
      yield { name, kind, report: sumOf(this.before[i]!, this.reports[i]!) };
    }
  }

  /** Gives sinks a moment to take what is left, and ends. A second call does nothing. */
  async close(): Promise<void> {
    if (this.closing) return;
    this.closing = true;
    clearInterval(this.timer);
    clearTimeout(this.restart);
    this.tick();
    const { thread } = this;
    if (thread !== undefined) {
      const closed = new Promise<void>(resolve => (this.onClosed = resolve));
      this.post({ kind: 'close', ms: CLOSE_MS });
      await Promise.race([closed, new Promise(resolve => setTimeout(resolve, CLOSE_MS + 1000).unref())]);
      await thread.terminate();
    }
    for (const unlock of this.unlocks) unlock();
    for (const { name, report } of this.totals()) {
      const { delivered, dropped, refused } = report;
      this.parts.log.info({ sink: name, delivered, dropped, refused }, 'export ended');
    }
  }

  private get untaken(): number {
    return this.handed.bytes - this.takenBytes;
  }

  private begin(): Promise<void> {
    const { settings } = this.parts;
    const { sinks, denyPrivate, queueBytesMax, filesBytesMax, headers, keys } = settings;
    const host = hostname().replace(/[^A-Za-z0-9.-]/g, '-');
    const common = { host, version: VERSION, headers, keys };
    const workerData: ExportPlan = { sinks, denyPrivate, queueBytesMax, filesBytesMax, ...common };
    const thread = new Worker(new URL('./thread.js', import.meta.url), {
      workerData,
      name: 'exports',
      // Options of the process can be such that only a main program understands.
      execArgv: [],
      // Queues hold buffers, which lie outside of the thread's heap.
      resourceLimits: { maxOldGenerationSizeMb: THREAD_MIB },
    });
    this.thread = thread;
    this.handed = { bytes: 0, records: 0, signals: 0 };
    this.takenBytes = 0;
    return new Promise((resolve, reject) => {
      thread.on('message', (message: FromThread) => {
        if (message.kind !== 'ready') return this.hear(message);
        this.started = true;
        resolve();
      });
      thread.on('error', (error: Error) => {
        reject(
          new ConfigError(`--export cannot be started (${error.message}); see that its folders can be written to`),
        );
        if (this.started) this.parts.log.error({ err: error }, 'the thread of the exports died; it is started again');
      });
      thread.on('exit', () => this.onExit(thread));
    });
  }

  private onExit(thread: Worker): void {
    if (this.thread !== thread) return;
    this.thread = undefined;
    if (!this.started) return;
    if (this.closing) return this.onClosed?.();
    this.deaths += 1;
    for (const [i, report] of this.reports.entries()) {
      const had = this.parts.settings.sinks[i]!.kind === 'webhook' ? this.handed.signals : this.handed.records;
      const lost = had - report.delivered - report.dropped - report.refused;
      const still = { queueBytes: 0, queueRecords: 0, inWork: 0, fileBytes: 0 };
      this.before[i] = sumOf(this.before[i]!, { ...report, ...still, dropped: report.dropped + lost });
    }
    this.reports = this.reports.map(() => NO_REPORT);
    this.restart = setTimeout(() => {
      // Its end is told by 'exit', which comes here again.
      this.begin().catch(() => undefined);
    }, RESTART_MS);
  }

  private hear(message: FromThread): void {
    if (message.kind === 'log') this.parts.log[message.level](message.fields, message.text);
    else if (message.kind === 'closed') this.onClosed?.();
    else if (message.kind === 'report') {
      this.takenBytes = message.chunkBytes;
      this.reports = [...message.sinks];
      this.complain();
    }
  }

  private complain(): void {
    const nowMs = performance.now();
    for (const [i, { why }] of this.reports.entries()) {
      if (why === '' || nowMs < this.complainedMs[i]! + COMPLAIN_MS) continue;
      this.complainedMs[i] = nowMs;
      const { name, kind, target } = this.parts.settings.sinks[i]!;
      this.parts.log.warn({ sink: name, target: masked(`${kind}=${target}`), why }, 'an export fails');
    }
  }

  private tick(): void {
    this.hand();
    if (this.waiting.length > 0 && this.post({ kind: 'signals', items: this.waiting })) {
      this.handed.signals += this.waiting.length;
      this.waiting = [];
    }
    this.post({ kind: 'time', nowUs: this.parts.clock.nowUs() });
  }

  private hand(): void {
    if (this.used === 0) return;
    // Exactly what is used: a chunk stays in memory for as long as one frame of it waits.
    const bytes = this.chunk.buffer.slice(0, this.used);
    const { used, records } = this;
    this.used = 0;
    this.records = 0;
    if (!this.post({ kind: 'chunk', bytes, records }, [bytes])) return this.drop(records);
    this.handed.bytes += used;
    this.handed.records += records;
  }

  /** False when there is no thread to tell. */
  private post(message: ToThread, transfer: ArrayBuffer[] = []): boolean {
    if (this.thread === undefined) return false;
    this.thread.postMessage(message, transfer);
    return true;
  }

  private drop(records: number): void {
    this.addDropped('otlp', records);
    this.addDropped('jsonl', records);
  }

  private addDropped(kind: SinkSpec['kind'], records: number): void {
    for (const [i, sink] of this.parts.settings.sinks.entries()) {
      if (sink.kind === kind) this.before[i] = { ...this.before[i]!, dropped: this.before[i]!.dropped + records };
    }
  }

  /** Who a life is, encoded once and again when it says something else. */
  private headOf(life: Life): Buffer {
    const known = this.heads.get(life);
    if (known !== undefined && isOf(known.origin, life)) return known.json;
    const { cuid, service, cluster, network, node, slot, workload, version } = life;
    const origin: Origin = { cuid, service, cluster, network, node, slot, workload, version };
    const json = Buffer.from(JSON.stringify(origin));
    this.heads.set(life, { origin, json });
    return json;
  }
}

const isOf = (origin: Origin, life: Life): boolean =>
  origin.cuid === life.cuid &&
  origin.service === life.service &&
  origin.node === life.node &&
  origin.slot === life.slot &&
  origin.workload === life.workload &&
  origin.cluster === life.cluster &&
  origin.network === life.network &&
  origin.version === life.version;
