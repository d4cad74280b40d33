// How much of a service's traffic learned verdicts may refuse: a share of its requests within 10 s,
// counted here, in two windows of 5 s. Each VM answers for what it sees, so the shares of the VMs add up
// to the share of the proxy; the least number is divided among them.
import { ENTRIES_MAX } from './core/names';
import * as shares from './shares';

const WINDOW_MS: u64 = 5000;
const PPM: u64 = 1000000;
const COLUMN: u32 = ENTRIES_MAX * 4;
// Per callee (its name id): requests and refusals, in this window and the one before.
let counts: usize = 0;
let current: u32 = 0;
let windowEndMs: u64 = 0;

function cell(what: u32, window: u32, callee: u32): usize {
  return counts + (what * 2 + window) * COLUMN + callee * 4;
}

function turn(ms: u64): void {
  if (counts == 0) {
    counts = heap.alloc(4 * COLUMN);
    memory.fill(counts, 0, 4 * COLUMN);
    windowEndMs = ms + WINDOW_MS;
  }
  // After two windows without a request both are old.
  for (let i = 0; ms >= windowEndMs && i < 2; i++) {
    current = 1 - current;
    memory.fill(cell(0, current, 0), 0, COLUMN);
    memory.fill(cell(1, current, 0), 0, COLUMN);
    windowEndMs += WINDOW_MS;
  }
  if (ms >= windowEndMs) windowEndMs = ms + WINDOW_MS;
}

function both(what: u32, callee: u32): u64 {
  return (load<u32>(cell(what, 0, callee)) + load<u32>(cell(what, 1, callee))) as u64;
}

function bump(what: u32, callee: u32): void {
  const at = cell(what, current, callee);
  store<u32>(at, load<u32>(at) + 1);
}

/** Every request to a callee, while anything is held at all. */
export function request(callee: u32, ms: u64): void {
  turn(ms);
  bump(0, callee);
}

/** May one more be refused? Then it counts as refused. */
export function take(callee: u32, ppm: u32, min: u32, ms: u64): bool {
  if (ppm >= (PPM as u32)) return true;
  turn(ms);
  const share = (both(0, callee) * (ppm as u64)) / PPM;
  const least = ((min + shares.others) / (shares.others + 1)) as u64;
  if (both(1, callee) >= (share > least ? share : least)) return false;
  bump(1, callee);
  return true;
}
