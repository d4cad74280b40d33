// What a stored batch changes: counts, totals of its life, transactions.

import type { Counts } from '../registry/counts.js';
import { serviceOfHost } from '../registry/counts.js';
import type { Edges } from '../registry/edges.js';
import { groupRows, type Group } from '../registry/aggregate.js';
import type { Life } from '../registry/life.js';
import type { Registry } from '../registry/registry.js';
import type { InstanceRef, TransactionsPort } from './transactions-port.js';
import { NEVER_EVIDENCE, outcomeOf, ROW_FLAG } from './columns.js';
import type { Batch, ExactCount } from './report.js';
import type { RollbackPort } from './rollback-port.js';

/** What a callee is counted as when its caller does not know its name. */
const UNNAMED = 'unknown';

/**
 * Where a batch comes from. `own`: from a sidecar connected here; `other`: another replica took it; `replay`: the log
 * before a restart; `counted`: the same, and its counts are in already, only its transactions are not.
 */
export type Origin = 'own' | 'other' | 'replay' | 'counted';

export class Applier {
  constructor(
    private readonly registry: Registry,
    private readonly counts: Counts,
    private readonly edges: Edges,
    private readonly transactions: TransactionsPort,
    private readonly rollback?: Pick<RollbackPort, 'rows'>,
  ) {}

  apply(life: Life, batch: Batch, origin: Origin): void {
    const counted = origin === 'counted';
    if (!counted) this.count(life, batch);
    if (batch.events === undefined) return;
    const { events: columns, producer, counts } = batch;
    this.transactions.ingest({ instance: instanceRef(life), columns, producer, thinned: counts.length > 0 });
    if (!counted) this.rollback?.rows(life, columns, origin);
  }

  private count(life: Life, batch: Batch): void {
    if (batch.counts.length > 0) {
      for (const count of batch.counts) this.addExact(life, count);
    } else if (batch.events !== undefined) {
      for (const group of groupRows(batch.events)) this.addGroup(life, group, batch.events.strings);
    }
  }

  private addGroup(life: Life, group: Group, strings: readonly string[]): void {
    const row = { ...group, operation: strings[group.operation]! };
    if ((group.flags & ROW_FLAG.CALL) === 0) this.addEvents(life, row);
    else this.addCalls(life, row, strings[group.peerService]!, strings[group.peerCuid]!);
  }

  /** Thinned rows: the counts do not say who was called, so calls count for their caller only. */
  private addExact(life: Life, count: ExactCount): void {
    if ((count.flags & ROW_FLAG.CALL) === 0) this.addEvents(life, count);
    else life.calls += count.count;
  }

  private addEvents(life: Life, row: ExactCount): void {
    const { operation, status, responseFlags, flags, count, durationUsSum } = row;
    life.events += count;
    this.counts.add(life.service, life.cluster, false, {
      operation,
      status,
      responseFlags,
      flags,
      count,
      durationUsSum,
    });
  }

  private addCalls(life: Life, row: ExactCount, peerService: string, peerCuid: string): void {
    const { operation, status, responseFlags, flags, count, durationUsSum } = row;
    life.calls += count;
    const callee = peerCuid === '' ? undefined : this.registry.find(peerCuid);
    const service = callee?.service ?? (serviceOfHost(peerService) || UNNAMED);
    const external = (flags & ROW_FLAG.EXTERNAL) !== 0 || (peerCuid === '' && !this.registry.hasService(service));
    if (external) {
      this.counts.add(service, life.cluster, true, { operation, status, responseFlags, flags, count, durationUsSum });
    }
    if ((flags & (ROW_FLAG.EXTERNAL | NEVER_EVIDENCE)) === 0 && (service !== UNNAMED || peerCuid !== '')) {
      const { cluster, network } = life;
      this.registry.called({ cluster, network, service, cuid: peerCuid, host: peerService });
    }
    const { service: source, workload: sourceWorkload } = life;
    this.edges.add({
      source,
      sourceWorkload,
      destination: service,
      status,
      responseFlags,
      outcome: outcomeOf(flags),
      count,
    });
  }
}

export function instanceRef(life: Life): InstanceRef {
  const { cuid, service, cluster, node, proxyId, reportInFlightMs } = life;
  return { cuid, service, cluster, node, proxyId, reportInFlightMs, clockOffsetUs: life.clock.current.offsetUs };
}
