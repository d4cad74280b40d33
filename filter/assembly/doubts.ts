// What the filter could not do, counted: for the proxy's own metrics and for the collector.
import * as host from './host';
import { own } from './shares';

// Counters of the process's doubts, sent with hello.
export let unstamped: u64 = 0;
export let untracked: u64 = 0;
export let configErrors: u64 = 0;
export let windowDrops: u64 = 0;
let configErrorsToldOf: u64 = 0;
let metricConfigErrors: u32 = 0xffffffff;
let metricUnstamped: u32 = 0xffffffff;
let metricDropped: u32 = 0xffffffff;
let unstampedTold: u64 = 0;
let droppedTold: u64 = 0;

export function tellMetrics(): void {
  if (configErrors != configErrorsToldOf) {
    if (metricConfigErrors == 0xffffffff) metricConfigErrors = metric('meshpulse_filter_config_errors_total');
    host.addMetric(metricConfigErrors, (configErrors - configErrorsToldOf) as i64);
    configErrorsToldOf = configErrors;
  }
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

export function countConfigErrors(n: u32): void {
  configErrors += n;
}

export function countWindowDrop(): void {
  windowDrops++;
}
