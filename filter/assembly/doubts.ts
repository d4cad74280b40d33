// What the filter could not do, counted: for the proxy's own metrics and for the collector.
import { Text } from './bytes';
import * as wire from './core/wire';
import * as host from './host';
import { Root, roots } from './roots';
import * as shares from './shares';
import { own } from './shares';

// Counters of what went wrong, by index in shares.ts: each VM's go into one sum for the process.
const UNSTAMPED: u32 = 0;
const UNTRACKED: u32 = 1;
const BATCHES_DROPPED: u32 = 2;
const BATCHES_REFUSED: u32 = 3;
const ROWS_UNREPORTED: u32 = 4;
const DIRECTIVES_IGNORED: u32 = 5;
const NAMES: string[] = ['unstamped', 'untracked', 'batches_dropped', 'batches_refused', 'rows_unreported', 'directives_ignored'];
const NO_METRIC: u32 = 0xffffffff;
/** The proxy's own metrics of them: handle u32 and what was told u64 of this VM. */
const METRICS = new StaticArray<u32>(shares.COUNTERS).fill(NO_METRIC);
const TOLD = new StaticArray<u64>(shares.COUNTERS);
let metricConfigErrors: u32 = NO_METRIC;

export function tellMetrics(): void {
  for (let i: u32 = 0; i < shares.COUNTERS; i++) {
    const news = shares.counted(i) - TOLD[i];
    if (news == 0) continue;
    if (METRICS[i] == NO_METRIC) METRICS[i] = metric('meshpulse_filter_' + NAMES[i] + '_total');
    host.addMetric(METRICS[i], news as i64);
    TOLD[i] += news;
  }
}

function metric(name: string): u32 {
  const bytes = String.UTF8.encode(name);
  return host.defineMetric(0, changetype<usize>(bytes), bytes.byteLength);
}

/** Of the whole process, for hello. */
export function putCounters(): void {
  for (let i: u32 = 0; i < shares.COUNTERS; i++) {
    if (shares.total(i) == 0) continue;
    const mark = wire.open(21);
    wire.putText(1, NAMES[i]);
    wire.putVarint(2, shares.total(i));
    wire.close(mark);
  }
}

/** Changes when any of them does. */
export function sum(): u64 {
  let all: u64 = 0;
  for (let i: u32 = 0; i < shares.COUNTERS; i++) all += shares.total(i);
  return all;
}

export function countUnstamped(): void {
  shares.count(UNSTAMPED);
}

export function countUntracked(): void {
  shares.count(UNTRACKED);
  own.dropped++;
}

/** Directives that were malformed, late or too many. */
export function countIgnored(): void {
  shares.count(DIRECTIVES_IGNORED);
}

/** The window was full, or the batch larger than it. */
export function countWindowDrop(): void {
  shares.count(BATCHES_DROPPED);
}

/** The collector does not take it, whatever is done. */
export function countRefused(): void {
  shares.count(BATCHES_REFUSED);
}

/** A VM that has no place in the shared table gets no acks: it makes no rows. */
export function countUnreported(): void {
  shares.count(ROWS_UNREPORTED);
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
    if (metricConfigErrors == NO_METRIC) metricConfigErrors = metric('meshpulse_filter_config_errors_total');
    host.addMetric(metricConfigErrors, root.config.errorsTotal as i64);
  }
}
