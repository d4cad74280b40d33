// Batches for the exports, and sinks that behave as they are told.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { gunzipSync } from 'node:zlib';
import type { BatchFrame, Rows } from '../../../collector/src/export/batches.js';
import { rowsOf } from '../../../collector/src/export/batches.js';
import { decodeReport } from '../../../collector/src/ingest/decode-report.js';
import { batch, CUID, encodeReport, type Plain } from '../ingest-support.js';

export const ORIGIN = {
  cuid: CUID,
  service: 'payment.shop',
  cluster: 'c1',
  network: '',
  node: 'node-1',
  slot: 'payment-0',
  workload: 'payment',
  version: '0.1.0',
};

export const BASE_US = 1_700_000_000_000_000;

/** A frame of one batch, as the thread gets it. */
export function frameOf(events: Plain, seq = 7, origin: object = ORIGIN): BatchFrame {
  const report = decodeReport(encodeReport({ batches: [batch(seq, [], { events })] }));
  const { bytes: encoded, events: columns } = report.batches[0]!;
  const head = Buffer.from(JSON.stringify(origin));
  const frame = { head, batch: encoded, receivedUs: BASE_US + 2e6, clockOffsetUs: 0, records: columns?.rows ?? 0 };
  return { ...frame, bytes: head.length + encoded.length };
}

export const rowsFrom = (events: Plain, seq = 7): Rows => rowsOf(frameOf(events, seq))!;

export interface Got {
  readonly headers: IncomingMessage['headers'];
  readonly url: string;
  readonly body: Buffer;
}

/** A sink on loopback: keeps what it gets, and answers as `answer` says (200 if it does not). */
export class Sink {
  readonly got: Got[] = [];
  private readonly server: Server;

  constructor(answer: (response: ServerResponse, got: Got, count: number) => void = response => void response.end()) {
    this.server = createServer((request, response) => {
      const pieces: Buffer[] = [];
      request.on('data', (piece: Buffer) => pieces.push(piece));
      request.on('error', () => undefined);
      response.on('error', () => undefined);
      request.on('end', () => {
        const raw = Buffer.concat(pieces);
        const body = request.headers['content-encoding'] === 'gzip' ? gunzipSync(raw) : raw;
        const got = { headers: request.headers, url: request.url ?? '', body };
        this.got.push(got);
        answer(response, got, this.got.length);
      });
    });
  }

  listen(port = 0): Promise<string> {
    return new Promise((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(port, '127.0.0.1', () =>
        resolve(`http://127.0.0.1:${(this.server.address() as AddressInfo).port}`),
      );
    });
  }

  close(): void {
    this.server.close();
    this.server.closeAllConnections();
  }
}

interface Decoder {
  decode(bytes: Uint8Array): object;
  toObject(message: object, options: object): Plain;
}

const otlp = createRequire(import.meta.url)('@opentelemetry/otlp-transformer/build/src/generated/root') as {
  opentelemetry: { proto: { collector: { logs: { v1: { ExportLogsServiceRequest: Decoder } } } } };
};

export interface LogRecord {
  readonly timeUnixNano: string;
  readonly observedTimeUnixNano: string;
  readonly severityNumber: number;
  readonly severityText: string;
  readonly eventName?: string;
  readonly body: { readonly stringValue: string };
  readonly traceId?: string;
  readonly spanId?: string;
  readonly attributes: Readonly<Record<string, unknown>>;
}

export interface ResourceLogs {
  readonly resource: Readonly<Record<string, unknown>>;
  readonly scope: Plain;
  readonly records: readonly LogRecord[];
}

/** What OpenTelemetry's own generated code reads in a request. */
export function decodeOtlp(bytes: Buffer): ResourceLogs[] {
  const type = otlp.opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest;
  const plain = type.toObject(type.decode(bytes), { longs: String, bytes: Array }) as {
    resourceLogs?: { resource: Plain; scopeLogs: { scope: Plain; logRecords: Plain[] }[] }[];
  };
  return (plain.resourceLogs ?? []).map(({ resource, scopeLogs }) => ({
    resource: attributesOf(resource),
    scope: scopeLogs[0]!.scope,
    records: scopeLogs[0]!.logRecords.map(record => {
      const hex = (name: string): object => {
        const value = record[name] as number[] | undefined;
        return value === undefined ? {} : { [name]: Buffer.from(value).toString('hex') };
      };
      return {
        ...record,
        ...hex('traceId'),
        ...hex('spanId'),
        attributes: attributesOf(record),
      } as unknown as LogRecord;
    }),
  }));
}

function attributesOf(message: Plain): Record<string, unknown> {
  const list = (message['attributes'] ?? []) as { key: string; value: Plain }[];
  return Object.fromEntries(list.map(({ key, value }) => [key, Object.values(value)[0]]));
}
