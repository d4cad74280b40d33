// The own headers that go out: who sends, in what state, which call.
import { copy, Text, writeDecimal, writeHex64 } from './bytes';
import * as fields from './core/fields';
import * as h from './core/headers';
import * as host from './host';
import * as identity from './identity';
import * as jobs from './jobs';
import * as status from './status';
import { INBOUND, Stream } from './streams';
import { Root, sideOf } from './roots';

/** Own headers of one message together, bytes, as `name: value CRLF`. */
export const OWN_BYTES_MAX: u32 = 255;
/** What a field has beside its name and value: `: ` and CRLF. */
export const FIELD_BYTES: u32 = 4;
/** Longest x-mp-rollback, bytes. */
export const ROLLBACK_MAX: u32 = 64;
const NO_TRACE: usize = memory.data(260, 8); // no trace headers: for responses
const NO_TEXT = new Text('');

/** Reads one header map of the current request into `headers`. */
export function parsePairs(map: i32, root: Root): bool {
  if (host.getPairs(map) != host.OK) return false;
  if (map == host.REQUEST_HEADERS) return h.parse(host.dataPtr, host.dataSize, root.trace, root.transactionHeader);
  return h.parse(host.dataPtr, host.dataSize, NO_TRACE, NO_TEXT);
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
export function readApp(event: u64): bool {
  if (h.iMpProgress < 0 || !fields.readProgress(h.valuePtr(h.iMpProgress), h.valueSize(h.iMpProgress))) return false;
  if ((fields.has & ~fields.HAS_EVENT) == 0) return false;
  jobs.progress(fields.has, event, fields.jobPtr, (fields.has & fields.HAS_JOB) != 0 ? fields.jobSize : 0, fields.done, fields.total, fields.queue, fields.statePtr, (fields.has & fields.HAS_STATE) != 0 ? fields.stateSize : 0);
  if ((fields.has & fields.HAS_QUEUE) != 0) status.appQueue(fields.queue);
  return true;
}

/** An application's copies of a former hop go; a compensation's mark stays towards the mesh. */
export function dropCopies(mesh: bool): void {
  h.dropField(h.iCuid);
  h.dropField(h.iMpStatus);
  h.dropField(h.iMpProgress);
  if (!mesh || (h.iMpRollback >= 0 && h.valueSize(h.iMpRollback) > ROLLBACK_MAX)) h.dropField(h.iMpRollback);
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
export function stampRequest(s: Stream, root: Root, app: bool): void {
  h.stamp(h.T_CUID, identity.CUID, 36);
  let at = copy(PROGRESS, T_EVENT_KEY.ptr, T_EVENT_KEY.size);
  at = writeHex64(at, s.callEvent);
  store<u8>(at++, 0x22);
  const bare = (at - PROGRESS) as u32;
  const full = app ? ((writeApp(at) - PROGRESS) as u32) : bare;
  let used: u32 = h.T_CUID.size + 36 + h.T_MP_PROGRESS.size + 2 * FIELD_BYTES;
  if (h.iMpRollback >= 0) used += h.T_MP_ROLLBACK.size + h.valueSize(h.iMpRollback) + FIELD_BYTES;
  let statusSize: u32 = 0;
  let progressSize = full;
  if (root.config.statusRequest) {
    const name = h.T_MP_STATUS.size + FIELD_BYTES;
    statusSize = status.status(200);
    if (used + progressSize + name + statusSize > OWN_BYTES_MAX) progressSize = bare;
    if (used + progressSize + name + statusSize > OWN_BYTES_MAX) {
      const left = used + progressSize + name;
      statusSize = left < OWN_BYTES_MAX ? status.status(OWN_BYTES_MAX - left) : 0;
    }
  } else if (used + progressSize > OWN_BYTES_MAX) progressSize = bare;
  if (statusSize > 0) h.stamp(h.T_MP_STATUS, status.statusPtr(), statusSize);
  h.stamp(h.T_MP_PROGRESS, PROGRESS, progressSize);
}

/** Where nothing else changes, a header added costs a tenth of a map written anew. */
export function addStamps(map: i32): void {
  for (let i: u32 = 0; i < h.stampsPending(); i++) {
    const e = h.stampAt(i);
    host.addHeader(map, load<u32>(e), load<u32>(e, 4), load<u32>(e, 8), load<u32>(e, 12));
  }
}

/** Own headers go when the map cannot be read whole: one by one. */
export function clean(root: Root): void {
  if (root.config.trustAll && sideOf(root) == INBOUND) return;
  removeOwn(host.REQUEST_HEADERS);
}

export function removeOwn(map: i32): void {
  for (let i = 0; i < OWN_NAMES.length; i++) {
    const name = unchecked(OWN_NAMES[i]);
    if (host.getHeader(map, name.ptr, name.size) == host.OK) host.removeHeader(map, name.ptr, name.size);
  }
}

/** Own names and their `_` twins, mixed ones too. */
const OWN_NAMES: Text[] = [
  h.T_CUID, new Text('x_cuid'),
  h.T_MP_STATUS, new Text('x_mp_status'), new Text('x-mp_status'), new Text('x_mp-status'),
  h.T_MP_PROGRESS, new Text('x_mp_progress'), new Text('x-mp_progress'), new Text('x_mp-progress'),
  h.T_MP_ROLLBACK, new Text('x_mp_rollback'), new Text('x-mp_rollback'), new Text('x_mp-rollback'),
];
