// Request headers: where the filter meets a request, and all it does to it.
//
// Two chains can touch one request: the downstream `full` filter, which sees everything, and, when
// Envoy itself traces, the upstream `order` filter, which alone sees the headers as they go out (per
// attempt, after injection). When `order` is there it writes all headers, and `full` leaves them
// alone: one rewrite instead of two, and no route is looked up again. `full` learns from each request
// whether it is.
import { Text } from './bytes';
import { clock } from './clock';
import { ROLE_NONE } from './config';
import * as h from './core/headers';
import * as trace from './core/trace';
import { describe } from './describe';
import * as doubts from './doubts';
import * as host from './host';
import * as inject from './injected';
import { order, push } from './order';
import { addStamps, clean, dropCopies, parsePairs, readApp, stampRequest } from './own-headers';
import { refused, spareRetries } from './refuse';
import { orderExpected, Root, sideOf } from './roots';
import { entryBegan } from './running';
import * as status from './status';
import * as streams from './streams';
import { B_CALL, B_COPIES, B_EVENT, B_IN_MESH, B_PEER_TRUSTED, B_PRIVATE, B_ROUTER_COUNTS, B_SEEN, B_STAMP, B_STREAM, EDGE, F_ENTRY, F_STREAM, find, INBOUND, OUTBOUND, Stream } from './streams';
import { closedPath, closedUnread, wellKnown } from './well-known';

const CONTINUE: u32 = 0;
const STOP: u32 = 1;

let trapArmed: bool = false;
const T_TRAP = new Text('x-test-trap');

/** Test builds only: a request with x-test-trap traps the VM. */
export function armTrap(): void {
  trapArmed = true;
}

export function requestHeaders(context: u32): u32 {
  if (context == streams.orderContext && streams.orderRoot != 0) {
    return order(changetype<Root>(streams.orderRoot)) ? CONTINUE : STOP;
  }
  const at = find(context);
  if (at == 0) {
    if (context != streams.untrackedContext || streams.untrackedRoot == 0) return CONTINUE;
    return unread(changetype<Root>(streams.untrackedRoot));
  }
  const s = changetype<Stream>(at);
  const root = changetype<Root>(s.root);
  if ((s.bits & B_SEEN) != 0) return CONTINUE; // once per request, whatever the host does
  const side = sideOf(root);
  s.side = side;
  if (root.config.role == ROLE_NONE) {
    if (root.config.edge) clean(root);
    return CONTINUE;
  }
  if (!parsePairs(host.REQUEST_HEADERS, root)) return unread(root);
  s.bits |= h.iAttempt < 0 ? B_SEEN | B_ROUTER_COUNTS : B_SEEN;
  s.startNs = clock();
  trace.read();
  describe(s, root);
  if (trapArmed && host.getHeader(host.REQUEST_HEADERS, T_TRAP.ptr, T_TRAP.size) == host.OK) unreachable();
  if (wellKnown(side)) {
    // The own application's word is no request; a stranger's attempt is one.
    if (side == OUTBOUND) s.bits |= B_PRIVATE;
    return STOP;
  }
  if (closedPath(root, side) || refused(s, root)) return STOP;
  enterFlight(s, root, side);
  rewrite(s, root);
  spareRetries(s, root);
  return CONTINUE;
}

/** Nothing is known of the request but what must not pass. */
function unread(root: Root): u32 {
  if (closedUnread(root)) return STOP;
  clean(root);
  return CONTINUE;
}

function enterFlight(s: Stream, root: Root, side: i32): void {
  let events: i32 = 0;
  let calls: i32 = 0;
  let streams: i32 = 0;
  if (side != OUTBOUND) {
    s.bits |= B_EVENT;
    events = 1;
    if ((s.flags & F_ENTRY) != 0) entryBegan(root);
  } else {
    s.bits |= B_CALL;
    calls = 1;
  }
  if (side != OUTBOUND && (s.flags & F_STREAM) != 0) {
    s.bits |= B_STREAM;
    streams = 1;
  }
  status.count(events, calls, streams);
}

/** Decides what happens to the request's headers, and does it unless `order` will. */
function rewrite(s: Stream, root: Root): void {
  const mesh = (s.bits & B_IN_MESH) != 0;
  const stamps = s.side != INBOUND && mesh;
  const dropOwn = s.side != OUTBOUND && (s.bits & B_PEER_TRUSTED) == 0;
  let app = false;
  if (s.side == OUTBOUND && h.ownCount > 0) {
    app = readApp(s.callEvent);
    s.bits |= B_COPIES;
  }
  const expected = orderExpected(root, s.side);
  if (expected) push(s);
  // What strangers sent goes at once; what the own application copied can wait for `order`.
  const strange = s.side == OUTBOUND ? !mesh && h.ownCount > 0 : h.hostileCount > 0 || (dropOwn && h.ownCount > 0);
  if (!strange && expected) {
    if (stamps) s.bits |= B_STAMP;
    return;
  }
  inject.expect(s, root);
  if ((s.bits & B_COPIES) != 0) dropCopies(mesh);
  if (stamps) stampRequest(s, root, app);
  if (h.stampsPending() > 0 && h.stampsBreak(true)) {
    h.clearStamps();
    doubts.countUnstamped();
  }
  const move = h.disordered && h.count <= h.FIELDS_MAX;
  if (h.disordered && !move) doubts.countUnstamped();
  const drop = h.hostileCount > 0 || (dropOwn && h.ownCount > 0);
  if (!drop && !move) {
    addStamps(host.REQUEST_HEADERS);
    return;
  }
  if (!h.write(move, dropOwn, true)) {
    doubts.countUnstamped();
    if (drop) clean(root);
    return;
  }
  host.setPairs(host.REQUEST_HEADERS, h.outPtr, h.outSize);
}
