// The collector as a whole: its parts wired together, started, and stopped in order.

import { Access } from './access/access.js';
import { Gate } from './access/gate.js';
import { PERMIT_ALL } from './access/permit.js';
import type { Tell } from './access/refusals.js';
import { TlsFiles } from './access/tls.js';
import { TokenReview } from './access/token-review.js';
import { systemClock, type Clock } from './clock.js';
import type { Address, Config } from './config.js';
import { tellAgain } from './export/again.js';
import { Exports } from './export/exports.js';
import { HttpServer } from './http/server.js';
import { Applier } from './ingest/apply.js';
import { Ingest } from './ingest/ingest.js';
import { IngestTotals } from './ingest/totals.js';
import type { Logger } from './log.js';
import { collect } from './metrics/collect.js';
import { Exporter } from './metrics/exporter.js';
import { VERSION } from './paths.js';
import { recovery, snapshotSource, type Recovered } from './recover.js';
import { Counts } from './registry/counts.js';
import { Edges } from './registry/edges.js';
import { Registry } from './registry/registry.js';
import { callbackBody } from './rollback/callback.js';
import { Rollback } from './rollback/controller.js';
import { Learner } from './rollback/learner.js';
import { defaultPolicy, PolicyFile } from './rollback/policy-source.js';
import { storyOf } from './rollback/story.js';
import { Replicas } from './replicas/replicas.js';
import { PeerLimiter } from './rpc/limits.js';
import type { ReadParts } from './rpc/parts.js';
import { ReadGate } from './rpc/read-gate.js';
import { Speakers } from './rpc/report.js';
import { RpcServer } from './rpc/server.js';
import { chooseStore } from './store/choose.js';
import type { Store } from './store/store.js';
import { Transactions } from './transactions/index.js';

export interface CollectorOptions {
  readonly config: Config;
  readonly log: Logger;
  /** The machine's clock if absent. */
  readonly clock?: Clock;
  /** Share of its time in which this process worked since the last call; measured if absent. */
  readonly busyRatio?: () => number;
  /** In place of the one that the configuration names. */
  readonly store?: Store;
}

export interface RunningCollector {
  /** `HOST:PORT` that is really listened on. */
  readonly grpc: string;
  readonly http: string;
  /** Lets leases and deadlines run out as of now; the collector does so by itself four times a second. */
  tick(): void;
  /** Drains and stops. A second call waits for the first. */
  stop(): Promise<void>;
  /** Settles when this replica can no longer follow the others: it must stop, and start as a new process. */
  readonly behind: Promise<Error>;
}

const TICK_MS = 250;

const NOBODY: readonly string[] = [];

/** How often it is looked how busy the process is. */
const LOAD_MS = 1000;

/** Calls still under way at the end of the drain are cut off after this long. */
const STOP_GRACE_MS = 1000;

/**
 * Starts a collector: recovers what the store kept, then listens.
 *
 * @throws ConfigError when an address or the data folder cannot be had
 */
export async function startCollector({
  config,
  log,
  clock = systemClock(),
  store: given,
  busyRatio = loadMeter(),
}: CollectorOptions): Promise<RunningCollector> {
  // What the settings name is read before anything is opened: a fault in it is the operator's to mend.
  const tls = config.tls === undefined ? undefined : new TlsFiles(config.tls, log);
  const gate = openGate(config, clock, log, (who, call, why, result) =>
    rollback.archive.audit('refused', who, why, call, result),
  );
  const registry = new Registry({
    clock,
    retainMs: config.retainLivesMs,
    retainMax: config.retainLivesMax,
    instancesMax: config.instancesMax,
  });
  const counts = new Counts();
  const edges = new Edges();
  const totals = new IngestTotals();
  const policy =
    config.rollbackPolicy === undefined
      ? defaultPolicy(clock.nowUs())
      : new PolicyFile(config.rollbackPolicy, clock.nowUs(), log);
  const learner = new Learner(() => policy.policy.declined);
  const transactions: Transactions = new Transactions({
    clock,
    retainMs: config.retainEventsMs,
    retainFailedMs: config.retainFailedMs,
    retainFlowMs: config.retainFlowMs,
    transactionsMax: config.transactionsMax,
    resolveService: cuid => registry.find(cuid)?.service,
    resolveCuid: cuid => registry.find(cuid)?.cuid ?? cuid,
    decisions: view => {
      const record = rollback.verdictOf(view);
      return record === undefined ? [] : storyOf(record, clock.nowUs());
    },
    // Only what was left alone is evidence: once enforced, `the whole failed too` is always true.
    lessons: {
      add: (view, atUs) => (rollback.isEnforced(view) ? learner.addEnforced(view, atUs) : learner.add(view, atUs)),
      skim: (kind, atUs) => learner.skim(kind, atUs),
      secondEntry: (kind, second) => learner.secondEntry(kind, second),
      snapshot: () => learner.snapshot(),
      restore: state => learner.restore(state),
    },
  });
  let leave: (error: Error) => void = () => undefined;
  const behind = new Promise<Error>(resolve => (leave = resolve));
  const store = given ?? chooseStore(config, log, error => leave(error));
  let exports: Exports | undefined = undefined as Exports | undefined;
  const rollback: Rollback = new Rollback({
    clock,
    registry,
    transactions,
    learner,
    policy,
    log,
    put: entries => store.putRollback(entries),
    retention: config.retention,
    changed: records => exports?.verdicts(records),
    latency: seconds => exporter.observe('signal_latency_seconds', seconds),
    callbackBody,
  });
  const applier = new Applier(registry, counts, edges, transactions, rollback);
  const recovered: Recovered = { live: false, lives: 0, batches: 0, entries: 0, countingSinceUs: clock.nowUs() };
  const recoverParts = { clock, registry, counts, edges, applier, transactions, totals, rollback };
  await store.open(recovery(recoverParts, recovered), snapshotSource(recoverParts, recovered));
  // Metrics go on exactly where they stopped, or begin at 0: what recovery did is no news.
  counts.overflow = 0;
  transactions.beginCounting();
  rollback.begin();
  if (keeps(config)) log.info({ ...recovered }, 'state recovered');
  Object.assign(recovered, { live: true, lives: 0, batches: 0, entries: 0 });
  const { shared } = store;
  const replicas =
    shared === undefined
      ? undefined
      : new Replicas({ clock, log, registry, transactions, rollback, recovered, shared });
  exports = await Exports.open({ settings: config.exports, clock, log }).catch(closing(store));
  const opened = { close: () => Promise.all([store.close(), exports?.close()]) };
  await replicas?.join();

  const ingest = new Ingest({
    clock,
    registry,
    counts,
    store,
    transactions,
    applier,
    totals,
    log,
    rollback,
    ...(exports === undefined ? {} : { exports }),
    ...(replicas === undefined ? {} : { replicas }),
    streamsMax: config.streamsMax,
  });
  if (replicas !== undefined) replicas.ingest = ingest;
  rollback.proxies.tell = (life, directives) => ingest.tell(life, directives);
  const access = gate?.access;
  const limiter = new PeerLimiter(config.peerMessagesPerSecond);
  const reads: ReadParts = {
    clock,
    registry,
    counts,
    transactions,
    rollback,
    permit: PERMIT_ALL,
    countingSinceUs: () => recovered.countingSinceUs,
    gate: new ReadGate(config.readsMax),
    staleMs: () => replicas?.staleMs ?? 0,
  };
  const speakers = gate === undefined ? {} : { speakers: new Speakers(gate, registry) };
  const rpc = new RpcServer({ ingest, limiter, totals, clock, log, ...speakers }, reads, config, log, gate);
  const measured = { clock, registry, counts, edges, ingest, totals, store, transactions, rollback, access, tls };
  const exporter: Exporter = new Exporter(config.metricsSeriesMax, emit =>
    collect({ ...measured, gate: reads.gate, exports, recovered, replicas }, emit),
  );
  let ready = false;
  const http = new HttpServer({
    reads,
    metrics: () => exporter.render(),
    ready: () => ready,
    log,
    ...(access === undefined ? {} : { access }),
    ...(tls === undefined ? {} : { tls }),
  });

  const again = tellAgain(
    rollback,
    () => replicas?.membership.all ?? NOBODY,
    records => exports?.verdicts(records),
  );
  const tick = (): void => {
    registry.tick();
    ingest.tick();
    replicas?.tick();
    transactions.tick(clock.nowUs());
    rollback.tick(clock.nowUs());
    again(clock.nowUs());
    void gate?.tick(clock.monotonicMs());
    tls?.look(clock.monotonicMs());
  };
  const asksClients = config.tls?.clientCa !== undefined;
  const secure = tls === undefined ? undefined : { files: tls, asksClients };
  const grpcPort = await rpc.listen(config.grpc, secure).catch(closing(opened));
  const httpPort = await http.listen(config.http).catch(async (error: unknown) => {
    await rpc.stop(0);
    return closing(opened)(error);
  });
  const timer = setInterval(tick, TICK_MS);
  const loadTimer = setInterval(() => ingest.load(busyRatio()), LOAD_MS);
  ready = true;
  rpc.serving(true);

  const stop = async (): Promise<void> => {
    ready = false;
    rpc.serving(false);
    await drain(ingest, config.drainMs);
    clearInterval(timer);
    clearInterval(loadTimer);
    await rpc.stop(STOP_GRACE_MS);
    replicas?.leave();
    await opened.close();
    await http.stop();
  };
  let stopping: Promise<void> | undefined;
  return {
    grpc: text(config.grpc, grpcPort),
    http: text(config.http, httpPort),
    tick,
    stop: () => (stopping ??= stop()),
    behind,
  };
}

/** Undefined = whoever reaches the addresses may do everything. */
function openGate(config: Config, clock: Clock, log: Logger, tell: Tell): Gate | undefined {
  const { access: settings } = config;
  if (settings === undefined) return undefined;
  const { tokenReview } = settings;
  const tokens =
    tokenReview === undefined ? {} : { tokens: new TokenReview(tokenReview, () => clock.monotonicMs(), log) };
  return new Gate(new Access({ settings, clock, log, tell, ...tokens }), log);
}

/** How busy this process is, of itself: the share of time in which it did not wait for anything. */
function loadMeter(): () => number {
  let before = performance.eventLoopUtilization();
  return () => {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, before);
    before = now;
    return utilization;
  };
}

/** What the log says at start: version, settings, and what a restart would lose. */
export function announceStart(config: Config, running: RunningCollector, log: Logger): void {
  for (const note of config.notes) log.warn(note);
  log.info(
    { version: VERSION, grpc: running.grpc, http: running.http, settings: config.effective },
    'collector started',
  );
  if (config.access === undefined && config.insecure) {
    log.warn('nobody is asked who they are: whoever reaches these addresses may report, read and change everything');
  }
  if (!keeps(config)) {
    log.warn(
      'without --data-dir or Redis a restart loses lives and addresses, counts, transactions, flow and producer positions',
    );
  }
}

/** A restart finds again what was stored. */
const keeps = ({ store, dataDir }: Config): boolean => store.type !== 'memory' || dataDir !== undefined;

/** How often it is looked whether the streams have gone, ms. */
const DRAIN_CHECK_MS = 20;

/** Asks all streams to go elsewhere, waits until they have, at most `drainMs`, and ends the rest. */
async function drain(ingest: Ingest, drainMs: number): Promise<void> {
  ingest.drain(drainMs);
  const endMs = performance.now() + drainMs;
  while (ingest.streams > 0 && performance.now() < endMs) {
    await new Promise(resolve => setTimeout(resolve, DRAIN_CHECK_MS));
  }
  ingest.endAll();
}

const closing =
  (store: { close(): Promise<unknown> }) =>
  async (error: unknown): Promise<never> => {
    await store.close();
    throw error;
  };

const text = ({ host }: Address, port: number): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
