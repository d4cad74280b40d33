// The record of one request or call between its callbacks. Records live in a slab of fixed-size
// slots, found by the proxy's context id, and are linked in the order in which they began.
import { ROLE_ORDER } from './config';
import * as doubts from './doubts';
import { Root, rootOf } from './roots';
import * as status from './status';

export const INBOUND: i32 = 1;
export const OUTBOUND: i32 = 2;
export const EDGE: i32 = 3;

/** Streams of one VM that are tracked; further ones pass, are cleaned, and are counted as dropped. */
export const STREAMS_MAX: u32 = 16384;
const CHUNK: u32 = 256;
const INDEX_SLOTS: u32 = 32768;
const INDEX: usize = memory.data(262144, 16); // context id u32, slot u32
const STREAM_BYTES: u32 = 256;

// Row flags, as ROW_FLAG_ in ingest.proto.
export const F_CALL: u32 = 1;
export const F_ENTRY: u32 = 2;
export const F_STREAM: u32 = 4;
export const F_PROBE: u32 = 8;
export const F_SHADOW: u32 = 16;
export const F_OWN: u32 = 32;
export const F_UNSEEN: u32 = 64;
export const F_EXTERNAL: u32 = 128;
export const F_LOCAL_REPLY: u32 = 256;
export const F_GRPC: u32 = 512;
export const F_INJECTED: u32 = 1024;
export const F_WOULD_REFUSE: u32 = 2048;
export const F_WITHHELD: u32 = 4096;
export const F_NO_RETRIES: u32 = 8192;
export const F_RETRY_REFUSED: u32 = 16384;

// Bits of Stream.bits.
export const B_SEEN: u32 = 1; // request headers came
export const B_EVENT: u32 = 2; // counted in flight as an event
export const B_CALL: u32 = 4; // counted in flight as a call
export const B_STREAM: u32 = 8; // counted among the open streams
export const B_PEER_TRUSTED: u32 = 16; // may get own response headers
export const B_IN_MESH: u32 = 32; // goes to an in-mesh cluster
export const B_STAMP: u32 = 64; // `order` has to stamp
export const B_ORDERED: u32 = 128; // `order` has seen it
export const B_LISTED: u32 = 512;
export const B_LOGGED: u32 = 2048;
export const B_PRIVATE: u32 = 16384; // answered by the filter itself: no row
export const B_COPIES: u32 = 4096; // the application sent own headers
/** The request came without x-envoy-attempt-count: one that is there at the end is the router's. */
export const B_ROUTER_COUNTS: u32 = 8192;
export const B_REFUSED: u32 = 32768; // by this filter
export const B_REFUSED_BEHIND: u32 = 65536; // by the callee's, which says so
export const B_BEGAN: u32 = 131072; // told as begun

/** Where one direction of a gRPC body is. */
@unmanaged
export class Frames {
  header: u64; // bytes of the frame header so far
  have: u32;
  skip: u32; // bytes of the message still to come
  messages: u32;
  free: u32;
}

@unmanaged
export class Stream {
  startNs: u64;
  keyHi: u64;
  keyLo: u64;
  requestHi: u64;
  requestLo: u64;
  event: u64;
  callEvent: u64;
  spanIn: u64;
  spanOut: u64;
  peerHi: u64;
  peerLo: u64;
  calleeHi: u64;
  calleeLo: u64;
  root: usize;
  next: usize;
  previous: usize;
  context: u32;
  bits: u32;
  flags: u32;
  source: u32;
  operation: u32;
  callOperation: u32;
  peerService: u32;
  status: u32;
  side: i32;
  lacked: u32; // trace headers that the request did not have, see injected.ts
  placed: u32; // those that an empty field holds a place for
  // Two Frames in place.
  requestFrames: u64;
  requestFrames1: u64;
  requestFrames2: u64;
  responseFrames: u64;
  responseFrames1: u64;
  responseFrames2: u64;
}

let freeList: usize = 0;
let slots: u32 = 0;
/** The stream that began first, and the last one. */
export let oldest: usize = 0;
let newest: usize = 0;

/** The context created last, when it has no record: `role: order`, or one stream too many. */
export let orderContext: u32 = 0;
export let orderRoot: usize = 0;
export let untrackedContext: u32 = 0;
export let untrackedRoot: usize = 0;

function take(): usize {
  if (freeList == 0) {
    if (slots >= STREAMS_MAX) return 0;
    const chunk = heap.alloc((CHUNK * STREAM_BYTES) as usize);
    for (let i: u32 = 0; i < CHUNK; i++) {
      const s = chunk + i * STREAM_BYTES;
      changetype<Stream>(s).next = freeList;
      freeList = s;
    }
    slots += CHUNK;
  }
  const s = freeList;
  freeList = changetype<Stream>(s).next;
  // Plain stores: the engine's bulk fill is a call out of the VM.
  for (let i: u32 = 0; i < STREAM_BYTES; i += 8) store<u64>(s + i, 0);
  return s;
}

// @ts-ignore: decorator
@inline
function place(context: u32): u32 {
  return (context * 0x9e3779b1) >> 17;
}

function put(context: u32, s: usize): void {
  let i = place(context);
  while (load<u32>(INDEX + i * 8, 4) != 0) i = (i + 1) & (INDEX_SLOTS - 1);
  store<u32>(INDEX + i * 8, context);
  store<u32>(INDEX + i * 8, s as u32, 4);
}

export function find(context: u32): usize {
  let i = place(context);
  while (true) {
    const s = load<u32>(INDEX + i * 8, 4);
    if (s == 0) return 0;
    if (load<u32>(INDEX + i * 8) == context) return s;
    i = (i + 1) & (INDEX_SLOTS - 1);
  }
}

/** Open addressing without tombstones: entries behind the hole move up. */
function unput(context: u32): void {
  let i = place(context);
  while (true) {
    if (load<u32>(INDEX + i * 8, 4) == 0) return;
    if (load<u32>(INDEX + i * 8) == context) break;
    i = (i + 1) & (INDEX_SLOTS - 1);
  }
  let j = i;
  while (true) {
    store<u64>(INDEX + i * 8, 0);
    while (true) {
      j = (j + 1) & (INDEX_SLOTS - 1);
      if (load<u32>(INDEX + j * 8, 4) == 0) return;
      const home = place(load<u32>(INDEX + j * 8));
      if (((j - home) & (INDEX_SLOTS - 1)) >= ((j - i) & (INDEX_SLOTS - 1))) break;
    }
    store<u64>(INDEX + i * 8, load<u64>(INDEX + j * 8));
    i = j;
  }
}

function link(s: Stream): void {
  s.previous = newest;
  if (newest != 0) changetype<Stream>(newest).next = changetype<usize>(s);
  else oldest = changetype<usize>(s);
  newest = changetype<usize>(s);
}

function unlink(s: Stream): void {
  if (s.previous != 0) changetype<Stream>(s.previous).next = s.next;
  else oldest = s.next;
  if (s.next != 0) changetype<Stream>(s.next).previous = s.previous;
  else newest = s.previous;
}

export function create(context: u32, rootId: u32): void {
  const root = rootOf(rootId);
  if (root === null) return;
  const pointer = changetype<usize>(root);
  if (root.config.role == ROLE_ORDER) {
    orderContext = context;
    orderRoot = pointer;
    return;
  }
  const at = take();
  if (at == 0) {
    untrackedContext = context;
    untrackedRoot = pointer;
    doubts.countUntracked();
    return;
  }
  const s = changetype<Stream>(at);
  s.context = context;
  s.root = pointer;
  root.streams++;
  put(context, at);
  link(s);
}

/** False when there is no such stream. */
export function remove(context: u32): bool {
  const at = find(context);
  if (at == 0) return false;
  const s = changetype<Stream>(at);
  settle(s);
  const root = changetype<Root>(s.root);
  if (root.streams > 0) root.streams--;
  unlink(s);
  unput(context);
  s.context = 0;
  s.next = freeList;
  freeList = at;
  return true;
}

/** Takes the stream out of the in-flight numbers, once. */
export function settle(s: Stream): void {
  const bits = s.bits;
  if ((bits & (B_EVENT | B_CALL | B_STREAM)) == 0) return;
  s.bits = bits & ~(B_EVENT | B_CALL | B_STREAM);
  status.count((bits & B_EVENT) != 0 ? -1 : 0, (bits & B_CALL) != 0 ? -1 : 0, (bits & B_STREAM) != 0 ? -1 : 0);
}
