// Header lists as applications send them, and worse: repetition, empty values, cookies, long values, bytes
// beyond ASCII, every kind of trace context, at any place.
import type { Field } from './raw-http.js';

export const TRACE_NAME = /^(traceparent|tracestate|b3|x-b3-.*|uber-trace-id|sw8|x-cloud-trace-context|x-datadog-.*)$/;
export const OWN_NAME = /^x[-_](cuid|mp[-_](status|progress|rollback))$/;

/** Position of a trace header in the documented order. */
export function traceRank(name: string): number {
  const order = [/^traceparent$/, /^tracestate$/, /^b3$/, /^x-b3-/, /^uber-trace-id$/, /^sw8$/, /^x-cloud-/, /^x-data/];
  return order.findIndex(pattern => pattern.test(name));
}

const TRACE_ID = '4bf92f3577b34da6a3ce929d0e0e4736';
const SPAN_ID = '00f067aa0ba902b7';

const TRACE_SETS: Field[][] = [
  [],
  [['traceparent', `00-${TRACE_ID}-${SPAN_ID}-01`]],
  [
    ['tracestate', 'vendor=opaque,other=1'],
    ['traceparent', `00-${TRACE_ID}-${SPAN_ID}-00`],
  ],
  [
    ['x-b3-sampled', '1'],
    ['x-b3-spanid', SPAN_ID],
    ['x-b3-traceid', TRACE_ID],
    ['x-b3-parentspanid', '0020000000000001'],
  ],
  [['b3', `${TRACE_ID}-${SPAN_ID}-1`]],
  [['uber-trace-id', `${TRACE_ID}:${SPAN_ID}:0:1`]],
  [['sw8', '1-NGJmOTJmMzU3N2IzNGRhNmEzY2U5MjlkMGUwZTQ3MzY=-c2Vn-3-c2VydmljZQ==-aW5zdA==-L29w-MTI3LjAuMC4x']],
  [['x-cloud-trace-context', `${TRACE_ID}/1;o=1`]],
  [
    ['x-datadog-sampling-priority', '1'],
    ['x-datadog-trace-id', '7017280452245743464'],
    ['x-datadog-parent-id', '1234567890'],
  ],
  [
    ['traceparent', 'not-a-trace'],
    ['x-datadog-trace-id', '1'],
    ['b3', '0'],
  ],
];

const ORDINARY: Field[] = [
  ['accept', '*/*'],
  ['accept', 'text/html;q=0.9'],
  ['accept-encoding', 'gzip, br'],
  ['user-agent', 'corpus/1.0 (test)'],
  ['cookie', 'a=1; b=2'],
  ['cookie', 'session=0123456789abcdef'],
  ['authorization', 'Bearer abc.def.ghi'],
  ['x-empty', ''],
  ['x-repeated', '1'],
  ['x-repeated', '2'],
  ['x-repeated', ''],
  ['x-repeated', '1'],
  ['x-two-blanks', 'a  b'],
  ['x-bytes', '\u00fc\u00e9\u00ff \u0080'],
  ['x-long', 'v'.repeat(3000)],
  ['x-traceparent', 'looks alike'],
  ['traceparent2', 'looks alike'],
  ['x-b4-traceid', 'looks alike'],
  ['x-datadog', 'looks alike'],
  ['x-cuids', 'looks alike'],
  ['x-mp-status-code', 'looks alike'],
  ['forwarded', 'for=192.0.2.1;proto=http'],
  ['x-forwarded-for', '192.0.2.7'],
  ['if-none-match', '"etag"'],
  ['content-type', 'application/json'],
  ['referer', 'http://shop.example/a?b=c'],
  ['x-envoy-max-retries', '1'],
  ['z', 'one-letter name'],
  ['0-digits', '0'],
  ["!#$%&'*+-.^_`|~", 'every token character'],
];

/** A small generator of pseudo-random numbers in [0, 1), so that a failing case is the same next time. */
function random(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `count` lists of 0 to 80 fields, each with an x-request-id so that two proxies treat it alike. */
export function headerCorpus(count: number, seed = 1): Field[][] {
  const next = random(seed);
  const below = (n: number) => Math.floor(next() * n);
  return Array.from({ length: count }, (_, n) => {
    const many = n % 10 === 9;
    const size = many ? 40 + below(30) : below(14);
    const fields = Array.from({ length: size }, (_, i): Field => {
      const field = ORDINARY[below(ORDINARY.length)] ?? ['x', 'y'];
      return many ? [`x-many-${(i * 37) % size}`, field[1].slice(0, 40)] : field;
    });
    // Every list of trace headers alone, then pairs of them.
    const sets = [TRACE_SETS[n % TRACE_SETS.length] ?? [], n < 30 ? [] : (TRACE_SETS[below(TRACE_SETS.length)] ?? [])];
    for (const field of sets.flat()) {
      if (!fields.some(([name]) => name === field[0])) fields.splice(below(fields.length + 1), 0, field);
    }
    const id = `aaaaaaaa-bbbb-4ccc-8ddd-${n.toString(16).padStart(12, '0')}`;
    fields.splice(below(fields.length + 1), 0, ['x-request-id', id]);
    return fields;
  });
}
