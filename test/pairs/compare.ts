/** The same transactions in two runs: what `off` and `enforce` made of them. */
import type { Result, Run } from './run.js';

const OK = 200;

export interface Comparison {
  /** What must not be, one sentence each, with the transaction it is about. */
  readonly faults: readonly string[];
  /** Transactions that failed without rollback, and the requests that applications served for them, without compensations. */
  readonly failing: number;
  readonly forward: { readonly off: number; readonly enforce: number };
  /** Refused requests by operation: `shipping POST /label`. */
  readonly refused: ReadonlyMap<string, number>;
  /** Transactions in which anything was refused, by scenario. */
  readonly touched: ReadonlyMap<string, number>;
  readonly refunds: number;
}

export function compare(off: Run, enforce: Run): Comparison {
  const faults = off.results.flatMap((before, at) => {
    const after = enforce.results[at];
    const name = `transaction ${String(before.index)} (${before.scenario})`;
    if (after?.index !== before.index) return [`${name} is missing`];
    const told = isHealthy(before) && (enforce.signals.get(before.traceId) ?? 0) > 0;
    const signals = told ? ['was healthy, and somebody was told to undo a step of it'] : [];
    return [...differences(before, after), ...signals].map(difference => `${name}: ${difference}`);
  });
  const refused = new Map<string, number>();
  const touched = new Map<string, number>();
  for (const { refusals, scenario } of enforce.results) {
    if (refusals.length > 0) count(touched, scenario);
    for (const { operation } of refusals) count(refused, operation);
  }
  const failing = off.results.filter(result => !isHealthy(result));
  const forward = (run: Run): number => failing.reduce((sum, { index }) => sum + (run.results[index]?.forward ?? 0), 0);
  return {
    faults,
    failing: failing.length,
    forward: { off: forward(off), enforce: forward(enforce) },
    refused,
    touched,
    refunds: enforce.results.reduce((sum, { refundsDelivered }) => sum + refundsDelivered, 0),
  };
}

function differences(off: Result, enforce: Result): string[] {
  return [
    ...outcomes(off, enforce),
    ...(off.state === enforce.state ? [] : [`leaves "${enforce.state}" behind, not "${off.state}"`]),
    ...[off, enforce].flatMap(({ refundsIssued, refundsDelivered }) =>
      refundsIssued === refundsDelivered
        ? []
        : [`${String(refundsDelivered)} of ${String(refundsIssued)} refunds came through`],
    ),
    ...refusals(off, enforce),
  ];
}

/** What went well goes well, and what failed may fail sooner. */
function outcomes(off: Result, enforce: Result): string[] {
  return [...off.results].flatMap(([name, status]) => {
    const now = enforce.results.get(name);
    if (status === OK && now !== OK) return [`${name} succeeded, and is answered with ${String(now)}`];
    return isFailure(status) && now === OK ? [`${name} failed, and succeeds`] : [];
  });
}

function refusals(off: Result, enforce: Result): string[] {
  const healthy = isHealthy(off);
  return enforce.refusals.flatMap(({ operation, by, undoes, consumes }) => {
    if (undoes) return [`${operation}, which undoes, was refused ${by}`];
    if (consumes) return [`${operation} of a consumer was refused ${by}`];
    if (off.scenario === 'batch' || off.scenario === 'message') return [`${operation} under a shared id was refused`];
    return healthy ? [`${operation} of a healthy one was refused ${by}`] : [];
  });
}

const isFailure = (status: number): boolean => status !== OK;

const isHealthy = ({ results }: Result): boolean => ![...results.values()].some(isFailure);

function count(counts: Map<string, number>, name: string): void {
  counts.set(name, (counts.get(name) ?? 0) + 1);
}
