// Rows as OTLP log records (opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest). Pure.
//
// The OpenTelemetry SDK makes an object for every record and every attribute; at the rates of a mesh that is a core by
// itself. The part of OTLP that is needed here is small and stable, so it is written straight from the columns. One batch
// is one ResourceLogs: its resource is the life that reported. Texts repeat within a batch, so their attributes are
// encoded once.

import { Reader } from '../ingest/wire.js';
import {
  attemptsOf,
  endUnixUs,
  grpcStatusOf,
  hex64,
  highWord,
  httpStatusOf,
  isZero64,
  keySourceOf,
  labelsOf,
  lowWord,
  outcomeOf,
  ROW_FLAG,
} from '../ingest/columns.js';
import { responseFlagNames } from '../registry/response-flags.js';
import { BackWriter } from './back-writer.js';
import type { Origin, Rows } from './batches.js';
import { OUTCOMES, recordUid, serviceParts } from './words.js';

/** SeverityNumber by outcome: unspecified, ok, failed, declined, cancelled, refused. */
const SEVERITY = [9, 9, 17, 13, 13, 13];
const SEVERITY_TEXT: Readonly<Record<number, string>> = { 9: 'INFO', 13: 'WARN', 17: 'ERROR' };

/** Sources whose key is a trace id; those of other keys are names that nobody traces by. */
const TRACE_SOURCES = new Set([2, 3, 4, 5, 7, 8]);

// Fields of ResourceLogs, ScopeLogs and LogRecord.
const [RESOURCE, SCOPE_LOGS] = [1, 2];
const [SCOPE, LOG_RECORDS] = [1, 2];
const RECORD = {
  TIME: 1,
  SEVERITY: 2,
  SEVERITY_TEXT: 3,
  BODY: 5,
  ATTRIBUTES: 6,
  TRACE_ID: 9,
  SPAN_ID: 10,
  OBSERVED: 11,
  EVENT_NAME: 12,
} as const;
const [KEY, VALUE] = [1, 2];
const [STRING_VALUE, BOOL_VALUE, INT_VALUE] = [1, 2, 3];

const WORD = 2 ** 32;

/** Encodes what it is given; keeps its buffer from one call to the next. */
export class OtlpEncoder {
  private readonly out = new BackWriter();
  private readonly scratch = new BackWriter();

  /** @param version of the collector, as the scope's */
  constructor(private readonly version: string) {}

  request(batches: readonly Rows[]): Buffer {
    this.out.clear();
    for (let i = batches.length - 1; i >= 0; i--) this.resourceLogs(batches[i]!);
    return this.out.finish();
  }

  private resourceLogs(rows: Rows): void {
    const { out } = this;
    const all = out.size;
    const scope = out.size;
    const texts = new Texts(rows.columns.strings, this.scratch);
    for (let row = rows.columns.rows - 1; row >= 0; row--) {
      const mark = out.size;
      this.record(rows, row, texts);
      out.message(LOG_RECORDS, mark);
    }
    const name = out.size;
    out.string(2, this.version);
    out.string(1, 'meshpulse');
    out.message(SCOPE, name);
    out.message(SCOPE_LOGS, scope);
    const resource = out.size;
    for (const [key, value] of resourceOf(rows.origin)) if (value !== '') this.text(1, key, value);
    out.message(RESOURCE, resource);
    out.message(1, all);
  }

  private record({ columns, batchId, receivedUs, clockOffsetUs }: Rows, row: number, texts: Texts): void {
    const { out } = this;
    const flags = columns.flags[row]!;
    const outcome = outcomeOf(flags);
    const severity = SEVERITY[outcome] ?? 9;
    out.string(RECORD.EVENT_NAME, (flags & ROW_FLAG.CALL) === 0 ? 'meshpulse.event' : 'meshpulse.call');
    this.time(RECORD.OBSERVED, receivedUs);
    if (!isZero64(columns.spanIn, row)) out.bytes(RECORD.SPAN_ID, id(columns.spanIn, row));
    if (TRACE_SOURCES.has(keySourceOf(flags))) {
      out.bytes(RECORD.TRACE_ID, Buffer.concat([id(columns.keyHi, row), id(columns.keyLo, row)]));
    }
    this.attributes(columns, row, texts);
    this.text(RECORD.ATTRIBUTES, 'log.record.uid', recordUid(batchId, row));
    out.raw(texts.body(columns.operation[row]!));
    out.string(RECORD.SEVERITY_TEXT, SEVERITY_TEXT[severity]!);
    out.number(RECORD.SEVERITY, severity);
    this.time(RECORD.TIME, endUnixUs(columns, row) - clockOffsetUs);
  }

  private attributes(columns: Rows['columns'], row: number, texts: Texts): void {
    const { out } = this;
    const flags = columns.flags[row]!;
    const status = columns.status[row]!;
    const grpc = grpcStatusOf(status);
    const weight = columns.weight[row]!;
    out.raw(texts.attribute('meshpulse.response_code_details', columns.details[row]!));
    out.raw(texts.attribute('meshpulse.transaction.text', columns.keyText[row]!));
    const labels = labelsOf(flags);
    if (labels.length > 0) this.text(RECORD.ATTRIBUTES, 'meshpulse.labels', labels.join(','));
    if (weight !== 1) this.int('meshpulse.weight', weight);
    if (columns.responseBytes[row]! > 0) this.int('meshpulse.response_bytes', columns.responseBytes[row]!);
    if (columns.requestBytes[row]! > 0) this.int('meshpulse.request_bytes', columns.requestBytes[row]!);
    if (columns.waitUs[row]! > 0) this.int('meshpulse.wait_us', columns.waitUs[row]!);
    if (columns.responseFlags[row]! !== 0) {
      this.text(RECORD.ATTRIBUTES, 'meshpulse.response_flags', responseFlagNames(columns.responseFlags[row]!));
    }
    out.raw(texts.attribute('meshpulse.peer.cuid', columns.peerCuid[row]!));
    out.raw(texts.attribute('meshpulse.peer.service', columns.peerService[row]!));
    if ((flags & ROW_FLAG.CALL) !== 0) this.int('meshpulse.attempts', attemptsOf(flags));
    if ((flags & ROW_FLAG.ENTRY) !== 0) this.bool('meshpulse.entry');
    if (grpc !== undefined) this.int('rpc.grpc.status_code', grpc);
    if (httpStatusOf(status) !== 0) this.int('http.response.status_code', httpStatusOf(status));
    if ((flags & ROW_FLAG.STREAM) === 0) this.int('meshpulse.duration_us', columns.durationUs[row]!);
    this.text(RECORD.ATTRIBUTES, 'meshpulse.outcome', OUTCOMES[outcomeOf(flags)] ?? OUTCOMES[0]);
    if (!isZero64(columns.requestHi, row) || !isZero64(columns.requestLo, row)) {
      const request = hex64(columns.requestHi, row) + hex64(columns.requestLo, row);
      this.text(RECORD.ATTRIBUTES, 'meshpulse.request.id', request);
    }
    if (!isZero64(columns.eventId, row))
      this.text(RECORD.ATTRIBUTES, 'meshpulse.event.id', hex64(columns.eventId, row));
    const key = hex64(columns.keyHi, row) + hex64(columns.keyLo, row);
    this.text(RECORD.ATTRIBUTES, 'meshpulse.transaction.id', key);
  }

  /** ns since 1970, from us. */
  private time(field: number, us: number): void {
    // us * 1000 needs more bits than a double has, so each word is multiplied by itself.
    const whole = Math.round(us);
    const [high, low] = [Math.floor(whole / WORD), whole % WORD];
    const lowNs = low * 1000;
    this.out.fixed64(field, lowNs % WORD, high * 1000 + Math.floor(lowNs / WORD));
  }

  private text(field: number, key: string, value: string): void {
    const { out } = this;
    const mark = out.size;
    const inner = out.size;
    out.string(STRING_VALUE, value);
    out.message(VALUE, inner);
    out.string(KEY, key);
    out.message(field, mark);
  }

  private int(key: string, value: number): void {
    this.scalar(key, INT_VALUE, value);
  }

  private bool(key: string): void {
    this.scalar(key, BOOL_VALUE, 1);
  }

  private scalar(key: string, type: number, value: number): void {
    const { out } = this;
    const mark = out.size;
    const inner = out.size;
    out.number(type, value);
    out.message(VALUE, inner);
    out.string(KEY, key);
    out.message(RECORD.ATTRIBUTES, mark);
  }
}

const NOTHING = Buffer.alloc(0);

/** The texts of one batch as encoded fields, each made when it is first needed. */
class Texts {
  private readonly bodies: (Buffer | undefined)[] = [];
  private readonly byKey = new Map<string, (Buffer | undefined)[]>();

  constructor(
    private readonly strings: readonly string[],
    private readonly out: BackWriter,
  ) {}

  body(index: number): Buffer {
    return (this.bodies[index] ??= this.encode(out => {
      const mark = out.size;
      out.string(STRING_VALUE, this.strings[index]!);
      out.message(RECORD.BODY, mark);
    }));
  }

  /** Nothing for an empty text. */
  attribute(key: string, index: number): Buffer {
    const value = this.strings[index]!;
    if (value === '') return NOTHING;
    let known = this.byKey.get(key);
    if (known === undefined) this.byKey.set(key, (known = []));
    return (known[index] ??= this.encode(out => {
      const mark = out.size;
      out.string(STRING_VALUE, value);
      out.message(VALUE, mark);
      out.string(KEY, key);
      out.message(RECORD.ATTRIBUTES, mark);
    }));
  }

  private encode(write: (out: BackWriter) => void): Buffer {
    this.out.clear();
    write(this.out);
    return this.out.finish();
  }
}

/** Attributes of the resource: the life that reported. */
function resourceOf(origin: Origin): (readonly [string, string])[] {
  const { name, namespace } = serviceParts(origin.service);
  return [
    ['service.name', name],
    ['service.namespace', namespace],
    ['service.instance.id', origin.cuid],
    ['k8s.cluster.name', origin.cluster],
    ['k8s.node.name', origin.node],
    ['meshpulse.network', origin.network],
    ['meshpulse.workload', origin.workload],
    ['meshpulse.slot', origin.slot],
    ['meshpulse.filter.version', origin.version],
  ];
}

/** A 64-bit column value as 8 bytes, most significant first. */
function id(column: Readonly<Uint32Array>, row: number): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeUInt32BE(highWord(column, row), 0);
  bytes.writeUInt32BE(lowWord(column, row), 4);
  return bytes;
}

/**
 * Records that the sink says it did not take (`ExportLogsPartialSuccess.rejected_log_records`), 0 when it does not say so
 * in a way that can be read.
 */
export function rejectedOf(answer: Buffer): number {
  try {
    const reader = new Reader(answer, 0, answer.length, 'answer');
    while (reader.next()) {
      if (reader.field !== 1) {
        reader.skip();
        continue;
      }
      const partial = reader.message('partial_success');
      while (partial.next()) {
        if (partial.field === 1) return partial.uint64('rejected_log_records');
        partial.skip();
      }
    }
  } catch {
    // An answer of another kind: the status has said what there is to know.
  }
  return 0;
}
