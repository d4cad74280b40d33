// Rows as JSON lines, one a row: flat, with the names of the API, and nothing that is empty. Pure.

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
import type { Rows } from './batches.js';
import { LineWriter } from './line-writer.js';
import { KEY_SOURCES, OUTCOMES, recordUid, rfc3339 } from './words.js';

const bytes = (text: string): Buffer => Buffer.from(text);

/** `,"name":`, and with a quote behind it where a text that needs no escape follows. */
const name = (text: string): Buffer => bytes(`,"${text}":`);
const quoted = (text: string): Buffer => bytes(`,"${text}":"`);

const [QUOTE, COMMA] = [bytes('"'), bytes(',')];
const [EVENT, CALL] = [bytes('","kind":"event","at":"'), bytes('","kind":"call","at":"')];
const OPERATION = bytes('","operation":');
const OUTCOME = OUTCOMES.map(outcome => bytes(`,"outcome":"${outcome}"`));
const KEY_SOURCE = KEY_SOURCES.map(source => bytes(`","keySource":"${source}"`));
const ENTRY = bytes(',"entry":true');
const KEY = quoted('key');
const REQUEST_ID = quoted('requestId');
const EVENT_ID = quoted('eventId');
const SPAN_IN = quoted('spanIn');
const SPAN_OUT = quoted('spanOut');
const DURATION_US = name('durationUs');
const RESPONSE_CODE = name('responseCode');
const GRPC_STATUS = name('grpcStatus');
const ATTEMPTS = name('attempts');
const WAIT_US = name('waitUs');
const REQUEST_BYTES = name('requestBytes');
const RESPONSE_BYTES = name('responseBytes');
const WEIGHT = name('weight');
const PEER_SERVICE = name('peerService');
const PEER_CUID = name('peerCuid');
const KEY_TEXT = name('keyText');
const DETAILS = name('details');

/** Keeps its buffer from one batch to the next. */
export class LineEncoder {
  private readonly out = new LineWriter();

  /** The rows of a batch, each ended by a line feed. */
  lines({ origin, batchId, columns, receivedUs, clockOffsetUs }: Rows): Buffer {
    const { out } = this;
    const texts = columns.strings.map(text => (text === '' ? undefined : bytes(JSON.stringify(text))));
    const head = bytes(`{"id":"${recordUid(batchId, '')}`);
    // The same for all rows of a batch.
    const { cuid, service, cluster, network, node, workload, slot } = origin;
    const life = dense({ cuid, service, cluster, network, node, workload, slot, received: rfc3339(receivedUs) });
    const tail = bytes(`${JSON.stringify(life).slice(1)}\n`);
    for (let row = 0; row < columns.rows; row++) {
      out.raw(head);
      out.decimal(row);
      out.raw((columns.flags[row]! & ROW_FLAG.CALL) === 0 ? EVENT : CALL);
      out.time(endUnixUs(columns, row) - clockOffsetUs);
      out.raw(OPERATION);
      out.raw(texts[columns.operation[row]!] ?? EMPTY);
      this.fields(columns, row, texts);
      out.raw(COMMA);
      out.raw(tail);
    }
    return out.finish();
  }

  private fields(columns: Rows['columns'], row: number, texts: readonly (Buffer | undefined)[]): void {
    const { out } = this;
    const flags = columns.flags[row]!;
    const status = columns.status[row]!;
    const grpc = grpcStatusOf(status);
    const labels = labelsOf(flags);
    out.raw(OUTCOME[outcomeOf(flags)] ?? OUTCOME[0]!);
    if ((flags & ROW_FLAG.STREAM) === 0) this.number(DURATION_US, columns.durationUs[row]!);
    if (httpStatusOf(status) !== 0) this.number(RESPONSE_CODE, httpStatusOf(status));
    if (grpc !== undefined) this.number(GRPC_STATUS, grpc);
    if (columns.responseFlags[row]! !== 0) {
      out.raw(bytes(`,"responseFlags":"${responseFlagNames(columns.responseFlags[row]!)}"`));
    }
    out.raw(KEY);
    out.hex64(lowWord(columns.keyHi, row), highWord(columns.keyHi, row));
    out.hex64(lowWord(columns.keyLo, row), highWord(columns.keyLo, row));
    out.raw(KEY_SOURCE[keySourceOf(flags)] ?? KEY_SOURCE[0]!);
    if (!isZero64(columns.requestHi, row) || !isZero64(columns.requestLo, row)) {
      out.raw(REQUEST_ID);
      out.hex64(lowWord(columns.requestHi, row), highWord(columns.requestHi, row));
      out.hex64(lowWord(columns.requestLo, row), highWord(columns.requestLo, row));
      out.raw(QUOTE);
    }
    this.id(EVENT_ID, columns.eventId, row);
    this.id(SPAN_IN, columns.spanIn, row);
    this.id(SPAN_OUT, columns.spanOut, row);
    if ((flags & ROW_FLAG.ENTRY) !== 0) out.raw(ENTRY);
    if ((flags & ROW_FLAG.CALL) !== 0) this.number(ATTEMPTS, attemptsOf(flags));
    if (columns.waitUs[row]! > 0) this.number(WAIT_US, columns.waitUs[row]!);
    if (columns.requestBytes[row]! > 0) this.number(REQUEST_BYTES, columns.requestBytes[row]!);
    if (columns.responseBytes[row]! > 0) this.number(RESPONSE_BYTES, columns.responseBytes[row]!);
    if (columns.weight[row]! !== 1) this.number(WEIGHT, columns.weight[row]!);
    if (labels.length > 0) out.raw(bytes(`,"labels":${JSON.stringify(labels)}`));
    this.text(PEER_SERVICE, texts[columns.peerService[row]!]);
    this.text(PEER_CUID, texts[columns.peerCuid[row]!]);
    this.text(KEY_TEXT, texts[columns.keyText[row]!]);
    this.text(DETAILS, texts[columns.details[row]!]);
  }

  private number(before: Buffer, value: number): void {
    this.out.raw(before);
    this.out.decimal(value);
  }

  /** Nothing for an id that is absent. */
  private id(before: Buffer, column: Column64, row: number): void {
    if (isZero64(column, row)) return;
    this.out.raw(before);
    this.out.hex64(lowWord(column, row), highWord(column, row));
    this.out.raw(QUOTE);
  }

  /** Nothing for an empty text. */
  private text(before: Buffer, json: Buffer | undefined): void {
    if (json === undefined) return;
    this.out.raw(before);
    this.out.raw(json);
  }
}

const EMPTY = bytes('""');

const dense = (fields: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== ''));
