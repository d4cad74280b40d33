// Pure comparisons between what the shop did and what the collector says.
import type { Flow, OperationCount } from './collector-view.js';

/** operation -> status -> how many. */
export type Counts = Map<string, Map<number, number>>;

/** The collector's counts in the load generator's shape. */
export function toCounts(operations: OperationCount[]): Counts {
  const counts: Counts = new Map();
  for (const { operation, response_code: status, count } of operations) {
    const statuses = counts.get(operation) ?? new Map<number, number>();
    statuses.set(status, (statuses.get(status) ?? 0) + Number(count));
    counts.set(operation, statuses);
  }
  return counts;
}

/** One line per operation and status whose numbers differ; empty if all agree. */
export function differences(sent: Counts, counted: Counts): string[] {
  const keys = new Set([...rows(sent).keys(), ...rows(counted).keys()]);
  return [...keys].sort().flatMap(key => {
    const a = rows(sent).get(key) ?? 0;
    const b = rows(counted).get(key) ?? 0;
    return a === b ? [] : [`${key}: sent ${a}, counted ${b}`];
  });
}

function rows(counts: Counts): Map<string, number> {
  const result = new Map<string, number>();
  for (const [operation, statuses] of counts) {
    for (const [status, count] of statuses) result.set(`${operation} ${status}`, count);
  }
  return result;
}

/** `caller OPERATION -> callee OPERATION` */
export type Edge = string;

export function edgesOf(flow: Flow): Edge[] {
  return flow.edges.map(e => `${e.from_service} ${e.from_operation} -> ${e.to_service} ${e.to_operation}`);
}

/** Edges missing from what was learned, and edges that were learned but do not exist. */
export function compareEdges(expected: Edge[], learned: Edge[]): { missing: Edge[]; surplus: Edge[] } {
  return {
    missing: expected.filter(edge => !learned.includes(edge)),
    surplus: learned.filter(edge => !expected.includes(edge)),
  };
}

const TRACE = /^(traceparent|tracestate|b3|x-b3-.*)$/;

/** True if there is a trace context and all of it stands directly behind `host`. */
export function traceContextFirst(names: string[]): boolean {
  const traces = names.filter(name => TRACE.test(name));
  return traces.length > 0 && names[0] === 'host' && traces.every((name, i) => names[i + 1] === name);
}
