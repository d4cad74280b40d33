// Reads the numbers of the metrics from where they live.

import type { Access } from '../access/access.js';
import type { TlsFiles } from '../access/tls.js';
import { grpcStatusOf, httpStatusOf, labelsOf, outcomeOf } from '../ingest/columns.js';
import type { Ingest } from '../ingest/ingest.js';
import type { IngestTotals } from '../ingest/totals.js';
import { VERSION } from '../paths.js';
import type { Counts, ServiceCounts } from '../registry/counts.js';
import type { Edges } from '../registry/edges.js';
import type { Life } from '../registry/life.js';
import type { Registry } from '../registry/registry.js';
import { responseFlagNames } from '../registry/response-flags.js';
import { outcomeName, statusAgeMs } from '../rpc/encode.js';
import type { Clock } from '../clock.js';
import type { ReadGate } from '../rpc/read-gate.js';
import type { Rollback } from '../rollback/controller.js';
import { planState } from '../rollback/signals.js';
import { LOOKED_AT, type Pieces } from '../slices.js';
import type { Store } from '../store/store.js';
import type { Exports } from '../export/exports.js';
import { collectExports } from './collect-exports.js';
import type { Recovered } from '../recover.js';
import { CATALOGUE, type Metric } from './catalogue.js';
import type { Emit } from './exporter.js';

/** The other replicas, as far as metrics are concerned. */
export interface Duties {
  readonly staleMs: number;
  readonly unknown: number;
  readonly membership: { readonly all: readonly string[] };
  owns(name: string): boolean;
}

export interface MetricParts {
  readonly clock: Clock;
  readonly registry: Registry;
  readonly counts: Counts;
  readonly edges: Edges;
  readonly ingest: Ingest;
  readonly totals: IngestTotals;
  readonly store: Store;
  readonly rollback: Rollback;
  readonly gate: ReadGate;
  readonly access: Access | undefined;
  readonly tls: TlsFiles | undefined;
  readonly exports?: Exports | undefined;
  readonly recovered: Recovered;
  readonly replicas: Duties | undefined;
  readonly transactions: {
    readonly size: number;
    /** Events found unlinked so far. */
    readonly unlinked: number;
    /** What was given up, and why. */
    readonly counters: Readonly<Record<string, number>>;
  };
}

/** All that there is to tell. What is long comes in pieces; each number is one moment's. */
export function* collect(parts: MetricParts, every: Emit): Pieces<void> {
  const emit = onlyOwn(parts.replicas, every);
  emit('build_info', [VERSION], 1);
  yield* collectInstances(parts, emit);
  for (const counts of parts.counts.all()) {
    collectCounts(counts, emit);
    yield;
  }
  collectLosses(parts, emit);
  collectTransactions(parts, emit);
  collectIngest(parts, emit);
  collectAccess(parts, emit);
  collectStore(parts, emit);
  collectReplicas(parts, emit);
  emit('reads_total', ['answered'], parts.gate.answered);
  emit('reads_total', ['refused'], parts.gate.refused);
  emit('reads_waiting', [], parts.gate.size);
  yield;
  collectRollback(parts, emit);
  collectExports(parts.exports, emit);
  yield* collectEdges(parts, emit);
}

/** Of what all replicas know alike, what falls to this one. Asked once a name: services have many series. */
function onlyOwn(replicas: Duties | undefined, emit: Emit): Emit {
  if (replicas === undefined) return emit;
  const own = new Map<string, boolean>();
  const isOwn = (name: string): boolean => {
    const known = own.get(name) ?? replicas.owns(name);
    own.set(name, known);
    return known;
  };
  return (name, labels, value) => {
    const { one, labels: names } = CATALOGUE[name] as Metric;
    const duty = one === undefined || one === '' ? name : labels[names.indexOf(one)]!;
    if (one === undefined || isOwn(duty)) emit(name, labels, value);
  };
}

/** What is shown of the instances of one service, summed or at its worst. */
interface ServiceSum {
  readonly labels: readonly [string, string];
  inFlight?: number;
  readonly queues: Map<string, number>;
  reportAgeMs?: number;
  clockOffsetUs: number;
  readonly states: Map<string, number>;
}

const QUEUE_SOURCES = ['', 'app', 'sock', 'pool'];

function* collectInstances({ registry, clock }: MetricParts, emit: Emit): Pieces<void> {
  const sums = new Map<string, ServiceSum>();
  let looked = 0;
  for (const life of registry.all()) {
    addLife(sums, life, registry.stateOf(life), clock.monotonicMs());
    if (++looked % LOOKED_AT === 0) yield;
  }
  for (const { service, cluster } of registry.expected.all()) addState(sumOf(sums, service, cluster), 'expected');
  for (const { labels, inFlight, queues, reportAgeMs, clockOffsetUs, states } of sums.values()) {
    for (const [state, count] of states) emit('instances', [...labels, state], count);
    for (const [source, depth] of queues) emit('queue_depth', [...labels, source], depth);
    if (inFlight !== undefined) emit('requests_in_flight', labels, inFlight);
    if (reportAgeMs === undefined) continue;
    emit('report_age_seconds', labels, reportAgeMs / 1000);
    emit('clock_offset_seconds', labels, clockOffsetUs / 1e6);
    if (++looked % LOOKED_AT === 0) yield;
  }
}

function sumOf(sums: Map<string, ServiceSum>, service: string, cluster: string): ServiceSum {
  const key = `${cluster}\0${service}`;
  const known = sums.get(key);
  if (known !== undefined) return known;
  const sum = { labels: [service, cluster] as const, queues: new Map(), clockOffsetUs: 0, states: new Map() };
  sums.set(key, sum);
  return sum;
}

const addState = ({ states }: ServiceSum, state: string): void => void states.set(state, (states.get(state) ?? 0) + 1);

function addLife(sums: Map<string, ServiceSum>, life: Life, state: string, nowMs: number): void {
  const sum = sumOf(sums, life.service, life.cluster);
  const word = state.replace('INSTANCE_STATE_', '').toLowerCase();
  addState(sum, word);
  if (word === 'gone') return;
  const ageMs = life.status === undefined ? nowMs - life.lastSeenMs : statusAgeMs(life, nowMs);
  sum.reportAgeMs = Math.max(sum.reportAgeMs ?? 0, ageMs);
  sum.clockOffsetUs = Math.max(sum.clockOffsetUs, Math.abs(life.clock.current.offsetUs));
  if (word !== 'live' || life.status === undefined) return;
  const { inFlight, queue, queueSource } = life.status;
  if (inFlight !== undefined) sum.inFlight = (sum.inFlight ?? 0) + inFlight;
  if (queue === undefined) return;
  const source = QUEUE_SOURCES[queueSource] ?? '';
  sum.queues.set(source, (sum.queues.get(source) ?? 0) + queue);
}

function collectCounts(counts: ServiceCounts, emit: Emit): void {
  const service = [counts.service, counts.cluster];
  let durationUs = 0;
  for (const row of counts.rows.values()) {
    const response = responseLabels(row.status, row.responseFlags, outcomeOf(row.flags));
    const labels = [...service, row.operation, ...response];
    durationUs += row.durationUsSum;
    if (counts.external) emit('external_calls_total', labels, row.count);
    else emit('events_total', [...labels, labelsOf(row.flags).join(',')], row.count);
  }
  if (!counts.external) emit('event_duration_seconds_total', service, durationUs / 1e6);
}

function responseLabels(status: number, responseFlags: number, outcome: number): string[] {
  const grpc = grpcStatusOf(status);
  const word = outcomeName(outcome).replace('OUTCOME_', '').toLowerCase();
  return [String(httpStatusOf(status)), grpc === undefined ? '' : String(grpc), responseFlagNames(responseFlags), word];
}

function collectLosses({ totals, clock }: MetricParts, emit: Emit): void {
  const losses = [...totals.losses(clock.monotonicMs())];
  for (const [service, loss] of losses) {
    emit('reports_lost_total', [service], loss.reports);
    emit('events_lost_total', [service], loss.events);
  }
  // A metric with no series at all cannot be told from one that is not exported.
  if (losses.length === 0) {
    emit('reports_lost_total', [''], 0);
    emit('events_lost_total', [''], 0);
  }
  for (const [service, count] of totals.uncleanByService) emit('lives_unclean_total', [service], count);
  if (totals.uncleanByService.size === 0) emit('lives_unclean_total', [''], 0);
  for (const [service, count] of totals.configErrorsByService) emit('filter_config_errors_total', [service], count);
  for (const [service, counts] of totals.filterCounts) {
    for (const [name, count] of counts) emit('filter_shortfalls_total', [service, name], count);
  }
}

function collectTransactions({ transactions }: MetricParts, emit: Emit): void {
  const { counters } = transactions;
  emit('transactions', [], transactions.size);
  emit('transactions_unlinked_total', [], transactions.unlinked);
  emit('transactions_forgotten_total', ['age'], counters['expired'] ?? 0);
  emit('transactions_forgotten_total', ['room'], counters['evicted'] ?? 0);
  emit('transaction_rows_total', ['duplicate'], counters['duplicateRows'] ?? 0);
  emit('transaction_rows_total', ['late'], counters['lateRows'] ?? 0);
  emit('transaction_rows_total', ['omitted'], counters['omittedEvents'] ?? 0);
  emit('in_flight_lists_dropped_total', [], counters['inFlightListsDropped'] ?? 0);
  emit('flow_dropped_total', [], counters['flowDropped'] ?? 0);
}

function collectIngest({ totals, ingest, counts, registry }: MetricParts, emit: Emit): void {
  emit('ingest_messages_total', [], totals.messages);
  emit('ingest_bytes_total', [], totals.bytes);
  emit('ingest_batches_total', ['stored'], totals.batches);
  emit('ingest_batches_total', ['replayed'], totals.replays);
  for (const [code, count] of totals.refused) emit('ingest_refused_total', [code], count);
  emit('report_streams', [], ingest.streams);
  emit('sample_ratio_wished', [], ingest.sampleRatioWished);
  emit('lives_evicted_total', [], registry.livesEvicted);
  emit('expected_evicted_total', [], registry.expected.evicted);
  emit('operations_overflow_total', [], counts.overflow);
}

function collectAccess({ access, tls }: MetricParts, emit: Emit): void {
  for (const [cause, count] of access?.refusals.total ?? []) emit('access_refused_total', [cause], count);
  if (tls !== undefined) emit('tls_certificate_end_timestamp_seconds', [], tls.notAfterMs / 1000);
  if (access === undefined && tls === undefined) return;
  const refused = [access?.fileRefused === true, tls !== undefined && tls.refused !== ''];
  emit('access_files_refused', [], refused.filter(Boolean).length);
}

function collectStore({ store }: MetricParts, emit: Emit): void {
  const stats = store.stats();
  emit('store_durable', [], stats.durable ? 1 : 0);
  emit('store_log_bytes', [], stats.bytes);
  emit('store_write_errors_total', [], stats.writeErrors);
  emit('store_quarantined_total', [], stats.quarantined);
  emit('store_positions_evicted_total', [], stats.positionsEvicted);
  emit('store_waiting_bytes', [], stats.shared?.waitingBytes ?? 0);
  emit('store_appends_total', ['stored'], stats.shared?.blobs ?? 0);
  emit('store_appends_total', ['again'], stats.shared?.blobsAgain ?? 0);
  emit('store_appends_total', ['lost'], stats.shared?.blobsLost ?? 0);
}

function collectReplicas({ replicas, recovered, rollback }: MetricParts, emit: Emit): void {
  emit('replicas', [], replicas?.membership.all.length ?? 1);
  emit('store_stale_seconds', [], (replicas?.staleMs ?? 0) / 1000);
  emit('replica_records_total', ['life'], recovered.lives);
  emit('replica_records_total', ['batch'], recovered.batches);
  emit('replica_records_total', ['entry'], recovered.entries);
  emit('replica_messages_unknown_total', [], replicas?.unknown ?? 0);
  emit('rollback_claims_lost_total', [], rollback.claimsLost);
}

function* collectEdges({ edges }: MetricParts, emit: Emit): Pieces<void> {
  let looked = 0;
  for (const { source, sourceWorkload, destination, status, responseFlags, outcome, count } of edges.all()) {
    const response = responseLabels(status, responseFlags, outcome);
    emit('calls_total', [source, sourceWorkload, destination, ...response], count);
    if (++looked % LOOKED_AT === 0) yield;
  }
}

function collectRollback({ rollback }: MetricParts, emit: Emit): void {
  const { ledger, verdicts, controls, proxies, abstained, parts, inForce } = rollback;
  // Metrics with no series at all could not be told from those that are not exported.
  for (const mode of ['observe', 'enforce']) {
    for (const reason of ['named', 'learned', 'triggered']) emit('rollback_signals_total', [mode, reason], 0);
  }
  emit('rollback_wrong_verdicts_total', ['', '', ''], 0);
  emit('requests_refused_total', ['', '', 'refused'], 0);
  emit('retries_suppressed_total', ['', ''], 0);
  for (const { mode, reason, count } of ledger.signalCounts()) emit('rollback_signals_total', [mode, reason], count);
  for (const { kind, service, operation, wrong } of ledger.all()) {
    emit('rollback_wrong_verdicts_total', [kind, service, operation], wrong);
  }
  for (const [reason, count] of abstained) emit('rollback_abstained_total', [reason], count);
  for (const { source, destination, refused, wouldRefuse, withheld, retriesSuppressed } of ledger.edges()) {
    emit('requests_refused_total', [source, destination, 'refused'], refused);
    emit('requests_refused_total', [source, destination, 'would_refuse'], wouldRefuse);
    emit('requests_refused_total', [source, destination, 'withheld'], withheld);
    emit('retries_suppressed_total', [source, destination], retriesSuppressed);
  }
  emit('work_saved_seconds_total', ['refused'], ledger.saved.workUs / 1e6);
  emit('work_saved_seconds_total', ['would_refuse'], ledger.saved.wouldWorkUs / 1e6);
  for (const record of verdicts.all()) emit('rollback_plans', [planState(record).toLowerCase()], 1);
  emit('rollback_in_force', [], inForce);
  emit('rollback_kills', [], controls.kills.length);
  emit('rollback_policy_refused', [], parts.policy.refused === '' ? 0 : 1);
  emit('directives_total', ['sent'], proxies.sent);
  emit('directives_total', ['dropped'], proxies.dropped);
}
