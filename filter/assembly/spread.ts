// From the leader to all VMs within a dispatch: each VM has a queue of its own, named by its slot in the
// shared table, so that there are never more than the table has entries. What is put there carries its
// own end, so a VM that takes over a slot is told nothing that is over.
import { copy, Text, writeDecimal } from './bytes';
import * as host from './host';
import { vmId } from './identity';
import { Root } from './roots';
import * as shares from './shares';
import { own } from './shares';

const T_NAME = new Text('meshpulse.vm.');
const NAME: usize = memory.data(24, 8);
/** Largest message, bytes, behind its end (monotonic ms, u64). */
const MESSAGE_MAX: u32 = 8192;
const MESSAGE: usize = memory.data(8200, 8);
/** Messages taken in one callback. */
const TAKE_MAX: u32 = 4096;
/** Tokens of the slots' queues: a name keeps its token for the life of the process. */
const TOKENS: usize = memory.data(516, 8);
let token: u32 = 0;
let slot: u32 = 0;
let rootId: u32 = 0;

function nameOf(n: u32): u32 {
  return (writeDecimal(copy(NAME, T_NAME.ptr, T_NAME.size), n as u64) - NAME) as u32;
}

/** With every tick: a queue calls back into the root context that registered it, so it follows the slot and the root. */
export function listen(root: Root): void {
  if (own.slot == 0 || (own.slot == slot && root.id == rootId)) return;
  slot = own.slot;
  rootId = root.id;
  host.setEffectiveContext(root.id);
  const size = nameOf(slot);
  token = host.registerQueue(NAME, size);
}

/** Hands a message to all other VMs; false when it cannot be passed on. */
export function tell(ptr: usize, size: u32, untilMs: u64): bool {
  if (size > MESSAGE_MAX) return false;
  store<u64>(MESSAGE, untilMs);
  copy(MESSAGE + 8, ptr, size);
  const n = shares.vmCount();
  for (let i: u32 = 0; i < n; i++) {
    const vm = shares.vm(i);
    if (vm.id == own.id || vm.slot == 0 || vm.slot > shares.VMS_MAX) continue;
    const cell = TOKENS + vm.slot * 4;
    if (load<u32>(cell) == 0) store<u32>(cell, host.resolveQueue(vmId.ptr, vmId.size, NAME, nameOf(vm.slot)));
    if (load<u32>(cell) != 0) host.enqueue(load<u32>(cell), MESSAGE, size + 8);
  }
  return true;
}

export function isOwn(queue: u32): bool {
  return token != 0 && queue == token;
}

/** Where the message taken last lies, and when it ends, ms. */
export let messagePtr: usize = 0;
export let messageSize: u32 = 0;
export let messageEndsMs: u64 = 0;
let taken: u32 = 0;

export function begin(): void {
  taken = 0;
}

/** Takes the next message; false when there is none. A lost callback is made good by the next tick. */
export function take(): bool {
  if (token == 0 || taken >= TAKE_MAX || host.dequeue(token) != host.OK) return false;
  taken++;
  messageSize = host.dataSize < 8 ? 0 : host.dataSize - 8;
  messagePtr = host.dataPtr + 8;
  messageEndsMs = host.dataSize < 8 ? 0 : load<u64>(host.dataPtr);
  return true;
}
