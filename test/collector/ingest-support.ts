// Reports for tests: written as plain objects, encoded by generated code.

import { service } from '../../collector/src/rpc/protos.js';

export const CUID = '0f8fad5b-d9cb-469f-a165-70867728950e';
export const OTHER_CUID = '7c9e6679-7425-40de-944b-e07fc1f90ae7';

export type Plain = Record<string, unknown>;

/** A ReportRequest as proto-loader takes it, encoded by protobufjs. */
export const encodeReport = (report: Plain): Buffer => service('Ingest')['Report']!.requestSerialize(report);

export const hello = (extra: Plain = {}): Plain => ({
  proxyId: 'sidecar~10.0.0.7~pay-1.shop~shop.svc.cluster.local',
  cluster: 'c1',
  network: 'n1',
  cuid: CUID,
  scope: 'CUID_SCOPE_PROXY',
  service: 'payment.shop',
  slot: 'payment-0',
  workload: 'payment',
  node: 'node-1',
  version: '0.1.0',
  bootEpoch: '1700000000000000',
  producers: [{ id: '11', nextSeq: '1' }],
  ip: '10.0.0.7',
  ports: [8080],
  reportIntervalMs: 1000,
  reportIdleMs: 60000,
  ...extra,
});

export interface RowSpec {
  readonly operation?: string;
  readonly status?: number;
  readonly responseFlags?: number;
  readonly flags?: number;
  readonly outcome?: number;
  readonly peerService?: string;
  readonly peerCuid?: string;
  readonly durationUs?: number;
}

const OUTCOME_OK = 1;

/** Columns of the rows, each with an id of its own. */
export function columns(rows: readonly RowSpec[], baseUnixUs = 1_700_000_000_000_000): Plain {
  const strings = [''];
  const index = (text = ''): number => {
    const known = strings.indexOf(text);
    return known >= 0 ? known : strings.push(text) - 1;
  };
  return {
    rows: rows.length,
    baseUnixUs: String(baseUnixUs),
    endOffsetUs: rows.map((_, i) => i),
    durationUs: rows.map(row => row.durationUs ?? 1000),
    keyHi: rows.map((_, i) => String(i + 1)),
    keyLo: rows.map((_, i) => String(i + 1)),
    eventId: rows.map((_, i) => String(i + 1)),
    operation: rows.map(row => index(row.operation ?? 'GET /pay')),
    peerService: rows.map(row => index(row.peerService)),
    peerCuid: rows.map(row => index(row.peerCuid)),
    status: rows.map(row => row.status ?? 200),
    responseFlags: rows.map(row => row.responseFlags ?? 0),
    flags: rows.map(row => (row.flags ?? 0) | ((row.outcome ?? OUTCOME_OK) << 16)),
    strings,
  };
}

/** Batch `seq` of a producer whose batches all hold `rows` rows. */
export function batch(seq: number, rows: readonly RowSpec[], extra: Plain = {}): Plain {
  return {
    producer: '11',
    seq: String(seq),
    firstEvent: String((seq - 1) * rows.length),
    events: columns(rows),
    ...extra,
  };
}
