// Transactions of which the collector has said that they cannot succeed any more, by their ids.
//
// A request pays for this only while something is held, and then one look-up. Memory is taken when
// the first directive comes; past the bounds the oldest goes, and its requests pass.
import { copy } from './bytes';
import * as directive from './core/directive';

/** Transactions held at once. */
export const HELD_MAX: u32 = 1024;
/** Ids of all of them: a key and a request id each, as a rule. */
const IDS_MAX: u32 = 2048;
const SLOTS: u32 = 4096;
const SLOT: u32 = 24; // hi u64, lo u64, Doom u32, space u32
const KEY_SPACE: u32 = 1;
const REQUEST_SPACE: u32 = 2;

@unmanaged
export class Doom {
  expiresMs: u64;
  /** Order of arrival; 0 = not in use. */
  turn: u64;
  /** One block: ids (16 bytes each), refuse, refuseIn (8 each), id, step. */
  block: usize;
  mode: u32;
  budgetPpm: u32;
  budgetMin: u32;
  keys: u32;
  requests: u32;
  refuseSize: u32;
  refuseInSize: u32;
  idSize: u32;
  stepSize: u32;

  refuse(): usize { return this.block + (this.keys + this.requests) * 16; }
  refuseIn(): usize { return this.refuse() + this.refuseSize * 8; }
  id(): usize { return this.refuseIn() + this.refuseInSize * 8; }
  step(): usize { return this.id() + this.idSize; }
}

let table: usize = 0; // HELD_MAX x Doom
let index: usize = 0; // SLOTS x SLOT
let ids: u32 = 0;
let turns: u64 = 0;
/** Transactions held: 0 spares every request the look-up. */
export let held: u32 = 0;

function doomAt(i: u32): Doom {
  return changetype<Doom>(table + i * offsetof<Doom>());
}

function start(): void {
  if (table != 0) return;
  const bytes = HELD_MAX * offsetof<Doom>();
  table = heap.alloc(bytes);
  index = heap.alloc(SLOTS * SLOT);
  memory.fill(table, 0, bytes);
  memory.fill(index, 0, SLOTS * SLOT);
}

function place(hi: u64, lo: u64): u32 {
  return ((((hi ^ rotl<u64>(lo, 32)) * 0x9e3779b97f4a7c15) >> 40) as u32) & (SLOTS - 1);
}

/** Slot of that id, or the empty one where it would be. */
function slotOf(hi: u64, lo: u64, space: u32): u32 {
  let i = place(hi, lo);
  while (true) {
    const at = index + i * SLOT;
    if (load<u32>(at, 16) == 0) return i;
    if (load<u64>(at) == hi && load<u64>(at, 8) == lo && load<u32>(at, 20) == space) return i;
    i = (i + 1) & (SLOTS - 1);
  }
}

function find(hi: u64, lo: u64, space: u32): Doom | null {
  const p = load<u32>(index + slotOf(hi, lo, space) * SLOT, 16);
  return p == 0 ? null : changetype<Doom>(p as usize);
}

/** What is held for a request; null for almost all. */
export function doomOf(keyHi: u64, keyLo: u64, requestHi: u64, requestLo: u64, ms: u64): Doom | null {
  if (held == 0) return null;
  let doom: Doom | null = (keyHi | keyLo) != 0 ? find(keyHi, keyLo, KEY_SPACE) : null;
  if (doom === null && (requestHi | requestLo) != 0) doom = find(directive.maskedRequest(requestHi), requestLo, REQUEST_SPACE);
  if (doom === null) return null;
  if (doom.expiresMs > ms) return doom;
  remove(doom);
  return null;
}

/** Holds the directive read last until then, in place of what is held for any of its ids. */
export function hold(expiresMs: u64): void {
  start();
  end();
  const wanted = (directive.keys.size + directive.requests.size) / 2;
  while (held >= HELD_MAX || ids + wanted > IDS_MAX) remove(oldest());
  let i: u32 = 0;
  while (doomAt(i).turn != 0) i++;
  const doom = doomAt(i);
  doom.expiresMs = expiresMs;
  doom.turn = ++turns;
  doom.mode = directive.mode;
  doom.budgetPpm = directive.budgetPpm;
  doom.budgetMin = directive.budgetMin;
  doom.keys = directive.keys.size / 2;
  doom.requests = directive.requests.size / 2;
  doom.refuseSize = directive.refuse.size;
  doom.refuseInSize = directive.refuseIn.size;
  doom.idSize = directive.idSize;
  doom.stepSize = directive.stepSize;
  doom.block = heap.alloc(wanted * 16 + (doom.refuseSize + doom.refuseInSize) * 8 + doom.idSize + doom.stepSize);
  let at = copy(doom.block, directive.keys.at, doom.keys * 16);
  at = copy(at, directive.requests.at, doom.requests * 16);
  at = copy(at, directive.refuse.at, doom.refuseSize * 8);
  at = copy(at, directive.refuseIn.at, doom.refuseInSize * 8);
  at = copy(at, directive.idPtr, doom.idSize);
  copy(at, directive.stepPtr, doom.stepSize);
  held++;
  for (let n: u32 = 0; n < wanted; n++) {
    const id = doom.block + n * 16;
    const hi = load<u64>(id);
    const lo = load<u64>(id, 8);
    const space = n < doom.keys ? KEY_SPACE : REQUEST_SPACE;
    const slot = index + slotOf(hi, lo, space) * SLOT;
    if (load<u32>(slot, 16) != 0) continue; // twice in one directive
    store<u64>(slot, hi);
    store<u64>(slot, lo, 8);
    store<u32>(slot, changetype<usize>(doom) as u32, 16);
    store<u32>(slot, space, 20);
    ids++;
  }
}

/** Forgets what is held for the ids of the directive read last. */
export function end(): void {
  if (held == 0) return;
  for (let i: u32 = 0; i < directive.keys.size; i += 2) drop(directive.keys.get(i), directive.keys.get(i + 1), KEY_SPACE);
  for (let i: u32 = 0; i < directive.requests.size; i += 2) drop(directive.requests.get(i), directive.requests.get(i + 1), REQUEST_SPACE);
}

function drop(hi: u64, lo: u64, space: u32): void {
  const doom = find(hi, lo, space);
  if (doom !== null) remove(doom);
}

export function remove(doom: Doom): void {
  const n = doom.keys + doom.requests;
  for (let i: u32 = 0; i < n; i++) {
    const id = doom.block + i * 16;
    unindex(load<u64>(id), load<u64>(id, 8), i < doom.keys ? KEY_SPACE : REQUEST_SPACE);
  }
  heap.free(doom.block);
  doom.block = 0;
  doom.turn = 0;
  held--;
}

/** Open addressing without tombstones: entries behind the hole move up. */
function unindex(hi: u64, lo: u64, space: u32): void {
  let i = slotOf(hi, lo, space);
  if (load<u32>(index + i * SLOT, 16) == 0) return;
  ids--;
  let j = i;
  while (true) {
    store<u32>(index + i * SLOT, 0, 16);
    while (true) {
      j = (j + 1) & (SLOTS - 1);
      const at = index + j * SLOT;
      if (load<u32>(at, 16) == 0) return;
      const home = place(load<u64>(at), load<u64>(at, 8));
      if (((j - home) & (SLOTS - 1)) >= ((j - i) & (SLOTS - 1))) break;
    }
    memory.copy(index + i * SLOT, index + j * SLOT, SLOT);
    i = j;
  }
}

function oldest(): Doom {
  let first = doomAt(0);
  for (let i: u32 = 1; i < HELD_MAX; i++) {
    const doom = doomAt(i);
    if (doom.turn != 0 && (first.turn == 0 || doom.turn < first.turn)) first = doom;
  }
  return first;
}

/** With every tick: what nobody asks for ends too. */
export function sweep(ms: u64): void {
  for (let i: u32 = 0; held > 0 && i < HELD_MAX; i++) {
    const doom = doomAt(i);
    if (doom.turn != 0 && doom.expiresMs <= ms) remove(doom);
  }
}

export function clear(): void {
  sweep(u64.MAX_VALUE);
}
