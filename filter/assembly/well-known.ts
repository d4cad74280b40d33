// Paths of the filter's own under /.well-known/meshpulse/, and the one that must stay closed.
import { Text } from './bytes';
import { ROLE_NONE } from './config';
import * as h from './core/headers';
import * as paths from './core/paths';
import * as host from './host';
import * as jobs from './jobs';
import { readApp } from './own-headers';
import { Root, sideOf } from './roots';
import { OUTBOUND } from './streams';

const T_WELL_KNOWN = new Text('/.well-known/meshpulse/');
const T_PROGRESS_PATH = new Text('/.well-known/meshpulse/progress');
const T_PATH = new Text(':path');
const T_POST = new Text('POST');
const T_NOT_FOUND = new Text('meshpulse: no such path\n');
const T_POST_ONLY = new Text('meshpulse: progress is reported by POST\n');
const T_BAD_PROGRESS = new Text('meshpulse: x-mp-progress: expected a dictionary such as job="invoice-42", done=30, of=100, queue=7, state=packing\n');
const T_DETAILS = new Text('meshpulse_local');

function answer(status: u32, body: Text): void {
  host.sendLocalResponse(status, T_DETAILS.ptr, T_DETAILS.size, body.ptr, body.size, 0, 0, -1);
}

/** Progress of a job without traffic: only from the own application, never from the network. */
export function wellKnown(side: i32): bool {
  if (!h.valueStarts(h.iPath, T_WELL_KNOWN)) return false;
  if (side != OUTBOUND) {
    answer(404, T_NOT_FOUND);
    return true;
  }
  if (!T_PROGRESS_PATH.is(h.valuePtr(h.iPath), pathSize())) {
    answer(404, T_NOT_FOUND);
    return true;
  }
  if (!h.valueIs(h.iMethod, T_POST)) answer(405, T_POST_ONLY);
  else if (!readApp(0)) answer(400, T_BAD_PROGRESS);
  else {
    jobs.tellProgress();
    host.sendLocalResponse(204, T_DETAILS.ptr, T_DETAILS.size, 0, 0, 0, 0, -1);
  }
  return true;
}

/** rollback.callback.path must not be reachable from the network, however it is spelt: answered 404. */
export function closedPath(root: Root, side: i32): bool {
  if (side == OUTBOUND || root.callback.size == 0 || h.iPath < 0) return false;
  const m = host.mark();
  const closed = isCallback(root, h.valuePtr(h.iPath), h.valueSize(h.iPath));
  host.release(m);
  if (closed) answer(404, T_NOT_FOUND);
  return closed;
}

/** The same for a request that passes without being looked at: one too many, or with too many headers. */
export function closedUnread(root: Root): bool {
  if (root.config.role == ROLE_NONE || root.callback.size == 0 || sideOf(root) == OUTBOUND) return false;
  const m = host.mark();
  const found = host.getHeader(host.REQUEST_HEADERS, T_PATH.ptr, T_PATH.size);
  const closed = found == host.FAILED || (found == host.OK && isCallback(root, host.dataPtr, host.dataSize));
  host.release(m);
  if (closed) answer(404, T_NOT_FOUND);
  return closed;
}

function isCallback(root: Root, path: usize, size: u32): bool {
  const to = host.scratch(size + 1);
  // Without room for the path nothing is known of it, and a closed path stays closed.
  if (to == 0) return true;
  const n = paths.plain(path, size, to);
  if (root.callback.is(to, n)) return true;
  if (!paths.hostFirst) return false;
  let at: u32 = 1;
  while (at < n && load<u8>(to + at) != 0x2f) at++;
  return at < n && root.callback.is(to + at, n - at);
}

/** Bytes of :path before the query. */
function pathSize(): u32 {
  if (h.iPath < 0) return 0;
  const p = h.valuePtr(h.iPath);
  const size = h.valueSize(h.iPath);
  for (let i: u32 = 0; i < size; i++) if (load<u8>(p + i) == 0x3f) return i;
  return size;
}
