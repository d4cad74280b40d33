/** What one request costs in host calls: each crosses the border between proxy and VM. */
import assert from 'node:assert/strict';
import type { Exchange, Pair } from '../support/proxy-wasm-host.js';
import { REQUEST_ID, Sidecar, TRACEPARENT } from './sidecar.js';

/** From request headers to delete, both chains together. A change that needs more should say what for. */
const HOST_CALLS_MAX = 20;
/** Reading or writing a whole header map: request and response, and once more in the upstream chain. */
const MAPS_READ_MAX = 3;
const MAPS_WRITTEN_MAX = 1;

const HEADERS: readonly Pair[] = [
  ['traceparent', TRACEPARENT],
  ['x-request-id', REQUEST_ID],
  ['user-agent', 'x'],
];

describe('a request', () => {
  for (const order of [false, true]) {
    for (const direction of ['inbound', 'outbound'] as const) {
      it(`costs few host calls: ${direction}${order ? ', with role: order' : ''}`, () => {
        const sidecar = new Sidecar({ order });
        sidecar.connect();
        const pass = (): Exchange => {
          const exchange =
            direction === 'inbound' ? sidecar.receive({ headers: HEADERS }) : sidecar.call({ headers: HEADERS });
          exchange.requestHeaders();
          if (sidecar.order !== undefined)
            exchange.attempt(sidecar.order, request => request.set('traceparent', TRACEPARENT));
          return sidecar.answer(exchange);
        };
        for (let i = 0; i < 5; i++) pass();
        sidecar.advance(1000);
        const calls = sidecar.proxy.worker(0).vm(sidecar.inbound)?.hostCalls ?? new Map<string, number>();
        const before = new Map(calls);
        pass();
        const made = (name: string): number => (calls.get(name) ?? 0) - (before.get(name) ?? 0);
        const total = [...calls.keys()].reduce((sum, name) => sum + made(name), 0);
        assert.ok(total <= HOST_CALLS_MAX, `${String(total)} calls`);
        assert.ok(made('proxy_get_header_map_pairs') <= MAPS_READ_MAX);
        assert.ok(made('proxy_set_header_map_pairs') <= MAPS_WRITTEN_MAX);
        assert.equal(made('proxy_replace_header_map_value'), 0);
        assert.equal(made('proxy_log'), 0);
      });
    }
  }
});
