// What the collector's main thread and the thread of its exports say to each other.

import { newStats, type SinkStats } from './lanes.js';
import type { SinkSpec } from './sinks.js';

/** How the thread begins: `workerData`. */
export interface ExportPlan {
  readonly sinks: readonly SinkSpec[];
  readonly denyPrivate: boolean;
  /** Of one sink's queue. */
  readonly queueBytesMax: number;
  /** Of the finished files of one folder. */
  readonly filesBytesMax: number;
  /** Part of the names of files. */
  readonly host: string;
  /** Of the collector. */
  readonly version: string;
  /** Sent to OTLP sinks. */
  readonly headers: Readonly<Record<string, string>>;
  /** Webhooks are signed with each. */
  readonly keys: readonly Uint8Array[];
}

export interface SignalItem {
  readonly id: string;
  readonly body: string;
}

export type ToThread =
  /** Frames as in batches.ts, with how many rows they hold. */
  | { readonly kind: 'chunk'; readonly bytes: ArrayBuffer; readonly records: number }
  | { readonly kind: 'signals'; readonly items: readonly SignalItem[] }
  /** The collector's clock, now and then: files end with their hour. */
  | { readonly kind: 'time'; readonly nowUs: number }
  /** Deliver what is left within `ms`, then end. */
  | { readonly kind: 'close'; readonly ms: number };

/** What a sink has, and what became of what it had. */
export interface SinkReport extends Readonly<SinkStats> {
  readonly queueBytes: number;
  readonly queueRecords: number;
  /** Sent and not answered yet. */
  readonly inWork: number;
  /** Bytes of files; 0 for other sinks. */
  readonly fileBytes: number;
}

export type FromThread =
  | { readonly kind: 'ready' }
  /** `chunkBytes`: of chunks taken since it began. */
  | { readonly kind: 'report'; readonly chunkBytes: number; readonly sinks: readonly SinkReport[] }
  | { readonly kind: 'log'; readonly level: 'info' | 'warn'; readonly fields: object; readonly text: string }
  /** Everything is delivered, or given up. */
  | { readonly kind: 'closed' };

export const NO_REPORT: SinkReport = { ...newStats(), queueBytes: 0, queueRecords: 0, inWork: 0, fileBytes: 0 };

/** Sums of both; the latter's sentence. */
export const sumOf = (a: SinkReport, b: SinkReport): SinkReport => ({
  delivered: a.delivered + b.delivered,
  dropped: a.dropped + b.dropped,
  refused: a.refused + b.refused,
  bytes: a.bytes + b.bytes,
  ok: a.ok + b.ok,
  retried: a.retried + b.retried,
  rejected: a.rejected + b.rejected,
  why: b.why,
  queueBytes: a.queueBytes + b.queueBytes,
  queueRecords: a.queueRecords + b.queueRecords,
  inWork: a.inWork + b.inWork,
  fileBytes: a.fileBytes + b.fileBytes,
});
