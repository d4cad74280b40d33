// The upstream chain: after Envoy has injected its trace context, once per attempt, on the map that
// goes out. Which downstream request it belongs to no property tells, so `full` leaves its stream in a
// small table, and the newest with the same x-request-id is it: most often both run within one call of
// the host.
import * as h from './core/headers';
import * as trace from './core/trace';
import * as doubts from './doubts';
import * as host from './host';
import { parsePairs, stampRequest } from './own-headers';
import { Root } from './roots';
import { B_ORDERED, B_STAMP, F_INJECTED, Stream } from './streams';

const PENDING: u32 = 16;
const PENDING_TABLE: usize = memory.data(128, 8); // context id u32, slot u32
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

/** The upstream chain: after injection, once per attempt, on the map that goes out. */
export function order(root: Root): void {
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
        doubts.countUnstamped();
      }
    }
  }
  const move = h.disordered && h.count <= h.FIELDS_MAX;
  if (!move && h.stampsPending() == 0) return;
  if (h.write(move, false, false)) host.setPairs(host.REQUEST_HEADERS, h.outPtr, h.outSize);
  else doubts.countUnstamped();
}
