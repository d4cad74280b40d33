// Exact counts of events by service, and of calls to services that have no sidecar.
//
// Sums are always right: past a bound, what is new is counted under `other` instead of not at all.

import type { StoredCount } from '../store/store.js';

/** Operations of one service counted under their own name; the rest is `other`. */
export const OPERATIONS_MAX = 200;

/** Combinations of one service; past them everything new is one row of `other`. */
export const ROWS_PER_SERVICE_MAX = 5000;

/** Services without a sidecar, each a host name that some caller used; the rest is `other`. */
export const EXTERNAL_MAX = 1000;

export const OTHER = 'other';

export interface CountRow {
  readonly operation: string;
  /** As in EventColumns: HTTP status, and gRPC status + 1 in bits 16-23. */
  readonly status: number;
  readonly responseFlags: number;
  /** As Group.flags. */
  readonly flags: number;
  count: number;
  durationUsSum: number;
}

export interface ServiceCounts {
  readonly service: string;
  readonly cluster: string;
  readonly external: boolean;
  events: number;
  readonly operations: Set<string>;
  readonly rows: Map<string, CountRow>;
}

export class Counts {
  private readonly services = new Map<string, ServiceCounts>();
  private externals = 0;
  /** Events counted under `other` for want of room. */
  overflow = 0;

  /** Adds to one count. `row.count` events at once. */
  add(service: string, cluster: string, external: boolean, row: Readonly<CountRow>): void {
    const counts = this.serviceFor(service, cluster, external);
    const operation = this.operationFor(counts, row.operation);
    let key = `${operation}\0${row.status}\0${row.responseFlags}\0${row.flags}`;
    const full = counts.rows.size >= ROWS_PER_SERVICE_MAX && !counts.rows.has(key);
    if (full) key = OTHER;
    let sum = counts.rows.get(key);
    if (sum === undefined) {
      sum = full
        ? { operation: OTHER, status: 0, responseFlags: 0, flags: 0, count: 0, durationUsSum: 0 }
        : { ...row, operation, count: 0, durationUsSum: 0 };
      counts.rows.set(key, sum);
    }
    if (full || operation !== row.operation) this.overflow += row.count;
    sum.count += row.count;
    sum.durationUsSum += row.durationUsSum;
    counts.events += row.count;
  }

  get(service: string, cluster: string): ServiceCounts | undefined {
    return this.services.get(keyOf(service, cluster));
  }

  /** A host name turned out to be a service with a sidecar: its own events count, not calls to it. */
  forgetExternal(service: string, cluster: string): void {
    const key = keyOf(service, cluster);
    if (this.services.get(key)?.external !== true) return;
    this.services.delete(key);
    this.externals -= 1;
  }

  all(): Iterable<ServiceCounts> {
    return this.services.values();
  }

  *stored(): Iterable<StoredCount> {
    for (const { service, cluster, external, rows } of this.services.values()) {
      for (const row of rows.values()) yield { service, cluster, external, ...row };
    }
  }

  private serviceFor(service: string, cluster: string, external: boolean): ServiceCounts {
    const key = keyOf(service, cluster);
    const known = this.services.get(key);
    if (known !== undefined) return known;
    if (external && service !== OTHER && this.externals >= EXTERNAL_MAX) return this.serviceFor(OTHER, cluster, true);
    const counts = {
      service,
      cluster,
      external,
      events: 0,
      operations: new Set<string>(),
      rows: new Map<string, CountRow>(),
    };
    this.services.set(key, counts);
    if (external) this.externals += 1;
    return counts;
  }

  private operationFor(counts: ServiceCounts, operation: string): string {
    if (counts.operations.has(operation)) return operation;
    if (counts.operations.size >= OPERATIONS_MAX) return OTHER;
    counts.operations.add(operation);
    return operation;
  }
}

const keyOf = (service: string, cluster: string): string => `${cluster}\0${service}`;

/**
 * A callee's host name as a service name: `payment.shop.svc.cluster.local` is `payment.shop`, and a
 * port is cut off. Other names stay as they are.
 */
export function serviceOfHost(host: string): string {
  const name = host.replace(/:\d+$/, '');
  const match = /^([^.]+\.[^.]+)\.svc(?:\.|$)/.exec(name);
  return match?.[1] ?? name;
}
