/**
 * One proxy process: threads with a VM each, and what they share.
 *
 * Nothing runs by itself. `settle` runs what threads posted to each other (queue callbacks, gRPC answers);
 * `clock.advance` turns time, fires ticks, and settles after each.
 */
import { createHash } from 'node:crypto';
import { Context } from './context.js';
import { Exchange, type ExchangeOptions } from './exchange.js';
import { FakeClock } from './fake-clock.js';
import { Faults } from './faults.js';
import type { GrpcRemote } from './grpc.js';
import type { HttpRemote } from './http-call.js';
import { moduleProblems, readModule } from './module-check.js';
import type { PropertyTree } from './properties.js';
import { RootContext } from './root-context.js';
import { Metrics, SharedData, SharedQueues } from './shared.js';
import { Thread } from './thread.js';
import { Vm, type LogLine } from './vm.js';

export type FailurePolicy = 'closed' | 'open' | 'reload';

export interface ProxyOptions {
  readonly wasm: Uint8Array;
  /** Worker threads, 1 or more; the main thread gets a VM besides. Default 1. */
  readonly workers?: number;
  readonly clock?: FakeClock;
  /** Random bytes; the default is a seeded generator, so that a failing run repeats. */
  readonly random?: (length: number) => Uint8Array;
  /** Environment of the VMs. */
  readonly environment?: Readonly<Record<string, string>>;
  /** What `xds.node` and the like show, to root contexts too. */
  readonly properties?: PropertyTree;
  /** 0 trace to 5 critical. Default 2, info. */
  readonly logLevel?: number;
  /** Request headers that the bootstrap registers as inline. */
  readonly inlineRequestHeaders?: readonly string[];
  /** `false` leaves out the canary VM of each plugin: for suites that push thousands of configurations. */
  readonly canary?: boolean;
}

export interface PluginOptions {
  readonly name?: string;
  readonly rootId?: string;
  /** pluginConfig, as text or as raw bytes. */
  readonly configuration?: string | Uint8Array;
  /** Plugins of one vm_id and module share a VM. */
  readonly vmId?: string;
  readonly failurePolicy?: FailurePolicy;
  /** Seen by this plugin's contexts in addition to those of the process. */
  readonly properties?: PropertyTree;
  /** Another module than the process's, as in an upgrade. */
  readonly wasm?: Uint8Array;
}

export interface Plugin {
  readonly name: string;
  readonly rootId: string;
  readonly configuration: string | Uint8Array;
  readonly vmId: string;
  readonly vmKey: string;
  readonly failurePolicy: FailurePolicy;
  readonly properties: PropertyTree;
  readonly module: WebAssembly.Module;
}

/** The proxy refuses the configuration: the module cannot load, or on_configure said no. */
export class ConfigurationRejected extends Error {}

/** More posted actions than this in one `settle` means that two threads keep each other busy for ever. */
const SETTLE_MAX = 100_000;
/** Log lines kept; older ones go first. */
const LOG_LINES_MAX = 10_000;

export class ProxyProcess {
  readonly clock: FakeClock;
  readonly sharedData = new SharedData();
  readonly queues = new SharedQueues();
  readonly metrics = new Metrics();
  readonly faults = new Faults();
  readonly grpcClusters = new Map<string, GrpcRemote>();
  readonly httpClusters = new Map<string, HttpRemote>();
  readonly environment: Readonly<Record<string, string>>;
  readonly properties: PropertyTree;
  readonly logLevel: number;
  readonly inlineRequestHeaders: readonly string[];
  readonly main: Thread;
  readonly workers: readonly Thread[];
  readonly logs: LogLine[] = [];
  readonly foreignCalls: string[] = [];
  /** Pairs buffers that the host had to read as an empty list: each one would have deleted every header. */
  malformedPairs = 0;
  grpcStreamsOpened = 0;
  nextConnectionId = 1;
  private readonly wasm: Uint8Array;
  private readonly canary: boolean;
  private readonly randomSource: (length: number) => Uint8Array;
  private readonly vmContexts = new WeakMap<Vm, Context>();

  constructor(options: ProxyOptions) {
    this.wasm = options.wasm;
    this.canary = options.canary ?? true;
    this.clock = options.clock ?? new FakeClock();
    this.clock.afterEach = () => this.settle();
    this.randomSource = options.random ?? seededRandom(1);
    this.environment = options.environment ?? {};
    this.properties = options.properties ?? {};
    this.logLevel = options.logLevel ?? 2;
    this.inlineRequestHeaders = options.inlineRequestHeaders ?? [];
    this.main = new Thread(this, 'main');
    this.workers = Array.from({ length: options.workers ?? 1 }, (_, i) => new Thread(this, `worker ${String(i)}`));
  }

  get threads(): readonly Thread[] {
    return [this.main, ...this.workers];
  }

  /** @throws RangeError when there is no such worker */
  worker(index: number): Thread {
    const worker = this.workers[index];
    if (worker === undefined) throw new RangeError(`worker ${String(index)} of ${String(this.workers.length)}`);
    return worker;
  }

  /**
   * Configures a plugin: first a canary VM on the main thread, which is thrown away, then every thread's VM.
   *
   * @throws ConfigurationRejected
   */
  addPlugin(options: PluginOptions = {}): Plugin {
    const plugin = this.describe(options);
    if (this.canary) this.tryCanary(plugin);
    for (const thread of this.threads) {
      if (thread.install(plugin) === undefined) {
        throw new ConfigurationRejected(thread.vm(plugin)?.failure?.message ?? `${thread.name} refused the plugin`);
      }
    }
    return plugin;
  }

  /** @param order  which threads hear of it first; a proxy promises neither */
  removePlugin(plugin: Plugin, order: 'main first' | 'workers first' = 'main first'): void {
    const threads = order === 'main first' ? this.threads : [...this.workers, this.main];
    for (const thread of threads) {
      thread.uninstall(plugin);
      if (order === 'workers first') this.settle();
    }
  }

  /** Ends the process gracefully: every root context gets its on_done. */
  shutdown(plugins: readonly Plugin[]): void {
    for (const plugin of plugins) this.removePlugin(plugin);
    this.settle();
  }

  exchange(worker: number, plugin: Plugin, options: ExchangeOptions): Exchange {
    return new Exchange(this.worker(worker), plugin, options);
  }

  /** Runs posted actions of all threads, in turns, until none is left. */
  settle(): void {
    for (let i = 0; i < SETTLE_MAX; i++) {
      if (!this.threads.map(thread => thread.runPosted()).includes(true)) return;
    }
    throw new Error(`still busy after ${String(SETTLE_MAX)} rounds`);
  }

  log(level: number, text: string): void {
    this.logs.push({ level, text });
    if (this.logs.length > LOG_LINES_MAX) this.logs.shift();
  }

  random(length: number): Uint8Array {
    return this.randomSource(length);
  }

  /** Live root contexts of a plugin, the main thread's first. */
  roots(plugin: Plugin): RootContext[] {
    return this.threads.map(thread => thread.root(plugin)).filter(root => root !== undefined);
  }

  /** What failed, on any thread. */
  failures(plugin: Plugin): string[] {
    return this.threads.flatMap(thread => {
      const failure = thread.vm(plugin)?.failure;
      return failure === undefined ? [] : [`${thread.name}: ${failure.message}\n${failure.stack}`];
    });
  }

  /** The context that stands for a VM as a whole, while it initialises or allocates. */
  vmContext(vm: Vm): Context {
    let context = this.vmContexts.get(vm);
    if (context === undefined) this.vmContexts.set(vm, (context = new VmContext(vm)));
    return context;
  }

  private describe(options: PluginOptions): Plugin {
    const bytes = options.wasm ?? this.wasm;
    const vmId = options.vmId ?? '';
    const { digest, module } = compiled(bytes);
    const vmKey = `${vmId}||${digest}`;
    const name = options.name ?? 'plugin';
    const rootId = options.rootId ?? name;
    return {
      name,
      rootId,
      configuration: options.configuration ?? '',
      vmId,
      vmKey,
      failurePolicy: options.failurePolicy ?? 'open',
      properties: {
        ...this.properties,
        ...options.properties,
        plugin_name: name,
        plugin_root_id: rootId,
        plugin_vm_id: vmId,
      },
      module,
    };
  }

  private tryCanary(plugin: Plugin): void {
    const vm = new Vm(this, this.main, plugin.module, plugin.vmId, true);
    vm.initialize();
    if (vm.failed) throw new ConfigurationRejected(vm.failure?.message ?? 'the module did not start');
    const root = new RootContext(vm, plugin);
    const accepted = root.start() && root.configure();
    root.discard();
    if (!accepted) throw new ConfigurationRejected(vm.failure?.message ?? 'the plugin refused its configuration');
  }
}

interface Compiled {
  readonly digest: string;
  readonly module: WebAssembly.Module;
}

/** Compiled once for all processes of a test run, so that hot code stays hot. */
const compiledModules = new WeakMap<Uint8Array, Compiled>();

/** @throws ConfigurationRejected for whatever the proxy would not link */
function compiled(bytes: Uint8Array): Compiled {
  let known = compiledModules.get(bytes);
  if (known !== undefined) return known;
  const problems = moduleProblems(readModule(bytes));
  if (problems.length > 0) throw new ConfigurationRejected(problems.join('; '));
  known = { digest: createHash('sha256').update(bytes).digest('hex'), module: new WebAssembly.Module(bytes) };
  compiledModules.set(bytes, known);
  return known;
}

class VmContext extends Context {
  constructor(vm: Vm) {
    super(vm, 0);
    vm.contexts.delete(0); // id 0 can not be made effective
  }

  get root(): RootContext {
    throw new Error('a VM context has no root');
  }

  property(): undefined {
    return undefined;
  }
}

/** xorshift32: good enough for ids in tests, and repeatable. */
export function seededRandom(seed: number): (length: number) => Uint8Array {
  let state = seed === 0 ? 1 : seed >>> 0;
  return length => {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      state >>>= 0;
      bytes[i] = state & 0xff;
    }
    return bytes;
  };
}
