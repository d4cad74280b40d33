// Rows as JSON lines, one a row: flat, with the names of the API, and nothing that is empty. Pure.

import {
  attemptsOf,
  endUnixUs,
  grpcStatusOf,
  hex64,
  httpStatusOf,
  isZero64,
  keySourceOf,
  labelsOf,
  outcomeOf,
  ROW_FLAG,
} from '../ingest/columns.js';
import { responseFlagNames } from '../registry/response-flags.js';
import type { Rows } from './batches.js';
import { KEY_SOURCES, OUTCOMES, recordUid, rfc3339 } from './words.js';

/** The rows of a batch, each ended by a line feed. */
export function linesOf({ origin, batchId, columns, receivedUs, clockOffsetUs }: Rows): string {
  const texts = columns.strings.map(text => JSON.stringify(text));
  // The same for all rows of a batch.
  const { cuid, service, cluster, network, node, workload, slot } = origin;
  const tail = `${JSON.stringify(dense({ cuid, service, cluster, network, node, workload, slot, received: rfc3339(receivedUs) })).slice(1)}\n`;
  let lines = '';
  for (let row = 0; row < columns.rows; row++) {
    lines += `{"id":"${recordUid(batchId, row)}",${fieldsOf(columns, row, texts, clockOffsetUs)},${tail}`;
  }
  return lines;
}

function fieldsOf(columns: Rows['columns'], row: number, texts: readonly string[], clockOffsetUs: number): string {
  const flags = columns.flags[row]!;
  const status = columns.status[row]!;
  const call = (flags & ROW_FLAG.CALL) !== 0;
  const grpc = grpcStatusOf(status);
  const labels = labelsOf(flags);
  const key = `${hex64(columns.keyHi, row)}${hex64(columns.keyLo, row)}`;
  let json =
    `"kind":"${call ? 'call' : 'event'}","at":"${rfc3339(endUnixUs(columns, row) - clockOffsetUs)}",` +
    `"operation":${texts[columns.operation[row]!]!},"outcome":"${OUTCOMES[outcomeOf(flags)] ?? OUTCOMES[0]}"`;
  if ((flags & ROW_FLAG.STREAM) === 0) json += `,"durationUs":${columns.durationUs[row]!}`;
  if (httpStatusOf(status) !== 0) json += `,"responseCode":${httpStatusOf(status)}`;
  if (grpc !== undefined) json += `,"grpcStatus":${grpc}`;
  if (columns.responseFlags[row]! !== 0) json += `,"responseFlags":"${responseFlagNames(columns.responseFlags[row]!)}"`;
  json += `,"key":"${key}","keySource":"${KEY_SOURCES[keySourceOf(flags)] ?? KEY_SOURCES[0]}"`;
  if (!isZero64(columns.requestHi, row) || !isZero64(columns.requestLo, row)) {
    json += `,"requestId":"${hex64(columns.requestHi, row)}${hex64(columns.requestLo, row)}"`;
  }
  if (!isZero64(columns.eventId, row)) json += `,"eventId":"${hex64(columns.eventId, row)}"`;
  if (!isZero64(columns.spanIn, row)) json += `,"spanIn":"${hex64(columns.spanIn, row)}"`;
  if (!isZero64(columns.spanOut, row)) json += `,"spanOut":"${hex64(columns.spanOut, row)}"`;
  if ((flags & ROW_FLAG.ENTRY) !== 0) json += ',"entry":true';
  if (call) json += `,"attempts":${attemptsOf(flags)}`;
  if (columns.waitUs[row]! > 0) json += `,"waitUs":${columns.waitUs[row]!}`;
  if (columns.requestBytes[row]! > 0) json += `,"requestBytes":${columns.requestBytes[row]!}`;
  if (columns.responseBytes[row]! > 0) json += `,"responseBytes":${columns.responseBytes[row]!}`;
  if (columns.weight[row]! !== 1) json += `,"weight":${columns.weight[row]!}`;
  if (labels.length > 0) json += `,"labels":${JSON.stringify(labels)}`;
  json += text('peerService', texts[columns.peerService[row]!]!);
  json += text('peerCuid', texts[columns.peerCuid[row]!]!);
  json += text('keyText', texts[columns.keyText[row]!]!);
  return json + text('details', texts[columns.details[row]!]!);
}

const text = (name: string, json: string): string => (json === '""' ? '' : `,"${name}":${json}`);

const dense = (fields: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== ''));
