// The request and the answers that every arm carries. Fourteen headers, of the sizes that services send
// to each other, with the trace context in the middle: an ordering filter has to move something.

export const SERVICE = 'payment';
export const NAMESPACE = 'shop';

const REQUEST_BODY = '{"order":"A-10293","amount":{"value":"49.90","currency":"EUR"},"customer":"c-5521"}';
const RESPONSE_BODY = JSON.stringify({
  id: 'p-88213',
  state: 'authorised',
  lines: Array.from({ length: 4 }, (_, i) => ({ sku: `sku-${i}`, quantity: i + 1, price: '12.40' })),
});
export const REQUEST_BODY_BYTES = REQUEST_BODY.length;
export const RESPONSE_BODY_BYTES = RESPONSE_BODY.length;

/** Hex digits at the end of the trace id and of x-request-id that differ from request to request. */
export const SERIAL_DIGITS = 8;
const TRACE_ID = '4bf92f3577b34da6a3ce929d00000000';
const REQUEST_ID = '8f0e2b1c-6f1d-4c55-9a0e-51d200000000';

/** What a caller inside the mesh adds to a request, as the filter of its own proxy stamps it. */
const PEER_HEADERS = [
  'x-cuid: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff',
  'x-mp-status: inflight=3, wait=0, age=0',
  'x-mp-progress: event="9f3c2a71d0b54e68"',
];

/** What nobody honest sends: spellings with `_`, and one more CUID. */
const STRANGE_HEADERS = ['x_cuid: a', 'x-mp_status: inflight=0', 'x_mp_progress: b', 'x-cuid: c'];
/** So many further fields leave no room for stamps under 100. */
const CROWD = 82;

export type Trouble = 'strange' | 'crowded';

/**
 * One request as bytes.
 *
 * @param fromPeer with the own headers of an in-mesh caller: what an inbound listener gets
 * @param trouble  only compared, never timed
 */
export function requestBytes(fromPeer: boolean, trouble?: Trouble): Buffer {
  const lines = [
    'POST /v1/orders/10293/payments HTTP/1.1',
    `host: ${SERVICE}.${NAMESPACE}.svc.cluster.local:8080`,
    'user-agent: shop-client/4.2.0 (linux; amd64)',
    'accept: application/json',
    'accept-encoding: gzip, deflate, br',
    'accept-language: en-GB,en;q=0.8',
    'authorization: Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzaG9wIiwiYXVkIjoicGF5bWVudCJ9.c2lnbmF0dXJlLW9mLTQ4LWJ5dGVz',
    `x-request-id: ${REQUEST_ID}`,
    `traceparent: 00-${TRACE_ID}-00f067aa0ba902b7-01`,
    'tracestate: vendor=opaque:7,other=3',
    'content-type: application/json',
    `content-length: ${REQUEST_BODY_BYTES}`,
    'x-forwarded-for: 10.8.3.17',
    'x-forwarded-proto: http',
    'x-tenant-id: tenant-0042',
    ...(fromPeer ? PEER_HEADERS : []),
    ...(trouble === 'strange' ? STRANGE_HEADERS : []),
    ...(trouble === 'crowded' ? Array.from({ length: CROWD }, (_, i) => `x-pad-${i}: ${i}`) : []),
  ];
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${REQUEST_BODY}`);
}

/** Where in a request the digits stand that differ, so that a sender can count there. */
export function serialOffsets(request: Buffer): number[] {
  return [TRACE_ID, REQUEST_ID].map(id => request.indexOf(id) + id.length - SERIAL_DIGITS);
}

/** @param fromPeer with the own headers of an in-mesh callee: what an outbound listener gets back */
export function responseBytes(fromPeer: boolean): Buffer {
  const lines = [
    'HTTP/1.1 200 OK',
    'content-type: application/json; charset=utf-8',
    `content-length: ${RESPONSE_BODY_BYTES}`,
    'cache-control: no-store',
    'etag: W/"2c-1f8b08"',
    'vary: accept-encoding',
    'x-content-type-options: nosniff',
    ...(fromPeer ? PEER_HEADERS.slice(0, 2) : []),
  ];
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${RESPONSE_BODY}`);
}
