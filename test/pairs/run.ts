/** One run: a mesh, a collector, and transactions that begin one after the other. */
import { SCENARIOS, scenarioOf } from './clients.js';
import { isEnforced } from '../../collector/src/rollback/verdicts.js';
import { Collector } from './collector.js';
import { Draws } from './draws.js';
import { Mesh } from './mesh.js';
import { SERVICES } from './shop.js';
import { Simulator } from './simulator.js';
import { Work, type Refusal, type Runtime } from './work.js';

export interface RunOptions {
  readonly seed: number;
  /** How many transactions begin. */
  readonly count: number;
  /** How many of them only teach, before anything is enforced. */
  readonly learn: number;
  /** Nothing fails for good while it is learned: nobody has seen what applications do then. */
  readonly quiet?: boolean;
  /** `rollback.mode` of the filters. */
  readonly mode: 'off' | 'enforce';
}

/** What became of one transaction. */
export interface Result {
  readonly index: number;
  readonly scenario: string;
  readonly traceId: string;
  /** Status of each entry and each consumed message. */
  readonly results: ReadonlyMap<string, number>;
  /** What services keep of it. */
  readonly state: string;
  readonly forward: number;
  readonly refundsIssued: number;
  readonly refundsDelivered: number;
  readonly refusals: readonly Refusal[];
}

export interface Run {
  /** By index. */
  readonly results: readonly Result[];
  /** Requests that reached each operation's application, from the first enforced transaction on. */
  readonly handled: ReadonlyMap<string, number>;
  /** Enforced verdicts by reason, and the transaction keys of those whose transaction succeeded. */
  readonly verdicts: ReadonlyMap<string, number>;
  readonly wrong: readonly string[];
  /** Signals by transaction key: somebody was told to undo something. */
  readonly signals: ReadonlyMap<string, number>;
  readonly virtualMs: number;
}

/** Between the beginnings of two transactions, ms. */
const PAUSE_MS = 5;
/** Until all that was learned is in, ms. */
const SETTLE_MS = 15_000;
const INSTANCES = 2;

const STEPS = `
steps:
  - service: payment.shop
    operation: POST /charge
    kinds: [gateway.shop POST /checkout]
never:
  - audit.shop POST /record
`;

export async function run(options: RunOptions): Promise<Run> {
  const { seed, count, learn, mode } = options;
  const simulator = new Simulator();
  const collector = new Collector(simulator, `mode: observe${STEPS}`);
  const config = { rollback: { mode } };
  const services = Object.keys(SERVICES);
  const mesh = new Mesh(simulator, { services, instances: INSTANCES, config, collector });
  const handled = new Map<string, number>();
  const runtime: Runtime = { simulator, mesh, services: SERVICES, handled };
  const signals = watchSignals(collector, services, simulator);
  await mesh.connect();
  const taught = await play(runtime, seed, 0, learn, options.quiet === true);
  await rest(simulator, SETTLE_MS);
  collector.policy = `mode: enforce${STEPS}`;
  handled.clear();
  const enforced = await play(runtime, seed, learn, count, false);
  await rest(simulator, SETTLE_MS);
  for (const instance of mesh.all()) instance.assertAlive();
  if (collector.faults.length > 0) throw new AggregateError(collector.faults, 'the collector refused a report');
  const results = [...taught, ...enforced];
  return { results, handled, signals, ...verdictsOf(collector), virtualMs: simulator.nowMs };
}

/** Begins the transactions from `from` on, and waits until all that happens because of them is over. */
async function play(runtime: Runtime, seed: number, from: number, to: number, quiet: boolean): Promise<Result[]> {
  const { simulator } = runtime;
  const results: Result[] = [];
  let over = 0;
  const begin = (index: number): void => {
    if (index >= to) return;
    const work = new Work(runtime, seed, index, scenarioOf(new Draws(seed, index).share('scenario')), quiet);
    work.onOver(() => {
      over += 1;
      results[index - from] = resultOf(work);
    });
    void work.track(SCENARIOS[work.scenario]!.start(work));
    simulator.after(PAUSE_MS, () => begin(index + 1));
  };
  begin(from);
  await simulator.run(() => over === to - from);
  return results;
}

async function rest(simulator: Simulator, ms: number): Promise<void> {
  let over = false;
  simulator.after(ms, () => (over = true));
  await simulator.run(() => over);
}

/** Services that say at once that they have undone what they are told to. @returns signals by transaction */
function watchSignals(
  { rollback }: Collector,
  services: readonly string[],
  simulator: Simulator,
): ReadonlyMap<string, number> {
  const told = new Map<string, number>();
  for (const service of services) {
    rollback.watchers.add({
      service: `${service}.shop`,
      cuid: '',
      deliver: ({ record, step }) => {
        told.set(record.key, (told.get(record.key) ?? 0) + 1);
        simulator.after(1, () => void rollback.plans.acknowledge(step.signalId, service));
      },
    });
  }
  return told;
}

function verdictsOf({ rollback }: Collector): Pick<Run, 'verdicts' | 'wrong'> {
  const enforced = [...rollback.verdicts.all()].filter(isEnforced);
  const verdicts = new Map<string, number>();
  for (const { reason } of enforced) verdicts.set(reason, (verdicts.get(reason) ?? 0) + 1);
  return { verdicts, wrong: enforced.filter(({ succeeded }) => succeeded === true).map(({ key }) => key) };
}

function resultOf(work: Work): Result {
  const { index, scenario, traceId, results, state, forward, refundsIssued, refundsDelivered, refusals } = work;
  return { index, scenario, traceId, results, state, forward, refundsIssued, refundsDelivered, refusals };
}
