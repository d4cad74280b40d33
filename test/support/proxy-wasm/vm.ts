/**
 * One virtual machine: an instance of the module on one thread of the proxy, with its contexts.
 *
 * A trap ends it: every later callback is skipped. Actions that the guest asks for inside a callback
 * (local replies, closes that were known at once) run after the callback returned, as in the host.
 */
import { ALLOWED_IN_INITIALIZE, ALLOWED_IN_MALLOC } from './abi.js';
import type { Context } from './context.js';
import { envImports } from './imports-env.js';
import { wasiImports } from './imports-wasi.js';
import { GuestMemory } from './memory.js';
import type { ProxyProcess } from './process.js';
import { MetricHandles } from './shared.js';
import type { RootContext } from './root-context.js';
import type { Thread } from './thread.js';

export interface VmFailure {
  /** `runtime` = a trap; the others mean the VM never came up. */
  readonly kind: 'load' | 'start' | 'configure' | 'runtime';
  readonly message: string;
  readonly stack: string;
}

/** Ends the guest from inside a host call. */
export class HostTrap extends Error {}

export interface LogLine {
  /** 0 trace, 1 debug, 2 info, 3 warn, 4 error, 5 critical. */
  readonly level: number;
  readonly text: string;
}

type GuestFunction = (...args: number[]) => number | undefined;

export class Vm {
  private instance: WebAssembly.Instance | undefined;
  private guestMemory: GuestMemory | undefined;
  private readonly functions = new Map<string, GuestFunction>();
  private readonly afterCall: (() => void)[] = [];
  private nextContextId = 1;
  private readonly nextCallout = [0, 1, 2];
  private current: Context | undefined;
  private effectiveId = 0;
  private restricted: ReadonlySet<string> | undefined;
  private readonly failCallbacks: (() => void)[] = [];

  failure: VmFailure | undefined;
  private destroyed = false;
  stopNextIteration = false;
  readonly contexts = new Map<number, Context>();
  readonly metrics: MetricHandles;
  /** How often each import was called. */
  readonly hostCalls = new Map<string, number>();
  /** Bytes the host asked the guest to allocate. */
  allocatedBytes = 0;

  constructor(
    readonly process: ProxyProcess,
    readonly thread: Thread,
    private readonly module: WebAssembly.Module,
    readonly vmId: string,
    readonly canary: boolean,
  ) {
    this.metrics = new MetricHandles(process.metrics);
  }

  get memory(): GuestMemory {
    if (this.guestMemory === undefined) throw new HostTrap('the module has no memory');
    return this.guestMemory;
  }

  get failed(): boolean {
    return this.failure !== undefined;
  }

  /** Root contexts of this VM, ended ones excluded. */
  rootContexts(): RootContext[] {
    return [...this.contexts.values()].filter(context => context.root === context).map(context => context.root);
  }

  liveRoots(): RootContext[] {
    return this.rootContexts().filter(root => root.live);
  }

  /** The last plugin went: no callback reaches this VM any more. */
  destroy(): void {
    this.destroyed = true;
  }

  /** Runs `action` when the VM traps. */
  onFail(action: () => void): void {
    this.failCallbacks.push(action);
  }

  /** Instantiates the module and runs `_initialize` (or `_start`). */
  initialize(): void {
    try {
      const names = WebAssembly.Module.imports(this.module);
      const imports: WebAssembly.Imports = {};
      const env = envImports(this);
      const wasi = wasiImports(this);
      for (const { module, name } of names) {
        const functions = module === 'env' ? env : module.startsWith('wasi_') ? wasi : {};
        const implementation = functions[name];
        if (implementation === undefined) continue; // instantiation then says which one is missing
        (imports[module] ??= {})[name] = this.guarded(name, implementation);
      }
      this.instance = new WebAssembly.Instance(this.module, imports);
      const memory = this.instance.exports['memory'];
      if (memory instanceof WebAssembly.Memory) this.guestMemory = new GuestMemory(memory);
      for (const [name, value] of Object.entries(this.instance.exports)) {
        if (typeof value === 'function') this.functions.set(name, value as GuestFunction);
      }
    } catch (error) {
      this.fail('load', error);
      return;
    }
    this.restricted = ALLOWED_IN_INITIALIZE;
    this.raw(this.process.vmContext(this), this.functions.has('_initialize') ? '_initialize' : '_start');
    this.restricted = undefined;
  }

  has(callback: string): boolean {
    return this.functions.has(callback);
  }

  /** The context a host call works on: the effective one if the guest set one that still lives. */
  context(): Context {
    const context = this.contexts.get(this.effectiveId) ?? this.current;
    if (context === undefined) throw new HostTrap('host call outside any callback');
    return context;
  }

  setEffective(id: number): boolean {
    if (!this.contexts.has(id)) return false;
    this.effectiveId = id;
    return true;
  }

  get inCall(): boolean {
    return this.current !== undefined;
  }

  allocContextId(): number {
    return this.nextContextId++;
  }

  nextToken(type: 0 | 1 | 2): number {
    const token = this.nextCallout[type] ?? 0;
    this.nextCallout[type] = token + 4;
    return token;
  }

  /** Runs `action` after the running callback, or at once when none runs. */
  defer(action: () => void): void {
    if (this.inCall) this.afterCall.push(action);
    else action();
  }

  /** A callback into the guest. Absent callbacks and dead VMs answer `undefined`. */
  upcall<T>(
    context: Context,
    callback: string,
    args: readonly number[],
    convert: (result: number) => T,
  ): T | undefined {
    if (this.failed || this.destroyed || !this.functions.has(callback)) return undefined;
    const result = this.raw(context, callback, ...args);
    const converted = this.failed ? undefined : convert(result);
    this.stopNextIteration = false;
    this.runAfterCall();
    return converted;
  }

  /**
   * Asks the guest for memory and copies `bytes` there; writes pointer and size for the guest. Empty values
   * cost no allocation: pointer 0, size 0.
   */
  give(bytes: Uint8Array, pointerAt: number, sizeAt: number): boolean {
    let pointer = 0;
    if (bytes.length > 0) {
      pointer = this.allocate(bytes.length);
      if (pointer === 0 || !this.memory.set(pointer, bytes)) return false;
    }
    return this.memory.setU32(pointerAt, pointer) && this.memory.setU32(sizeAt, bytes.length);
  }

  allocate(size: number): number {
    const before = this.restricted;
    this.restricted = ALLOWED_IN_MALLOC;
    this.allocatedBytes += size;
    const name = this.functions.has('malloc') ? 'malloc' : 'proxy_on_memory_allocate';
    const savedContext = this.current;
    const savedEffective = this.effectiveId;
    try {
      this.current = this.process.vmContext(this);
      this.effectiveId = 0;
      return (this.functions.get(name)?.(size) ?? 0) >>> 0;
    } finally {
      this.current = savedContext;
      this.effectiveId = savedEffective;
      this.restricted = before;
    }
  }

  fail(kind: VmFailure['kind'], error: unknown): void {
    if (this.failure !== undefined) return;
    const message = error instanceof Error ? error.message : String(error);
    this.failure = { kind, message, stack: error instanceof Error ? (error.stack ?? '') : '' };
    for (const action of this.failCallbacks) action();
  }

  private raw(context: Context, name: string, ...args: number[]): number {
    const savedContext = this.current;
    const savedEffective = this.effectiveId;
    this.current = context;
    this.effectiveId = 0;
    try {
      return this.functions.get(name)?.(...args) ?? 0;
    } catch (error) {
      if (!isTrap(error)) throw error;
      this.fail('runtime', error);
      return 0;
    } finally {
      this.current = savedContext;
      this.effectiveId = savedEffective;
    }
  }

  private runAfterCall(): void {
    for (let action = this.afterCall.shift(); action !== undefined; action = this.afterCall.shift()) action();
  }

  private guarded(name: string, implementation: GuestFunction): GuestFunction {
    const faults = this.process.faults;
    return (...args) => {
      this.hostCalls.set(name, (this.hostCalls.get(name) ?? 0) + 1);
      if (this.restricted !== undefined && !this.restricted.has(name))
        throw new HostTrap(`restricted_callback ${name}`);
      if (faults.active) {
        const status = faults.check(name);
        if (status !== undefined) return status;
      }
      return implementation(...args);
    };
  }
}

/** A guest's fault, as opposed to one of the emulator. */
function isTrap(error: unknown): boolean {
  if (error instanceof WebAssembly.RuntimeError || error instanceof HostTrap) return true;
  return error instanceof RangeError && error.message.includes('call stack');
}
