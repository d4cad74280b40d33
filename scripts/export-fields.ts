// The fields of what is exported, in words: docs/schema.md is made of them, and a test holds them against what is sent.

export interface ExportField {
  /** In a JSON line; '' = only in OTLP. */
  readonly line: string;
  /** In an OTLP log record: an attribute, a field of the record, or `resource` and its attribute; '' = only in a line. */
  readonly otlp: string;
  readonly type: 'text' | 'number' | 'flag' | 'list' | 'time';
  /** '' = none. */
  readonly unit: string;
  readonly help: string;
}

const field = (line: string, otlp: string, type: ExportField['type'], unit: string, help: string): ExportField => ({
  line,
  otlp,
  type,
  unit,
  help,
});

export const EXPORT_FIELDS: readonly ExportField[] = [
  field(
    'id',
    '`log.record.uid`',
    'text',
    '',
    'Of this row alone: producer, batch, row. Sent twice, it is the same row.',
  ),
  field('kind', 'event_name', 'text', '', '`event` or `call`; in OTLP `meshpulse.event` or `meshpulse.call`.'),
  field('at', 'time_unix_nano', 'time', '', 'When it ended, by the clock of the collector.'),
  field(
    'received',
    'observed_time_unix_nano',
    'time',
    '',
    'When the collector received it; decides the hour of a file.',
  ),
  field('operation', 'body', 'text', '', '`METHOD /path/*/template`, or `/package.Service/Method` for gRPC.'),
  field('outcome', '`meshpulse.outcome`', 'text', '', '`ok failed declined cancelled refused unspecified`.'),
  field('', 'severity_number, severity_text', 'text', '', 'INFO for ok, ERROR for failed, WARN for the rest.'),
  field('durationUs', '`meshpulse.duration_us`', 'number', 'us', 'From request headers to the end. Not for streams.'),
  field('responseCode', '`http.response.status_code`', 'number', '', 'HTTP status; absent = no answer.'),
  field('grpcStatus', '`rpc.grpc.status_code`', 'number', '', 'Absent = not gRPC.'),
  field('responseFlags', '`meshpulse.response_flags`', 'text', '', 'Short names of Envoy, comma-separated.'),
  field('details', '`meshpulse.response_code_details`', 'text', '', 'Envoy’s, unless `via_upstream`.'),
  field('key', '`meshpulse.transaction.id`', 'text', '', 'Transaction key, 32 hex digits.'),
  field('', 'trace_id', 'text', '', 'The key, when it was read from a trace context that others know it by.'),
  field('keySource', '', 'text', '', 'Where the key was read: `traceparent b3 … request-id`.'),
  field(
    'keyText',
    '`meshpulse.transaction.text`',
    'text',
    '',
    'The plain transaction id, only with `report.plainIds`.',
  ),
  field('requestId', '`meshpulse.request.id`', 'text', '', 'x-request-id, 32 hex digits.'),
  field('eventId', '`meshpulse.event.id`', 'text', '', 'Call id: the same at caller and callee, and on every attempt.'),
  field('spanIn', 'span_id', 'text', '', 'Span id that came in with the trace context.'),
  field('spanOut', '', 'text', '', 'Span id that went out.'),
  field('entry', '`meshpulse.entry`', 'flag', '', 'True where a transaction begins; absent otherwise.'),
  field('attempts', '`meshpulse.attempts`', 'number', '', 'Of a call by the caller’s proxy, 1 = no retry.'),
  field('waitUs', '`meshpulse.wait_us`', 'number', 'us', 'Waited for an upstream connection, where it was read.'),
  field('requestBytes', '`meshpulse.request_bytes`', 'number', 'bytes', 'Of streams.'),
  field('responseBytes', '`meshpulse.response_bytes`', 'number', 'bytes', 'Of streams.'),
  field('weight', '`meshpulse.weight`', 'number', 'events', 'How many the row stands for; absent = 1.'),
  field(
    'labels',
    '`meshpulse.labels`',
    'list',
    '',
    '`stream probe shadow own unseen local-reply would-refuse withheld …`; in OTLP comma-separated.',
  ),
  field('peerService', '`meshpulse.peer.service`', 'text', '', 'Of a call: the callee by its cluster’s host name.'),
  field('peerCuid', '`meshpulse.peer.cuid`', 'text', '', 'CUID of the other side.'),
  field('cuid', 'resource `service.instance.id`', 'text', '', 'CUID of the life that reported.'),
  field('service', 'resource `service.name`, `service.namespace`', 'text', '', '`name.namespace` of that life.'),
  field('cluster', 'resource `k8s.cluster.name`', 'text', '', 'Mesh cluster id.'),
  field('network', 'resource `meshpulse.network`', 'text', '', 'Mesh network id.'),
  field('node', 'resource `k8s.node.name`', 'text', '', ''),
  field('workload', 'resource `meshpulse.workload`', 'text', '', ''),
  field('slot', 'resource `meshpulse.slot`', 'text', '', 'What outlives the life.'),
  field('', 'resource `meshpulse.filter.version`', 'text', '', ''),
];
