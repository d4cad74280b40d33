/** What the filter sends and what it is answered, by the project's own protos. */
import { loadSync, type MethodDefinition } from '@grpc/proto-loader';
import path from 'node:path';
import { ROOT } from './guests.js';

export interface Producer {
  id: string;
  nextSeq: string;
  droppedEvents: string;
  batchedEvents: string;
}

export interface Hello {
  proxyId: string;
  cluster: string;
  network: string;
  cuid: string;
  scope: string;
  service: string;
  slot: string;
  workload: string;
  version: string;
  bootEpoch: string;
  producers: Producer[];
  ip: string;
  ports: number[];
  reportIntervalMs: number;
  reportIdleMs: number;
  reportInFlightMs: number;
  configErrors: string[];
  edge: boolean;
  rollbackMode: string;
  rollbackCallback: boolean;
  counters: { name: string; value: string }[];
}

export interface EventColumns {
  rows: number;
  baseUnixUs: string;
  strings: string[];
  [column: string]: number | string | number[] | string[];
}

export interface ExactCount {
  operation: string;
  status: number;
  responseFlags: number;
  flags: number;
  count: string;
  durationUsSum: string;
}

export interface Batch {
  producer: string;
  seq: string;
  firstEvent: string;
  droppedEvents: string;
  events: EventColumns | null;
  counts: ExactCount[];
}

/** A field that is not set is `undefined` here, never 0. */
export interface Status {
  inFlight?: number;
  queue?: number;
  queueSource: string;
  waitMs?: number;
  cpuRatio?: number;
  memoryRatio?: number;
  ageMs: number;
  callsInFlight?: number;
  streamsOpen?: number;
  windowMs: number;
  requests: number;
  failures: number;
  durationUsP50?: number;
}

export interface InFlight {
  eventId: string;
  keyHi: string;
  keyLo: string;
  operation: string;
  flags: number;
  ageMs: number;
  peerCuid: string;
}

export interface Progress {
  job: string;
  done?: string;
  of?: string;
  queue?: string;
  state: string;
  event: string;
  ageMs: number;
}

export interface ReportRequest {
  hello: Hello | null;
  batches: Batch[];
  status: Status | null;
  inFlight: { producer: string; items: InFlight[]; omitted: number }[];
  progress: Progress[];
  heartbeat: object | null;
  goodbye: { reason: string } | null;
  sentUnixUs: string;
  began: InFlight[];
  directiveAcks: { version: string; heldUs: number }[];
  signalResults: { id: string; status: number }[];
}

/** As in ingest.proto; numbers of 64 bits as decimal text. */
export interface Directive {
  version: string;
  ttlMs: number;
  kind: number;
  body?: Buffer;
  keys?: string[];
  requests?: string[];
  mode?: number;
  refuse?: string[];
  refuseIn?: string[];
  destinations?: string[];
  spare?: string[];
  budgetPpm?: number;
  budgetMin?: number;
  id?: string;
  step?: string;
}

export interface ReportReply {
  acks?: { producer: string; seq: string; durable?: boolean }[];
  directives?: Directive[];
  hints?: { intervalMs?: number; drainMs?: number; retryAfterMs?: number; sampleRatio?: number };
  receivedUnixUs?: string;
  echoSentUnixUs?: string;
}

const definition = loadSync(['meshpulse/v1/ingest.proto'], {
  includeDirs: [path.join(ROOT, 'protos')],
  longs: String,
  enums: String,
  defaults: true,
  arrays: true,
});
const report = (definition['meshpulse.v1.Ingest'] as unknown as { Report: MethodDefinition<object, object> }).Report;

/** @throws Error when the bytes are no ReportRequest */
export function decodeRequest(bytes: Buffer): ReportRequest {
  return report.requestDeserialize(bytes) as ReportRequest;
}

export function encodeReply(reply: ReportReply): Buffer {
  return report.responseSerialize(reply);
}

/** One event or call, out of the columns. */
export interface Row {
  endUnixUs: bigint;
  durationUs: number;
  /** 32 hex digits. */
  key: string;
  requestId: string;
  /** 16 hex digits. */
  event: string;
  spanIn: string;
  spanOut: string;
  operation: string;
  peerService: string;
  peerCuid: string;
  httpStatus: number;
  /** `undefined` = not gRPC. */
  grpcStatus: number | undefined;
  responseFlags: number;
  flags: number;
  outcome: number;
  keySource: number;
  attempts: number;
  waitUs: number;
  requestBytes: number;
  responseBytes: number;
  weight: number;
  keyText: string;
  details: string;
}

export const RowFlag = {
  Call: 1,
  Entry: 2,
  Stream: 4,
  Probe: 8,
  Shadow: 16,
  Own: 32,
  Unseen: 64,
  External: 128,
  LocalReply: 256,
  Grpc: 512,
  Injected: 1024,
  WouldRefuse: 2048,
  Withheld: 4096,
  NoRetries: 8192,
  RetryRefused: 16384,
} as const;

export const Outcome = { Ok: 1, Failed: 2, Declined: 3, Cancelled: 4, Refused: 5 } as const;

export const KeySource = {
  None: 0,
  Header: 1,
  Traceparent: 2,
  B3: 3,
  XB3: 4,
  Uber: 5,
  Sw8: 6,
  CloudTrace: 7,
  Datadog: 8,
  RequestId: 9,
} as const;

function hex64(value: string | number): string {
  return BigInt(value).toString(16).padStart(16, '0');
}

/** @throws RangeError when a column has another length than `rows`, or points outside the strings */
export function rowsOf(columns: EventColumns): Row[] {
  const column = (name: string, i: number): string | number => {
    const values = columns[name] as (string | number)[] | undefined;
    if (values === undefined || values.length === 0) return 0;
    const value = values[i];
    if (values.length !== columns.rows || value === undefined) {
      throw new RangeError(`column ${name} has ${String(values.length)} entries of ${String(columns.rows)}`);
    }
    return value;
  };
  const number = (name: string, i: number): number => Number(column(name, i));
  const text = (name: string, i: number): string => {
    const index = number(name, i);
    const value = columns.strings[index] ?? (index === 0 ? '' : undefined);
    if (value === undefined) throw new RangeError(`column ${name} points to string ${String(index)}`);
    return value;
  };
  return Array.from({ length: columns.rows }, (_, i) => {
    const status = number('status', i);
    const flags = number('flags', i);
    const grpc = (status >>> 16) & 0xff;
    return {
      endUnixUs: BigInt(columns.baseUnixUs) + BigInt(number('endOffsetUs', i)),
      durationUs: number('durationUs', i),
      key: hex64(column('keyHi', i)) + hex64(column('keyLo', i)),
      requestId: hex64(column('requestHi', i)) + hex64(column('requestLo', i)),
      event: hex64(column('eventId', i)),
      spanIn: hex64(column('spanIn', i)),
      spanOut: hex64(column('spanOut', i)),
      operation: text('operation', i),
      peerService: text('peerService', i),
      peerCuid: text('peerCuid', i),
      httpStatus: status & 0xffff,
      grpcStatus: grpc === 0 ? undefined : grpc - 1,
      responseFlags: number('responseFlags', i),
      flags: flags & 0xffff,
      outcome: (flags >>> 16) & 15,
      keySource: (flags >>> 20) & 15,
      attempts: (flags >>> 24) & 0xff,
      waitUs: number('waitUs', i),
      requestBytes: number('requestBytes', i),
      responseBytes: number('responseBytes', i),
      weight: columns['weight'] === undefined || (columns['weight'] as number[]).length === 0 ? 1 : number('weight', i),
      keyText: text('keyText', i),
      details: text('details', i),
    };
  });
}
