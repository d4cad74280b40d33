// Time as the VM sees it: one monotonic reading per callback, and the wall clock as an offset to it.
import * as host from './host';

// Time, refreshed by every tick: wall = monotonic + offset.
let wallOffsetUs: u64 = 0;
export let nowNs: u64 = 0;

export function nowMs(): u64 {
  return nowNs / 1000000;
}

export function clock(): u64 {
  nowNs = host.monotonicNs();
  return nowNs;
}

export function wallAt(ns: u64): u64 {
  return ns / 1000 + wallOffsetUs;
}

export function refreshClock(): void {
  clock();
  wallOffsetUs = host.wallUs() - nowNs / 1000;
}

const ID: usize = memory.data(32, 8);

/** 0 to `ms`, at random. */
export function spread(ms: u64): u64 {
  host.random(ID, 8);
  return load<u64>(ID) % (ms + 1);
}

/** Half of `ms` to all of it, at random, so that a fleet does not act at once. */
export function jitter(ms: u64): u64 {
  return ms / 2 + spread(ms / 2);
}
