// The registry's state as messages of the API. Pure but for the registry it reads.

import { labelsOf, grpcStatusOf, httpStatusOf, outcomeOf } from '../ingest/columns.js';
import type { Progress, Status } from '../ingest/report.js';
import type { Holder } from '../registry/addresses.js';
import type { CountRow } from '../registry/counts.js';
import type { ExpectedInstance } from '../registry/expected.js';
import type { Life } from '../registry/life.js';
import type { Registry } from '../registry/registry.js';
import { responseFlagNames } from '../registry/response-flags.js';

/** google.protobuf.Timestamp and Duration. */
export interface Seconds {
  readonly seconds: string;
  readonly nanos: number;
}

export function timestamp(us: number): Seconds {
  const seconds = Math.floor(us / 1e6);
  return { seconds: String(seconds), nanos: Math.round(us - seconds * 1e6) * 1000 };
}

/** us since 1970 of a Timestamp, or us of a Duration; undefined when it is not set. */
export function microseconds(
  value: { seconds?: string | number; nanos?: number } | null | undefined,
): number | undefined {
  if (value === null || value === undefined) return undefined;
  return Number(value.seconds ?? 0) * 1e6 + Math.trunc((value.nanos ?? 0) / 1000);
}

const OUTCOMES = ['UNSPECIFIED', 'OK', 'FAILED', 'DECLINED', 'CANCELLED', 'REFUSED'];
const QUEUE_SOURCES = ['UNSPECIFIED', 'APP', 'SOCK', 'POOL'];
const SCOPES = ['', 'proxy', 'container'];

/** Name of an Outcome; one that this version does not know is OUTCOME_UNSPECIFIED. */
export const outcomeName = (outcome: number): string => `OUTCOME_${OUTCOMES[outcome] ?? OUTCOMES[0]!}`;

export function operationCount(row: CountRow): object {
  const grpcStatus = grpcStatusOf(row.status);
  return {
    operation: row.operation,
    responseCode: httpStatusOf(row.status),
    ...(grpcStatus === undefined ? {} : { grpcStatus }),
    responseFlags: responseFlagNames(row.responseFlags),
    outcome: outcomeName(outcomeOf(row.flags)),
    labels: labelsOf(row.flags),
    count: String(row.count),
  };
}

/** `allJobs`: also those that nothing was heard of for a minute. */
export function instance(life: Life, registry: Registry, nowMs: number, allJobs = false): object {
  const { offsetUs, errorUs } = life.clock.current;
  const address = life.addresses.at(-1);
  return {
    cuid: life.cuid,
    cuidAliases: life.cuidAliases,
    scope: SCOPES[life.scope] ?? '',
    service: life.service,
    slot: life.slot,
    workload: life.workload,
    node: life.node,
    cluster: life.cluster,
    network: life.network,
    ip: address?.ip ?? '',
    ports: address?.ports ?? [],
    proxyId: life.proxyId,
    version: life.version,
    state: registry.stateOf(life),
    unclean: life.endedUs !== undefined && !life.clean,
    eventsLostMax: String(life.eventsLostMax),
    firstSeen: timestamp(life.firstSeenUs),
    lastSeen: timestamp(life.lastSeenUs),
    ...(life.endedUs === undefined ? {} : { ended: timestamp(life.endedUs) }),
    clockOffsetMs: offsetUs / 1000,
    clockErrorMs: errorUs / 1000,
    ...(life.status === undefined ? {} : { status: status(life.status), statusAgeMs: statusAgeMs(life, nowMs) }),
    progress: registry.jobs(life, allJobs).map(({ progress: job, ageMs }) => progress(job, ageMs)),
    events: String(life.events),
    calls: String(life.calls),
    reportsLost: String(life.reportsLost),
    eventsLost: String(life.eventsLost),
    configErrors: life.configErrors,
    edge: life.edge,
    transport: life.transport,
  };
}

/** An instance that never reported: all that is known of it is what callers say. */
export function expectedInstance(expected: ExpectedInstance): object {
  const { cuid, service, cluster, network, ip, port, firstUs, lastUs } = expected;
  return {
    cuid,
    service,
    cluster,
    network,
    ip,
    ports: port === 0 ? [] : [port],
    state: 'INSTANCE_STATE_EXPECTED',
    firstSeen: timestamp(firstUs),
    lastSeen: timestamp(lastUs),
  };
}

/** Age of the last status, ms, including the age it had when it was sent. */
export const statusAgeMs = (life: Life, nowMs: number): number =>
  Math.min(0xffffffff, Math.round(nowMs - life.statusMs) + (life.status?.ageMs ?? 0));

function status(from: Status): object {
  return { ...from, queueSource: `QUEUE_SOURCE_${QUEUE_SOURCES[from.queueSource] ?? QUEUE_SOURCES[0]!}` };
}

function progress(from: Progress, ageMs: number): object {
  const { done, of, queue } = from;
  return {
    job: from.job,
    ...(done === undefined ? {} : { done: String(done) }),
    ...(of === undefined ? {} : { of: String(of) }),
    ...(queue === undefined ? {} : { queue: String(queue) }),
    state: from.state,
    event: from.event,
    ageMs,
  };
}

export function addressInterval({ life, span, port, lastHeardUs }: Holder): object {
  return {
    cluster: life.cluster,
    network: life.network,
    ip: span.ip,
    port,
    from: timestamp(span.fromUs),
    ...(span.toUs === undefined ? {} : { to: timestamp(span.toUs) }),
    ...(lastHeardUs === undefined ? {} : { lastHeard: timestamp(lastHeardUs) }),
    cuid: life.cuid,
    service: life.service,
    slot: life.slot,
    node: life.node,
  };
}
