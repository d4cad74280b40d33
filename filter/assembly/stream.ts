// One request or call: what its callbacks see, until it becomes a row.
//
// A stream's record lives in a slab of fixed-size slots, found by the proxy's context id. Two chains
// can touch one request: the downstream `full` filter, which sees everything, and, when Envoy itself
// traces, the upstream `order` filter, which alone sees the headers as they go out (per attempt, after
// injection). When `order` is there it writes all headers, and `full` leaves them alone: one rewrite
// instead of two, and no route is looked up again. `full` learns from each request whether it is.
import { copy, hash, parsed, parseDecimal, parseUuid, Text, uuidHi, uuidLo, writeDecimal, writeHex64, writeShare } from './bytes';
import { EVENTS_ALL, EVENTS_FAILURES, ROLE_FULL, ROLE_NONE, ROLE_ORDER } from './config';
import * as fields from './core/fields';
import * as h from './core/headers';
import * as names from './core/names';
import * as trace from './core/trace';
import * as wire from './core/wire';
import { Row } from './core/wire';
import * as host from './host';
import * as vm from './vm';
import { Root } from './vm';

const CONTINUE: u32 = 0;
const STOP: u32 = 1;

const INBOUND: i32 = 1;
const OUTBOUND: i32 = 2;
const EDGE: i32 = 3;

/** Streams of one VM that are tracked; further ones pass, are cleaned, and are counted as dropped. */
export const STREAMS_MAX: u32 = 16384;
const CHUNK: u32 = 256;
const INDEX_SLOTS: u32 = 32768;
const INDEX: usize = memory.data(262144, 16); // context id u32, slot u32
const PENDING: u32 = 16;
const PENDING_TABLE: usize = memory.data(128, 8); // context id u32, slot u32
/** Own headers of one message together, bytes, as `name: value CRLF`. */
const OWN_BYTES_MAX: u32 = 255;

// Row flags, as ROW_FLAG_ in ingest.proto.
const F_CALL: u32 = 1;
const F_ENTRY: u32 = 2;
const F_STREAM: u32 = 4;
const F_PROBE: u32 = 8;
const F_SHADOW: u32 = 16;
const F_OWN: u32 = 32;
const F_UNSEEN: u32 = 64;
const F_EXTERNAL: u32 = 128;
const F_LOCAL_REPLY: u32 = 256;
const F_GRPC: u32 = 512;
const F_INJECTED: u32 = 1024;

// Bits of Stream.bits.
const B_SEEN: u32 = 1; // request headers came
const B_EVENT: u32 = 2; // counted in flight as an event
const B_CALL: u32 = 4; // counted in flight as a call
const B_STREAM: u32 = 8; // counted among the open streams
const B_PEER_TRUSTED: u32 = 16; // may get own response headers
const B_IN_MESH: u32 = 32; // goes to an in-mesh cluster
const B_STAMP: u32 = 64; // `order` has to stamp
const B_ORDERED: u32 = 128; // `order` has seen it
const B_RESPONSE: u32 = 256;
const B_LISTED: u32 = 512;
const B_HAS_PROGRESS: u32 = 1024;
const B_LOGGED: u32 = 2048;

const O_OK: u32 = 1;
const O_FAILED: u32 = 2;
const O_DECLINED: u32 = 3;
const O_CANCELLED: u32 = 4;

// Envoy's response flags that decide an outcome.
const RF_DOWNSTREAM_END: u64 = 1 << 14; // DC
const RF_FAILURES: u64 =
  (1 << 1) | (1 << 2) | (1 << 3) | (1 << 4) | (1 << 5) | (1 << 6) | (1 << 7) | (1 << 15) | (1 << 16) | (1 << 19) | (1 << 22) | (1 << 23);

@unmanaged
class Stream {
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
  attempts: u32;
  requestSkip: u32; // bytes to the next gRPC frame header
  responseSkip: u32;
  requestMessages: u32;
  responseMessages: u32;
  side: i32;
}

const STREAM_BYTES: u32 = 256;

let freeList: usize = 0;
let slots: u32 = 0;
let oldest: usize = 0;
let newest: usize = 0;
let pendingAt: u32 = 0;
let orderContext: u32 = 0;
let orderRoot: usize = 0;
let untrackedContext: u32 = 0;
let untrackedRoot: usize = 0;
const NO_NAMES: usize = memory.data(256, 8); // first characters of no trace header: for responses
const NO_TEXT = new Text('');

let trapArmed: bool = false;
const T_TRAP = new Text('x-test-trap');

/** Test builds only: a request with x-test-trap traps the VM. */
export function armTrap(): void {
  trapArmed = true;
}

// ---------------------------------------------------------------------------------------------
// Slots

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
  memory.fill(s, 0, STREAM_BYTES);
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

function find(context: u32): usize {
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
  const root = vm.rootOf(rootId);
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
    vm.countUntracked();
    return;
  }
  const s = changetype<Stream>(at);
  s.context = context;
  s.root = pointer;
  root.streams++;
  put(context, at);
  link(s);
}

export function remove(context: u32): void {
  const at = find(context);
  if (at == 0) return;
  const s = changetype<Stream>(at);
  settle(s);
  const root = changetype<Root>(s.root);
  if (root.streams > 0) root.streams--;
  unlink(s);
  unput(context);
  s.context = 0;
  s.next = freeList;
  freeList = at;
}

/** Takes the stream out of the in-flight numbers, once. */
function settle(s: Stream): void {
  const bits = s.bits;
  if ((bits & (B_EVENT | B_CALL | B_STREAM)) == 0) return;
  s.bits = bits & ~(B_EVENT | B_CALL | B_STREAM);
  vm.count((bits & B_EVENT) != 0 ? -1 : 0, (bits & B_CALL) != 0 ? -1 : 0, (bits & B_STREAM) != 0 ? -1 : 0);
}

// ---------------------------------------------------------------------------------------------
// Request headers

const P_MTLS = new Text('connection\0mtls');
const P_CLUSTER = new Text('xds\0cluster_name');
const P_CLUSTER_OLD = new Text('cluster_name');
const P_EXTERNAL = new Text('xds\0cluster_metadata\0filter_metadata\0istio\0external');
const P_PORT = new Text('destination\0port');
const T_OUTBOUND = new Text('outbound|');
const T_WELL_KNOWN = new Text('/.well-known/meshpulse/');
const T_PROGRESS_PATH = new Text('/.well-known/meshpulse/progress');
const T_POST = new Text('POST');
const T_CONNECT = new Text('CONNECT');
const T_GRPC = new Text('application/grpc');
const T_KUBE_PROBE = new Text('kube-probe/');
const T_ENVOY_HC = new Text('Envoy/HC');
const T_GOOGLE_HC = new Text('GoogleHC/');
const T_ELB_HC = new Text('ELB-HealthChecker/');
const T_OWN_SERVICE = new Text('/meshpulse.v1.');
const T_SHADOW = new Text('-shadow');
const T_GRPC_WEB = new Text('application/grpc-web');

function parsePairs(map: i32, root: Root): bool {
  if (host.getPairs(map) != host.OK) return false;
  if (map == host.REQUEST_HEADERS) return h.parse(host.dataPtr, host.dataSize, root.config.traceHeaders, root.trace, root.transactionHeader);
  return h.parse(host.dataPtr, host.dataSize, root.config.traceHeaders, NO_NAMES, NO_TEXT);
}

export function requestHeaders(context: u32): u32 {
  if (context == orderContext && orderRoot != 0) {
    order(changetype<Root>(orderRoot));
    return CONTINUE;
  }
  const at = find(context);
  if (at == 0) {
    if (context == untrackedContext && untrackedRoot != 0) clean(changetype<Root>(untrackedRoot));
    return CONTINUE;
  }
  const s = changetype<Stream>(at);
  const root = changetype<Root>(s.root);
  const side = vm.sideOf(root);
  s.side = side;
  if (root.config.role == ROLE_NONE) {
    if (root.config.edge) clean(root);
    return CONTINUE;
  }
  if (!parsePairs(host.REQUEST_HEADERS, root)) {
    clean(root);
    return CONTINUE;
  }
  s.bits |= B_SEEN;
  s.startNs = vm.clock();
  trace.read();
  describe(s, root);
  if (trapArmed && host.getHeader(host.REQUEST_HEADERS, T_TRAP.ptr, T_TRAP.size) == host.OK) unreachable();
  if (h.valueStarts(h.iPath, T_WELL_KNOWN) && wellKnown(s, root)) return STOP;
  if (h.iPath >= 0 && side != OUTBOUND && callbackPath(root)) {
    answer(404, T_NOT_FOUND);
    return STOP;
  }
  enterFlight(s, side);
  rewrite(s, root);
  return CONTINUE;
}

/** Own headers go when the map cannot be read whole: one by one. */
function clean(root: Root): void {
  if (root.config.trustAll && vm.sideOf(root) == INBOUND) return;
  for (let i = 0; i < OWN_NAMES.length; i++) {
    const name = unchecked(OWN_NAMES[i]);
    if (host.getHeader(host.REQUEST_HEADERS, name.ptr, name.size) == host.OK) host.removeHeader(host.REQUEST_HEADERS, name.ptr, name.size);
  }
}

const OWN_NAMES: Text[] = [h.T_CUID, h.T_MP_STATUS, h.T_MP_PROGRESS, h.T_MP_ROLLBACK, new Text('x_cuid'), new Text('x_mp_status'), new Text('x_mp_progress'), new Text('x_mp_rollback')];

/** Who calls whom with what: everything of the request that a row needs. */
function describe(s: Stream, root: Root): void {
  s.keyHi = trace.keyHi;
  s.keyLo = trace.keyLo;
  s.source = trace.source;
  s.requestHi = trace.requestHi;
  s.requestLo = trace.requestLo;
  s.spanIn = trace.span;
  s.spanOut = trace.span;
  let flags: u32 = 0;
  if (h.valueStarts(h.iContentType, T_GRPC) && !h.valueStarts(h.iContentType, T_GRPC_WEB)) flags |= F_GRPC;
  if (h.iUpgrade >= 0 || h.valueIs(h.iMethod, T_CONNECT)) flags |= F_STREAM;
  if (h.iUserAgent >= 0 && (h.valueStarts(h.iUserAgent, T_KUBE_PROBE) || h.valueStarts(h.iUserAgent, T_ENVOY_HC) || h.valueStarts(h.iUserAgent, T_GOOGLE_HC) || h.valueStarts(h.iUserAgent, T_ELB_HC))) flags |= F_PROBE;
  if (shadowed()) flags |= F_SHADOW;
  if (h.valueStarts(h.iPath, T_OWN_SERVICE) || h.valueStarts(h.iPath, T_WELL_KNOWN)) flags |= F_OWN;
  const grpc = (flags & F_GRPC) != 0;

  if (s.side != OUTBOUND) {
    const trusted = s.side == INBOUND && (root.config.trustAll || host.getNumber(P_MTLS.ptr, P_MTLS.size, 0) != 0);
    if (trusted) {
      s.bits |= B_PEER_TRUSTED;
      if (h.iCuid >= 0 && parseUuid(h.valuePtr(h.iCuid), h.valueSize(h.iCuid))) {
        s.peerHi = uuidHi;
        s.peerLo = uuidLo;
      }
      if (h.iMpProgress >= 0 && fields.readProgress(h.valuePtr(h.iMpProgress), h.valueSize(h.iMpProgress)) && (fields.has & fields.HAS_EVENT) != 0) s.event = fields.event;
    }
    if ((s.peerHi | s.peerLo) == 0 && s.event == 0) flags |= F_ENTRY;
    s.operation = operation(grpc, 0);
    if (s.event == 0) s.event = newId();
  }
  if (s.side != INBOUND) {
    destination(s, root);
    s.callOperation = operation(grpc, s.peerService);
    s.callEvent = newId();
  }
  s.flags = flags;
}

function operation(grpc: bool, scope: u32): u32 {
  if (h.iMethod < 0) return names.OTHER;
  const path = h.iPath >= 0;
  return names.operation(h.valuePtr(h.iMethod), h.valueSize(h.iMethod), path ? h.valuePtr(h.iPath) : 0, path ? h.valueSize(h.iPath) : 0, grpc, scope);
}

/** Envoy marks a mirrored request by the host: `shop-shadow:8080`. */
function shadowed(): bool {
  if (h.iAuthority < 0) return false;
  const p = h.valuePtr(h.iAuthority);
  let n = h.valueSize(h.iAuthority);
  for (let i: u32 = n; i > 0 && n - i < 6; i--) {
    if (load<u8>(p + i - 1) == 0x3a) {
      n = i - 1;
      break;
    }
  }
  return n > T_SHADOW.size && T_SHADOW.is(p + n - T_SHADOW.size, T_SHADOW.size);
}

const SEED: usize = memory.data(16, 8);
let idState: u64 = 0;

/** A call id: a counter through a mixing function, started at random. Never 0. */
function newId(): u64 {
  if (idState == 0) {
    host.random(SEED, 8);
    idState = load<u64>(SEED) | 1;
  }
  idState += 0x9e3779b97f4a7c15;
  let z = idState;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  z ^= z >> 31;
  return z == 0 ? 1 : z;
}

/** Names the callee by its cluster and finds out, once per cluster, whether it is in the mesh. */
function destination(s: Stream, root: Root): void {
  const m = host.mark();
  if (host.getProperty(P_CLUSTER.ptr, P_CLUSTER.size) != host.OK) host.getProperty(P_CLUSTER_OLD.ptr, P_CLUSTER_OLD.size);
  const ptr = host.dataPtr;
  const size = host.dataSize;
  host.release(m);
  if (size == 0) return;
  const id = names.peer(ptr, size);
  let facts = names.facts(id);
  if (facts == 0) {
    facts = 1;
    if (id != names.OTHER && inMesh(root, ptr, size)) facts |= 2;
    if (id != names.OTHER) names.setFacts(id, facts);
  }
  s.peerService = id;
  if ((facts & 2) != 0) s.bits |= B_IN_MESH;
}

function inMesh(root: Root, ptr: usize, size: u32): bool {
  const patterns = root.config.meshClusters;
  for (let i = 0; i < patterns.length; i++) if (unchecked(patterns[i]).matches(ptr, size)) return true;
  if (patterns.length > 0 || !T_OUTBOUND.starts(ptr, size)) return false;
  const m = host.mark();
  const external = host.getNumber(P_EXTERNAL.ptr, P_EXTERNAL.size, 0) != 0;
  host.release(m);
  return !external;
}

function enterFlight(s: Stream, side: i32): void {
  let events: i32 = 0;
  let calls: i32 = 0;
  let streams: i32 = 0;
  if (side != OUTBOUND) {
    s.bits |= B_EVENT;
    events = 1;
  } else {
    s.bits |= B_CALL;
    calls = 1;
  }
  if (side != OUTBOUND && (s.flags & F_STREAM) != 0) {
    s.bits |= B_STREAM;
    streams = 1;
  }
  vm.count(events, calls, streams);
}

// Values that outlive nothing: built per request, copied into the map at once.
const PROGRESS: usize = memory.data(256, 8);
const T_EVENT_KEY = new Text('event="');
const T_JOB_KEY = new Text(', job="');
const T_DONE_KEY = new Text(', done=');
const T_OF_KEY = new Text(', of=');
const T_QUEUE_KEY = new Text(', queue=');
const T_STATE_KEY = new Text(', state="');

/** Takes what the app says of its job, from the parsed map. True when it was valid. */
function readApp(event: u64): bool {
  if (h.iMpProgress < 0 || !fields.readProgress(h.valuePtr(h.iMpProgress), h.valueSize(h.iMpProgress))) return false;
  if ((fields.has & ~fields.HAS_EVENT) == 0) return false;
  vm.progress(fields.has, event, fields.jobPtr, (fields.has & fields.HAS_JOB) != 0 ? fields.jobSize : 0, fields.done, fields.total, fields.queue, fields.statePtr, (fields.has & fields.HAS_STATE) != 0 ? fields.stateSize : 0);
  if ((fields.has & fields.HAS_QUEUE) != 0) vm.appQueueMaybe(fields.queue);
  return true;
}

/** Writes the app's keys as last read behind `at`. */
function writeApp(at: usize): usize {
  const has = fields.has;
  if (has & fields.HAS_JOB) at = quoted(copy(at, T_JOB_KEY.ptr, T_JOB_KEY.size), fields.jobPtr, fields.jobSize);
  if (has & fields.HAS_DONE) at = writeDecimal(copy(at, T_DONE_KEY.ptr, T_DONE_KEY.size), fields.done);
  if (has & fields.HAS_OF) at = writeDecimal(copy(at, T_OF_KEY.ptr, T_OF_KEY.size), fields.total);
  if (has & fields.HAS_QUEUE) at = writeDecimal(copy(at, T_QUEUE_KEY.ptr, T_QUEUE_KEY.size), fields.queue);
  if (has & fields.HAS_STATE) at = quoted(copy(at, T_STATE_KEY.ptr, T_STATE_KEY.size), fields.statePtr, fields.stateSize);
  return at;
}

function quoted(at: usize, ptr: usize, size: u32): usize {
  at = copy(at, ptr, size);
  store<u8>(at, 0x22);
  return at + 1;
}

/** Stamps of the sender towards an in-mesh callee, all together under 256 bytes. */
function stampRequest(s: Stream, root: Root, app: bool): void {
  h.stamp(h.T_CUID, vm.CUID, 36);
  let at = copy(PROGRESS, T_EVENT_KEY.ptr, T_EVENT_KEY.size);
  at = writeHex64(at, s.callEvent);
  store<u8>(at++, 0x22);
  const bare = (at - PROGRESS) as u32;
  const full = app ? ((writeApp(at) - PROGRESS) as u32) : bare;
  let used: u32 = h.T_CUID.size + 36 + 4 + h.T_MP_PROGRESS.size + 4;
  if (h.iMpRollback >= 0) used += h.T_MP_ROLLBACK.size + h.valueSize(h.iMpRollback) + 4;
  let statusSize: u32 = 0;
  let progressSize = full;
  if (root.config.statusRequest) {
    const name = h.T_MP_STATUS.size + 4;
    statusSize = vm.status(200);
    if (used + progressSize + name + statusSize > OWN_BYTES_MAX) progressSize = bare;
    if (used + progressSize + name + statusSize > OWN_BYTES_MAX) {
      const left = used + progressSize + name;
      statusSize = left < OWN_BYTES_MAX ? vm.status(OWN_BYTES_MAX - left) : 0;
    }
  } else if (used + progressSize > OWN_BYTES_MAX) progressSize = bare;
  if (statusSize > 0) h.stamp(h.T_MP_STATUS, vm.statusPtr(), statusSize);
  h.stamp(h.T_MP_PROGRESS, PROGRESS, progressSize);
}

/** Decides what happens to the request's headers, and does it unless `order` will. */
function rewrite(s: Stream, root: Root): void {
  const trusted = (s.bits & B_PEER_TRUSTED) != 0;
  const mesh = (s.bits & B_IN_MESH) != 0;
  let dropOwn = false;
  let app = false;
  if (s.side == INBOUND) dropOwn = !trusted;
  else if (s.side == EDGE) dropOwn = true;
  else {
    // The app's own copies of a former hop go; its progress is read, its compensation mark stays.
    app = readApp(s.callEvent);
    h.dropField(h.iCuid);
    h.dropField(h.iMpStatus);
    h.dropField(h.iMpProgress);
    if (!mesh || (h.iMpRollback >= 0 && h.valueSize(h.iMpRollback) > 64)) h.dropField(h.iMpRollback);
  }
  const drop = h.hostileCount > 0 || (dropOwn && h.ownCount > 0);
  const wantStamp = s.side != INBOUND && mesh;
  if ((root.orderSeen & (1 << s.side)) != 0 && !drop) {
    if (wantStamp) s.bits |= B_STAMP;
    push(s);
    return;
  }
  if (wantStamp) stampRequest(s, root, app);
  else push(s);
  if (h.stampsPending() > 0 && h.stampsBreak()) {
    h.clearStamps();
    vm.countUnstamped();
  }
  const move = h.disordered && h.count <= h.FIELDS_MAX;
  if (wantStamp) push(s);
  if (!drop && !move && h.stampsPending() == 0) return;
  if (!h.write(move, dropOwn, true)) {
    vm.countUnstamped();
    if (drop) clean(root);
    return;
  }
  host.setPairs(host.REQUEST_HEADERS, h.outPtr, h.outSize);
}

/** Remembers the stream for the `order` context that follows, most often within the same call of the host. */
function push(s: Stream): void {
  const at = PENDING_TABLE + pendingAt * 8;
  store<u32>(at, s.context);
  store<u32>(at, changetype<usize>(s) as u32, 4);
  pendingAt = (pendingAt + 1) & (PENDING - 1);
}

/** The newest stream that waits for `order` and has this request id. */
function pull(): usize {
  for (let i: u32 = 0; i < PENDING; i++) {
    const at = PENDING_TABLE + ((pendingAt - 1 - i) & (PENDING - 1)) * 8;
    const p = load<u32>(at, 4) as usize;
    if (p == 0) continue;
    const s = changetype<Stream>(p);
    if (s.context != load<u32>(at)) {
      store<u64>(at, 0);
      continue;
    }
    if (s.requestHi == trace.requestHi && s.requestLo == trace.requestLo) {
      store<u64>(at, 0);
      return p;
    }
  }
  return 0;
}

/** The upstream chain: after injection, once per attempt, on the map that goes out. */
function order(root: Root): void {
  if (!parsePairs(host.REQUEST_HEADERS, root)) return;
  trace.read();
  const p = pull();
  if (p != 0) {
    const s = changetype<Stream>(p);
    s.bits |= B_ORDERED;
    const full = changetype<Root>(s.root);
    full.orderSeen |= 1 << s.side;
    s.spanOut = trace.span;
    if ((s.source == trace.KEY_NONE || s.source == trace.KEY_REQUEST_ID) && trace.source != trace.KEY_NONE && trace.source != trace.KEY_REQUEST_ID) {
      s.keyHi = trace.keyHi;
      s.keyLo = trace.keyLo;
      s.source = trace.source;
      s.flags |= F_INJECTED;
    }
    if ((s.bits & B_STAMP) != 0 && h.iCuid < 0) {
      s.bits &= ~B_STAMP;
      stampRequest(s, full, false);
      if (h.stampsBreak()) {
        h.clearStamps();
        vm.countUnstamped();
      }
    }
  }
  const move = h.disordered && h.count <= h.FIELDS_MAX;
  if (!move && h.stampsPending() == 0) return;
  if (h.write(move, false, false)) host.setPairs(host.REQUEST_HEADERS, h.outPtr, h.outSize);
  else vm.countUnstamped();
}

// ---------------------------------------------------------------------------------------------
// Paths of our own

const T_NOT_FOUND = new Text('meshpulse: no such path\n');
const T_POST_ONLY = new Text('meshpulse: progress is reported by POST\n');
const T_BAD_PROGRESS = new Text('meshpulse: x-mp-progress: expected a dictionary such as job="invoice-42", done=30, of=100, queue=7, state=packing\n');
const T_DETAILS = new Text('meshpulse_local');

function answer(status: u32, body: Text): void {
  host.sendLocalResponse(status, T_DETAILS.ptr, T_DETAILS.size, body.ptr, body.size, 0, 0, -1);
}

/** Progress of a job without traffic: only from the own application, never from the network. */
function wellKnown(s: Stream, root: Root): bool {
  if (s.side != OUTBOUND) {
    answer(404, T_NOT_FOUND);
    return true;
  }
  let size = h.valueSize(h.iPath);
  const p = h.valuePtr(h.iPath);
  for (let i: u32 = 0; i < size; i++) {
    if (load<u8>(p + i) == 0x3f) {
      size = i;
      break;
    }
  }
  if (!T_PROGRESS_PATH.is(p, size)) {
    answer(404, T_NOT_FOUND);
    return true;
  }
  if (!h.valueIs(h.iMethod, T_POST)) answer(405, T_POST_ONLY);
  else if (!readApp(0)) answer(400, T_BAD_PROGRESS);
  else {
    vm.progressSoon();
    host.sendLocalResponse(204, T_DETAILS.ptr, T_DETAILS.size, 0, 0, 0, 0, -1);
  }
  return true;
}

function callbackPath(root: Root): bool {
  const path = root.callback;
  if (path.size == 0) return false;
  const p = h.valuePtr(h.iPath);
  let size = h.valueSize(h.iPath);
  for (let i: u32 = 0; i < size; i++) {
    if (load<u8>(p + i) == 0x3f) {
      size = i;
      break;
    }
  }
  return path.is(p, size);
}

// ---------------------------------------------------------------------------------------------
// Bodies: only to tell a gRPC stream from a unary call

export function body(context: u32, size: u32, response: bool): void {
  if (size == 0) return;
  const at = find(context);
  if (at == 0) return;
  const s = changetype<Stream>(at);
  if ((s.flags & (F_GRPC | F_STREAM)) != F_GRPC) return;
  let skip = response ? s.responseSkip : s.requestSkip;
  let messages = response ? s.responseMessages : s.requestMessages;
  let offset: u32 = 0;
  // Walks frame headers: 1 byte flags, 4 bytes length.
  while (offset < size) {
    if (skip >= size - offset) {
      skip -= size - offset;
      break;
    }
    offset += skip;
    skip = 0;
    messages++;
    if (messages > 1) break;
    const m = host.mark();
    if (size - offset < 5 || host.getBody(response, offset, 5) != host.OK || host.dataSize < 5) {
      // A header split between two buffers: what follows cannot be told apart, so take it as one message.
      host.release(m);
      skip = 0x7fffffff;
      break;
    }
    skip = bswap<u32>(load<u32>(host.dataPtr, 1)) + 5;
    host.release(m);
  }
  if (response) {
    s.responseSkip = skip;
    s.responseMessages = messages;
  } else {
    s.requestSkip = skip;
    s.requestMessages = messages;
  }
  if (messages > 1) {
    s.flags |= F_STREAM;
    if ((s.bits & B_EVENT) != 0 && (s.bits & B_STREAM) == 0) {
      s.bits |= B_STREAM;
      vm.count(0, 0, 1);
    }
  }
}

// ---------------------------------------------------------------------------------------------
// Response headers

const ORCA: usize = memory.data(128, 8);
const T_ORCA_NAME = new Text('endpoint-load-metrics');
const T_ORCA_INFLIGHT = new Text('TEXT named_metrics.inflight=');

export function responseHeaders(context: u32): void {
  const at = find(context);
  if (at == 0) return;
  const s = changetype<Stream>(at);
  const root = changetype<Root>(s.root);
  if (root.config.role != ROLE_FULL || (s.bits & B_SEEN) == 0) return;
  if (!parsePairs(host.RESPONSE_HEADERS, root)) return;
  vm.clock();
  s.bits |= B_RESPONSE;
  if (h.iStatus >= 0 && parseDecimal(h.valuePtr(h.iStatus), h.valueSize(h.iStatus))) s.status = parsed as u32;
  const mesh = (s.bits & B_IN_MESH) != 0;
  let dropOwn = false;
  if (s.side != INBOUND) {
    if (mesh) {
      if (h.iCuid >= 0 && parseUuid(h.valuePtr(h.iCuid), h.valueSize(h.iCuid))) {
        s.calleeHi = uuidHi;
        s.calleeLo = uuidLo;
      }
    }
    dropOwn = s.side == EDGE || !mesh;
  } else {
    const trusted = (s.bits & B_PEER_TRUSTED) != 0;
    if (h.iOrca >= 0 && fields.readOrca(h.valuePtr(h.iOrca), h.valueSize(h.iOrca))) {
      if (fields.orcaHas & fields.ORCA_QUEUE) vm.appQueueMaybe(fields.orcaQueue as u64);
      if (fields.orcaHas & (fields.ORCA_CPU | fields.ORCA_MEMORY))
        vm.appResources(fields.orcaHas & fields.ORCA_CPU ? fields.orcaCpu : -1, fields.orcaHas & fields.ORCA_MEMORY ? fields.orcaMemory : -1);
    }
    // The app may speak of its progress; it cannot speak for the proxy.
    const valid = h.iMpProgress >= 0 && readApp(s.event);
    h.dropField(h.iCuid);
    h.dropField(h.iMpStatus);
    if (!valid || !trusted) h.dropField(h.iMpProgress);
    if (!trusted) h.dropField(h.iMpRollback);
    if (trusted) {
      h.stamp(h.T_CUID, vm.CUID, 36);
      if (root.config.statusResponse) {
        let used: u32 = h.T_CUID.size + 40 + h.T_MP_STATUS.size + 4;
        if (valid && h.iMpProgress >= 0) {
          const progress = h.T_MP_PROGRESS.size + h.valueSize(h.iMpProgress) + 4;
          if (used + progress + vm.status(200) > OWN_BYTES_MAX) h.dropField(h.iMpProgress);
          else used += progress;
        }
        const size = vm.status(OWN_BYTES_MAX - used);
        if (size > 0) h.stamp(h.T_MP_STATUS, vm.statusPtr(), size);
      }
      if (root.config.statusOrca && h.iOrca < 0) h.stamp(T_ORCA_NAME, ORCA, orca());
    }
  }
  if (h.stampsPending() > 0 && h.stampsBreak()) {
    h.clearStamps();
    vm.countUnstamped();
  }
  if (h.hostileCount > 0 || (dropOwn && h.ownCount > 0)) {
    if (h.write(false, dropOwn, true)) host.setPairs(host.RESPONSE_HEADERS, h.outPtr, h.outSize);
    else for (let i = 0; i < OWN_NAMES.length; i++) host.removeHeader(host.RESPONSE_HEADERS, OWN_NAMES[i].ptr, OWN_NAMES[i].size);
    return;
  }
  for (let i: u32 = 0; i < h.stampsPending(); i++) {
    const e = h.stampAt(i);
    host.addHeader(host.RESPONSE_HEADERS, load<u32>(e), load<u32>(e, 4), load<u32>(e, 8), load<u32>(e, 12));
  }
}

/** ORCA TEXT for Envoy's balancers. */
function orca(): u32 {
  const at = copy(ORCA, T_ORCA_INFLIGHT.ptr, T_ORCA_INFLIGHT.size);
  return (writeDecimal(at, vm.inFlightTotal() as u64) - ORCA) as u32;
}

// ---------------------------------------------------------------------------------------------
// End

const P_CODE = new Text('response\0code');
const P_FLAGS = new Text('response\0flags');
const P_GRPC_STATUS = new Text('response\0grpc_status');
const P_DETAILS = new Text('response\0code_details');
const P_ATTEMPTS = new Text('upstream\0request_attempt_count');
const P_WAIT = new Text('upstream\0cx_pool_ready_duration');
const P_REQUEST_BYTES = new Text('request\0total_size');
const P_RESPONSE_BYTES = new Text('response\0total_size');
const P_CUID = new Text('cuid');
const T_VIA_UPSTREAM = new Text('via_upstream');

export function log(context: u32): void {
  const at = find(context);
  if (at == 0) return;
  const s = changetype<Stream>(at);
  const root = changetype<Root>(s.root);
  if (root.config.role != ROLE_FULL || (s.bits & B_LOGGED) != 0) return;
  s.bits |= B_LOGGED;
  if (s.side == 0) s.side = vm.sideOf(root);
  vm.clock();
  host.setProperty(P_CUID.ptr, P_CUID.size, vm.CUID, 36);
  if ((s.bits & B_SEEN) == 0) {
    // Rejected before us: only now do we hear of it.
    s.startNs = vm.nowNs;
    if (parsePairs(host.REQUEST_HEADERS, root)) {
      trace.read();
      describe(s, root);
    }
    s.flags |= F_UNSEEN;
  }
  settle(s);
  finish(s, root);
}

function finish(s: Stream, root: Root): void {
  const responseFlags = host.getNumber(P_FLAGS.ptr, P_FLAGS.size, 0);
  if (s.status == 0) s.status = host.getNumber(P_CODE.ptr, P_CODE.size, 0) as u32;
  let status = s.status & 0xffff;
  let grpc: i64 = -1;
  if ((s.flags & F_GRPC) != 0) {
    grpc = host.getNumber(P_GRPC_STATUS.ptr, P_GRPC_STATUS.size, u64.MAX_VALUE) as i64;
    if (grpc >= 0 && grpc < 200) status |= ((grpc as u32) + 1) << 16;
    else grpc = -1;
  }
  let details: u32 = 0;
  let local = false;
  const odd = responseFlags != 0 || s.status == 0 || s.status >= 400 || ((root.orderSeen & (1 << s.side)) != 0 && (s.bits & B_ORDERED) == 0);
  if (odd) {
    const m = host.mark();
    if (host.getProperty(P_DETAILS.ptr, P_DETAILS.size) == host.OK && host.dataSize > 0) {
      if (T_VIA_UPSTREAM.is(host.dataPtr, host.dataSize)) {
        // It went upstream and `order` was not there: from now on `full` writes the headers again.
        if ((s.bits & (B_SEEN | B_ORDERED)) == B_SEEN) root.orderSeen &= ~(1 << s.side);
      } else {
        local = true;
        details = names.detail(host.dataPtr, host.dataSize);
      }
    }
    host.release(m);
  }
  if (local) s.flags |= F_LOCAL_REPLY;
  const outcome = judge(s.status, grpc, responseFlags, s.flags);
  const elapsed = vm.nowNs > s.startNs ? (vm.nowNs - s.startNs) / 1000 : 0;
  const streamed = (s.flags & F_STREAM) != 0;
  const duration: u32 = streamed ? 0 : elapsed > 0xffffffff ? 0xffffffff : (elapsed as u32);
  const waitNs = host.getNumber(P_WAIT.ptr, P_WAIT.size, u64.MAX_VALUE);
  const hasWait = waitNs != u64.MAX_VALUE;
  const wait: u32 = hasWait ? (waitNs / 1000 > 0xffffffff ? 0xffffffff : ((waitNs / 1000) as u32)) : 0;
  if (s.side != OUTBOUND) vm.observe(outcome == O_FAILED, streamed, duration, wait, hasWait);
  if (!vm.isReporting()) return;
  if (s.side != OUTBOUND) row(s, root, false, outcome, status, responseFlags as u32, duration, wait, details);
  if (s.side == OUTBOUND || (s.side == EDGE && s.peerService != 0)) row(s, root, true, outcome, status, responseFlags as u32, duration, wait, details);
}

/** What the outcome means, as the contract's "Early rollback" defines it. */
function judge(status: u32, grpc: i64, responseFlags: u64, flags: u32): u32 {
  if ((responseFlags & RF_FAILURES) != 0 && (responseFlags & RF_DOWNSTREAM_END) == 0 && (status >= 500 || status == 0 || grpc > 0)) return O_FAILED;
  if ((responseFlags & RF_DOWNSTREAM_END) != 0) return O_CANCELLED;
  if (grpc > 0) {
    if (grpc == 1) return O_CANCELLED;
    if (grpc == 2 || grpc == 4 || grpc == 8 || grpc == 13 || grpc == 14 || grpc == 15) return O_FAILED;
    return O_DECLINED;
  }
  if (status == 0) return O_CANCELLED;
  if (status >= 500) return O_FAILED;
  if (status >= 400) return O_DECLINED;
  return O_OK;
}

function row(s: Stream, root: Root, call: bool, outcome: u32, status: u32, responseFlags: u32, duration: u32, wait: u32, details: u32): void {
  let flags = s.flags;
  if (call) {
    flags = (flags & ~F_ENTRY) | F_CALL;
    if ((s.bits & B_IN_MESH) == 0 && s.peerService != 0) flags |= F_EXTERNAL;
  }
  const operation = call ? s.callOperation : s.operation;
  let attempts: u32 = 0;
  if (call) {
    const n = host.getNumber(P_ATTEMPTS.ptr, P_ATTEMPTS.size, 0);
    attempts = n > 255 ? 255 : (n as u32);
  }
  const bits = flags | (outcome << 16) | (s.source << 20) | (attempts << 24);
  const config = root.config;
  let weight: u32 = 0;
  if (config.events != EVENTS_ALL) {
    // Exact counts leave out the attempts: a total per (operation, status, flags) must stay small.
    vm.countOnly(operation, status, responseFlags, bits & 0x000fffff, duration);
    if (config.events == EVENTS_FAILURES) {
      if (outcome != O_FAILED) return;
    } else {
      if (!sampled(s, config.ratio)) return;
      weight = config.ratio > 0 ? (Math.round(1 / config.ratio) as u32) : 1;
    }
  }
  const at = vm.newRow();
  if (at == 0) return;
  const r = changetype<Row>(at);
  r.endUs = vm.wallAt(vm.nowNs);
  r.keyHi = s.keyHi;
  r.keyLo = s.keyLo;
  r.requestHi = s.requestHi;
  r.requestLo = s.requestLo;
  r.event = call ? s.callEvent : s.event;
  r.spanIn = s.spanIn;
  r.spanOut = s.spanOut;
  r.peerHi = call ? s.calleeHi : s.peerHi;
  r.peerLo = call ? s.calleeLo : s.peerLo;
  r.durationUs = duration;
  r.operation = operation;
  r.peerService = call ? vm.hostOf(s.peerService) : 0;
  r.status = status;
  r.responseFlags = responseFlags;
  r.flags = bits;
  r.waitUs = wait;
  r.details = details;
  r.weight = weight;
  if ((flags & F_STREAM) != 0) {
    r.requestBytes = saturate(host.getNumber(P_REQUEST_BYTES.ptr, P_REQUEST_BYTES.size, 0));
    r.responseBytes = saturate(host.getNumber(P_RESPONSE_BYTES.ptr, P_RESPONSE_BYTES.size, 0));
  }
  if (config.plainIds && s.source == trace.KEY_HEADER && host.getHeader(host.REQUEST_HEADERS, root.transactionHeader.ptr, root.transactionHeader.size) == host.OK) vm.rowText(r, host.dataPtr, host.dataSize);
  vm.commit(outcome == O_FAILED);
}

function saturate(value: u64): u32 {
  return value > 0xffffffff ? 0xffffffff : (value as u32);
}

/** The same choice everywhere for one transaction. */
function sampled(s: Stream, ratio: f64): bool {
  const mixed = (s.keyHi ^ s.keyLo) * 0x9e3779b97f4a7c15;
  return ((mixed >> 32) as f64) < ratio * 4294967296.0;
}

// ---------------------------------------------------------------------------------------------
// What runs now

const LIST_MAX: u32 = 256;
const LIST_PERIOD_MS: u64 = 1000;
let lastListMs: u64 = 0;
let lastFullListMs: u64 = 0;
let listed: bool = false;

/** Tells the collector what has been running for longer than report.inFlightMs. */
export function tellInFlight(): void {
  const ms = vm.nowMs();
  if (!vm.isReporting() || ms - lastListMs < LIST_PERIOD_MS) return;
  lastListMs = ms;
  let any = false;
  let fresh = false;
  let soonest: u64 = u64.MAX_VALUE;
  for (let p = oldest; p != 0; p = changetype<Stream>(p).next) {
    const s = changetype<Stream>(p);
    const limit = changetype<Root>(s.root).config.inFlightMs as u64;
    if (limit < soonest) soonest = limit;
    if ((s.bits & (B_EVENT | B_CALL)) == 0) continue;
    if (vm.nowNs < s.startNs + limit * 1000000) break; // younger ones follow
    any = true;
    if ((s.bits & B_LISTED) == 0) fresh = true;
  }
  if (!any) {
    if (listed) write(false);
    listed = false;
    return;
  }
  if (!fresh && ms - lastFullListMs < soonest) return;
  lastFullListMs = ms;
  listed = true;
  write(true);
}

function write(withItems: bool): void {
  wire.start();
  const mark = wire.open(4);
  wire.putFixed64(1, vm.producer());
  let n: u32 = 0;
  let omitted: u32 = 0;
  for (let p = oldest; withItems && p != 0; p = changetype<Stream>(p).next) {
    const s = changetype<Stream>(p);
    const root = changetype<Root>(s.root);
    if ((s.bits & (B_EVENT | B_CALL)) == 0) continue;
    if (vm.nowNs < s.startNs + (root.config.inFlightMs as u64) * 1000000) break;
    if (n >= LIST_MAX || wire.room() < 1024) {
      omitted++;
      continue;
    }
    n++;
    s.bits |= B_LISTED;
    const call = (s.bits & B_CALL) != 0;
    const operation = call ? s.callOperation : s.operation;
    const inner = wire.open(2);
    wire.putFixed64(1, call ? s.callEvent : s.event);
    wire.putFixed64(2, s.keyHi);
    wire.putFixed64(3, s.keyLo);
    wire.putFixed64(4, s.requestHi);
    wire.putFixed64(5, s.requestLo);
    wire.putBytes(6, names.namePtr(operation), names.nameSize(operation));
    wire.putVarint(7, ((s.flags & (call ? ~F_ENTRY : 0xffffffff)) | (call ? F_CALL : 0) | (s.source << 20)) as u64);
    wire.putVarint(8, (vm.nowNs - s.startNs) / 1000000);
    const peer = call ? vm.hostOf(s.peerService) : 0;
    wire.putBytes(9, names.namePtr(peer), names.nameSize(peer));
    wire.putUuid(10, call ? s.calleeHi : s.peerHi, call ? s.calleeLo : s.peerLo);
    wire.close(inner);
  }
  wire.putVarint(3, omitted);
  wire.close(mark);
  vm.tell();
}
