// What the filter could not do, counted: for the proxy's own metrics and for the collector.
import { Text } from './bytes';
import * as host from './host';
import { Root, roots } from './roots';
import { own } from './shares';

// Counters of the process's doubts, sent with hello.
export let unstamped: u64 = 0;
export let untracked: u64 = 0;
export let windowDrops: u64 = 0;
let metricConfigErrors: u32 = 0xffffffff;
let metricUnstamped: u32 = 0xffffffff;
let metricDropped: u32 = 0xffffffff;
let unstampedTold: u64 = 0;
let droppedTold: u64 = 0;

export function tellMetrics(): void {
  if (unstamped != unstampedTold) {
    if (metricUnstamped == 0xffffffff) metricUnstamped = metric('meshpulse_filter_unstamped_total');
    host.addMetric(metricUnstamped, (unstamped - unstampedTold) as i64);
    unstampedTold = unstamped;
  }
  if (windowDrops != droppedTold) {
    if (metricDropped == 0xffffffff) metricDropped = metric('meshpulse_filter_batches_dropped_total');
    host.addMetric(metricDropped, (windowDrops - droppedTold) as i64);
    droppedTold = windowDrops;
  }
}

function metric(name: string): u32 {
  const bytes = String.UTF8.encode(name);
  return host.defineMetric(0, changetype<usize>(bytes), bytes.byteLength);
}

export function countUnstamped(): void {
  unstamped++;
}

export function countUntracked(): void {
  untracked++;
  own.dropped++;
}

export function countWindowDrop(): void {
  windowDrops++;
}

// Faults of one configuration are logged and counted once per process, though every VM and direction
// reads it. Marks in the shared data remember how far that is: logged by whoever configures first (a
// canary, most often), counted by a VM that lives. All marks lie under one key, the newest last.
const T_MARKS = new Text('meshpulse.config.faults');
/** Faulty configurations remembered; past it the oldest is forgotten, and told again if it comes back. */
const MARKS_MAX: u32 = 32;
/** Hash of the settings' text u64, state u64. */
const MARK: u32 = 16;
const MARKS: usize = memory.data(512, 8);
const MARK_TRIES: u32 = 8;
const LOGGED: u64 = 1;
const COUNTED: u64 = 2;

/** Moves the mark of a configuration from one state to the next (0 = none yet). False when another VM has, or the proxy cannot. */
function advance(hash: u64, from: u64, to: u64): bool {
  for (let i: u32 = 0; i < MARK_TRIES; i++) {
    const m = host.mark();
    const known = host.getShared(T_MARKS.ptr, T_MARKS.size) == host.OK && host.dataSize <= MARKS_MAX * MARK;
    let size: u32 = known ? host.dataSize : 0;
    memory.copy(MARKS, host.dataPtr, size);
    const cas = host.dataCas;
    host.release(m);
    let at: u32 = 0;
    while (at < size && load<u64>(MARKS + at) != hash) at += MARK;
    if (at < size ? load<u64>(MARKS + at, 8) != from : from != 0) return false;
    if (at == MARKS_MAX * MARK) {
      memory.copy(MARKS, MARKS + MARK, (MARKS_MAX - 1) * MARK);
      at -= MARK;
    }
    store<u64>(MARKS + at, hash);
    store<u64>(MARKS + at, to, 8);
    if (at == size) size += MARK;
    const result = host.setShared(T_MARKS.ptr, T_MARKS.size, MARKS, size, cas);
    // What cannot be remembered is rather logged twice than never.
    if (result != host.CONFLICT) return result == host.OK || from == 0;
  }
  return false;
}

export function noteFaults(root: Root): void {
  if (root.config.errorsTotal == 0) return;
  root.faultsTold = false;
  if (!advance(root.configHash, 0, LOGGED)) return;
  const errors = root.config.errors;
  for (let i = 0; i < errors.length; i++) host.logText(3, 'meshpulse: ' + errors[i]);
}

export function tellFaults(): void {
  for (let i = 0; i < roots.length; i++) {
    const root = unchecked(roots[i]);
    if (root.faultsTold) continue;
    root.faultsTold = true;
    if (!advance(root.configHash, LOGGED, COUNTED)) continue;
    if (metricConfigErrors == 0xffffffff) metricConfigErrors = metric('meshpulse_filter_config_errors_total');
    host.addMetric(metricConfigErrors, root.config.errorsTotal as i64);
  }
}
