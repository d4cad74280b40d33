// Response headers: what the application says of itself is read, who answered is stamped.
import { copy, parsed, parseDecimal, parseUuid, Text, uuidHi, uuidLo, writeDecimal } from './bytes';
import { clock } from './clock';
import { ROLE_FULL, ROLE_NONE } from './config';
import * as fields from './core/fields';
import * as h from './core/headers';
import * as doubts from './doubts';
import * as host from './host';
import * as identity from './identity';
import { OWN_BYTES_MAX, OWN_NAMES, parsePairs, readApp, ROLLBACK_MAX } from './own-headers';
import { Root } from './roots';
import * as status from './status';
import { B_IN_MESH, B_PEER_TRUSTED, B_RESPONSE, B_SEEN, EDGE, find, INBOUND, Stream } from './streams';

const ORCA: usize = memory.data(128, 8);
const T_ORCA_NAME = new Text('endpoint-load-metrics');
const T_ORCA_INFLIGHT = new Text('TEXT named_metrics.inflight=');

export function responseHeaders(context: u32): void {
  const at = find(context);
  if (at == 0) return;
  const s = changetype<Stream>(at);
  const root = changetype<Root>(s.root);
  if (root.config.role == ROLE_NONE && root.config.edge) removeOwn();
  if (root.config.role != ROLE_FULL || (s.bits & B_SEEN) == 0) return;
  s.bits |= B_RESPONSE;
  if (!parsePairs(host.RESPONSE_HEADERS, root)) return;
  if (h.iStatus >= 0 && parseDecimal(h.valuePtr(h.iStatus), h.valueSize(h.iStatus))) s.status = parsed as u32;
  let dropOwn = false;
  if (s.side != INBOUND) {
    const proven = (s.bits & B_IN_MESH) != 0 && h.ownCount > 0 && (root.config.trustAll || peerProven());
    if (proven && h.iCuid >= 0 && parseUuid(h.valuePtr(h.iCuid), h.valueSize(h.iCuid))) {
      s.calleeHi = uuidHi;
      s.calleeLo = uuidLo;
    }
    dropOwn = s.side == EDGE || !proven;
    if (s.side == EDGE && !root.config.edge && (s.bits & B_PEER_TRUSTED) != 0) {
      // A gateway inside the mesh answers for itself.
      clock();
      h.stamp(h.T_CUID, identity.CUID, 36);
      const size = root.config.statusResponse ? status.status(OWN_BYTES_MAX - h.T_CUID.size - 40 - h.T_MP_STATUS.size - 4) : 0;
      if (size > 0) h.stamp(h.T_MP_STATUS, status.statusPtr(), size);
    }
  } else {
    clock();
    const trusted = (s.bits & B_PEER_TRUSTED) != 0;
    if (h.iOrca >= 0 && fields.readOrca(h.valuePtr(h.iOrca), h.valueSize(h.iOrca))) {
      if (fields.orcaHas & fields.ORCA_QUEUE) status.appQueue(fields.orcaQueue as u64);
      if (fields.orcaHas & (fields.ORCA_CPU | fields.ORCA_MEMORY))
        status.appResources(fields.orcaHas & fields.ORCA_CPU ? fields.orcaCpu : -1, fields.orcaHas & fields.ORCA_MEMORY ? fields.orcaMemory : -1);
    }
    // The app may speak of its progress; it cannot speak for the proxy.
    const valid = h.iMpProgress >= 0 && readApp(s.event);
    h.dropField(h.iCuid);
    h.dropField(h.iMpStatus);
    if (!valid || !trusted) h.dropField(h.iMpProgress);
    if (!trusted || (h.iMpRollback >= 0 && h.valueSize(h.iMpRollback) > ROLLBACK_MAX)) h.dropField(h.iMpRollback);
    if (trusted) {
      h.stamp(h.T_CUID, identity.CUID, 36);
      if (root.config.statusResponse) {
        let used: u32 = h.T_CUID.size + 40 + h.T_MP_STATUS.size + 4;
        if (valid && h.iMpProgress >= 0) {
          const progress = h.T_MP_PROGRESS.size + h.valueSize(h.iMpProgress) + 4;
          if (used + progress + status.status(200) > OWN_BYTES_MAX) h.dropField(h.iMpProgress);
          else used += progress;
        }
        const size = status.status(OWN_BYTES_MAX - used);
        if (size > 0) h.stamp(h.T_MP_STATUS, status.statusPtr(), size);
      }
      if (root.config.statusOrca && h.iOrca < 0) h.stamp(T_ORCA_NAME, ORCA, orca());
    }
  }
  if (h.stampsPending() > 0 && h.stampsBreak(false)) {
    h.clearStamps();
    doubts.countUnstamped();
  }
  if (h.hostileCount > 0 || (dropOwn && h.ownCount > 0)) {
    if (h.write(false, dropOwn, true)) host.setPairs(host.RESPONSE_HEADERS, h.outPtr, h.outSize);
    else removeOwn();
    return;
  }
  for (let i: u32 = 0; i < h.stampsPending(); i++) {
    const e = h.stampAt(i);
    host.addHeader(host.RESPONSE_HEADERS, load<u32>(e), load<u32>(e, 4), load<u32>(e, 8), load<u32>(e, 12));
  }
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

function removeOwn(): void {
  for (let i = 0; i < OWN_NAMES.length; i++) host.removeHeader(host.RESPONSE_HEADERS, OWN_NAMES[i].ptr, OWN_NAMES[i].size);
}

/** ORCA TEXT for Envoy's balancers. */
function orca(): u32 {
  const at = copy(ORCA, T_ORCA_INFLIGHT.ptr, T_ORCA_INFLIGHT.size);
  return (writeDecimal(at, status.inFlightTotal() as u64) - ORCA) as u32;
}
