// One per VM: who this proxy is, the rows waiting for a batch, the batches waiting for an ack, and,
// in the VM that leads, the stream to the collector.
//
// Each VM numbers its own batches and keeps them in a window until the collector has acknowledged
// them. Batches travel to the leader through the proxy's shared queue; the leader only forwards.
// When the stream or the leader changes, the `session` number in the shared table changes, and every
// VM sends its whole window again: replays are idempotent, gaps are loss with a number. The window
// has a bound; past it the oldest batch goes first, and the gap tells.
import { copy, hash, Text, writeDecimal, writeShare } from './bytes';
import { Config, EVENTS_ALL, ROLE_FULL } from './config';
import * as names from './core/names';
import * as wire from './core/wire';
import { Row } from './core/wire';
import * as host from './host';
import * as shares from './shares';
import { own, UNKNOWN } from './shares';

export const VERSION: string = '0.1.0';

/** How often a VM looks after itself, ms. */
export const TICK_MS: u64 = 200;
/** Publish the in-flight share at most this often outside ticks, ms. */
const SHARE_MS: u64 = 20;
const WINDOW_BYTES: u32 = 256 * 1024;
const WINDOW_ENTRIES: u32 = 256;
/** Batches of one VM that may be on their way without an ack. */
const UNACKED_MAX: u32 = 64;
const HEARTBEAT_MS: u64 = 10000;
/** Without any reply for so long although we spoke, the stream is given up. */
const SILENCE_MS: u64 = 25000;
const ACK_MS: u64 = 15000;
const BACKOFF_MIN_MS: u64 = 500;
const BACKOFF_MAX_MS: u64 = 30000;
/** Three failures within a minute: unary calls until the stream works again. */
const FALLBACK_FAILURES: u32 = 3;
const FALLBACK_WINDOW_MS: u64 = 60000;
const FALLBACK_RETRY_MS: u64 = 60000;
const UNARY_TIMEOUT_MS: u32 = 5000;
/** A message is sent when it has grown to this size, bytes. */
const MESSAGE_BYTES: u32 = 64 * 1024;
const REPLY_BYTES_MAX: u32 = 64 * 1024;
const TEXT_BYTES: u32 = 16 * 1024;
const IN_FLIGHT_LIST_MAX: u32 = 256;
const PROGRESS_MAX: u32 = 64;
const COUNTS_MAX: u32 = 128;

const T_QUEUE = new Text('meshpulse.queue');
const T_LIFE = new Text('meshpulse.life');
const T_SERVICE = new Text('meshpulse.v1.Ingest');
const T_REPORT = new Text('Report');
const T_REPORT_ONCE = new Text('ReportOnce');

/** Settings and counters of one root context: one plugin configuration in one listener direction. */
export class Root {
  id: u32 = 0;
  config: Config = new Config();
  /** 1 inbound, 2 outbound, 3 gateway: both sides of a request; 0 not known yet. */
  side: i32 = 0;
  trace: usize = 0; // 256-byte map: first characters of trace header names
  transactionHeader: Text = new Text('');
  /** rollback.callback.path: closed to the network. */
  callback: Text = new Text('');
  /** Bit per side: `role: order` follows in the upstream chain, so headers are left to it. */
  orderSeen: u32 = 0;
  dead: bool = false;
  streams: u32 = 0;
  configured: bool = false;
}

export const roots: Root[] = [];
let orderRoots: u32 = 0;

// Identity.
export let cuidHi: u64 = 0;
export let cuidLo: u64 = 0;
export const CUID: usize = memory.data(40, 8);
let bootEpochUs: u64 = 0;
let nodeId: string = '';
let nodeCluster: string = '';
let nodeNetwork: string = '';
let nodeService: string = '';
let nodeSlot: string = '';
let nodeWorkload: string = '';
let nodeName: string = '';
let nodeIp: string = '';
let vmId: Text = new Text('');
export let router: bool = false;
const PORTS: usize = memory.data(64, 8);
let portCount: u32 = 0;

// Time, refreshed by every tick: wall = monotonic + offset.
let wallOffsetUs: u64 = 0;
export let nowNs: u64 = 0;
let lastTickMs: u64 = 0;

// Rows waiting for their batch.
const ROWS: usize = memory.data(36864, 16); // wire.ROWS_MAX x wire.ROW_BYTES
const TEXTS: usize = memory.data(16384, 8);
let rowCount: u32 = 0;
let textTop: u32 = 0;
let lastFlushMs: u64 = 0;

// Window of batches: a ring of bytes and a ring of entries (at u32, size u32, seq u64, rows u32).
let window: usize = 0;
const ENTRIES: usize = memory.data(6144, 16);
const ENTRY: u32 = 24;
let firstEntry: u32 = 0;
let entryCount: u32 = 0;
let windowTop: u32 = 0;
let sentSeq: u64 = 0; // highest number given to the leader in this session
let knownSession: u64 = 0;
let queueToken: u32 = 0;

// Counters of the process's doubts, sent with hello.
export let unstamped: u64 = 0;
export let untracked: u64 = 0;
export let configErrors: u64 = 0;
let windowDrops: u64 = 0;
let configErrorsTold: bool = true;
let metricConfigErrors: u32 = 0xffffffff;
let metricUnstamped: u32 = 0xffffffff;
let metricDropped: u32 = 0xffffffff;
let unstampedTold: u64 = 0;
let droppedTold: u64 = 0;

// Window statistics of this VM.
const BUCKETS: u32 = 128;
const WAITS: usize = memory.data(512, 8);
const DURATIONS: usize = memory.data(512, 8);
let windowRequests: u32 = 0;
let windowFailures: u32 = 0;
let windowStartMs: u64 = 0;

// Exact counts while rows are thinned.
const COUNTS: usize = memory.data(4096, 16); // COUNTS_MAX x 32: operation, status, responseFlags, flags u32; count, durationUs u64
let countRows: u32 = 0;
let thinned: bool = false;
let interval: u32 = 1000;
let intervalHint: u32 = 0;
let hintUntilMs: u64 = 0;

// Leader.
let leading: bool = false;
let seenRequest: bool = false;
let stream: u32 = 0;
let streamRoot: u32 = 0;
let unary: u32 = 0;
let unaryMode: bool = false;
let unaryBusy: bool = false;
let retryAtMs: u64 = 0;
let streamRetryAtMs: u64 = 0;
let backoffMs: u64 = BACKOFF_MIN_MS;
let failures: u32 = 0;
let failuresSinceMs: u64 = 0;
let lastSendMs: u64 = 0;
let lastReplyMs: u64 = 0;
let awaitingSinceMs: u64 = 0;
let lastStatusMs: u64 = 0;
let statusDirty: bool = true;
let helloDue: bool = false;
let goodbyeRoot: u32 = 0;
let goodbyeSinceMs: u64 = 0;
let goodbyeSaid: bool = false;

// ---------------------------------------------------------------------------------------------
// Start

export function nowMs(): u64 {
  return nowNs / 1000000;
}

export function clock(): u64 {
  nowNs = host.monotonicNs();
  return nowNs;
}

export function producer(): u64 {
  return own.id;
}

export function inFlightTotal(): u32 {
  return own.inFlight + shares.othersInFlight;
}

/** Name id of a cluster's host: the part behind the last `|` of `outbound|8080||shop.ns.svc`. */
export function hostOf(cluster: u32): u32 {
  const ptr = names.namePtr(cluster);
  const size = names.nameSize(cluster);
  for (let i: u32 = size; i > 0; i--) {
    if (load<u8>(ptr + i - 1) == 0x7c) return names.peer(ptr + i, size - i);
  }
  return cluster;
}

export function wallAt(ns: u64): u64 {
  return ns / 1000 + wallOffsetUs;
}

function refreshClock(): void {
  clock();
  wallOffsetUs = host.wallUs() - nowNs / 1000;
}

const ID: usize = memory.data(32, 8);

/** Once per VM. */
export function start(): void {
  if (own.id != 0) return;
  names.init();
  refreshClock();
  host.random(ID, 8);
  own.id = load<u64>(ID) | 1;
  own.nextSeq = 1;
  own.waitMs = UNKNOWN;
  own.durationUs = UNKNOWN;
  own.queue = UNKNOWN;
  own.cpu = -1;
  own.memory = -1;
  window = heap.alloc(WINDOW_BYTES);
  lastFlushMs = nowMs();
  windowStartMs = nowMs();
}

/** The process's life: minted by whichever VM asks first, the same for all. Main thread first, so there is no race. */
function life(): void {
  if (cuidHi != 0) return;
  const m = host.mark();
  if (host.getShared(T_LIFE.ptr, T_LIFE.size) != host.OK || host.dataSize != 24) {
    host.random(ID, 16);
    store<u8>(ID, (load<u8>(ID, 6) & 0x0f) | 0x40, 6);
    store<u8>(ID, (load<u8>(ID, 8) & 0x3f) | 0x80, 8);
    store<u64>(ID, bswap<u64>(load<u64>(ID)));
    store<u64>(ID, bswap<u64>(load<u64>(ID, 8)), 8);
    store<u64>(ID, host.wallUs(), 16);
    host.setShared(T_LIFE.ptr, T_LIFE.size, ID, 24, 0);
    host.getShared(T_LIFE.ptr, T_LIFE.size);
  }
  if (host.dataSize == 24) {
    cuidHi = load<u64>(host.dataPtr);
    cuidLo = load<u64>(host.dataPtr, 8);
    bootEpochUs = load<u64>(host.dataPtr, 16);
  } else {
    cuidHi = load<u64>(ID);
    cuidLo = load<u64>(ID, 8);
    bootEpochUs = load<u64>(ID, 16);
  }
  host.release(m);
  wire.writeUuid(CUID, cuidHi, cuidLo);
}

/** A property of the node, by the path of 1.33 and newer, else by the older one; '' when absent. */
function node(path: string): string {
  const text = property('xds\0node\0' + path);
  return text.length > 0 ? text : property('node\0' + path);
}

export function property(path: string): string {
  const bytes = String.UTF8.encode(path);
  const m = host.mark();
  let text = '';
  if (host.getProperty(changetype<usize>(bytes), bytes.byteLength) == host.OK && host.dataSize > 0 && host.dataSize <= 1024) {
    text = String.UTF8.decodeUnsafe(host.dataPtr, host.dataSize);
  }
  host.release(m);
  return text;
}

function identify(config: Config): void {
  if (nodeId.length == 0) {
    nodeId = node('id');
    router = nodeId.startsWith('router~');
    nodeCluster = node('metadata\0CLUSTER_ID');
    nodeNetwork = node('metadata\0NETWORK');
    nodeWorkload = node('metadata\0WORKLOAD_NAME');
    nodeName = node('metadata\0NODE_NAME');
    nodeSlot = node('metadata\0NAME');
    const parts = nodeId.split('~');
    nodeIp = parts.length == 4 ? parts[1] : '';
    const ips = node('metadata\0INSTANCE_IPS');
    if (ips.length > 0) nodeIp = ips.split(',')[0];
    if (nodeSlot.length == 0 && parts.length == 4) nodeSlot = parts[2].split('.')[0];
    let name = node('metadata\0LABELS\0service.istio.io/canonical-name');
    if (name.length == 0) name = node('metadata\0LABELS\0app');
    if (name.length == 0) name = nodeWorkload;
    if (name.length == 0) name = node('cluster');
    const namespace = node('metadata\0NAMESPACE');
    nodeService = name.length > 0 && namespace.length > 0 ? name + '.' + namespace : name;
    vmId = new Text(property('plugin_vm_id'));
  }
  if (config.service.length > 0) nodeService = config.service;
}

function find(id: u32): Root | null {
  for (let i = 0; i < roots.length; i++) if (unchecked(roots[i]).id == id) return unchecked(roots[i]);
  return null;
}

export function rootOf(id: u32): Root | null {
  return find(id);
}

export function createRoot(id: u32): void {
  if (find(id) !== null) return;
  // A root that ended is kept only while it still has streams.
  for (let i = roots.length - 1; i >= 0; i--) {
    if (roots[i].dead && roots[i].streams == 0) {
      if (roots[i].trace != 0) heap.free(roots[i].trace);
      roots.splice(i, 1);
    }
  }
  const root = new Root();
  root.id = id;
  roots.push(root);
}

/** Never fails. Runs also in a canary VM that is thrown away: no network, no counters. */
export function configure(id: u32, size: u32): void {
  start();
  createRoot(id);
  const root = find(id);
  if (root === null) return;
  let config: Config;
  // One byte more than is read tells a configuration that is too long.
  if (size == 0 || host.getPluginConfig(size) != host.OK) config = size == 0 ? Config.parse(0, 0) : Config.parse(0, u32.MAX_VALUE);
  else config = Config.parse(host.dataPtr, host.dataSize);
  identify(config);
  if (config.edgeUnreadable && router) config.edge = true;
  root.config = config;
  root.transactionHeader = new Text(config.transactionHeader);
  root.callback = new Text(config.callbackPath);
  if (root.trace == 0) root.trace = heap.alloc(256);
  memory.fill(root.trace, 0, 256);
  for (let i = 0; i < config.traceHeaders.length; i++) {
    const pattern = config.traceHeaders[i];
    if (pattern.head) memory.fill(root.trace, 1, 256);
    else store<u8>(root.trace + load<u8>(pattern.text.ptr), 1);
  }
  root.side = side(config);
  root.dead = false;
  life();
  if (!root.configured) {
    root.configured = true;
    if (config.role == 1) orderRoots++;
  }
  if (config.errorsTotal > 0) {
    configErrors += config.errorsTotal;
    configErrorsTold = false;
    for (let i = 0; i < config.errors.length; i++) host.logText(3, 'meshpulse: ' + config.errors[i]);
  }
  if (config.collectorCluster.length > 0 && config.role == ROLE_FULL) {
    interval = config.intervalMs;
    if (config.events != EVENTS_ALL) thinned = true;
  }
  host.setTickPeriod(TICK_MS as u32);
}

/** 0 = ask the listener, which only a request's context can. */
function side(config: Config): i32 {
  if (config.edge || (router && config.direction == 0)) return 3;
  return config.direction;
}

const P_DIRECTION = new Text('xds\0listener_direction');
const P_DIRECTION_OLD = new Text('listener_direction');

/**
 * Which way does this request's listener look? Envoy gives listeners with equal settings one root
 * context, so the answer belongs to the request.
 */
export function sideOf(root: Root): i32 {
  if (root.side != 0) return root.side;
  let d = host.getNumber(P_DIRECTION.ptr, P_DIRECTION.size, 99);
  if (d == 99) d = host.getNumber(P_DIRECTION_OLD.ptr, P_DIRECTION_OLD.size, 99);
  return d == 2 ? 2 : 1;
}

/** The root whose settings say where to report; null when there is none. */
function reporter(): Root | null {
  for (let i = 0; i < roots.length; i++) {
    const root = unchecked(roots[i]);
    if (!root.dead && root.config.role == ROLE_FULL && root.config.collectorCluster.length > 0) return root;
  }
  return null;
}

let reporting: bool = false;

export function isReporting(): bool {
  return reporting;
}

// ---------------------------------------------------------------------------------------------
// Status

export function count(inFlight: i32, calls: i32, streams: i32): void {
  own.inFlight += inFlight;
  own.calls += calls;
  own.streams += streams;
  own.active = own.inFlight + own.calls;
  statusDirty = true;
  seenRequest = true;
  const ms = nowMs();
  if (ms - own.stampMs >= SHARE_MS) shares.sync(ms);
}

/** Of one VM, in quarter powers of two of the unit. */
function bucket(value: u32): u32 {
  if (value < 4) return value;
  const log = 31 - clz<u32>(value);
  return ((log - 1) << 2) + ((value >> (log - 2)) & 3);
}

function bucketValue(b: u32): u32 {
  if (b < 4) return b;
  const log = (b >> 2) + 1;
  return (4 + (b & 3)) << (log - 2);
}

function median(table: usize): u32 {
  let total: u32 = 0;
  for (let i: u32 = 0; i < BUCKETS; i++) total += load<u32>(table + i * 4);
  if (total == 0) return UNKNOWN;
  let seen: u32 = 0;
  for (let i: u32 = 0; i < BUCKETS; i++) {
    seen += load<u32>(table + i * 4);
    if (seen * 2 >= total) return bucketValue(i);
  }
  return UNKNOWN;
}

export function observe(failed: bool, streamed: bool, durationUs: u32, waitUs: u32, hasWait: bool): void {
  windowRequests++;
  if (failed) windowFailures++;
  if (!streamed) bump(DURATIONS, durationUs);
  if (hasWait) bump(WAITS, waitUs);
}

function bump(table: usize, value: u32): void {
  const at = table + bucket(value) * 4;
  store<u32>(at, load<u32>(at) + 1);
}

/** The application's own word, from ORCA or progress. */
export function appQueue(value: u64): void {
  own.queue = value > 0x7fffffff ? 0x7fffffff : (value as u32);
  own.queueMs = nowMs();
  statusDirty = true;
  shares.sync(nowMs());
}

export function appQueueMaybe(value: u64): void {
  // From the request path: published with the next share.
  own.queue = value > 0x7fffffff ? 0x7fffffff : (value as u32);
  own.queueMs = nowMs();
  if (own.queueMs > shares.queueMs) setQueue(own.queue, own.queueMs);
  statusDirty = true;
}

function setQueue(value: u32, ms: u64): void {
  shares.adoptQueue(value, ms);
}

export function appResources(cpu: f64, mem: f64): void {
  if (cpu >= 0) own.cpu = cpu as f32;
  if (mem >= 0) own.memory = mem as f32;
  own.resourceMs = nowMs();
  shares.adoptResources(own.cpu, own.memory, own.resourceMs);
}

const STATUS: usize = memory.data(160, 8);
const T_INFLIGHT = new Text('inflight=');
const T_QUEUE_KEY = new Text(', queue=');
const T_QSRC_APP = new Text(', qsrc=app');
const T_WAIT = new Text(', wait=');
const T_CPU = new Text(', cpu=');
const T_MEM = new Text(', mem=');
const T_AGE = new Text(', age=');

export function statusPtr(): usize {
  return STATUS;
}

/** Renders x-mp-status, at most `max` bytes: keys that do not fit are left out from the right. */
export function status(max: u32): u32 {
  const ms = nowMs();
  let at = copy(STATUS, T_INFLIGHT.ptr, T_INFLIGHT.size);
  at = writeDecimal(at, (own.inFlight + shares.othersInFlight) as u64);
  if ((at - STATUS) as u32 > max) return 0;
  let kept = at;
  if (shares.queue != UNKNOWN && ms - shares.queueMs <= shares.APP_FRESH_MS) {
    at = writeDecimal(copy(at, T_QUEUE_KEY.ptr, T_QUEUE_KEY.size), shares.queue as u64);
    at = copy(at, T_QSRC_APP.ptr, T_QSRC_APP.size);
    if ((at - STATUS) as u32 > max) return (kept - STATUS) as u32;
    kept = at;
  }
  if (shares.waitMs != UNKNOWN) {
    at = writeDecimal(copy(at, T_WAIT.ptr, T_WAIT.size), shares.waitMs as u64);
    if ((at - STATUS) as u32 > max) return (kept - STATUS) as u32;
    kept = at;
  }
  const resources = shares.resourceMs != 0 && ms - shares.resourceMs <= shares.APP_FRESH_MS;
  if (resources && shares.cpu >= 0) {
    at = writeShare(copy(at, T_CPU.ptr, T_CPU.size), shares.cpu as f64);
    if ((at - STATUS) as u32 > max) return (kept - STATUS) as u32;
    kept = at;
  }
  if (resources && shares.memoryShare >= 0) {
    at = writeShare(copy(at, T_MEM.ptr, T_MEM.size), shares.memoryShare as f64);
    if ((at - STATUS) as u32 > max) return (kept - STATUS) as u32;
    kept = at;
  }
  at = writeDecimal(copy(at, T_AGE.ptr, T_AGE.size), ageMs());
  if ((at - STATUS) as u32 > max) return (kept - STATUS) as u32;
  return (at - STATUS) as u32;
}

/** Age of the oldest part of the reading, ms: the own share is always fresh. */
function ageMs(): u64 {
  const ms = nowMs();
  return shares.othersStampMs != 0 && shares.others > 0 && ms > shares.othersStampMs ? ms - shares.othersStampMs : 0;
}

// ---------------------------------------------------------------------------------------------
// Rows and batches

/** A cleared row to fill, or null when nothing is reported. Give it back with `commit`. */
export function newRow(): usize {
  if (!reporting) return 0;
  const at = ROWS + (rowCount as usize) * wire.ROW_BYTES;
  memory.fill(at, 0, wire.ROW_BYTES);
  return at;
}

export function rowText(row: Row, ptr: usize, size: u32): void {
  if (size == 0 || size > 256 || textTop + size > TEXT_BYTES) return;
  row.textAt = textTop;
  row.textSize = size;
  copy(TEXTS + textTop, ptr, size);
  textTop += size;
}

/** `urgent`: the collector should know now. */
export function commit(urgent: bool): void {
  rowCount++;
  if (rowCount >= wire.ROWS_MAX || textTop + 256 > TEXT_BYTES) flush();
  // When many fail at once, batches would be made faster than they are acknowledged: then the
  // ordinary rhythm carries them.
  else if (urgent && unacked() < UNACKED_MAX / 2) flush();
}

/** An event that gets no row is counted exactly all the same. */
export function countOnly(operation: u32, statusBits: u32, responseFlags: u32, flags: u32, durationUs: u32): void {
  for (let i: u32 = 0; i < countRows; i++) {
    const at = COUNTS + i * 32;
    if (load<u32>(at) == operation && load<u32>(at, 4) == statusBits && load<u32>(at, 8) == responseFlags && load<u32>(at, 12) == flags) {
      store<u64>(at, load<u64>(at, 16) + 1, 16);
      store<u64>(at, load<u64>(at, 24) + durationUs, 24);
      return;
    }
  }
  const at = COUNTS + countRows * 32;
  store<u32>(at, operation);
  store<u32>(at, statusBits, 4);
  store<u32>(at, responseFlags, 8);
  store<u32>(at, flags, 12);
  store<u64>(at, 1, 16);
  store<u64>(at, durationUs, 24);
  countRows++;
  if (countRows >= COUNTS_MAX) flush();
}

function unacked(): u64 {
  return own.nextSeq - 1 - own.acked;
}

/** Makes a batch of what waits and hands it to the leader. */
export function flush(): void {
  lastFlushMs = nowMs();
  if (rowCount == 0 && countRows == 0) return;
  wire.start();
  const mark = wire.open(2);
  wire.putFixed64(1, own.id);
  wire.putVarint(2, own.nextSeq);
  wire.putVarint(3, own.batched);
  wire.putVarint(4, own.dropped);
  if (rowCount > 0) wire.putEvents(ROWS, rowCount, TEXTS);
  for (let i: u32 = 0; i < countRows; i++) {
    const at = COUNTS + i * 32;
    const inner = wire.open(6);
    wire.putBytes(1, names.namePtr(load<u32>(at)), names.nameSize(load<u32>(at)));
    wire.putVarint(2, load<u32>(at, 4));
    wire.putVarint(3, load<u32>(at, 8));
    wire.putVarint(4, load<u32>(at, 12));
    wire.putVarint(5, load<u64>(at, 16));
    wire.putVarint(6, load<u64>(at, 24));
    wire.close(inner);
  }
  wire.close(mark);
  keep(wire.outPtr(), wire.outSize(), own.nextSeq);
  own.nextSeq++;
  own.batched += rowCount;
  rowCount = 0;
  countRows = 0;
  textTop = 0;
  shares.sync(nowMs());
  offer();
}

function entryAt(i: u32): usize {
  return ENTRIES + ((firstEntry + i) % WINDOW_ENTRIES) * ENTRY;
}

function dropOldest(counted: bool): void {
  if (counted) windowDrops++;
  firstEntry = (firstEntry + 1) % WINDOW_ENTRIES;
  entryCount--;
}

/** Appends a batch to the window; the oldest make room. */
function keep(ptr: usize, size: u32, seq: u64): void {
  if (size > WINDOW_BYTES) {
    windowDrops++;
    return;
  }
  forget();
  if (windowTop + size > WINDOW_BYTES) windowTop = 0;
  while (entryCount > 0) {
    let hit = entryCount >= WINDOW_ENTRIES;
    for (let i: u32 = 0; i < entryCount && !hit; i++) {
      const at = load<u32>(entryAt(i));
      const n = load<u32>(entryAt(i), 4);
      hit = at < windowTop + size && windowTop < at + n;
    }
    if (!hit) break;
    dropOldest(true);
  }
  const e = entryAt(entryCount);
  store<u32>(e, windowTop);
  store<u32>(e, size, 4);
  store<u64>(e, seq, 8);
  entryCount++;
  copy(window + windowTop, ptr, size);
  windowTop += size;
}

/** Lets go of what is acknowledged. */
function forget(): void {
  while (entryCount > 0 && load<u64>(entryAt(0), 8) <= own.acked) dropOldest(false);
}

/** Hands batches that this session has not seen to the leader. */
function offer(): void {
  if (shares.session != knownSession) {
    knownSession = shares.session;
    sentSeq = own.acked;
  }
  forget();
  if (knownSession == 0 || entryCount == 0) return;
  if (queueToken == 0) queueToken = host.resolveQueue(vmId.ptr, vmId.size, T_QUEUE.ptr, T_QUEUE.size);
  if (queueToken == 0) return;
  for (let i: u32 = 0; i < entryCount; i++) {
    const e = entryAt(i);
    const seq = load<u64>(e, 8);
    if (seq <= sentSeq) continue;
    if (seq - own.acked > UNACKED_MAX && sentSeq > own.acked) return;
    if (host.enqueue(queueToken, window + load<u32>(e), load<u32>(e, 4)) != host.OK) {
      queueToken = 0;
      return;
    }
    sentSeq = seq;
  }
}

// ---------------------------------------------------------------------------------------------
// Fragments beside the batches: what runs now, and jobs

/** Passes a finished fragment of a ReportRequest to the leader; lost if there is none. */
export function tell(): void {
  if (shares.session == 0) return;
  if (queueToken == 0) queueToken = host.resolveQueue(vmId.ptr, vmId.size, T_QUEUE.ptr, T_QUEUE.size);
  if (queueToken != 0) host.enqueue(queueToken, wire.outPtr(), wire.outSize());
}

// Jobs: a table of the latest word per job name, told with each interval in which it changed.
const JOB_BYTES: u32 = 176;
const JOBS: usize = memory.data(11264, 16); // PROGRESS_MAX x: hash u64, atMs u64, event u64, done, of, queue u64, has u32, jobSize u32, stateSize u32, dirty u32, job 64, state 32
let jobCount: u32 = 0;

export function progress(has: u32, event: u64, job: usize, jobSize: u32, done: u64, total: u64, queue: u64, state: usize, stateSize: u32): void {
  const h = hash(job, jobSize, 11);
  let slot: u32 = PROGRESS_MAX;
  let oldest: u32 = 0;
  for (let i: u32 = 0; i < jobCount; i++) {
    const at = JOBS + i * JOB_BYTES;
    if (load<u64>(at) == h) {
      slot = i;
      break;
    }
    if (load<u64>(at, 8) < load<u64>(JOBS + oldest * JOB_BYTES, 8)) oldest = i;
  }
  if (slot == PROGRESS_MAX) slot = jobCount < PROGRESS_MAX ? jobCount++ : oldest;
  const at = JOBS + slot * JOB_BYTES;
  store<u64>(at, h);
  store<u64>(at, nowMs(), 8);
  store<u64>(at, event, 16);
  store<u64>(at, done, 24);
  store<u64>(at, total, 32);
  store<u64>(at, queue, 40);
  store<u32>(at, has, 48);
  store<u32>(at, jobSize, 52);
  store<u32>(at, stateSize, 56);
  store<u32>(at, 1, 60);
  copy(at + 64, job, jobSize);
  copy(at + 128, state, stateSize);
}

function tellProgress(): void {
  if (shares.session == 0) return;
  const plain = plainIds();
  let any = false;
  wire.start();
  for (let i: u32 = 0; i < jobCount; i++) {
    const at = JOBS + i * JOB_BYTES;
    if (load<u32>(at, 60) == 0) continue;
    store<u32>(at, 0, 60);
    any = true;
    const has = load<u32>(at, 48);
    const mark = wire.open(5);
    if (plain || load<u32>(at, 52) == 0) wire.putBytes(1, at + 64, load<u32>(at, 52));
    else wire.putHashed(1, at + 64, load<u32>(at, 52));
    if (has & 4) wire.always(2, load<u64>(at, 24));
    if (has & 8) wire.always(3, load<u64>(at, 32));
    if (has & 16) wire.always(4, load<u64>(at, 40));
    wire.putBytes(5, at + 128, load<u32>(at, 56));
    wire.putHex(6, load<u64>(at, 16));
    wire.putVarint(7, nowMs() - load<u64>(at, 8));
    wire.close(mark);
  }
  if (any) tell();
}

function plainIds(): bool {
  const root = reporter();
  return root !== null && root.config.plainIds;
}

/** Progress is worth telling within the interval, not only at the next report. */
export function progressSoon(): void {
  tellProgress();
}

export function notePort(port: u32): void {
  if (port == 0 || port > 65535) return;
  for (let i: u32 = 0; i < portCount; i++) if (load<u32>(PORTS + i * 4) == port) return;
  if (portCount >= 16) return;
  store<u32>(PORTS + portCount++ * 4, port);
  helloDue = true;
}

// ---------------------------------------------------------------------------------------------
// Tick

/** True when this tick is the VM's turn: every root context has a timer of its own. */
export function tickDue(): bool {
  refreshClock();
  const ms = nowMs();
  if (ms - lastTickMs < TICK_MS - 50) return false;
  lastTickMs = ms;
  return true;
}

export function intervalMs(): u64 {
  if (intervalHint != 0 && nowMs() < hintUntilMs) return intervalHint as u64;
  return interval as u64;
}

export function tick(): void {
  const ms = nowMs();
  const root = reporter();
  reporting = root !== null;
  tellMetrics();
  if (root === null) {
    shares.sync(ms);
    if (goodbyeRoot != 0) {
      offer();
      leaving();
    }
    return;
  }
  if (ms - windowStartMs >= intervalMs()) closeWindow(ms);
  if (ms - lastFlushMs >= intervalMs()) {
    flush();
    tellProgress();
  }
  shares.sync(ms);
  lead(root);
  offer();
}

function closeWindow(ms: u64): void {
  own.requests = windowRequests;
  own.failures = windowFailures;
  if (windowRequests > 0 || own.waitMs != UNKNOWN) {
    const wait = median(WAITS);
    own.waitMs = wait == UNKNOWN ? UNKNOWN : wait / 1000;
    own.durationUs = median(DURATIONS);
  }
  memory.fill(WAITS, 0, BUCKETS * 4);
  memory.fill(DURATIONS, 0, BUCKETS * 4);
  windowRequests = 0;
  windowFailures = 0;
  windowStartMs = ms;
}

function tellMetrics(): void {
  if (!configErrorsTold) {
    configErrorsTold = true;
    if (metricConfigErrors == 0xffffffff) metricConfigErrors = metric('meshpulse_filter_config_errors_total');
    host.addMetric(metricConfigErrors, configErrors as i64);
    configErrors = 0;
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

// ---------------------------------------------------------------------------------------------
// Leader

/** A random part of `ms`, so that a fleet does not act at once. */
function jitter(ms: u64): u64 {
  host.random(ID, 8);
  return ms / 2 + load<u64>(ID) % (ms / 2 + 1);
}

function lead(root: Root): void {
  const ms = nowMs();
  const mine = shares.leader == own.id;
  const free = shares.leader == 0 || shares.leaseMs < ms;
  if (!mine && free) {
    // The main thread's VM serves no requests and so cannot trap on one: it goes first.
    if (seenRequest && shares.leaseMs + 700 > ms) return;
    shares.wantLease(own.id, ms + shares.LEASE_MS);
    shares.sync(ms);
    return; // Two may have written at once: the next tick reads who it is.
  }
  if (!mine) {
    if (leading) stepDown();
    return;
  }
  if (!leading) {
    leading = true;
    queueToken = host.registerQueue(T_QUEUE.ptr, T_QUEUE.size);
    retryAtMs = ms;
  }
  shares.wantLease(own.id, ms + shares.LEASE_MS);
  shares.sync(ms);
  if (stream != 0 || unaryMode) {
    watchStream(root);
    if (stream != 0 || unaryMode) {
      drain();
      report(root);
    }
  }
  if (stream == 0 && ms >= (unaryMode ? streamRetryAtMs : retryAtMs)) connect(root);
  maybeMove();
}

function stepDown(): void {
  leading = false;
  endStream(true);
  unaryMode = false;
  unaryBusy = false;
}

function endStream(cancel: bool): void {
  if (stream == 0) return;
  const token = stream;
  stream = 0;
  if (host.setEffectiveContext(streamRoot) == host.OK) {
    if (cancel) host.grpcCancel(token);
    else host.grpcClose(token);
  }
}

/** Serialized envoy.config.core.v3.GrpcService: a bare cluster name would become an invalid authority. */
function service(root: Root): void {
  wire.start();
  const mark = wire.open(1);
  wire.putText(1, root.config.collectorCluster);
  wire.putText(2, root.config.collectorAuthority);
  wire.close(mark);
}

function connect(root: Root): void {
  const ms = nowMs();
  service(root);
  const size = wire.outSize();
  const bytes = host.scratch(size);
  if (bytes == 0) return;
  copy(bytes, wire.outPtr(), size);
  host.setEffectiveContext(root.id);
  streamRoot = root.id;
  connecting = true;
  const token = host.grpcStream(bytes, size, T_SERVICE.ptr, T_SERVICE.size, T_REPORT.ptr, T_REPORT.size);
  connecting = false;
  if (token == 0) {
    streamFailed();
    return;
  }
  stream = token;
  lastReplyMs = ms;
  awaitingSinceMs = 0;
  if (unaryMode) {
    unaryMode = false;
    unaryBusy = false;
  }
  newSession();
  greet(root);
}

let connecting: bool = false;

/** What waits in the queue belongs to an older session and will be offered again. */
function newSession(): void {
  const ms = nowMs();
  drop();
  host.random(ID, 8);
  shares.wantSession(load<u64>(ID) | 1);
  shares.sync(ms);
}

function noSession(): void {
  shares.wantSession(0);
  shares.sync(nowMs());
}

function drop(): void {
  for (let i = 0; i < 100000; i++) {
    const m = host.mark();
    const result = host.dequeue(queueToken);
    host.release(m);
    if (result != host.OK) return;
  }
}

function streamFailed(): void {
  const ms = nowMs();
  noSession();
  if (failures == 0 || ms - failuresSinceMs > FALLBACK_WINDOW_MS) {
    failures = 0;
    failuresSinceMs = ms;
  }
  failures++;
  retryAtMs = ms + jitter(backoffMs);
  backoffMs = backoffMs * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : backoffMs * 2;
  if (failures >= FALLBACK_FAILURES) {
    unaryMode = true;
    unaryBusy = false;
    unaryRetryMs = ms;
    streamRetryAtMs = ms + FALLBACK_RETRY_MS;
    failures = 0;
    newSession();
  }
}

let unaryRetryMs: u64 = 0;

function watchStream(root: Root): void {
  if (stream == 0) return;
  const ms = nowMs();
  const silent = awaitingSinceMs != 0 && ms - awaitingSinceMs > ACK_MS;
  if (silent || (lastSendMs > lastReplyMs && ms - lastReplyMs > SILENCE_MS)) {
    endStream(true);
    streamFailed();
  }
}

/** Hello with every producer known: goes first on a stream and in every unary request. */
function putHello(root: Root): void {
  const mark = wire.open(1);
  wire.putText(1, nodeId);
  wire.putText(2, nodeCluster);
  wire.putText(3, nodeNetwork);
  wire.putBytes(4, CUID, 36);
  wire.putVarint(5, 1);
  wire.putText(7, nodeService);
  wire.putText(8, nodeSlot);
  wire.putText(9, nodeWorkload);
  wire.putText(10, nodeName);
  wire.putText(11, VERSION);
  wire.putFixed64(12, bootEpochUs);
  const n = shares.vmCount();
  for (let i: u32 = 0; i < n; i++) {
    const share = shares.vm(i);
    const inner = wire.open(13);
    wire.putFixed64(1, share.id);
    wire.putVarint(2, share.nextSeq);
    wire.putVarint(3, share.dropped);
    wire.putVarint(4, share.batched);
    wire.close(inner);
  }
  wire.putText(14, nodeIp);
  for (let i: u32 = 0; i < portCount; i++) wire.always(15, load<u32>(PORTS + i * 4));
  wire.putVarint(16, root.config.intervalMs);
  wire.putVarint(17, root.config.idleMs);
  wire.putVarint(18, root.config.inFlightMs);
  let told = 0;
  let edge = false;
  for (let i = 0; i < roots.length; i++) {
    if (roots[i].dead) continue;
    if (roots[i].config.edge) edge = true;
    for (let j = 0; j < roots[i].config.errors.length && told < 16; j++, told++) wire.putText(19, roots[i].config.errors[j]);
  }
  wire.putVarint(20, edge ? 1 : 0);
  putCounter('unstamped', unstamped);
  putCounter('untracked', untracked);
  putCounter('batches_dropped', windowDrops);
  wire.close(mark);
}

function putCounter(name: string, value: u64): void {
  if (value == 0) return;
  const mark = wire.open(21);
  wire.putText(1, name);
  wire.putVarint(2, value);
  wire.close(mark);
}

function greet(root: Root): void {
  wire.start();
  putHello(root);
  putStatus();
  helloDue = false;
  send();
}

function putStatus(): void {
  const ms = nowMs();
  const mark = wire.open(3);
  wire.always(1, (own.inFlight + shares.othersInFlight) as u64);
  if (shares.queue != UNKNOWN && ms - shares.queueMs <= shares.APP_FRESH_MS) {
    wire.always(2, shares.queue as u64);
    wire.putVarint(3, 1);
  }
  if (shares.waitMs != UNKNOWN) wire.always(4, shares.waitMs as u64);
  if (shares.resourceMs != 0 && ms - shares.resourceMs <= shares.APP_FRESH_MS) {
    if (shares.cpu >= 0) wire.putDouble(5, shares.cpu as f64);
    if (shares.memoryShare >= 0) wire.putDouble(6, shares.memoryShare as f64);
  }
  wire.putVarint(7, ageMs());
  wire.always(8, (own.calls + shares.othersCalls) as u64);
  wire.always(9, (own.streams + shares.othersStreams) as u64);
  wire.putVarint(10, intervalMs());
  let requests: u32 = 0;
  let failed: u32 = 0;
  let duration = UNKNOWN;
  let most: u32 = 0;
  for (let i: u32 = 0; i < shares.vmCount(); i++) {
    const share = shares.vm(i);
    requests += share.requests;
    failed += share.failures;
    if (share.durationUs != UNKNOWN && share.requests >= most) {
      most = share.requests;
      duration = share.durationUs;
    }
  }
  wire.putVarint(11, requests);
  wire.putVarint(12, failed);
  if (duration != UNKNOWN) wire.always(13, duration as u64);
  wire.close(mark);
  lastStatusMs = ms;
  statusDirty = shares.othersInFlight + own.inFlight > 0 || requests > 0;
}

function report(root: Root): void {
  const ms = nowMs();
  if (unaryMode) {
    if (!unaryBusy && ms >= unaryRetryMs && (statusChanged() && ms - lastStatusMs >= intervalMs() || ms - lastSendMs >= (root.config.idleMs as u64))) {
      wire.start();
      send();
    }
    return;
  }
  if (helloDue) {
    greet(root);
    return;
  }
  if ((statusChanged() && ms - lastStatusMs >= intervalMs()) || ms - lastStatusMs >= (root.config.idleMs as u64)) {
    wire.start();
    putStatus();
    send();
  } else if (ms - lastSendMs >= HEARTBEAT_MS) {
    wire.start();
    const mark = wire.open(6);
    wire.close(mark);
    send();
  }
}

/** Busy, or busy when last told: an idle proxy says nothing but heartbeats. */
function statusChanged(): bool {
  return statusDirty || shares.othersInFlight > 0 || shares.othersCalls > 0;
}

/** Sends what `wire` holds on the stream, or as a unary call. */
function send(): void {
  const ms = nowMs();
  wire.putFixed64(8, wallAt(nowNs));
  lastSendMs = ms;
  if (stream != 0) {
    host.setEffectiveContext(streamRoot);
    host.grpcSend(stream, wire.outPtr(), wire.outSize(), false);
    if (awaitingSinceMs == 0) awaitingSinceMs = ms;
    return;
  }
  const root = reporter();
  if (!unaryMode || root === null) return;
  // A unary request carries hello and status behind whatever it has: order means nothing in protobuf.
  putHello(root);
  putStatus();
  const size = wire.outSize();
  const request = host.scratch(size);
  if (request == 0) return;
  copy(request, wire.outPtr(), size);
  service(root);
  streamRoot = root.id;
  host.setEffectiveContext(root.id);
  unaryBusy = true;
  connecting = true;
  unary = host.grpcCall(wire.outPtr(), wire.outSize(), T_SERVICE.ptr, T_SERVICE.size, T_REPORT_ONCE.ptr, T_REPORT_ONCE.size, request, size, UNARY_TIMEOUT_MS);
  connecting = false;
  if (unary == 0) unaryFailed();
}

function unaryFailed(): void {
  unaryBusy = false;
  unary = 0;
  unaryRetryMs = nowMs() + jitter(backoffMs);
  newSession();
}

/** Forwards what the VMs have put into the queue. */
export function drain(): void {
  if (!leading || (stream == 0 && !unaryMode)) return;
  if (unaryMode && (unaryBusy || nowMs() < unaryRetryMs)) return;
  wire.start();
  let parts: u32 = 0;
  for (let i: u32 = 0; i < 4096; i++) {
    const m = host.mark();
    if (host.dequeue(queueToken) != host.OK) {
      host.release(m);
      break;
    }
    // Room for hello and status of a unary request stays free.
    if (host.dataSize + 40000 <= wire.room()) {
      wire.putRaw(host.dataPtr, host.dataSize);
      parts++;
    }
    host.release(m);
    if (wire.outSize() >= MESSAGE_BYTES || parts >= 128) {
      send();
      parts = 0;
      if (unaryMode) return;
      wire.start();
    }
  }
  if (parts > 0) send();
}

class Reply extends wire.ReplySink {
  ack(producer: u64, seq: u64): void {
    shares.wantAck(producer, seq);
  }
  hints(ms: u32, drainMs: u32, retryAfterMs: u32): void {
    const now = nowMs();
    if (ms >= 100 && ms <= 60000) {
      intervalHint = ms;
      hintUntilMs = now + 60000;
    }
    if (drainMs > 0) drainAtMs = now + jitter((drainMs > 60000 ? 60000 : drainMs) as u64);
    if (retryAfterMs > 0) holdUntilMs = now + (retryAfterMs > 60000 ? 60000 : (retryAfterMs as u64));
  }
}

let drainAtMs: u64 = 0;
let holdUntilMs: u64 = 0;
const reply = new Reply();

export function onMessage(token: u32, size: u32): void {
  if (token != stream && token != unary) return;
  const ms = nowMs();
  if (size > REPLY_BYTES_MAX || host.getGrpcMessage(size) != host.OK) return garbage(token);
  if (!wire.readReply(host.dataPtr, host.dataSize, reply)) return garbage(token);
  lastReplyMs = ms;
  awaitingSinceMs = 0;
  backoffMs = BACKOFF_MIN_MS;
  shares.sync(ms);
  if (token == unary) {
    unaryBusy = false;
    unary = 0;
  }
  offer();
  drain();
}

function garbage(token: u32): void {
  if (token == stream) {
    endStream(true);
    streamFailed();
  } else unaryFailed();
}

export function onClose(token: u32): void {
  // The host keeps its side until the guest closes too.
  if (token != 0) host.grpcClose(token);
  if (connecting) return; // the failed start has been seen by its result
  if (token == unary && token != 0) {
    unaryFailed();
    return;
  }
  if (token != stream || token == 0) return;
  stream = 0;
  if (holdUntilMs > nowMs()) backoffMs = holdUntilMs - nowMs();
  streamFailed();
}

export function onQueue(token: u32): void {
  if (token == queueToken) drain();
}

/** A collector that leaves asks for a reconnect; the connection pool then finds another one. */
function maybeMove(): void {
  if (drainAtMs == 0 || nowMs() < drainAtMs || stream == 0) return;
  drainAtMs = 0;
  endStream(true);
  noSession();
  retryAtMs = nowMs();
}

// ---------------------------------------------------------------------------------------------
// End

/** True when nothing has to be awaited. The last root of a VM says goodbye for its process. */
export function rootDone(id: u32): bool {
  const root = find(id);
  if (root === null) return true;
  root.dead = true;
  if (root.configured && root.config.role == 1 && orderRoots > 0) orderRoots--;
  if (stream != 0 && streamRoot == id) {
    // Streams end with their root context; another root opens the next one.
    const next = reporter();
    if (next !== null) {
      endStream(true);
      noSession();
      retryAtMs = nowMs();
      return true;
    }
  }
  if (reporter() !== null || own.id == 0 || !reporting) return true;
  flush();
  if (leading) drain();
  goodbyeRoot = id;
  goodbyeSinceMs = nowMs();
  if (leading && stream != 0) sayGoodbye();
  return false;
}

function sayGoodbye(): void {
  if (goodbyeSaid || stream == 0) return;
  goodbyeSaid = true;
  wire.start();
  const mark = wire.open(7);
  wire.putText(1, 'filter removed or proxy stopped');
  wire.close(mark);
  send();
}

/** While the last root waits for its end. */
export function leaving(): void {
  const ms = nowMs();
  if (leading) drain();
  const clear = entryCount == 0 || own.acked + 1 >= own.nextSeq;
  if (!clear && ms - goodbyeSinceMs < 2000) return;
  if (leading && ms - goodbyeSinceMs < 400) return; // other VMs hand over theirs
  if (leading) sayGoodbye();
  const id = goodbyeRoot;
  goodbyeRoot = 0;
  reporting = false;
  host.setEffectiveContext(id);
  host.done();
}

export function isLeaving(): bool {
  return goodbyeRoot != 0;
}

export function rootDeleted(id: u32): void {
  for (let i = 0; i < roots.length; i++) if (roots[i].id == id) roots[i].dead = true;
}
