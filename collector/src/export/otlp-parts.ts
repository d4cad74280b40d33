// The parts of OTLP that are the same in every record: field numbers, and what is encoded once. Pure.

import { BackWriter } from './back-writer.js';
import { OUTCOMES } from './words.js';

// Fields of ResourceLogs, ScopeLogs and LogRecord.
export const [RESOURCE, SCOPE_LOGS] = [1, 2];
export const [SCOPE, LOG_RECORDS] = [1, 2];
export const RECORD = {
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
export const [KEY, VALUE] = [1, 2];
export const [STRING_VALUE, BOOL_VALUE, INT_VALUE] = [1, 2, 3];

// SeverityNumber and its name.
const INFO = { number: 9, text: 'INFO' };
const WARN = { number: 13, text: 'WARN' };
const ERROR = { number: 17, text: 'ERROR' };

/** Fields that are always the same, encoded once. */
function encoded(write: (out: BackWriter) => void): Buffer {
  const out = new BackWriter();
  write(out);
  return out.finish();
}

const nameOf = (key: string): Buffer => encoded(out => out.string(KEY, key));

export const NAMES = {
  uid: nameOf('log.record.uid'),
  transaction: nameOf('meshpulse.transaction.id'),
  event: nameOf('meshpulse.event.id'),
  request: nameOf('meshpulse.request.id'),
  durationUs: nameOf('meshpulse.duration_us'),
  httpStatus: nameOf('http.response.status_code'),
  grpcStatus: nameOf('rpc.grpc.status_code'),
  attempts: nameOf('meshpulse.attempts'),
  responseFlags: nameOf('meshpulse.response_flags'),
  waitUs: nameOf('meshpulse.wait_us'),
  requestBytes: nameOf('meshpulse.request_bytes'),
  responseBytes: nameOf('meshpulse.response_bytes'),
  weight: nameOf('meshpulse.weight'),
  labels: nameOf('meshpulse.labels'),
} as const;

export const [EVENT_NAME, CALL_NAME] = ['meshpulse.event', 'meshpulse.call'].map(name =>
  encoded(out => out.string(RECORD.EVENT_NAME, name)),
) as [Buffer, Buffer];

/** By outcome: unspecified, ok, failed, declined, cancelled, refused. */
export const SEVERITIES = [INFO, INFO, ERROR, WARN, WARN, WARN].map(({ number, text }) =>
  encoded(out => {
    out.string(RECORD.SEVERITY_TEXT, text);
    out.number(RECORD.SEVERITY, number);
  }),
);

export function textAttribute(out: BackWriter, field: number, key: string, value: string): void {
  const mark = out.size;
  out.string(STRING_VALUE, value);
  out.message(VALUE, mark);
  out.string(KEY, key);
  out.message(field, mark);
}

export const OUTCOME_ATTRIBUTES = OUTCOMES.map(outcome =>
  encoded(out => textAttribute(out, RECORD.ATTRIBUTES, 'meshpulse.outcome', outcome)),
);

export const IS_ENTRY = encoded(out => {
  out.number(BOOL_VALUE, 1);
  out.message(VALUE, 0);
  out.string(KEY, 'meshpulse.entry');
  out.message(RECORD.ATTRIBUTES, 0);
});
