// The leader's end of the queue between VMs, and the number of the session.
//
// A session is one stream, or the unary calls between two failures. Its number lies in the shared
// table: when it changes, every VM offers again what is not acknowledged, so what waits in the queue
// is thrown away.
import { copy } from './bytes';
import * as batches from './batches';
import { nowMs } from './clock';
import * as host from './host';
import { Root } from './roots';
import * as shares from './shares';

/** More than all VMs may have waiting: 128 with 64 batches and a few words each. */
const DROP_MAX: i32 = 100000;
const ID: usize = memory.data(8, 8);
let token: u32 = 0;
let owner: u32 = 0;
/** A fragment taken out that no longer fitted into its message: what VMs say of jobs, at most 64 of them. */
const CARRY_BYTES: u32 = 16384;
const CARRY: usize = memory.data(16384, 8);
let carried: u32 = 0;

/** The fragment that `take` found; valid until the next host call. */
export let ptr: usize = 0;
export let size: u32 = 0;

/** A queue calls back into the root context that registered it, so it moves with the reporting root. */
export function attach(root: Root): void {
  if (token != 0 && owner == root.id) return;
  host.setEffectiveContext(root.id);
  token = host.registerQueue(batches.T_QUEUE.ptr, batches.T_QUEUE.size);
  owner = root.id;
}

export function detach(): void {
  token = 0;
}

export function isQueue(queue: u32): bool {
  return token != 0 && token == queue;
}

/** The next fragment into `ptr` and `size`; false when none waits. The caller releases the arena. */
export function take(): bool {
  if (carried > 0) {
    ptr = CARRY;
    size = carried;
    carried = 0;
    return true;
  }
  if (token == 0 || host.dequeue(token) != host.OK) return false;
  ptr = host.dataPtr;
  size = host.dataSize;
  return true;
}

/** Puts the fragment that was just taken back in front; false when it is too large for that. */
export function putBack(): bool {
  if (size > CARRY_BYTES) return false;
  if (ptr != CARRY) copy(CARRY, ptr, size);
  carried = size;
  return true;
}

// Bits of the number.
const ANY: u64 = 1;
const CALLS: u64 = 2;

/** The last session was one of unary calls: another leader need not find out anew. */
export function wasCalls(): bool {
  return (shares.session & CALLS) != 0;
}

/** Every VM shall offer what it has. `calls`: to unary calls. */
export function renew(calls: bool): void {
  carried = 0;
  for (let i = 0; i < DROP_MAX && token != 0; i++) {
    const m = host.mark();
    const result = host.dequeue(token);
    host.release(m);
    if (result != host.OK) break;
  }
  host.random(ID, 8);
  shares.wantSession((load<u64>(ID) & ~CALLS) | ANY | (calls ? CALLS : 0));
  shares.sync(nowMs());
}

/** Nobody listens: every VM keeps what it has. */
export function end(): void {
  shares.wantSession(0);
  shares.sync(nowMs());
}
