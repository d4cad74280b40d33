// Numbers and results as words, for explanations. Pure.

import { grpcStatusOf, httpStatusOf, outcomeOf } from '../ingest/columns.js';
import { responseFlagNames } from '../registry/response-flags.js';
import { ROW_STATE, type Row } from './rows.js';
import { OUTCOME } from './transaction.js';

/** `950 us`, `12.3 ms`, `4.56 s`, `2 min 3 s`. */
export function time(us: number): string {
  if (us < 1000) return `${Math.round(us)} us`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 1e5 ? 1 : 0)} ms`;
  if (us < 120e6) return `${(us / 1e6).toFixed(us < 1e7 ? 2 : 1)} s`;
  return `${Math.floor(us / 60e6)} min ${Math.floor((us % 60e6) / 1e6)} s`;
}

/** What Envoy's response flags say, for those that tell why something went wrong. */
const FLAG_WORDS: Readonly<Record<string, string>> = {
  UH: 'no healthy instance',
  UT: 'timed out',
  LR: 'reset by the local proxy',
  UR: 'reset by the callee',
  UF: 'no connection to the callee',
  UC: 'the connection broke',
  UO: 'too many requests for the proxy to hand on',
  NR: 'no route',
  FI: 'a fault was injected',
  RL: 'rate limited',
  UAEX: 'refused by the authorization service',
  DC: 'the caller went away',
  URX: 'no more retries',
  SI: 'the stream was idle for too long',
  DPE: 'the caller broke the protocol',
  UPE: 'the callee broke the protocol',
  UMSDR: 'it took longer than is allowed',
  DT: 'it took longer than is allowed',
  NC: 'no such cluster',
  OM: 'the proxy is overloaded',
  DF: 'the name of the callee was not resolved',
  DO: 'dropped for overload',
  DR: 'reset by the caller',
};

/** `503`, `200, gRPC 14`, or `no answer`. */
export function code({ status }: Row): string {
  const http = httpStatusOf(status);
  const grpc = grpcStatusOf(status);
  if (grpc !== undefined) return `gRPC ${grpc}`;
  return http === 0 ? 'no answer' : String(http);
}

/** `answered 200`, `failed with 503 (UF: no connection to the callee)`, `is still running`, … */
export function result(row: Row): string {
  if (row.state === ROW_STATE.RUNNING) return `is still running after ${time(row.durationUs)}`;
  if (row.state === ROW_STATE.VANISHED)
    return `was last heard of after ${time(row.durationUs)}; how it ended was not reported`;
  const why = reason(row);
  const suffix = why === '' ? '' : ` (${why})`;
  switch (outcomeOf(row.flags)) {
    case OUTCOME.FAILED:
      return `failed with ${code(row)}${suffix}`;
    case OUTCOME.DECLINED:
      return `was declined with ${code(row)}${suffix}`;
    case OUTCOME.CANCELLED:
      return `was cancelled${suffix}`;
    case OUTCOME.REFUSED:
      return `was refused with ${code(row)}${suffix}`;
    default:
      return `answered ${code(row)}${suffix}`;
  }
}

/** Flags with what they mean, else the proxy's own word. */
function reason({ responseFlags, details }: Row): string {
  const flags = responseFlagNames(responseFlags);
  if (flags === '') return details;
  const words = flags.split(',').flatMap(flag => FLAG_WORDS[flag] ?? []);
  return words.length === 0 ? flags : `${flags}: ${words.join(', ')}`;
}

/** Facts of a row, `name=value`; what says nothing is left out. */
export function facts(row: Row, prefix: string): string[] {
  const grpc = grpcStatusOf(row.status);
  const flags = responseFlagNames(row.responseFlags);
  return [
    ...(row.state === ROW_STATE.ENDED ? [`${prefix}response_code=${httpStatusOf(row.status)}`] : []),
    ...(grpc === undefined ? [] : [`${prefix}grpc_status=${grpc}`]),
    ...(flags === '' ? [] : [`${prefix}response_flags=${flags}`]),
    ...(row.details === '' ? [] : [`${prefix}details=${row.details}`]),
    `${prefix}duration_ms=${(row.durationUs / 1000).toFixed(3)}`,
  ];
}
