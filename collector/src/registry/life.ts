// One container life, and what can be said of it at a moment.

import type { Counter, Hello, Progress, Status } from '../ingest/report.js';
import type { StoredAddress, StoredLife } from '../store/store.js';
import { OffsetEstimator } from './clock-offset.js';

/** Silent after this long without a message; unary senders after three of their idle periods. */
export const SILENT_MS = 30_000;
export const UNARY_IDLE_PERIODS = 3;

/** Idle period of a sender that does not say, ms. */
export const IDLE_MS_DEFAULT = 60_000;

/** Gone after this long without a message. */
export const GONE_MS = 5 * 60_000;

/** A job that nothing was heard of for this long is only shown when its life is asked for by name. */
export const PROGRESS_MS = 60_000;

/** Jobs kept of one life; the one without news for longest goes first. */
export const JOBS_MAX = 64;

export type Transport = 'stream' | 'unary';

export type LifeState = 'INSTANCE_STATE_LIVE' | 'INSTANCE_STATE_SILENT' | 'INSTANCE_STATE_GONE';

/** An address that a life had from some moment on. */
export interface AddressSpan {
  ip: string;
  ports: readonly number[];
  fromUs: number;
  toUs?: number;
}

export interface Job {
  readonly progress: Progress;
  readonly heardMs: number;
}

export interface Life {
  cuid: string;
  cuidAliases: readonly string[];
  scope: number;
  service: string;
  slot: string;
  workload: string;
  node: string;
  cluster: string;
  network: string;
  proxyId: string;
  bootEpochUs: number;
  version: string;
  edge: boolean;
  transport: Transport;
  reportIntervalMs: number;
  reportIdleMs: number;
  reportInFlightMs: number;
  configErrors: readonly string[];
  /** Of its filter, since that began. */
  counters: readonly Counter[];
  addresses: AddressSpan[];
  firstSeenUs: number;
  lastSeenUs: number;
  endedUs: number | undefined;
  clean: boolean;
  eventsLostMax: number;
  events: number;
  calls: number;
  reportsLost: number;
  eventsLost: number;
  producers: Set<string>;
  // What follows is not stored.
  /** Monotonic, for the lease. */
  lastSeenMs: number;
  /** Streams open now; a life with one is being heard. */
  streams: number;
  /** Another replica of the collector that has a stream of it; undefined = none. */
  elsewhere: string | undefined;
  /** What this replica put of it and the store has not placed yet. */
  puts: number;
  clock: OffsetEstimator;
  status: Status | undefined;
  statusMs: number;
  jobs: Map<string, Job>;
  /** Highest event rate seen, per second: in this minute and in the one before. */
  rate: { minute: number; now: number; before: number; sinceMs: number };
  /** State as last told to watchers. */
  shown: LifeState;
}

/** A life as its hello tells it. The address it begins with is added by the registry. */
export function newLife(hello: Hello, transport: Transport, nowUs: number, nowMs: number): Life {
  return make(hello, {
    transport,
    counters: hello.counters,
    addresses: [],
    firstSeenUs: nowUs,
    lastSeenUs: nowUs,
    endedUs: undefined,
    clean: false,
    eventsLostMax: 0,
    events: 0,
    calls: 0,
    reportsLost: 0,
    eventsLost: 0,
    producers: new Set(),
    nowMs,
  });
}

type Known = Pick<
  Life,
  | 'transport'
  | 'counters'
  | 'addresses'
  | 'firstSeenUs'
  | 'lastSeenUs'
  | 'clean'
  | 'eventsLostMax'
  | 'events'
  | 'calls'
  | 'reportsLost'
  | 'eventsLost'
  | 'producers'
> & { readonly endedUs: number | undefined; readonly nowMs: number };

/**
 * Every property by name, and all of them at once: with a spread in it V8 gives each life a layout of
 * its own, which costs 2 KiB a life and makes a walk over all of them twenty times as slow.
 */
function make(from: Omit<Hello, 'counters'> | StoredLife, known: Known): Life {
  return {
    cuid: from.cuid,
    cuidAliases: from.cuidAliases,
    scope: from.scope,
    service: from.service,
    slot: from.slot,
    workload: from.workload,
    node: from.node,
    cluster: from.cluster,
    network: from.network,
    proxyId: from.proxyId,
    bootEpochUs: from.bootEpochUs,
    version: from.version,
    edge: from.edge,
    transport: known.transport,
    reportIntervalMs: from.reportIntervalMs,
    reportIdleMs: from.reportIdleMs,
    reportInFlightMs: from.reportInFlightMs,
    configErrors: from.configErrors,
    counters: known.counters,
    addresses: known.addresses,
    firstSeenUs: known.firstSeenUs,
    lastSeenUs: known.lastSeenUs,
    endedUs: known.endedUs,
    clean: known.clean,
    eventsLostMax: known.eventsLostMax,
    events: known.events,
    calls: known.calls,
    reportsLost: known.reportsLost,
    eventsLost: known.eventsLost,
    producers: known.producers,
    lastSeenMs: known.nowMs,
    streams: 0,
    elsewhere: undefined,
    puts: 0,
    clock: new OffsetEstimator(),
    status: undefined,
    statusMs: known.nowMs,
    jobs: new Map(),
    rate: { minute: 0, now: 0, before: 0, sinceMs: known.nowMs },
    shown: known.endedUs === undefined ? 'INSTANCE_STATE_LIVE' : 'INSTANCE_STATE_GONE',
  };
}

/** What of a life its hello says, for a new life and for one that comes back. */
export function identityOf(
  hello: Hello | Life,
): Pick<
  Life,
  | 'cuid'
  | 'cuidAliases'
  | 'scope'
  | 'service'
  | 'slot'
  | 'workload'
  | 'node'
  | 'cluster'
  | 'network'
  | 'proxyId'
  | 'bootEpochUs'
  | 'version'
  | 'edge'
  | 'reportIntervalMs'
  | 'reportIdleMs'
  | 'reportInFlightMs'
  | 'configErrors'
  | 'counters'
> {
  const { cuid, cuidAliases, scope, service, slot, workload, node, cluster, network, proxyId, bootEpochUs } = hello;
  const { version, edge, reportIntervalMs, reportIdleMs, reportInFlightMs, configErrors, counters } = hello;
  return {
    cuid,
    cuidAliases,
    scope,
    service,
    slot,
    workload,
    node,
    cluster,
    network,
    proxyId,
    bootEpochUs,
    version,
    edge,
    reportIntervalMs,
    reportIdleMs,
    reportInFlightMs,
    configErrors,
    counters,
  };
}

/** After how long without a message the life is silent, ms. */
export function silentAfterMs(life: Life): number {
  return life.transport === 'stream' ? SILENT_MS : UNARY_IDLE_PERIODS * (life.reportIdleMs || IDLE_MS_DEFAULT);
}

export function stateOf(life: Life, nowMs: number): LifeState {
  if (life.endedUs !== undefined) return 'INSTANCE_STATE_GONE';
  return nowMs - life.lastSeenMs > silentAfterMs(life) ? 'INSTANCE_STATE_SILENT' : 'INSTANCE_STATE_LIVE';
}

/** Length of the window that peak rates are taken over, ms: this one and the one before count. */
const RATE_WINDOW_MS = 60_000;

/** Notes that `events` came in one message, the last one having come `sinceLastMs` earlier. */
export function noteRate(life: Life, events: number, nowMs: number): void {
  const { rate } = life;
  const minute = Math.floor(nowMs / RATE_WINDOW_MS);
  if (minute !== rate.minute) {
    rate.before = minute === rate.minute + 1 ? rate.now : 0;
    rate.now = 0;
    rate.minute = minute;
  }
  const gatheredMs = Math.max(nowMs - rate.sinceMs, 1);
  // Failures are sent at once, so two messages can lie close together: their events were gathered
  // over a report interval at least, or a rate would be made of nothing.
  const perSecond = (events * 1000) / Math.max(gatheredMs, Math.min(life.reportIntervalMs || 1000, 1000));
  rate.now = Math.max(rate.now, perSecond);
  rate.sinceMs = nowMs;
}

/**
 * The most events that can be missing of a life that ended without goodbye: its highest rate of late,
 * over the time in which it may have lived unheard, and what was in work when last heard. Rates are
 * averages over a report interval, and a burst fits into less, so that time is one interval at least.
 */
export function eventsLostMax(life: Life, unheardMs: number): number {
  const perSecond = Math.max(life.rate.now, life.rate.before);
  const inWork = (life.status?.inFlight ?? 0) + (life.status?.callsInFlight ?? 0);
  const ms = Math.max(unheardMs, life.reportIntervalMs || 1000);
  return Math.ceil((perSecond * ms) / 1000) + inWork;
}

export function toStored(life: Life): StoredLife {
  const { endedUs } = life;
  return {
    ...identityOf(life),
    transport: life.transport,
    firstSeenUs: life.firstSeenUs,
    lastSeenUs: life.lastSeenUs,
    ...(endedUs === undefined ? {} : { endedUs }),
    clean: life.clean,
    eventsLostMax: life.eventsLostMax,
    events: life.events,
    calls: life.calls,
    reportsLost: life.reportsLost,
    eventsLost: life.eventsLost,
    producers: [...life.producers],
    addresses: life.addresses.map(address => ({ ...address })),
  };
}

/** Whether some replica of the collector has a stream of it. */
export const isConnected = (life: Life): boolean => life.streams > 0 || life.elsewhere !== undefined;

/** A stored life is given a full lease from now on: whether it still lives, its proxy will say. */
export function fromStored(stored: StoredLife, nowMs: number): Life {
  return make(stored, {
    transport: stored.transport,
    counters: stored.counters ?? [],
    addresses: stored.addresses.map((address: StoredAddress) => ({ ...address })),
    firstSeenUs: stored.firstSeenUs,
    lastSeenUs: stored.lastSeenUs,
    endedUs: stored.endedUs,
    clean: stored.clean,
    eventsLostMax: stored.eventsLostMax,
    events: stored.events,
    calls: stored.calls,
    reportsLost: stored.reportsLost,
    eventsLost: stored.eventsLost,
    producers: new Set(stored.producers),
    nowMs,
  });
}
