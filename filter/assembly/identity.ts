// Who this proxy is: what the node says of itself, and the id of its life, which all VMs of the
// process share.
import { Text } from './bytes';
import { nowMs } from './clock';
import * as wire from './core/wire';
import * as doubts from './doubts';
import * as host from './host';
import { Root, roots } from './roots';
import * as shares from './shares';

const VERSION: string = '0.1.0';
const T_LIFE = new Text('meshpulse.life');
// Identity.
let cuidHi: u64 = 0;
let cuidLo: u64 = 0;
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
export let vmId: Text = new Text('');
export let router: bool = false;
const HELLO_ERRORS_MAX: i32 = 16;
const ID: usize = memory.data(32, 8);

/** The process's life: minted by whichever VM asks first, the same for all. Main thread first, so there is no race. */
export function life(): void {
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

export function identify(): void {
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
}

/** As the settings name it that report now; else as the node does. */
function serviceOf(root: Root): string {
  return root.config.service.length > 0 ? root.config.service : nodeService;
}

/** What of hello has been sent: ports come to light while it runs. */
let portsTold: u32 = 0;
let serviceTold: string = '';
let countersTold: u64 = 0;
let toldMs: u64 = 0;
/** Counters alone are told anew at most this often, ms. */
const COUNTERS_MS: u64 = 10000;

function ports(): u32 {
  let n: u32 = 0;
  while (n < shares.PORTS_MAX && shares.portAt(n) != 0) n++;
  return n;
}

/** Something in hello has changed since it was sent. */
export function helloDue(root: Root): bool {
  if (ports() != portsTold || serviceOf(root) != serviceTold) return true;
  return doubts.sum() != countersTold && nowMs() - toldMs >= COUNTERS_MS;
}

const T_DECLARE = new Text('declare_property');
/** DeclarePropertyArguments: name `cuid`, type String, span DownstreamConnection. */
const DECLARATION: StaticArray<u8> = [0x0a, 4, 0x63, 0x75, 0x69, 0x64, 0x18, 1, 0x28, 2];

/** Makes the access logs' `wasm.cuid` a string that lives as long as its connection. Without it, it lives for one request. */
export function declare(): void {
  const m = host.mark();
  host.callForeign(T_DECLARE.ptr, T_DECLARE.size, changetype<usize>(DECLARATION), DECLARATION.length);
  host.release(m);
}

/** Hello with every producer known: goes first on a stream and in every unary request. */
export function putHello(root: Root): void {
  const mark = wire.open(1);
  wire.putText(1, nodeId);
  wire.putText(2, nodeCluster);
  wire.putText(3, nodeNetwork);
  wire.putBytes(4, CUID, 36);
  wire.putVarint(5, 1);
  serviceTold = serviceOf(root);
  wire.putText(7, serviceTold);
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
    wire.always(5, share.settledSeq);
    wire.always(6, share.settledEvents);
    wire.close(inner);
  }
  wire.putText(14, nodeIp);
  portsTold = ports();
  for (let i: u32 = 0; i < portsTold; i++) wire.always(15, shares.portAt(i));
  wire.putVarint(16, root.config.intervalMs);
  wire.putVarint(17, root.config.idleMs);
  wire.putVarint(18, root.config.inFlightMs);
  const told: string[] = [];
  let edge = false;
  for (let r = 0; r < roots.length; r++) {
    if (roots[r].dead) continue;
    if (roots[r].config.edge) edge = true;
    const errors = roots[r].config.errors;
    for (let j = 0; j < errors.length && told.length < HELLO_ERRORS_MAX; j++) {
      if (told.includes(errors[j])) continue;
      told.push(errors[j]);
      wire.putText(19, errors[j]);
    }
  }
  wire.putVarint(20, edge ? 1 : 0);
  wire.putVarint(22, root.config.rollbackMode + 1);
  wire.putVarint(23, root.config.callbackCluster.length > 0 && root.config.callbackPath.length > 0 ? 1 : 0);
  doubts.putCounters();
  countersTold = doubts.sum();
  toldMs = nowMs();
  wire.close(mark);
}
