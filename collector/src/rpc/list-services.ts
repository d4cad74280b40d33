// Registry.ListServices

import type { ServiceCounts } from '../registry/counts.js';
import type { LifeState } from '../registry/life.js';
import { LOOKED_AT, MADE, type Pieces } from '../slices.js';
import { operationCount, timestamp } from './encode.js';
import { matches, page, pageSize } from './pages.js';
import type { ReadParts } from './parts.js';

export interface ListServicesRequest {
  readonly service?: string;
  readonly namespace?: string;
  readonly pageSize?: number;
  readonly pageToken?: string;
}

interface Row {
  readonly name: string;
  readonly cluster: string;
  counts?: ServiceCounts;
  readonly states: Record<LifeState, number>;
  expected: number;
  inFlight: number | undefined;
  queue: number | undefined;
}

export function* listServices(parts: ReadParts, request: ListServicesRequest): Pieces<object> {
  const { service = '', namespace = '', pageToken = '' } = request;
  const size = pageSize(request.pageSize);
  const rows = yield* gather(parts, name => matches(name, service, namespace) && parts.permit.reads.covers(name));
  const { items, nextPageToken } = yield* page(rows, row => `${row.name} ${row.cluster}`, size, pageToken);
  const services: object[] = [];
  for (const row of items) {
    if (services.length % MADE === 0) yield;
    services.push(encode(row, parts.countingSinceUs()));
  }
  return { services, nextPageToken };
}

function* gather(parts: ReadParts, wanted: (service: string) => boolean): Pieces<Iterable<Row>> {
  const rows = new Map<string, Row>();
  const rowOf = (name: string, cluster: string): Row => {
    const key = `${cluster}\0${name}`;
    let row = rows.get(key);
    if (row === undefined) {
      const states = { INSTANCE_STATE_LIVE: 0, INSTANCE_STATE_SILENT: 0, INSTANCE_STATE_GONE: 0 };
      rows.set(key, (row = { name, cluster, states, expected: 0, inFlight: undefined, queue: undefined }));
    }
    return row;
  };
  for (const counts of parts.counts.all()) {
    if (wanted(counts.service)) rowOf(counts.service, counts.cluster).counts = counts;
  }
  let looked = 0;
  for (const life of parts.registry.all()) {
    if (++looked % LOOKED_AT === 0) yield;
    if (!wanted(life.service)) continue;
    const row = rowOf(life.service, life.cluster);
    const state = parts.registry.stateOf(life);
    row.states[state] += 1;
    if (state !== 'INSTANCE_STATE_LIVE') continue;
    row.inFlight = sum(row.inFlight, life.status?.inFlight);
    row.queue = sum(row.queue, life.status?.queue);
  }
  for (const one of parts.registry.expected.all()) {
    if (wanted(one.service)) rowOf(one.service, one.cluster).expected += 1;
  }
  return rows.values();
}

/** Absent where nobody says, never 0. */
function sum(total: number | undefined, value: number | undefined): number | undefined {
  return value === undefined ? total : (total ?? 0) + value;
}

function encode(row: Row, countingSinceUs: number): object {
  const { name, cluster, counts, states, expected, inFlight, queue } = row;
  return {
    name,
    cluster,
    live: states.INSTANCE_STATE_LIVE,
    silent: states.INSTANCE_STATE_SILENT,
    gone: states.INSTANCE_STATE_GONE,
    expected,
    external: counts?.external ?? false,
    ...(inFlight === undefined ? {} : { inFlight }),
    ...(queue === undefined ? {} : { queue }),
    operations: counts === undefined ? [] : [...counts.rows.values()].map(operationCount),
    events: String(counts?.events ?? 0),
    countingSince: timestamp(countingSinceUs),
  };
}
