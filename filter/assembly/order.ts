// The upstream chain: after Envoy has injected its trace context, once per attempt, on the map that
// goes out. Which downstream request it belongs to no property tells, so `full` leaves its stream in a
// small table, and the newest with the same x-request-id is it: most often both run within one call of
// the host.
import * as fields from './core/fields';
import * as h from './core/headers';
import * as trace from './core/trace';
import * as doubts from './doubts';
import * as host from './host';
import { addStamps, dropCopies, parsePairs, stampRequest } from './own-headers';
import { retryRefused } from './refuse';
import { Root } from './roots';
import { B_COPIES, B_IN_MESH, B_ORDERED, B_STAMP, F_INJECTED, OUTBOUND, Stream } from './streams';

/** Requests that may wait between the two chains: authorisation by another service, an injected delay. */
const PENDING: u32 = 1024;
const PENDING_TABLE: usize = memory.data(8192, 8); // context id u32, slot u32
let pendingAt: u32 = 0;

/** Remembers the stream for the `order` context that follows, most often within the same call of the host. */
export function push(s: Stream): void {
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

/** The upstream chain: after injection, once per attempt, on the map that goes out. False: it goes no further. */
export function order(root: Root): bool {
  if (!parsePairs(host.REQUEST_HEADERS, root)) return true;
  trace.read();
  if (retryRefused()) return false;
  arrange(root);
  return true;
}

function arrange(root: Root): void {
  const p = pull();
  if (p != 0) {
    const s = changetype<Stream>(p);
    s.bits |= B_ORDERED;
    const full = changetype<Root>(s.root);
    full.orderSeen |= 1 << s.side;
    full.orderMissed &= ~(1 << s.side);
    s.spanOut = trace.span;
    if ((s.source == trace.KEY_NONE || s.source == trace.KEY_REQUEST_ID) && trace.source != trace.KEY_NONE && trace.source != trace.KEY_REQUEST_ID) {
      s.keyHi = trace.keyHi;
      s.keyLo = trace.keyLo;
      s.source = trace.source;
      s.flags |= F_INJECTED;
    }
    stampFor(s, full);
  }
  const move = h.disordered && h.count <= h.FIELDS_MAX;
  if (h.disordered && !move) doubts.countUnstamped();
  if (!move && h.hostileCount == 0) {
    addStamps(host.REQUEST_HEADERS);
    return;
  }
  if (h.write(move, false, true)) host.setPairs(host.REQUEST_HEADERS, h.outPtr, h.outSize);
  else doubts.countUnstamped();
}

/** Does what `full` left to this chain. A later attempt finds it done, in the same map. */
function stampFor(s: Stream, full: Root): void {
  const stamps = (s.bits & B_STAMP) != 0;
  if (!stamps && (s.bits & B_COPIES) == 0) return;
  s.bits &= ~B_STAMP;
  const app = (s.bits & B_COPIES) != 0 && h.iMpProgress >= 0 && fields.readProgress(h.valuePtr(h.iMpProgress), h.valueSize(h.iMpProgress));
  if ((s.bits & B_COPIES) != 0 && s.side == OUTBOUND && (stamps || (s.bits & B_IN_MESH) == 0)) dropCopies((s.bits & B_IN_MESH) != 0);
  if (!stamps) return;
  stampRequest(s, full, app);
  if (!h.stampsBreak(false)) return;
  h.clearStamps();
  doubts.countUnstamped();
}
