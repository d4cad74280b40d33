// Rebuilds the registry, the counts, the flow and recent transactions from what the store kept.

import type { Applier } from './ingest/apply.js';
import type { Clock } from './clock.js';
import type { TransactionsPort } from './ingest/transactions-port.js';
import { SETTLE_MS } from './ingest/settling-sum.js';
import type { IngestTotals } from './ingest/totals.js';
import type { Rollback } from './rollback/controller.js';
import { entriesOf, restoreEntry } from './rollback/kept.js';
import type { Counts } from './registry/counts.js';
import type { Edge, Edges } from './registry/edges.js';
import { noteRate, toStored } from './registry/life.js';
import type { Registry } from './registry/registry.js';
import type { Recovery, SnapshotSource } from './store/store.js';

export interface RecoverParts {
  readonly clock: Clock;
  readonly registry: Registry;
  readonly counts: Counts;
  readonly edges: Edges;
  readonly applier: Applier;
  readonly transactions: TransactionsPort;
  readonly totals: IngestTotals;
  readonly rollback: Rollback;
}

/** What came from the store: before the start, and from other replicas since. */
export interface Recovered {
  /** From now on it is what other replicas put. */
  live: boolean;
  lives: number;
  batches: number;
  entries: number;
  countingSinceUs: number;
}

/** Where the store gives back what it kept; `recovered` is filled on the way. */
export function recovery(parts: RecoverParts, recovered: Recovered): Recovery {
  const { clock, registry, counts, edges, applier, transactions, totals, rollback } = parts;
  // What was lost before a restart may have been counted then, and must not come back as less. What others find
  // missing while this replica runs can still turn out to be late.
  const stoodMs = (): number => clock.monotonicMs() - (recovered.live ? 0 : SETTLE_MS);
  return {
    life(life) {
      recovered.lives += 1;
      const { before, now } = registry.restore(life);
      totals.told(before, now);
      counts.forgetExternal(now.service, now.cluster);
      if (now.endedUs !== undefined && before?.endedUs === undefined) totals.ended(now);
    },
    totals(state) {
      totals.restore(state, stoodMs());
      edges.restore((state as { edges?: readonly Edge[] }).edges ?? []);
    },
    count({ service, cluster, external, ...row }) {
      counts.add(service, cluster, external, row);
    },
    countingSince(us) {
      recovered.countingSinceUs = us;
    },
    flow(state) {
      if (state !== null) transactions.flow.restore(state);
    },
    batch({ cuid, batch }, counted) {
      recovered.batches += 1;
      const life = registry.find(cuid);
      if (life === undefined) return;
      const rows = batch.events?.rows ?? 0;
      if (recovered.live && rows > 0) noteRate(life, rows, clock.monotonicMs());
      applier.apply(life, batch, counted ? 'counted' : recovered.live ? 'other' : 'replay');
    },
    rollback(entry, wasCounted) {
      recovered.entries += 1;
      restoreEntry(rollback, entry, wasCounted);
    },
    loss(cuid, loss) {
      const life = registry.find(cuid);
      if (life === undefined || (loss.reports === 0 && loss.events === 0)) return;
      registry.lost(life, loss);
      totals.lost(life.service, loss, stoodMs());
    },
  };
}

export function snapshotSource(parts: RecoverParts, recovered: Recovered): SnapshotSource {
  return {
    *lives() {
      for (const life of parts.registry.all()) yield toStored(life);
    },
    counts: () => parts.counts.stored(),
    countingSinceUs: () => recovered.countingSinceUs,
    totals: () => ({ ...parts.totals.state(), edges: [...parts.edges.all()] }),
    flow: () => parts.transactions.flow.snapshot(),
    rollback: () => entriesOf(parts.rollback),
  };
}
