// The VM: start, settings, the tick that keeps everything going, and the end.
import { hash, Text } from './bytes';
import * as batches from './batches';
import { nowMs, refreshClock } from './clock';
import { Config, ROLE_FULL } from './config';
import { compile, compiledSize } from './core/headers';
import * as names from './core/names';
import { plainText } from './core/paths';
import * as directives from './directives';
import * as doubts from './doubts';
import * as host from './host';
import * as identity from './identity';
import { INJECTED_BYTES } from './injected';
import * as jobs from './jobs';
import * as leader from './leader';
import { createRoot, lookForOrder, reporter, reporting, Root, rootOf, roots, setReporting } from './roots';
import * as shares from './shares';
import { own, UNKNOWN } from './shares';
import * as status from './status';
import { lookForThinning } from './thinning';

/** How often a VM looks after itself, ms. */
export const TICK_MS: u64 = 200;
/** Where the VM lives on, the end waits at most so long for acks, and for what the other VMs still have, ms. */
const GOODBYE_MS: u64 = 2000;

const ID: usize = memory.data(8, 8);
let lastTickMs: u64 = 0;
/** The root context whose end is put off until everything is sent; 0 = none. */
let leavingRoot: u32 = 0;
let leavingSinceMs: u64 = 0;

/** Once per VM. */
function start(): void {
  if (own.id != 0) return;
  names.init();
  refreshClock();
  host.random(ID, 8);
  own.id = load<u64>(ID) | 1;
  own.nextSeq = 1;
  own.waitMs = UNKNOWN;
  own.durationUs = UNKNOWN;
  own.queue = UNKNOWN;
  own.cpu = -1;
  own.memory = -1;
  batches.start(nowMs());
  status.startWindow(nowMs());
}

/** Never fails. Runs also in a canary VM that is thrown away: no network, no counters. */
export function configure(id: u32, size: u32): void {
  start();
  createRoot(id);
  const root = rootOf(id);
  if (root === null) return;
  const config = readConfig(size, root);
  identity.identify();
  if (config.edgeUnreadable && identity.router) config.edge = true;
  root.config = config;
  root.transactionHeader = new Text(config.transactionHeader);
  root.callback = plainText(config.callbackPath);
  if (root.trace != 0) heap.free(root.trace);
  root.trace = heap.alloc(compiledSize(config.traceHeaders.length));
  compile(config.traceHeaders, root.trace);
  if (root.injected == 0) root.injected = heap.alloc(INJECTED_BYTES);
  memory.fill(root.injected, 0, INJECTED_BYTES);
  root.side = config.edge || (identity.router && config.direction == 0) ? 3 : config.direction;
  root.factsUntilMs = 0;
  root.dead = false;
  root.orderMissed = 0;
  root.portLooks = 0;
  lookForOrder();
  lookForThinning();
  identity.life();
  identity.declare();
  doubts.noteFaults(root);
  if (config.collectorCluster.length > 0 && config.role == ROLE_FULL) {
    status.setInterval(config.intervalMs);
    // Requests may come before the first tick.
    setReporting(true);
  }
  host.setTickPeriod(TICK_MS as u32);
}

function readConfig(size: u32, root: Root): Config {
  if (size == 0) return Config.parse(0, 0);
  const m = host.mark();
  const there = host.getPluginConfig(size) == host.OK && host.dataSize > 0;
  root.configHash = there ? hash(host.dataPtr, host.dataSize, 3) : (size as u64);
  const config = there
    ? Config.parse(host.dataPtr, host.dataSize)
    : Config.unreadable('pluginConfig: ' + size.toString() + ' bytes that the proxy could not hand over');
  host.release(m);
  return config;
}

/** True when this tick is the VM's turn: every root context has a timer of its own. */
export function tickDue(): bool {
  refreshClock();
  const ms = nowMs();
  if (ms - lastTickMs < TICK_MS - 50) return false;
  lastTickMs = ms;
  return true;
}

export function tick(): void {
  const ms = nowMs();
  const root = reporter();
  doubts.tellFaults();
  doubts.tellMetrics();
  if (root === null) {
    if (leavingRoot == 0) setReporting(false);
    shares.sync(ms);
    if (leavingRoot != 0) leave(ms);
    return;
  }
  // Somebody reports again before the last one was gone.
  if (leavingRoot != 0) stay(root);
  setReporting(true);
  if (status.windowDue(ms)) status.closeWindow(ms);
  if (ms - batches.lastFlushMs >= status.intervalMs()) {
    batches.flush();
    jobs.tellProgress();
  }
  shares.sync(ms);
  directives.tick(root);
  leader.lead(root);
  batches.offer();
}

/** True when nothing has to be awaited. The last reporting root puts its end off to say goodbye. */
export function rootDone(id: u32): bool {
  const root = rootOf(id);
  if (root === null) return true;
  root.dead = true;
  lookForOrder();
  lookForThinning();
  const next = reporter();
  if (next !== null) {
    leader.leaveRoot(id, next);
    return true;
  }
  if (!reporting || leavingRoot != 0) return true;
  batches.flush();
  jobs.tellProgress();
  if (living()) leader.drain();
  else {
    leader.finish(root);
    batches.leave();
  }
  leavingRoot = id;
  leavingSinceMs = nowMs();
  return false;
}

/** A VM goes with its last root context, at once. */
function living(): bool {
  for (let i = 0; i < roots.length; i++) if (!roots[i].dead) return true;
  return false;
}

function leave(ms: u64): void {
  batches.offer();
  if (!leader.retire(ms - leavingSinceMs >= GOODBYE_MS)) return;
  setReporting(false);
  host.setEffectiveContext(leavingRoot);
  leavingRoot = 0;
  host.done();
}

function stay(root: Root): void {
  const id = leavingRoot;
  leavingRoot = 0;
  own.holds &= ~shares.H_GONE;
  leader.leaveRoot(id, root);
  host.setEffectiveContext(id);
  host.done();
}

export function rootDeleted(id: u32): void {
  for (let i = 0; i < roots.length; i++) if (roots[i].id == id) roots[i].dead = true;
}
