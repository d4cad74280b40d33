// Response headers: what the application says of itself is read, who answered is stamped.
import { copy, parsed, parseDecimal, parseUuid, Text, uuidHi, uuidLo, writeDecimal } from './bytes';
import { clock } from './clock';
import { ROLE_FULL, ROLE_NONE } from './config';
import * as fields from './core/fields';
import * as h from './core/headers';
import * as doubts from './doubts';
import * as host from './host';
import * as identity from './identity';
import { addStamps, FIELD_BYTES, OWN_BYTES_MAX, parsePairs, readApp, removeOwn, ROLLBACK_MAX } from './own-headers';
import { Root } from './roots';
import * as status from './status';
import { B_IN_MESH, B_PEER_TRUSTED, B_REFUSED, B_REFUSED_BEHIND, B_SEEN, EDGE, find, INBOUND, Stream, untrackedContext, untrackedRoot } from './streams';

const ORCA: usize = memory.data(128, 8);
const T_ORCA_NAME = new Text('endpoint-load-metrics');
const T_ORCA_INFLIGHT = new Text('TEXT named_metrics.inflight=');

export function responseHeaders(context: u32): void {
  const at = find(context);
  if (at == 0) {
    if (context == untrackedContext && untrackedRoot != 0 && changetype<Root>(untrackedRoot).config.role != ROLE_NONE) removeOwn(host.RESPONSE_HEADERS);
    return;
  }
  const s = changetype<Stream>(at);
  const root = changetype<Root>(s.root);
  if (root.config.role == ROLE_NONE && root.config.edge) removeOwn(host.RESPONSE_HEADERS);
  if (root.config.role != ROLE_FULL || (s.bits & B_SEEN) == 0) return;
  if (!parsePairs(host.RESPONSE_HEADERS, root)) {
    removeOwn(host.RESPONSE_HEADERS);
    return;
  }
  if (h.iStatus >= 0 && parseDecimal(h.valuePtr(h.iStatus), h.valueSize(h.iStatus))) s.status = parsed as u32;
  let dropOwn = false;
  if (s.side == INBOUND) fromApp(s, root);
  else dropOwn = !fromCallee(s, root);
  if (h.stampsPending() > 0 && h.stampsBreak(false)) {
    h.clearStamps();
    doubts.countUnstamped();
  }
  if (h.hostileCount == 0 && (!dropOwn || h.ownCount == 0)) addStamps(host.RESPONSE_HEADERS);
  else if (h.write(false, dropOwn, true)) host.setPairs(host.RESPONSE_HEADERS, h.outPtr, h.outSize);
  else removeOwn(host.RESPONSE_HEADERS);
}

/** Reads who answered. False when what it says of itself must not reach the application. */
function fromCallee(s: Stream, root: Root): bool {
  if ((s.bits & B_REFUSED) != 0) return true; // our own words
  const proven = (s.bits & B_IN_MESH) != 0 && h.ownCount > 0 && (root.config.trustAll || peerProven());
  if (proven && h.iCuid >= 0 && parseUuid(h.valuePtr(h.iCuid), h.valueSize(h.iCuid))) {
    s.calleeHi = uuidHi;
    s.calleeLo = uuidLo;
  }
  if (proven && h.iMpRollback >= 0) s.bits |= B_REFUSED_BEHIND;
  if (s.side != EDGE) return proven;
  if (!root.config.edge && (s.bits & B_PEER_TRUSTED) != 0) {
    // A gateway inside the mesh answers for itself.
    clock();
    stampResponse(root, false, false);
  }
  return false;
}

/** Reads what the own application says of itself, and stamps its answer. */
function fromApp(s: Stream, root: Root): void {
  clock();
  const trusted = (s.bits & B_PEER_TRUSTED) != 0;
  if (h.iOrca >= 0 && fields.readOrca(h.valuePtr(h.iOrca), h.valueSize(h.iOrca))) {
    if (fields.orcaHas & fields.ORCA_QUEUE) status.appQueue(fields.orcaQueue as u64);
    if (fields.orcaHas & (fields.ORCA_CPU | fields.ORCA_MEMORY))
      status.appResources(fields.orcaHas & fields.ORCA_CPU ? fields.orcaCpu : -1, fields.orcaHas & fields.ORCA_MEMORY ? fields.orcaMemory : -1);
  }
  // The app may speak of its progress; it cannot speak for the proxy.
  const progress = h.iMpProgress >= 0 && readApp(s.event) && trusted;
  const rollback = h.iMpRollback >= 0 && h.valueSize(h.iMpRollback) <= ROLLBACK_MAX && trusted;
  h.dropField(h.iCuid);
  h.dropField(h.iMpStatus);
  if (!progress) h.dropField(h.iMpProgress);
  if (!rollback) h.dropField(h.iMpRollback);
  if (!trusted) return;
  stampResponse(root, progress, rollback);
  if (root.config.statusOrca && h.iOrca < 0) h.stamp(T_ORCA_NAME, ORCA, orca());
}

/** Stamps of the responder, under 256 bytes with those of the application's own headers that stay. */
function stampResponse(root: Root, progress: bool, rollback: bool): void {
  h.stamp(h.T_CUID, identity.CUID, 36);
  let used: u32 = h.T_CUID.size + 36 + FIELD_BYTES;
  if (rollback) used += h.T_MP_ROLLBACK.size + h.valueSize(h.iMpRollback) + FIELD_BYTES;
  const named = root.config.statusResponse ? h.T_MP_STATUS.size + FIELD_BYTES : 0;
  if (progress) {
    const size = h.T_MP_PROGRESS.size + h.valueSize(h.iMpProgress) + FIELD_BYTES;
    if (used + size + named + (named > 0 ? status.status(OWN_BYTES_MAX) : 0) > OWN_BYTES_MAX) h.dropField(h.iMpProgress);
    else used += size;
  }
  if (named == 0 || used + named >= OWN_BYTES_MAX) return;
  const size = status.status(OWN_BYTES_MAX - used - named);
  if (size > 0) h.stamp(h.T_MP_STATUS, status.statusPtr(), size);
}

const P_PEER_URI = new Text('upstream\0uri_san_peer_certificate');
const P_PEER_SUBJECT = new Text('upstream\0subject_peer_certificate');

/** Did the callee show a certificate? A workload without a proxy can be part of an in-mesh cluster. */
function peerProven(): bool {
  const m = host.mark();
  const proven =
    (host.getProperty(P_PEER_URI.ptr, P_PEER_URI.size) == host.OK && host.dataSize > 0) ||
    (host.getProperty(P_PEER_SUBJECT.ptr, P_PEER_SUBJECT.size) == host.OK && host.dataSize > 0);
  host.release(m);
  return proven;
}

/** ORCA TEXT for Envoy's balancers. */
function orca(): u32 {
  const at = copy(ORCA, T_ORCA_INFLIGHT.ptr, T_ORCA_INFLIGHT.size);
  return (writeDecimal(at, status.inFlightTotal() as u64) - ORCA) as u32;
}
