// A report as the rest of the collector sees it: checked, with every bound of the contract kept.

import type { EventColumns } from './columns.js';

/** Bounds of one ReportRequest. Those of the rows stand in columns.ts and decode-columns.ts. */
export const BATCHES_MAX = 256;
export const ROWS_PER_REPORT_MAX = 65_536; // absent columns make rows free to send, not to read
export const IN_FLIGHT_MAX = 256; // items, summed over the lists
export const PROGRESS_MAX = 64;
export const BEGAN_MAX = 256;
export const DIRECTIVE_ACKS_MAX = 256;
export const SIGNAL_RESULTS_MAX = 64;
export const JOB_BYTES_MAX = 64;
export const STATE_BYTES_MAX = 32;
export const PORTS_MAX = 16;
export const CONFIG_ERRORS_MAX = 16;
export const CONFIG_ERROR_BYTES_MAX = 1024;
export const PRODUCERS_MAX = 256; // VMs of one proxy: one a worker thread
export const COUNTERS_MAX = 64;
export const ALIASES_MAX = 16;
export const NAME_BYTES_MAX = 256; // service, slot, node, operation, and the like
export const EXACT_COUNTS_MAX = 4096; // combinations of one batch

/** Report intervals of a proxy, ms. */
export const INTERVAL_MS_MIN = 100;
export const INTERVAL_MS_MAX = 60_000;

export interface Report {
  readonly hello?: Hello;
  readonly batches: readonly Batch[];
  readonly status?: Status;
  readonly inFlight: readonly InFlightList[];
  readonly progress: readonly Progress[];
  readonly began: readonly InFlight[];
  readonly directiveAcks: readonly DirectiveAck[];
  readonly signalResults: readonly SignalResult[];
  readonly heartbeat: boolean;
  readonly goodbye?: Goodbye;
  /** Sender's clock, us since 1970; 0 = not said. */
  readonly sentUnixUs: number;
}

export interface Hello {
  readonly proxyId: string;
  readonly cluster: string;
  readonly network: string;
  /** UUID, lower case. */
  readonly cuid: string;
  /** 0 unspecified, 1 proxy, 2 container. */
  readonly scope: number;
  readonly cuidAliases: readonly string[];
  readonly service: string;
  readonly slot: string;
  readonly workload: string;
  readonly node: string;
  readonly version: string;
  /** Sender's clock, us since 1970. */
  readonly bootEpochUs: number;
  readonly producers: readonly ProducerState[];
  /** IPv4 or IPv6 text, or ''. */
  readonly ip: string;
  readonly ports: readonly number[];
  /** 0 = not said. */
  readonly reportIntervalMs: number;
  readonly reportIdleMs: number;
  readonly reportInFlightMs: number;
  readonly configErrors: readonly string[];
  readonly edge: boolean;
  readonly counters: readonly Counter[];
  /** As meshpulse.v1.RollbackMode; 0 = an older filter, which knows no directives. */
  readonly rollbackMode: number;
  readonly rollbackCallback: boolean;
}

/** A directive that is in force at a proxy. */
export interface DirectiveAck {
  /** Decimal. */
  readonly version: string;
  /** From when it was in force until the message was made, us. */
  readonly heldUs: number;
}

/** How an application answered a signal. */
export interface SignalResult {
  readonly id: string;
  /** HTTP status; 0 = no answer. */
  readonly status: number;
}

export interface ProducerState {
  readonly id: bigint;
  /** 1 or more. */
  readonly nextSeq: number;
  readonly droppedEvents: number;
  readonly batchedEvents: number;
  /** Position that some collector has acknowledged; absent = not said. */
  readonly acked?: { readonly seq: number; readonly events: number };
}

export interface Counter {
  readonly name: string;
  readonly value: number;
}

export interface Goodbye {
  readonly reason: string;
}

export interface Batch {
  readonly producer: bigint;
  /** 1 or more. */
  readonly seq: number;
  readonly firstEvent: number;
  readonly droppedEvents: number;
  readonly events?: EventColumns;
  /** Empty unless rows were thinned. */
  readonly counts: readonly ExactCount[];
  /** The encoded Batch, for stores that keep it. A view into the message. */
  readonly bytes: Buffer;
}

export interface ExactCount {
  readonly operation: string;
  readonly status: number;
  readonly responseFlags: number;
  readonly flags: number;
  readonly count: number;
  readonly durationUsSum: number;
}

/** As meshpulse.v1.Status; absent = unknown. */
export interface Status {
  readonly inFlight?: number;
  readonly queue?: number;
  /** 0 unspecified, 1 app, 2 sock, 3 pool. */
  readonly queueSource: number;
  readonly waitMs?: number;
  readonly cpuRatio?: number;
  readonly memoryRatio?: number;
  readonly ageMs: number;
  readonly callsInFlight?: number;
  readonly streamsOpen?: number;
  readonly windowMs: number;
  readonly requests: number;
  readonly failures: number;
  readonly durationUsP50?: number;
}

export interface Progress {
  readonly job: string;
  readonly done?: number;
  readonly of?: number;
  readonly queue?: number;
  readonly state: string;
  readonly event: string;
  readonly ageMs: number;
}

export interface InFlightList {
  readonly producer: bigint;
  readonly items: readonly InFlight[];
  readonly omitted: number;
}

/** 64-bit ids are 16 lower-case hex digits; all zeros = absent. */
export interface InFlight {
  readonly eventId: string;
  readonly keyHi: string;
  readonly keyLo: string;
  readonly requestHi: string;
  readonly requestLo: string;
  readonly operation: string;
  readonly flags: number;
  readonly ageMs: number;
  readonly peerService: string;
  readonly peerCuid: string;
}
