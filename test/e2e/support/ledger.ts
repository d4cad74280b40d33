// Three books that must agree: what the client saw, what Envoy logged, what the filter reported.
import { responseFlagNames } from '../../../collector/src/registry/response-flags.js';
import type { AccessLogLine } from '../../../demo/src/mesh/listeners.js';
import { RowFlag, type Row } from '../../filter/wire.js';

/** How often each text occurs, sorted by text. */
export function tally(texts: Iterable<string>): Record<string, number> {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return Object.fromEntries([...counts].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** `GET /path 200 flags grpc details`: what a row and a line of the access log must agree on. */
export function rowEntry(row: Row): string {
  return `${row.operation} ${row.httpStatus} ${flagsOf(row)} ${row.grpcStatus ?? '-'} ${reason(row.details)}`;
}

export function logEntry(line: AccessLogLine): string {
  const grpc = isGrpc(line) ? (line.grpc_status ?? '-') : '-';
  const operation = isGrpc(line) ? `${line.path}` : `${line.method} ${line.path}`;
  const flags = line.flags.split(',').sort().join(',');
  const details = line.details === 'via_upstream' ? '' : (line.details ?? '');
  return `${operation} ${line.code} ${flags} ${grpc} ${reason(details)}`;
}

/** Without the parameters, e.g. of a transport failure. */
function reason(details: string): string {
  return details.replace(/\{.*/s, '');
}

function flagsOf(row: Row): string {
  return (responseFlagNames(row.responseFlags) || '-').split(',').sort().join(',');
}

function isGrpc(line: AccessLogLine): boolean {
  return /^\/[\w.]+\.\w+\/\w+$/.test(line.path ?? '');
}

const LABELS = Object.entries(RowFlag);
/** Numbers of the proto's Outcome. */
const OUTCOMES = ['unspecified', 'ok', 'failed', 'declined', 'cancelled', 'refused'];

/** Everything of a row that a scenario fixes: status, flags, outcome, attempts and labels. */
export function rowStory(row: Row): string {
  const labels = LABELS.filter(([, bit]) => (row.flags & bit) !== 0).map(([name]) => name.toLowerCase());
  const grpc = row.grpcStatus === undefined ? '' : ` grpc=${row.grpcStatus}`;
  const attempts = (row.flags & RowFlag.Call) !== 0 ? ` attempts=${row.attempts}` : '';
  const outcome = OUTCOMES[row.outcome] ?? `outcome ${row.outcome}`;
  return `${row.httpStatus} ${flagsOf(row)} ${outcome}${grpc}${attempts} [${labels.join(' ')}]`;
}
