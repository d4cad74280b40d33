// What the filter could not do, counted: for the proxy's own metrics and for the collector.
import { Text, writeHex64 } from './bytes';
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
// reads it. A mark in the shared data remembers how far that is: logged by whoever configures first (a
// canary, most often), counted by a VM that lives.
const T_MARK = new Text('meshpulse.config.');
const MARK: usize = memory.data(40, 8);
const MARK_SIZE: u32 = 33;
const LOGGED: u8 = 76; // L
const COUNTED: u8 = 67; // C
const STATE: usize = memory.data(8, 8);

function mark(root: Root): u32 {
  memory.copy(MARK, T_MARK.ptr, T_MARK.size);
  writeHex64(MARK + T_MARK.size, root.configHash);
  return host.getShared(MARK, MARK_SIZE);
}

export function noteFaults(root: Root): void {
  if (root.config.errorsTotal == 0) return;
  root.faultsTold = false;
  const m = host.mark();
  const known = mark(root) == host.OK;
  host.release(m);
  if (known) return;
  store<u8>(STATE, LOGGED);
  host.setShared(MARK, MARK_SIZE, STATE, 1, 0);
  const errors = root.config.errors;
  for (let i = 0; i < errors.length; i++) host.logText(3, 'meshpulse: ' + errors[i]);
}

export function tellFaults(): void {
  for (let i = 0; i < roots.length; i++) {
    const root = unchecked(roots[i]);
    if (root.faultsTold) continue;
    root.faultsTold = true;
    const m = host.mark();
    const due = mark(root) == host.OK && host.dataSize == 1 && load<u8>(host.dataPtr) == LOGGED;
    const cas = host.dataCas;
    host.release(m);
    store<u8>(STATE, COUNTED);
    if (!due || host.setShared(MARK, MARK_SIZE, STATE, 1, cas) != host.OK) continue;
    if (metricConfigErrors == 0xffffffff) metricConfigErrors = metric('meshpulse_filter_config_errors_total');
    host.addMetric(metricConfigErrors, root.config.errorsTotal as i64);
  }
}
