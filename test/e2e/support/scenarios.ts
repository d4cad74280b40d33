// Every way a request can end, each with what must be written down about it.
import type { Json } from '../../../demo/src/mesh/json.js';
import { any } from '../../../demo/src/mesh/json.js';
import { luaFilter } from '../../../demo/src/mesh/http-filters.js';
import { route } from '../../../demo/src/mesh/listeners.js';
import type { ServiceSpec } from '../../../demo/src/mesh/mesh.js';
import { outboundCluster } from '../../../demo/src/mesh/node.js';
import type { OddRequest } from './odd-client.js';

export interface Scenario {
  /** Also its path, without the slash. */
  name: string;
  request: Omit<OddRequest, 'path' | 'host'> & { host?: string };
  /** A prime number, so that no two scenarios can make up for each other. */
  times: number;
  /** Status that the client sees; 0 = none. */
  client: number;
  /** Story of the call at the caller's proxy; see `rowStory`. */
  call: string;
  /** Stories of the events at the callee's proxy, one for each attempt that arrives; none if none does. */
  events: string[];
  /** Service that answers; default `back`. */
  service?: string;
}

/** Protocols change what a reset looks like. */
export interface Wire {
  client: 'http1' | 'http2';
  between: 'http1' | 'http2';
}

/** Longer than any client waits that goes away before its answer. */
const HELD_MS = 3000;
const LIMIT_BYTES = 1000;
const REJECT = `function envoy_on_request(h)
  if h:headers():get("x-reject") then h:respond({[":status"] = "401"}, "no") end
end`;

function bufferFilter(): Json {
  return {
    name: 'envoy.filters.http.buffer',
    typed_config: any('envoy.extensions.filters.http.buffer.v3.Buffer', { max_request_bytes: LIMIT_BYTES }),
  };
}

/** An attempt that is not delayed must be answered within it, on a busy machine too. */
export const TIMEOUT_MS = 500;

export function oddServices(protocol: 'http1' | 'http2'): ServiceSpec[] {
  const back = outboundCluster('back', 'shop', 8080);
  const patience = { attempts: 0 };
  const routes: Json[] = [
    { match: { path: '/direct-fine' }, direct_response: { status: 200 } },
    { match: { path: '/direct' }, direct_response: { status: 418, body: { inline_string: 'no' } } },
    route(back, { timeoutMs: TIMEOUT_MS, retries: patience }, '/timeout'),
    route(back, { retries: { on: '5xx', attempts: 2, perTryTimeoutMs: TIMEOUT_MS } }, '/per-try'),
    route(back, { retries: { on: '5xx', attempts: 2 } }, '/retry'),
    route(back, { retries: { on: '5xx', attempts: 2, perTryTimeoutMs: TIMEOUT_MS, hedge: true } }, '/hedge'),
  ];
  const policy = { retries: patience };
  return [
    { name: 'front', outboundOnly: true },
    { name: 'back', protocol, routes, policy },
    { name: 'late', protocol, policy, proxy: { inboundFiltersAfter: [bufferFilter()] } },
    { name: 'early', protocol, policy, proxy: { inboundFiltersBefore: [bufferFilter()] } },
    { name: 'guard', protocol, policy, proxy: { inboundFiltersBefore: [luaFilter(REJECT)] } },
    { name: 'dead', protocol, policy },
    { name: 'absent', protocol, policy, noSidecar: true },
  ];
}

/** Services whose application must not listen. */
export const SILENT = ['dead', 'absent'];

const OK_CALL = '200 - ok attempts=1 [call]';
const OK_EVENT = '200 - ok []';
/** Several frames: a body that arrives whole is not buffered. */
const BIG = 'x'.repeat(40_000);

export function scenarios({ client, between }: Wire): Scenario[] {
  // A client's reset: the end of its connection, or of one stream on it.
  const left = client === 'http1' ? 'DC' : 'DR';
  const passedOn = between === 'http1' ? 'DC' : 'DR';
  return [
    { name: 'fine', request: {}, times: 11, client: 200, call: OK_CALL, events: [OK_EVENT] },
    {
      name: 'posted',
      request: { method: 'POST', body: 'x'.repeat(5000), deed: { body: 'y'.repeat(7000) } },
      times: 7,
      client: 200,
      call: OK_CALL,
      events: [OK_EVENT],
    },
    {
      name: 'empty',
      request: { deed: { status: 204 } },
      times: 3,
      client: 204,
      call: '204 - ok attempts=1 [call]',
      events: ['204 - ok []'],
    },
    {
      name: 'declined',
      request: { deed: { status: 409 } },
      times: 5,
      client: 409,
      call: '409 - declined attempts=1 [call]',
      events: ['409 - declined []'],
    },
    {
      name: 'failed',
      request: { deed: { status: 500 } },
      times: 5,
      client: 500,
      call: '500 - failed attempts=1 [call]',
      events: ['500 - failed []'],
    },
    {
      name: 'retry-mended',
      request: { deed: { status: [503, 200] } },
      times: 5,
      client: 200,
      call: '200 - ok attempts=2 [call]',
      events: ['503 - failed []', OK_EVENT],
    },
    {
      name: 'retry-in-vain',
      request: { deed: { status: 503 } },
      times: 3,
      client: 503,
      call: '503 URX failed attempts=3 [call]',
      events: ['503 - failed []', '503 - failed []', '503 - failed []'],
    },
    {
      name: 'timeout',
      request: { deed: { delayMs: 2 * TIMEOUT_MS } },
      times: 5,
      client: 504,
      call: '504 UT failed attempts=1 [call localreply]',
      events: [`0 ${passedOn} cancelled []`],
    },
    {
      name: 'per-try-mended',
      request: { deed: { delayMs: [2 * TIMEOUT_MS, 0] } },
      times: 3,
      client: 200,
      call: '200 - ok attempts=2 [call]',
      events: [`0 ${passedOn} cancelled []`, OK_EVENT],
    },
    {
      name: 'per-try-in-vain',
      request: { deed: { delayMs: 2 * TIMEOUT_MS } },
      times: 3,
      client: 504,
      call: '504 URX,UT failed attempts=3 [call localreply]',
      events: [`0 ${passedOn} cancelled []`, `0 ${passedOn} cancelled []`, `0 ${passedOn} cancelled []`],
    },
    {
      name: 'hedge',
      request: { deed: { delayMs: [4 * TIMEOUT_MS, 0] } },
      times: 3,
      client: 200,
      call: '200 - ok attempts=2 [call]',
      events: [`0 ${passedOn} cancelled []`, OK_EVENT],
    },
    {
      name: 'direct',
      request: {},
      times: 3,
      client: 418,
      call: '418 - declined attempts=0 [call localreply]',
      events: [],
    },
    {
      name: 'direct-fine',
      request: {},
      times: 3,
      client: 200,
      call: '200 - ok attempts=0 [call localreply]',
      events: [],
    },
    {
      name: 'no-route',
      request: { host: 'nowhere' },
      times: 3,
      client: 404,
      call: '404 NR declined attempts=0 [call localreply]',
      events: [],
    },
    {
      name: 'absent',
      request: {},
      service: 'absent',
      times: 3,
      client: 503,
      call: '503 UF,URX failed attempts=1 [call localreply]',
      events: [],
    },
    {
      name: 'dead',
      request: {},
      service: 'dead',
      times: 3,
      client: 503,
      call: '503 - failed attempts=1 [call]',
      events: ['503 UF,URX failed [localreply]'],
    },
    {
      name: 'too-large-late',
      request: { method: 'POST', body: BIG },
      service: 'late',
      times: 3,
      client: 413,
      call: '413 - declined attempts=1 [call]',
      events: ['413 - declined [localreply]'],
    },
    {
      name: 'too-large-early',
      request: { method: 'POST', body: BIG },
      service: 'early',
      times: 3,
      client: 413,
      call: '413 - declined attempts=1 [call]',
      events: ['413 - declined [unseen localreply]'],
    },
    {
      name: 'rejected-early',
      request: { headers: { 'x-reject': '1' } },
      service: 'guard',
      times: 3,
      client: 401,
      call: '401 - declined attempts=1 [call]',
      events: ['401 - declined [unseen localreply]'],
    },
    {
      name: 'app-resets-before-headers',
      request: { deed: { fail: 'before-headers' } },
      times: 3,
      client: 503,
      call: '503 - failed attempts=1 [call]',
      events: ['503 UC failed [localreply]'],
    },
    {
      name: 'app-resets-in-body',
      request: { deed: { fail: 'in-body' } },
      times: 3,
      client: 200,
      call: `200 ${between === 'http1' ? 'UPE' : 'UR'} failed attempts=1 [call]`,
      events: ['200 UPE failed []'],
    },
    {
      name: 'client-leaves-in-body',
      // The delay keeps an application quiet that takes the end of a stream for the end of its body.
      request: { method: 'POST', reset: 'in-body', deed: { delayMs: HELD_MS } },
      times: 3,
      client: 0,
      call: `0 ${left} cancelled attempts=1 [call]`,
      events: [`0 ${passedOn} cancelled []`],
    },
    {
      name: 'client-leaves-waiting',
      request: { reset: 'waiting', deed: { delayMs: HELD_MS } },
      times: 3,
      client: 0,
      call: `0 ${left} cancelled attempts=1 [call]`,
      events: [`0 ${passedOn} cancelled []`],
    },
    {
      name: 'client-leaves-in-response',
      request: { reset: 'in-response', deed: { fail: 'hang-in-body' } },
      times: 3,
      client: 200,
      call: `200 ${left} cancelled attempts=1 [call]`,
      events: [`200 ${passedOn} cancelled []`],
    },
  ];
}
