// Every metric, declared once: the exporter, dashboards, alert rules and docs share this list.
// Names are prefixed with `meshpulse_`. Labels never hold a CUID, an id or a raw path.

export interface Metric {
  readonly type: 'counter' | 'gauge' | 'histogram';
  /** Base unit, or what is counted. */
  readonly unit: string;
  readonly labels: readonly string[];
  readonly help: string;
  /** One series per pair of services: these are folded into `other` first. */
  readonly perEdge?: true;
  /**
   * All replicas know it alike, and one of them exports it: that which the value of this label falls to, or, if it is
   * '', the name of the metric. Absent: each replica exports its own.
   */
  readonly one?: string;
}

export const PREFIX = 'meshpulse_';

const SERVICE = ['destination_service', 'destination_cluster'] as const;
const RESPONSE = ['response_code', 'grpc_response_status', 'response_flags', 'outcome'] as const;

export const CATALOGUE = {
  build_info: { type: 'gauge', unit: '1', labels: ['version'], help: 'Always 1; the labels tell the version.' },
  requests_in_flight: {
    type: 'gauge',
    unit: 'requests',
    labels: SERVICE,
    help: 'Requests and streams in work, by the live instances that say so.',
    one: 'destination_service',
  },
  queue_depth: {
    type: 'gauge',
    unit: 'requests',
    labels: [...SERVICE, 'queue_source'],
    help: 'Requests waiting, by the live instances that have a source for it.',
    one: 'destination_service',
  },
  report_age_seconds: {
    type: 'gauge',
    unit: 'seconds',
    labels: SERVICE,
    help: 'Age of the oldest last report among the instances that have not ended.',
    one: 'destination_service',
  },
  instances: {
    type: 'gauge',
    unit: 'instances',
    labels: [...SERVICE, 'state'],
    help: 'Instances by state; `expected` ones are called inside the mesh and never reported.',
    one: 'destination_service',
  },
  clock_offset_seconds: {
    type: 'gauge',
    unit: 'seconds',
    labels: SERVICE,
    help: 'Largest distance of an instance clock from the collector clock.',
    one: 'destination_service',
  },
  events_total: {
    type: 'counter',
    unit: 'events',
    labels: [...SERVICE, 'operation', ...RESPONSE, 'kind'],
    help: 'Requests answered, exactly; `kind` tells streams, probes and the like apart.',
    one: 'destination_service',
  },
  event_duration_seconds_total: {
    type: 'counter',
    unit: 'seconds',
    labels: SERVICE,
    help: 'Sum of the durations of the requests counted in events_total, streams without.',
    one: 'destination_service',
  },
  external_calls_total: {
    type: 'counter',
    unit: 'calls',
    labels: [...SERVICE, 'operation', ...RESPONSE],
    help: 'Calls to services without a sidecar, as their callers count them.',
    one: 'destination_service',
  },
  reports_lost_total: {
    type: 'counter',
    unit: 'reports',
    labels: ['destination_service'],
    help: 'Numbered batches that never came, counted when they have been missing for 2 s.',
    one: 'destination_service',
  },
  events_lost_total: {
    type: 'counter',
    unit: 'events',
    labels: ['destination_service'],
    help: 'Rows that never came, or were dropped before they were in a batch, counted 2 s after that was known.',
    one: 'destination_service',
  },
  lives_unclean_total: {
    type: 'counter',
    unit: 'instances',
    labels: ['destination_service'],
    help: 'Lives that ended without goodbye.',
    one: 'destination_service',
  },
  filter_config_errors_total: {
    type: 'counter',
    unit: 'errors',
    labels: ['destination_service'],
    help: 'Faults in pluginConfig that filters reported.',
    one: 'destination_service',
  },
  filter_shortfalls_total: {
    type: 'counter',
    unit: 'times',
    labels: ['destination_service', 'reason'],
    help: 'What filters could not do, by their own counters: requests unstamped for size, batches dropped, and the like.',
    one: 'destination_service',
  },
  transactions_unlinked_total: {
    type: 'counter',
    unit: 'events',
    labels: [],
    help: 'Events from an in-mesh caller whose call carries another transaction: trace headers were not forwarded.',
    one: '',
  },
  transactions: { type: 'gauge', unit: 'transactions', labels: [], help: 'Transactions kept.' },
  transactions_forgotten_total: {
    type: 'counter',
    unit: 'transactions',
    labels: ['reason'],
    help: 'Transactions no longer kept: by age, or for want of room.',
  },
  transaction_rows_total: {
    type: 'counter',
    unit: 'rows',
    labels: ['result'],
    help: 'Rows that were there already, came after their flow was learned, or were past what one transaction keeps.',
  },
  in_flight_lists_dropped_total: {
    type: 'counter',
    unit: 'lists',
    labels: [],
    help: 'Lists of running requests given up for want of room.',
  },
  flow_dropped_total: {
    type: 'counter',
    unit: 'parts',
    labels: [],
    help: 'Kinds, steps and edges of the flow not learned or given up for want of room.',
  },
  ingest_messages_total: { type: 'counter', unit: 'messages', labels: [], help: 'Report messages taken.' },
  ingest_bytes_total: { type: 'counter', unit: 'bytes', labels: [], help: 'Bytes of report messages.' },
  ingest_batches_total: {
    type: 'counter',
    unit: 'batches',
    labels: ['result'],
    help: 'Batches stored, and replays passed over.',
  },
  ingest_refused_total: { type: 'counter', unit: 'messages', labels: ['code'], help: 'Reports refused, by gRPC code.' },
  sample_ratio_wished: {
    type: 'gauge',
    unit: '1',
    labels: [],
    help: 'Share of transactions whose rows filters are asked for; below 1 this process has too much to do.',
  },
  report_streams: { type: 'gauge', unit: 'streams', labels: [], help: 'Report streams open.' },
  reads_total: {
    type: 'counter',
    unit: 'reads',
    labels: ['result'],
    help: 'Reads of the API answered, and refused because reads-max were in line.',
  },
  reads_waiting: { type: 'gauge', unit: 'reads', labels: [], help: 'Reads of the API in line or under way.' },
  access_refused_total: {
    type: 'counter',
    unit: 'calls',
    labels: ['reason'],
    help: 'Calls refused: nobody known (`unauthenticated`), no role for it, out of reach (`scope`), or no TLS.',
  },
  tls_certificate_end_timestamp_seconds: {
    type: 'gauge',
    unit: 'seconds',
    labels: [],
    help: 'When the certificate that the collector shows ends, since 1970.',
  },
  access_files_refused: {
    type: 'gauge',
    unit: 'files',
    labels: [],
    help: 'Access file and certificates that are wrong as they are now; what was before stays in force.',
  },
  store_durable: { type: 'gauge', unit: '1', labels: [], help: '1 while what is acknowledged outlives a restart.' },
  store_log_bytes: {
    type: 'gauge',
    unit: 'bytes',
    labels: [],
    help: 'Bytes in the current log file, or in the log that replicas share, as far as this one has read it.',
  },
  store_write_errors_total: {
    type: 'counter',
    unit: 'errors',
    labels: [],
    help: 'Writes to the data folder that failed.',
  },
  store_quarantined_total: {
    type: 'counter',
    unit: 'files',
    labels: [],
    help: 'Unreadable pieces of the log that were put aside.',
  },
  store_stale_seconds: {
    type: 'gauge',
    unit: 'seconds',
    labels: [],
    help: 'For how long the store of several replicas has not been heard; 0 = it is.',
  },
  store_waiting_bytes: {
    type: 'gauge',
    unit: 'bytes',
    labels: [],
    help: 'Records that wait for the log that replicas share; 64 MiB are the most.',
  },
  store_appends_total: {
    type: 'counter',
    unit: 'blobs',
    labels: ['result'],
    help: 'Appends of this replica to that log: stored; again, as a failover had lost them; lost for good.',
  },
  replicas: { type: 'gauge', unit: 'replicas', labels: [], help: 'Replicas heard within 3 s, this one included.' },
  replica_records_total: {
    type: 'counter',
    unit: 'records',
    labels: ['record'],
    help: 'Records of other replicas applied: lives, batches, entries of rollback.',
  },
  replica_messages_unknown_total: {
    type: 'counter',
    unit: 'messages',
    labels: [],
    help: 'Messages of other replicas that were not understood.',
  },
  rollback_claims_lost_total: {
    type: 'counter',
    unit: 'verdicts',
    labels: [],
    help: 'Verdicts that were void, because another replica was first with one on the same transaction.',
  },
  store_positions_evicted_total: {
    type: 'counter',
    unit: 'producers',
    labels: [],
    help: 'Producer positions forgotten to keep their bound.',
  },
  lives_evicted_total: {
    type: 'counter',
    unit: 'instances',
    labels: [],
    help: 'Ended lives forgotten, by age or number.',
  },
  expected_evicted_total: {
    type: 'counter',
    unit: 'instances',
    labels: [],
    help: 'Instances that never reported, no longer listed for want of room.',
  },
  operations_overflow_total: {
    type: 'counter',
    unit: 'events',
    labels: [],
    help: 'Events counted under `other` because a service has too many operations.',
  },
  rollback_signals_total: {
    type: 'counter',
    unit: 'verdicts',
    labels: ['mode', 'reason'],
    help: 'Transactions found doomed, by the mode in force and by what said so.',
    one: '',
  },
  rollback_wrong_verdicts_total: {
    type: 'counter',
    unit: 'verdicts',
    labels: ['kind', 'destination_service', 'operation'],
    help: 'Verdicts whose transaction went on to succeed, by the step that had failed.',
    one: '',
  },
  rollback_abstained_total: {
    type: 'counter',
    unit: 'decisions',
    labels: ['reason'],
    help: 'Final failures that led to no verdict, and why.',
  },
  rollback_in_force: { type: 'gauge', unit: 'verdicts', labels: [], help: 'Verdicts that filters hold now.', one: '' },
  rollback_plans: {
    type: 'gauge',
    unit: 'plans',
    labels: ['state'],
    help: 'Plans by state, of the verdicts remembered.',
    one: '',
  },
  rollback_kills: { type: 'gauge', unit: 'scopes', labels: [], help: 'Kill switches that are on.', one: '' },
  rollback_policy_refused: {
    type: 'gauge',
    unit: '1',
    labels: [],
    help: '1 while the policy file is wrong and the one before stays in force.',
  },
  directives_total: {
    type: 'counter',
    unit: 'directives',
    labels: ['result'],
    help: 'Directives sent, and those that found no room.',
  },
  requests_refused_total: {
    type: 'counter',
    unit: 'requests',
    labels: ['source_service', 'destination_service', 'result'],
    help: 'Requests of doomed transactions: refused, would_refuse in observe, withheld by the budget.',
    one: '',
  },
  retries_suppressed_total: {
    type: 'counter',
    unit: 'calls',
    labels: ['source_service', 'destination_service'],
    help: 'Calls of which further attempts were not made.',
    one: '',
  },
  work_saved_seconds_total: {
    type: 'counter',
    unit: 'seconds',
    labels: ['result'],
    help: 'Learned durations of what was refused, or would have been, with all it would have caused.',
    one: '',
  },
  signal_latency_seconds: {
    type: 'histogram',
    unit: 'seconds',
    labels: [],
    help: 'From the end of a failed call until a directive was in force at another proxy.',
  },
  export_records_total: {
    type: 'counter',
    unit: 'records',
    labels: ['sink', 'result'],
    help: 'Events and signals for a sink: delivered, dropped for want of room or time, refused by the sink.',
  },
  export_tries_total: {
    type: 'counter',
    unit: 'tries',
    labels: ['sink', 'result'],
    help: 'Requests to a sink or writes to its file: ok, to be tried again, refused for good.',
  },
  export_bytes_total: {
    type: 'counter',
    unit: 'bytes',
    labels: ['sink'],
    help: 'Bytes that a sink took, compressed as they are sent or written.',
  },
  export_waiting_records: {
    type: 'gauge',
    unit: 'records',
    labels: ['sink'],
    help: 'Events and signals that wait for a sink, or for its answer.',
  },
  export_queue_bytes: {
    type: 'gauge',
    unit: 'bytes',
    labels: ['sink'],
    help: 'Bytes of what waits; past export-queue-bytes-max the oldest go.',
  },
  export_files_bytes: { type: 'gauge', unit: 'bytes', labels: ['sink'], help: 'Bytes of the files of a folder.' },
  export_thread_deaths_total: {
    type: 'counter',
    unit: 'times',
    labels: [],
    help: 'Times that the thread of the exports died and was started again.',
  },
  series_overflow_total: {
    type: 'counter',
    unit: 'series',
    labels: [],
    help: 'Distinct series that were folded into `other`.',
  },
  calls_total: {
    type: 'counter',
    unit: 'calls',
    labels: ['source_service', 'source_workload', 'destination_service', ...RESPONSE],
    help: 'Calls by caller and callee, as callers count them, after retries.',
    perEdge: true,
    one: 'source_service',
  },
} as const satisfies Record<string, Metric>;

export type MetricName = keyof typeof CATALOGUE;

/** The table of docs/collector.md. */
export function metricsTable(): string {
  const rows = Object.entries(CATALOGUE as Record<string, Metric>).map(
    ([name, { type, labels, help }]) =>
      `| \`${PREFIX}${name}\` | ${type} | ${labels.map(label => `\`${label}\``).join(' ')} | ${help} |`,
  );
  return ['| name | type | labels | |', '|---|---|---|---|', ...rows].join('\n');
}
