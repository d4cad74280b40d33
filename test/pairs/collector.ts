/**
 * The collector as it runs, without its sockets: the very bytes of the filters go in, the very bytes of its
 * answers come out, and both take their time. Its clock is the simulator's.
 */
import type { GrpcRemote, GrpcServerStream } from '../support/proxy-wasm-host.js';
import { Applier } from '../../collector/src/ingest/apply.js';
import { decodeReport } from '../../collector/src/ingest/decode-report.js';
import { Ingest, type Peer, type Reply, type Session } from '../../collector/src/ingest/ingest.js';
import { IngestTotals } from '../../collector/src/ingest/totals.js';
import { openLog } from '../../collector/src/log.js';
import { Counts } from '../../collector/src/registry/counts.js';
import { Edges } from '../../collector/src/registry/edges.js';
import { Registry } from '../../collector/src/registry/registry.js';
import { callbackBody } from '../../collector/src/rollback/callback.js';
import { Rollback } from '../../collector/src/rollback/controller.js';
import { Learner } from '../../collector/src/rollback/learner.js';
import { parsePolicy } from '../../collector/src/rollback/policy-file.js';
import type { Policy } from '../../collector/src/rollback/policy.js';
import type { PolicySource } from '../../collector/src/rollback/policy-source.js';
import { service } from '../../collector/src/rpc/protos.js';
import { MemoryStore } from '../../collector/src/store/memory.js';
import { Transactions } from '../../collector/src/transactions/index.js';
import type { Clock } from '../../collector/src/clock.js';
import type { Simulator } from './simulator.js';

/** One way between a filter and the collector, ms. */
const WAY_MS = 0.4;
const TICK_MS = 250;
const HOUR_MS = 3600_000;
/** Small enough that old transactions go while a long run lasts. */
const TRANSACTIONS_MAX = 20_000;
const GRPC_UNAVAILABLE = 14;

/** A policy that the harness changes as an operator would change the file. */
class GivenPolicy implements PolicySource {
  policy: Policy;
  readonly path = '';
  readonly refused = '';

  constructor(
    public text: string,
    public loadedUs: number,
  ) {
    this.policy = parsePolicy(text);
  }

  look(): boolean {
    return false;
  }
}

const encode = service('Ingest')['Report']!.responseSerialize as (reply: Reply) => Buffer;

export class Collector implements GrpcRemote {
  readonly rollback: Rollback;
  readonly learner: Learner;
  readonly transactions: Transactions;
  readonly registry: Registry;
  /** What went wrong on the way; a run with any has failed. */
  readonly faults: unknown[] = [];
  private readonly ingest: Ingest;
  private readonly source: GivenPolicy;

  constructor(
    private readonly simulator: Simulator,
    policy: string,
  ) {
    const clock = clockOf(simulator);
    const log = openLog('silent');
    const limits = { retainMs: HOUR_MS, retainMax: 1000, instancesMax: 1000 };
    const registry = new Registry({ clock, ...limits });
    const counts = new Counts();
    const learner = new Learner(() => this.source.policy.declined);
    const transactions: Transactions = new Transactions({
      clock,
      retainMs: HOUR_MS,
      retainFailedMs: HOUR_MS,
      retainFlowMs: HOUR_MS,
      transactionsMax: TRANSACTIONS_MAX,
      seed: 1,
      resolveService: cuid => registry.find(cuid)?.service,
      resolveCuid: cuid => registry.find(cuid)?.cuid ?? cuid,
      lessons: {
        add: (view, atUs) =>
          this.rollback.isEnforced(view) ? learner.addEnforced(view, atUs) : learner.add(view, atUs),
        skim: (kind, atUs) => learner.skim(kind, atUs),
        secondEntry: (kind, second) => learner.secondEntry(kind, second),
        snapshot: () => learner.snapshot(),
        restore: state => learner.restore(state),
      },
    });
    this.source = new GivenPolicy(policy, clock.nowUs());
    const store = new MemoryStore({ retainMs: HOUR_MS, logBytesMax: 0, positionsMax: 1000, log });
    this.rollback = new Rollback({
      clock,
      registry,
      transactions,
      learner,
      policy: this.source,
      log,
      put: entries => store.putRollback(entries),
      latency: () => undefined,
      callbackBody,
    });
    const { rollback } = this;
    const applier = new Applier(registry, counts, new Edges(), transactions, rollback);
    const totals = new IngestTotals();
    this.ingest = new Ingest({
      ...{ clock, registry, counts, store, transactions, applier, totals, log, rollback },
      streamsMax: 1000,
    });
    rollback.proxies.tell = (life, directives) => this.ingest.tell(life, directives);
    rollback.begin();
    this.learner = learner;
    this.transactions = transactions;
    this.registry = registry;
    simulator.every(TICK_MS, () => this.tick(clock));
  }

  set policy(text: string) {
    this.source.policy = parsePolicy(text);
    this.source.text = text;
  }

  readonly onStream = (stream: GrpcServerStream): void => {
    const { simulator } = this;
    const peer: Peer = {
      transport: 'stream',
      fail: error => {
        this.faults.push(error);
        stream.close(GRPC_UNAVAILABLE, error.message);
      },
      tell: reply => {
        const bytes = encode(reply);
        simulator.after(WAY_MS, () => this.deliver(stream, bytes));
      },
    };
    const session = this.ingest.open(peer);
    stream.onMessage = bytes => {
      stream.received.length = 0;
      simulator.after(WAY_MS, () => this.take(session, bytes));
    };
    stream.onReset = () => this.ingest.close(session);
  };

  private take(session: Session, bytes: Buffer): void {
    this.ingest.take(session, decodeReport(bytes)).then(
      reply => session.peer.tell(reply),
      (error: unknown) => this.faults.push(error),
    );
  }

  private deliver(stream: GrpcServerStream, bytes: Buffer): void {
    stream.send(bytes);
    this.simulator.clock.afterEach();
  }

  private tick(clock: Clock): void {
    this.registry.tick();
    this.ingest.tick();
    this.transactions.tick(clock.nowUs());
    this.rollback.tick(clock.nowUs());
  }
}

const clockOf = ({ clock }: Simulator): Clock => ({
  nowUs: () => Number(clock.realtimeNs() / 1000n),
  monotonicMs: () => Number(clock.monotonicNs()) / 1e6,
});
