// The sinks as they run in the thread of the exports: each has its queue and its lanes.

import type { BatchFrame, Rows } from './batches.js';
import { rowsOf } from './batches.js';
import { HourlyFiles } from './files.js';
import { Lanes, newStats, type Load, type SinkStats } from './lanes.js';
import { LineEncoder } from './lines.js';
import { memberOf } from './members.js';
import type { ExportPlan, SignalItem, SinkReport } from './messages.js';
import { OtlpEncoder, rejectedOf } from './otlp.js';
import { Poster, type Outcome } from './post.js';
import { BoundedQueue, type Item } from './queue.js';
import type { Resolver } from './resolver.js';
import type { SinkSpec } from './sinks.js';
import { signed } from './signature.js';
import { gzipSync } from 'node:zlib';

/** Loads of OTLP: at most so many bytes as they came, and rows. Encoded they are three to six times as many bytes. */
const OTLP_BYTES_MAX = 512 * 1024;
const OTLP_RECORDS_MAX = 4096;
const OTLP_LANES = 2;

/** A load is gathered for so long, ms, unless it is full before; files are made durable as often. */
const LINGER_MS = 250;

/** Rows that nobody takes are given up after this long, ms; signals are worth more. */
const ROWS_KEPT_MS = 5 * 60_000;
const SIGNALS_KEPT_MS = 60 * 60_000;

/** A member of a file: at most so many bytes as they came, and rows. */
const MEMBER_BYTES_MAX = 1024 * 1024;
const MEMBER_RECORDS_MAX = 16_384;

/** Webhooks under way at once. */
const WEBHOOK_LANES = 4;

const SPEED_LEVEL = 1;

export interface RunningSink {
  rows?(frame: BatchFrame): void;
  signal?(item: SignalItem): void;
  time?(nowUs: number): void;
  report(): SinkReport;
  close(ms: number): Promise<void>;
}

export interface SinkParts {
  readonly plan: ExportPlan;
  readonly resolver: Resolver;
  readonly log: (level: 'info' | 'warn', fields: object, text: string) => void;
}

export function openSink(spec: SinkSpec, parts: SinkParts): Promise<RunningSink> | RunningSink {
  if (spec.kind === 'jsonl') return openFiles(spec, parts);
  return spec.kind === 'otlp' ? openOtlp(spec, parts) : openWebhook(spec, parts);
}

function openOtlp({ target }: SinkSpec, { plan, resolver }: SinkParts): RunningSink {
  const stats = newStats();
  const queue = new BoundedQueue<BatchFrame>(plan.queueBytesMax);
  const poster = new Poster(resolver, OTLP_LANES);
  const encoder = new OtlpEncoder(plan.version);
  const url = new URL(target);
  const headers = {
    ...plan.headers,
    'content-type': 'application/x-protobuf',
    'content-encoding': 'gzip',
    'user-agent': `meshpulse/${plan.version}`,
  };
  const load = (frames: readonly BatchFrame[]): Load => {
    const body = gzipSync(encoder.request(rowsOfAll(frames, stats)), { level: SPEED_LEVEL });
    return {
      bytes: body.length,
      async send() {
        const outcome = await poster.post({ url, headers, body });
        return outcome.kind === 'delivered' ? { ...outcome, refusedRecords: rejectedOf(outcome.answer) } : outcome;
      },
    };
  };
  const lanes = new Lanes({
    queue,
    stats,
    lanes: OTLP_LANES,
    bytesMax: OTLP_BYTES_MAX,
    recordsMax: OTLP_RECORDS_MAX,
    lingerMs: LINGER_MS,
    keptMs: ROWS_KEPT_MS,
    load,
  });
  return {
    rows: frame => queue.push(frame),
    report: () => reportOf(stats, queue, lanes),
    close: ms => lanes.close(ms).finally(() => poster.close()),
  };
}

async function openFiles({ target }: SinkSpec, { plan, log }: SinkParts): Promise<RunningSink> {
  const stats = newStats();
  const queue = new BoundedQueue<BatchFrame>(plan.queueBytesMax);
  const encoder = new LineEncoder();
  const { host, filesBytesMax: bytesMax } = plan;
  const files = await HourlyFiles.open(
    { folder: target, host, bytesMax },
    {
      recovered: (path, bytes) => log('info', { path, bytes }, 'a file of events was cut at its last whole part'),
      removed: (path, bytes) => log('info', { path, bytes }, 'the oldest file of events went for want of room'),
    },
  );
  let nowUs = 0;
  // One thing at a time: a file is not finished under a member that is being written.
  let turn: Promise<unknown> = Promise.resolve();
  const alone = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = turn.then(work);
    turn = mine.catch(() => undefined);
    return mine;
  };
  const load = (frames: readonly BatchFrame[]): Load => {
    const member = memberOf(Buffer.concat(rowsOfAll(frames, stats).map(rows => encoder.lines(rows))));
    const receivedUs = frames.at(-1)!.receivedUs;
    const write = async (): Promise<Outcome> => {
      try {
        await files.append(member, receivedUs);
        return { kind: 'delivered', answer: Buffer.alloc(0) };
      } catch (error) {
        return { kind: 'retry', why: (error as Error).message, wishMs: 0 };
      }
    };
    return { bytes: member.length, send: () => alone(write) };
  };
  const lanes = new Lanes({
    queue,
    stats,
    lanes: 1,
    bytesMax: MEMBER_BYTES_MAX,
    recordsMax: MEMBER_RECORDS_MAX,
    lingerMs: LINGER_MS,
    keptMs: ROWS_KEPT_MS,
    load,
  });
  const failed = (error: unknown): void => void (stats.why = (error as Error).message);
  return {
    rows: frame => queue.push(frame),
    time(us) {
      // An hour ends with the first row of the next, or when nothing comes, by the clock.
      if (us > nowUs && queue.records === 0 && lanes.inWork.records === 0) alone(() => files.turn(us)).catch(failed);
      nowUs = us;
    },
    report: () => ({ ...reportOf(stats, queue, lanes), fileBytes: files.size }),
    async close(ms) {
      await lanes.close(ms);
      await alone(() => files.finish()).catch(failed);
    },
  };
}

interface SignalInQueue extends SignalItem, Item {}

function openWebhook({ target }: SinkSpec, { plan, resolver }: SinkParts): RunningSink {
  const stats = newStats();
  const queue = new BoundedQueue<SignalInQueue>(plan.queueBytesMax);
  const poster = new Poster(resolver, WEBHOOK_LANES);
  const url = new URL(target);
  const keys = plan.keys.map(key => Buffer.from(key));
  const load = ([item]: readonly SignalInQueue[]): Load => {
    const body = Buffer.from(item!.body);
    const send = (): Promise<Outcome> => {
      // Signed at each try: receivers refuse what was signed minutes ago.
      const headers = {
        'content-type': 'application/cloudevents+json; charset=utf-8',
        'user-agent': `meshpulse/${plan.version}`,
        ...signed(keys, item!.id, Math.floor(Date.now() / 1000), body),
      };
      return poster.post({ url, headers, body });
    };
    return { bytes: body.length, send };
  };
  const lanes = new Lanes({
    queue,
    stats,
    lanes: WEBHOOK_LANES,
    bytesMax: 1,
    recordsMax: 1,
    lingerMs: 0,
    keptMs: SIGNALS_KEPT_MS,
    load,
  });
  return {
    signal: item => queue.push({ ...item, bytes: item.body.length, records: 1 }),
    report: () => reportOf(stats, queue, lanes),
    close: ms => lanes.close(ms).finally(() => poster.close()),
  };
}

/** Batches were read before they came here, so none should be unreadable; one that is must not stop the others. */
function rowsOfAll(frames: readonly BatchFrame[], stats: SinkStats): Rows[] {
  return frames.flatMap(frame => {
    try {
      return rowsOf(frame) ?? [];
    } catch (error) {
      stats.why = `a batch cannot be read: ${(error as Error).message}`;
      return [];
    }
  });
}

const reportOf = <T extends Item>(stats: SinkStats, queue: BoundedQueue<T>, { inWork }: Lanes<T>): SinkReport => ({
  ...stats,
  dropped: stats.dropped + queue.dropped,
  queueBytes: queue.bytes + inWork.bytes,
  queueRecords: queue.records,
  inWork: inWork.records,
  fileBytes: 0,
});
