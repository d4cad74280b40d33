/** The contract's header rules as plain functions, to compare the filter's work with. */
import type { Pair } from '../support/proxy-wasm-host.js';

/** The default of `trace.headers`, in its order. */
export const TRACE_HEADERS = [
  'traceparent',
  'tracestate',
  'b3',
  'x-b3-*',
  'uber-trace-id',
  'sw8',
  'x-cloud-trace-context',
  'x-datadog-*',
];

export const OWN_HEADERS = ['x-cuid', 'x-mp-status', 'x-mp-progress', 'x-mp-rollback'];

/** Also what differs from an own name by `_` for `-` alone. */
export function isOwn(name: string): boolean {
  return OWN_HEADERS.includes(name.toLowerCase().replaceAll('_', '-'));
}

/** Position in the list, or -1. */
export function traceRank(name: string, list: readonly string[] = TRACE_HEADERS): number {
  return list.findIndex(entry => (entry.endsWith('*') ? name.startsWith(entry.slice(0, -1)) : name === entry));
}

export const isPseudo = (name: string): boolean => name.startsWith(':');

/** The order of the contract: pseudo headers, trace context in list order, everything else as it was. */
export function ordered(pairs: readonly Pair[], list: readonly string[] = TRACE_HEADERS): Pair[] {
  const pseudo = pairs.filter(([name]) => isPseudo(name));
  const rank = ([name]: Pair): number => (isPseudo(name) ? -1 : traceRank(name, list));
  const trace = pairs.filter(pair => rank(pair) >= 0);
  const others = pairs.filter(pair => !isPseudo(pair[0]) && rank(pair) < 0);
  return [...pseudo, ...trace.toSorted((a, b) => rank(a) - rank(b)), ...others];
}

/** What belongs to the application: neither own headers nor trace context. */
export function application(pairs: readonly Pair[]): Pair[] {
  return pairs.filter(([name]) => !isOwn(name) && (isPseudo(name) || traceRank(name) < 0));
}

export function trace(pairs: readonly Pair[]): Pair[] {
  return pairs.filter(([name]) => !isPseudo(name) && traceRank(name) >= 0);
}

export function own(pairs: readonly Pair[]): Pair[] {
  return pairs.filter(([name]) => isOwn(name));
}

/** Size of the own headers as `name: value CRLF`. */
export function ownBytes(pairs: readonly Pair[]): number {
  return own(pairs).reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0);
}

/** Size of a header block as a proxy counts it, and as it stands on an HTTP/1.1 wire. */
export function sizes(pairs: readonly Pair[]): { bytes: number; lines: number } {
  const bytes = pairs.reduce((sum, [name, value]) => sum + name.length + value.length, 0);
  return { bytes, lines: bytes + 4 * pairs.length };
}
