// Services of which the collector says that they are down for the whole mesh: calls to them go out
// without retries, but for one in twenty, which finds out when they are back, and but for what
// compensates.
import * as directive from './core/directive';
import { nameHash } from './core/directive';
import * as names from './core/names';

/** Services that are down at once; further ones keep their retries. */
const DOWN_MAX: u32 = 64;
const ROW: u32 = 24; // hash u64, expires ms u64, mode u32
const ROWS: usize = memory.data(1536, 8);
/** Operations that keep their retries, of all services together: each is named with its service. */
const SPARE_MAX: u32 = 256;
const SPARE: u32 = 16; // hash u64, expires ms u64
const SPARES: usize = memory.data(4096, 8);
/** One call in so many keeps its retries. */
const PROBE_EVERY: u32 = 20;
let spares: u32 = 0;
let calls: u32 = 0;
export let down: u32 = 0;

function indexOf(hash: u64): i32 {
  for (let i: u32 = 0; i < down; i++) if (load<u64>(ROWS + i * ROW) == hash) return i as i32;
  return -1;
}

function spareOf(hash: u64): usize {
  for (let i: u32 = 0; i < spares; i++) if (load<u64>(SPARES + i * SPARE) == hash) return SPARES + i * SPARE;
  return 0;
}

/** Holds the DOWN read last. What compensates has to be known first: without room for that nothing is held. */
export function hold(expiresMs: u64): void {
  if (!holdSpares(expiresMs)) return;
  for (let i: u32 = 0; i < directive.destinations.size; i++) {
    const hash = directive.destinations.get(i);
    let at = indexOf(hash);
    if (at < 0) {
      if (down >= DOWN_MAX) break;
      at = down++ as i32;
    }
    const row = ROWS + (at as u32) * ROW;
    store<u64>(row, hash);
    store<u64>(row, expiresMs, 8);
    store<u32>(row, directive.mode, 16);
  }
}

function holdSpares(expiresMs: u64): bool {
  for (let i: u32 = 0; i < directive.spare.size; i++) {
    const hash = directive.spare.get(i);
    let at = spareOf(hash);
    if (at == 0) {
      if (spares >= SPARE_MAX) return false;
      at = SPARES + spares++ * SPARE;
      store<u64>(at, hash);
      store<u64>(at, 0, 8);
    }
    if (load<u64>(at, 8) < expiresMs) store<u64>(at, expiresMs, 8);
  }
  return true;
}

function remove(i: u32): void {
  down--;
  if (i < down) memory.copy(ROWS + i * ROW, ROWS + down * ROW, ROW);
}

export function lift(): void {
  for (let i: u32 = 0; i < directive.destinations.size; i++) {
    const at = indexOf(directive.destinations.get(i));
    if (at >= 0) remove(at as u32);
  }
}

export function sweep(ms: u64): void {
  for (let i: u32 = 0; i < down; ) {
    if (load<u64>(ROWS + i * ROW, 8) <= ms) remove(i);
    else i++;
  }
  for (let i: u32 = 0; i < spares; ) {
    const at = SPARES + i * SPARE;
    if (load<u64>(at, 8) > ms) i++;
    else if (--spares > i) memory.copy(at, SPARES + spares * SPARE, SPARE);
  }
}

export function clear(): void {
  down = 0;
  spares = 0;
}

/** Should this call go without retries? */
export function pointless(host: u32, operation: u32, ms: u64): bool {
  const at = indexOf(nameHash(names.namePtr(host), names.nameSize(host), 0, 0));
  if (at < 0) return false;
  const row = ROWS + (at as u32) * ROW;
  if (load<u64>(row, 8) <= ms || load<u32>(row, 16) != directive.ENFORCE) return false;
  const call = nameHash(names.namePtr(host), names.nameSize(host), names.namePtr(operation), names.nameSize(operation));
  return spareOf(call) == 0 && calls++ % PROBE_EVERY != 0;
}
