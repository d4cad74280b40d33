// Trace context that Envoy injects itself, where no `order` follows.
//
// Injection happens after the downstream chain, on the same map. So the log callback can read what was
// injected: the first hop learns its transaction. And with the tracer's names registered as
// `inline_headers` in the bootstrap, Envoy writes into a field that is already there, in its place: a
// placeholder in front then holds the context in front. Both are learned from the first requests of each
// shape (side, with or without a context of the caller): which names appear that were not there, and
// whether a placeholder stayed where it was put. Where it did not, no more are put.
import { Text } from './bytes';
import * as h from './core/headers';
import * as trace from './core/trace';
import * as host from './host';
import { parsePairs } from './own-headers';
import { orderExpected, Root } from './roots';
import { B_ORDERED, B_SEEN, F_INJECTED, Stream } from './streams';

/** Requests of one shape that are looked at before it is taken as not traced. */
const LOOKS_MAX: u8 = 64;
const SHAPES: u32 = 16;
/** Requests that must agree before places are held. */
const LOOKS_MIN: u8 = 2;
/** Per shape: names that appear (bit set), looks, off, names that were missing so far. */
const SHAPE_BYTES: u32 = 4;
export const INJECTED_BYTES: u32 = SHAPES * SHAPE_BYTES;

// Two NULs behind the name: an empty field, as the proxy's layout wants it.
const NAMES: Text[] = [
  new Text('traceparent\0\0'), new Text('tracestate\0\0'), new Text('x-b3-traceid\0\0'), new Text('x-b3-spanid\0\0'),
  new Text('x-b3-parentspanid\0\0'), new Text('x-b3-sampled\0\0'),
];
const TRACESTATE: i32 = 1;

/** Side, and what Envoy's tracer found: no traceparent, a valid one, another. */
function shape(s: Stream, root: Root, absent: bool): usize {
  const found: u32 = s.source == trace.KEY_TRACEPARENT && (s.flags & F_INJECTED) == 0 ? 1 : absent ? 0 : 2;
  return root.injected + (((s.side as u32) << 2) + found) * SHAPE_BYTES;
}

/** Bit set of the names that the parsed map lacks. */
function lacking(): u32 {
  let mask: u32 = 0;
  for (let i = 0; i < NAMES.length; i++) if (h.indexOf(unchecked(NAMES[i]).ptr, unchecked(NAMES[i]).size - 2) < 0) mask |= 1 << i;
  return mask;
}

/** At request headers: remembers what is missing, and holds places for what Envoy is known to add. */
export function expect(s: Stream, root: Root): void {
  if (s.side <= 0 || s.side > 3) return;
  const at = shape(s, root, h.iTraceparent == -1);
  const names = load<u8>(at) as u32;
  const looks = load<u8>(at, 1);
  if (load<u8>(at, 2) != 0 || (names == 0 && looks >= LOOKS_MAX)) return;
  s.lacked = lacking();
  const missing = names & s.lacked;
  if (missing == 0 || looks < LOOKS_MIN || h.count + (NAMES.length as u32) > h.FIELDS_MAX) return;
  for (let i = 0; i < NAMES.length; i++) {
    if ((missing & (1 << i)) != 0 && h.addTrace(root.trace, unchecked(NAMES[i]).ptr, unchecked(NAMES[i]).size - 2)) s.placed |= 1 << i;
  }
}

/** At the end: what has Envoy made of it? */
export function learn(s: Stream, root: Root): void {
  if ((s.bits & (B_SEEN | B_ORDERED)) != B_SEEN || s.lacked == 0 || orderExpected(root, s.side)) return;
  const at = shape(s, root, (s.lacked & 1) != 0);
  const bare = s.source == trace.KEY_NONE || s.source == trace.KEY_REQUEST_ID;
  const looks = load<u8>(at, 1);
  if (looks >= LOOKS_MAX && !bare && s.placed == 0) return;
  if (looks < LOOKS_MAX) store<u8>(at, looks + 1, 1);
  if (!parsePairs(host.REQUEST_HEADERS, root)) return;
  let appeared: u32 = 0;
  let useless = false;
  const plain = h.firstPlain();
  for (let i = 0; i < NAMES.length; i++) {
    if ((s.lacked & (1 << i)) == 0) continue;
    const field = h.indexOf(unchecked(NAMES[i]).ptr, unchecked(NAMES[i]).size - 2);
    if (field < 0) continue;
    // Injected elsewhere, or not at all this time: places are of no use here.
    if ((s.placed & (1 << i)) != 0 && (field > plain || (i != TRACESTATE && h.valueSize(field) == 0))) useless = true;
    appeared |= 1 << i;
  }
  // Only what appears each time that it was missing.
  const tested = load<u8>(at, 3) as u32;
  store<u8>(at, (((load<u8>(at) as u32) & (appeared | ~s.lacked)) | (appeared & ~tested)) as u8);
  store<u8>(at, (tested | s.lacked) as u8, 3);
  if (useless) store<u8>(at, 1, 2);
  if (!bare) return;
  trace.read();
  if (trace.source == trace.KEY_NONE || trace.source == trace.KEY_REQUEST_ID) return;
  s.keyHi = trace.keyHi;
  s.keyLo = trace.keyLo;
  s.spanOut = trace.span;
  s.source = trace.source;
  s.flags |= F_INJECTED;
}
