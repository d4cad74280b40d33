// What a request is: its transaction, its operation, who calls and who is called.
import { parseUuid, Text, uuidHi, uuidLo } from './bytes';
import { nowMs } from './clock';
import * as fields from './core/fields';
import * as h from './core/headers';
import * as names from './core/names';
import * as trace from './core/trace';
import * as host from './host';
import { Root } from './roots';
import * as shares from './shares';
import { B_IN_MESH, B_PEER_TRUSTED, F_ENTRY, F_GRPC, F_OWN, F_PROBE, F_SHADOW, F_STREAM, INBOUND, OUTBOUND, Stream } from './streams';

const P_MTLS = new Text('connection\0mtls');
const P_CLUSTER = new Text('xds\0cluster_name');
const P_CLUSTER_OLD = new Text('cluster_name');
const P_EXTERNAL = new Text('xds\0cluster_metadata\0filter_metadata\0istio\0external');
const P_PORT = new Text('destination\0port');
const T_OUTBOUND = new Text('outbound|');
const T_CONNECT = new Text('CONNECT');
const T_GRPC = new Text('application/grpc');
const T_KUBE_PROBE = new Text('kube-probe/');
const T_ENVOY_HC = new Text('Envoy/HC');
const T_GOOGLE_HC = new Text('GoogleHC/');
const T_ELB_HC = new Text('ELB-HealthChecker/');
const T_OWN_SERVICE = new Text('/meshpulse.v1.');
const T_SHADOW = new Text('-shadow');
const T_GRPC_WEB = new Text('application/grpc-web');
const T_WELL_KNOWN = new Text('/.well-known/meshpulse/');

/** Who calls whom with what: everything of the request that a row needs. */
/** Requests per settings whose port is looked at. */
const PORT_LOOKS: u32 = 64;

export function describe(s: Stream, root: Root): void {
  s.keyHi = trace.keyHi;
  s.keyLo = trace.keyLo;
  s.source = trace.source;
  s.requestHi = trace.requestHi;
  s.requestLo = trace.requestLo;
  s.spanIn = trace.span;
  s.spanOut = trace.span;
  let flags = nature();
  const grpc = (flags & F_GRPC) != 0;

  if (s.side != OUTBOUND) {
    const trusted = !root.config.edge && (root.config.trustAll || host.getNumber(P_MTLS.ptr, P_MTLS.size, 0) != 0);
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
    if (root.portLooks < PORT_LOOKS) {
      root.portLooks++;
      shares.wantPort(host.getNumber(P_PORT.ptr, P_PORT.size, 0) as u32);
    }
    if (s.event == 0) s.event = newId();
  }
  if (s.side != INBOUND) {
    destination(s, root);
    s.callOperation = operation(grpc, s.peerService);
    s.callEvent = newId();
  }
  s.flags = flags;
}

/** What the parsed map says of its request, as flags. */
export function nature(): u32 {
  let flags: u32 = 0;
  if (grpcRequest()) flags |= F_GRPC;
  if (h.iUpgrade >= 0 || h.valueIs(h.iMethod, T_CONNECT)) flags |= F_STREAM;
  if (h.iUserAgent >= 0 && (h.valueStarts(h.iUserAgent, T_KUBE_PROBE) || h.valueStarts(h.iUserAgent, T_ENVOY_HC) || h.valueStarts(h.iUserAgent, T_GOOGLE_HC) || h.valueStarts(h.iUserAgent, T_ELB_HC))) flags |= F_PROBE;
  if (shadowed()) flags |= F_SHADOW;
  if (h.valueStarts(h.iPath, T_OWN_SERVICE) || h.valueStarts(h.iPath, T_WELL_KNOWN)) flags |= F_OWN;
  return flags;
}

/** Does the parsed map begin a gRPC call? */
export function grpcRequest(): bool {
  return h.valueStarts(h.iContentType, T_GRPC) && !h.valueStarts(h.iContentType, T_GRPC_WEB);
}

/** Name id of the host that the call read by `callOf` goes to. */
export let callee: u32 = 0;

/** Operation of the call in the parsed map, as `describe` would name it: for `order`, which has no stream. */
export function callOf(): u32 {
  const m = host.mark();
  const cluster = clusterName();
  host.release(m);
  callee = names.hostOf(cluster);
  return operation(grpcRequest(), cluster);
}

/** Name id of the cluster that the route has chosen, 0 = none; its text is at host.dataPtr. */
function clusterName(): u32 {
  if (host.getProperty(P_CLUSTER.ptr, P_CLUSTER.size) != host.OK) host.getProperty(P_CLUSTER_OLD.ptr, P_CLUSTER_OLD.size);
  return names.peer(host.dataPtr, host.dataSize);
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
  const id = clusterName();
  const ptr = host.dataPtr;
  const size = host.dataSize;
  host.release(m);
  if (size == 0) return;
  s.peerService = id;
  if (id == names.OTHER) return;
  const known = facts(root) + id;
  if (load<u8>(known) == 0) store<u8>(known, inMesh(root, ptr, size) ? 3 : 1);
  if ((load<u8>(known) & 2) != 0) s.bits |= B_IN_MESH;
}

/** How long an answer about a cluster is believed, ms. */
const FACTS_MS: u64 = 60000;

function facts(root: Root): usize {
  if (root.facts == 0) root.facts = heap.alloc(names.ENTRIES_MAX);
  if (nowMs() >= root.factsUntilMs) {
    memory.fill(root.facts, 0, names.ENTRIES_MAX);
    root.factsUntilMs = nowMs() + FACTS_MS;
  }
  return root.facts;
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
