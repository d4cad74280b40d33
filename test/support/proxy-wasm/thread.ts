/** One thread of the proxy: its VMs, the plugins' root contexts in them, and what other threads posted to it. */
import { RootContext } from './root-context.js';
import type { Plugin, ProxyProcess } from './process.js';
import { Vm } from './vm.js';

/** A reload waits this long after a trap, plus up to as much again. */
const RELOAD_BACKOFF_BASE_MS = 1000;

export class Thread {
  private readonly vms = new Map<string, Vm>();
  private readonly roots = new Map<Plugin, RootContext>();
  private readonly reloadAt = new Map<Plugin, bigint>();
  private readonly posted: (() => void)[] = [];

  constructor(
    readonly process: ProxyProcess,
    readonly name: string,
  ) {}

  /** Runs `action` on this thread, soon. */
  post(action: () => void): void {
    this.posted.push(action);
  }

  /** Runs one posted action. @returns false when there was none */
  runPosted(): boolean {
    const action = this.posted.shift();
    action?.();
    return action !== undefined;
  }

  /** The plugin's root context, if it was installed here and its VM did not fail. */
  root(plugin: Plugin): RootContext | undefined {
    const root = this.roots.get(plugin);
    return root === undefined || root.vm.failed ? undefined : root;
  }

  vm(plugin: Plugin): Vm | undefined {
    return this.roots.get(plugin)?.vm;
  }

  /** @returns the root context, or `undefined` when VM or plugin did not come up */
  install(plugin: Plugin): RootContext | undefined {
    let vm = this.vms.get(plugin.vmKey);
    if (vm === undefined || vm.failed) {
      vm = new Vm(this.process, this, plugin.module, plugin.vmId, false);
      vm.initialize();
      this.vms.set(plugin.vmKey, vm);
    }
    if (vm.failed) return undefined;
    const root = new RootContext(vm, plugin);
    this.roots.set(plugin, root);
    vm.onFail(() => this.reloadAt.set(plugin, this.backoffEnd()));
    return root.start() && root.configure() ? root : undefined;
  }

  /** What a new request does: use the root context, go past the filter, or fail. */
  forRequest(plugin: Plugin): RootContext | 'bypass' | 'fail' {
    const root = this.root(plugin);
    if (root !== undefined) return root;
    if (plugin.failurePolicy === 'open') return 'bypass';
    if (plugin.failurePolicy === 'closed') return 'fail';
    const due = this.reloadAt.get(plugin);
    if (due === undefined || this.process.clock.monotonicNs() < due) return 'fail';
    this.roots.get(plugin)?.discard();
    return this.install(plugin) ?? 'fail';
  }

  /**
   * The plugin's configuration went away. Its root context ends as soon as no stream holds it, and a VM goes
   * with its last plugin *at once*: an on_done that asks for patience is then not followed by another tick.
   */
  uninstall(plugin: Plugin): void {
    const root = this.roots.get(plugin);
    if (root === undefined) return;
    this.roots.delete(plugin);
    root.release(() => this.end(root));
  }

  private end(root: RootContext): void {
    const { vm } = root;
    if (vm.failed) root.discard();
    else root.end();
    if (vm.liveRoots().length > 0) return;
    for (const pending of vm.rootContexts()) pending.discard();
    vm.destroy();
    for (const [key, present] of this.vms) if (present === vm) this.vms.delete(key);
  }

  private backoffEnd(): bigint {
    const jitter = this.process.random(1)[0] ?? 0;
    const ms = RELOAD_BACKOFF_BASE_MS * (1 + jitter / 256);
    return this.process.clock.monotonicNs() + BigInt(Math.round(ms * 1e6));
  }
}
