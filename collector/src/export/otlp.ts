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
  highWord,
  httpStatusOf,
  isZero64,
  keySourceOf,
  labelsOf,
  lowWord,
  outcomeOf,
  ROW_FLAG,
  type Column64,
} from '../ingest/columns.js';
import { responseFlagNames } from '../registry/response-flags.js';
import { BackWriter } from './back-writer.js';
import type { Origin, Rows } from './batches.js';
import {
  CALL_NAME,
  EVENT_NAME,
  INT_VALUE,
  IS_ENTRY,
  LOG_RECORDS,
  NAMES,
  OUTCOME_ATTRIBUTES,
  RECORD,
  RESOURCE,
  SCOPE,
  SCOPE_LOGS,
  SEVERITIES,
  STRING_VALUE,
  textAttribute,
  VALUE,
} from './otlp-parts.js';
import { recordUid, serviceParts } from './words.js';

/** Sources whose key is a trace id; those of other keys are names that nobody traces by. */
const TRACE_SOURCES = new Set([2, 3, 4, 5, 7, 8]);

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
    const uid = Buffer.from(recordUid(rows.batchId, ''));
    for (let row = rows.columns.rows - 1; row >= 0; row--) {
      const mark = out.size;
      this.record(rows, row, uid, texts);
      out.message(LOG_RECORDS, mark);
    }
    const name = out.size;
    out.string(2, this.version);
    out.string(1, 'meshpulse');
    out.message(SCOPE, name);
    out.message(SCOPE_LOGS, scope);
    const resource = out.size;
    for (const [key, value] of resourceOf(rows.origin)) if (value !== '') textAttribute(out, 1, key, value);
    out.message(RESOURCE, resource);
    out.message(1, all);
  }

  private record({ columns, receivedUs, clockOffsetUs }: Rows, row: number, uid: Uint8Array, texts: Texts): void {
    const { out } = this;
    const flags = columns.flags[row]!;
    const outcome = outcomeOf(flags);
    out.raw((flags & ROW_FLAG.CALL) === 0 ? EVENT_NAME : CALL_NAME);
    this.time(RECORD.OBSERVED, receivedUs);
    if (!isZero64(columns.spanIn, row)) {
      const mark = out.size;
      out.big64(lowWord(columns.spanIn, row), highWord(columns.spanIn, row));
      out.message(RECORD.SPAN_ID, mark);
    }
    if (TRACE_SOURCES.has(keySourceOf(flags))) {
      const mark = out.size;
      out.big64(lowWord(columns.keyLo, row), highWord(columns.keyLo, row));
      out.big64(lowWord(columns.keyHi, row), highWord(columns.keyHi, row));
      out.message(RECORD.TRACE_ID, mark);
    }
    this.attributes(columns, row, texts);
    const mark = out.size;
    out.decimal(row);
    out.raw(uid);
    this.value(mark, NAMES.uid);
    out.raw(texts.body(columns.operation[row]!));
    out.raw(SEVERITIES[outcome] ?? SEVERITIES[0]!);
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
    if (labels.length > 0) this.text(NAMES.labels, labels.join(','));
    if (weight !== 1) this.int(NAMES.weight, weight);
    if (columns.responseBytes[row]! > 0) this.int(NAMES.responseBytes, columns.responseBytes[row]!);
    if (columns.requestBytes[row]! > 0) this.int(NAMES.requestBytes, columns.requestBytes[row]!);
    if (columns.waitUs[row]! > 0) this.int(NAMES.waitUs, columns.waitUs[row]!);
    if (columns.responseFlags[row]! !== 0) {
      this.text(NAMES.responseFlags, responseFlagNames(columns.responseFlags[row]!));
    }
    out.raw(texts.attribute('meshpulse.peer.cuid', columns.peerCuid[row]!));
    out.raw(texts.attribute('meshpulse.peer.service', columns.peerService[row]!));
    if ((flags & ROW_FLAG.CALL) !== 0) this.int(NAMES.attempts, attemptsOf(flags));
    if ((flags & ROW_FLAG.ENTRY) !== 0) out.raw(IS_ENTRY);
    if (grpc !== undefined) this.int(NAMES.grpcStatus, grpc);
    if (httpStatusOf(status) !== 0) this.int(NAMES.httpStatus, httpStatusOf(status));
    if ((flags & ROW_FLAG.STREAM) === 0) this.int(NAMES.durationUs, columns.durationUs[row]!);
    out.raw(OUTCOME_ATTRIBUTES[outcomeOf(flags)] ?? OUTCOME_ATTRIBUTES[0]!);
    if (!isZero64(columns.requestHi, row) || !isZero64(columns.requestLo, row)) {
      this.id(NAMES.request, row, columns.requestHi, columns.requestLo);
    }
    if (!isZero64(columns.eventId, row)) this.id(NAMES.event, row, columns.eventId);
    this.id(NAMES.transaction, row, columns.keyHi, columns.keyLo);
  }

  /** ns since 1970, from us. */
  private time(field: number, us: number): void {
    // us * 1000 needs more bits than a double has, so each word is multiplied by itself.
    const whole = Math.round(us);
    const [high, low] = [Math.floor(whole / WORD), whole % WORD];
    const lowNs = low * 1000;
    this.out.fixed64(field, lowNs % WORD, high * 1000 + Math.floor(lowNs / WORD));
  }

  /** Hex digits of the columns, one after another. */
  private id(name: Uint8Array, row: number, ...columns: readonly Column64[]): void {
    const mark = this.out.size;
    for (let i = columns.length - 1; i >= 0; i--) this.out.hex64(lowWord(columns[i]!, row), highWord(columns[i]!, row));
    this.value(mark, name);
  }

  /** What was written since `mark` is the text of an attribute. */
  private value(mark: number, name: Uint8Array): void {
    const { out } = this;
    out.message(STRING_VALUE, mark);
    out.message(VALUE, mark);
    out.raw(name);
    out.message(RECORD.ATTRIBUTES, mark);
  }

  private text(name: Uint8Array, value: string): void {
    const { out } = this;
    const mark = out.size;
    out.string(STRING_VALUE, value);
    out.message(VALUE, mark);
    out.raw(name);
    out.message(RECORD.ATTRIBUTES, mark);
  }

  private int(name: Uint8Array, value: number): void {
    const { out } = this;
    const mark = out.size;
    out.number(INT_VALUE, value);
    out.message(VALUE, mark);
    out.raw(name);
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
    return (known[index] ??= this.encode(out => textAttribute(out, RECORD.ATTRIBUTES, key, value)));
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
