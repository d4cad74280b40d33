/** Callbacks in odd orders, requests that end in every phase, and contexts that nobody knows. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Exchange, Pair } from '../support/proxy-wasm-host.js';
import { RUNS } from './counts.js';
import { assertAlive, inFlightOf, Sidecar, TRACEPARENT } from './sidecar.js';
import { frame, GRPC, OK } from './suite.js';

describe('odd requests', function () {
  this.timeout(900_000);

  it('sets the access log’s CUID for every request, also for those rejected before the filter', () => {
    const sidecar = new Sidecar();
    const cuid = (exchange: Exchange): string | undefined => exchange.filterState.get('wasm.cuid')?.toString();
    const unseen = sidecar.receive();
    unseen.proxyReply(404, 'route_not_found');
    unseen.finish();
    const exchanges = [sidecar.serve(), sidecar.callOut(), unseen];
    assert.match(cuid(unseen) ?? '', /^[0-9a-f-]{36}$/);
    assert.equal(new Set(exchanges.map(cuid)).size, 1);
    assert.equal(cuid(unseen), exchanges[0]?.response?.get('x-cuid'));
  });

  describe('in any order', () => {
    type Step = (exchange: Exchange, sidecar: Sidecar) => void;
    const STEPS: Readonly<Record<string, Step>> = {
      'request headers': x => x.requestHeaders(false),
      'request body': x => x.requestBody(frame(3), false),
      'request trailers': x => x.requestTrailers([['x', 'y']]),
      'response headers': x => x.responseHeaders([...OK, GRPC], false),
      'response body': x => x.responseBody(frame(3), false),
      'response trailers': x => x.responseTrailers([['grpc-status', '0']]),
      'proxy reply': x => x.proxyReply(413, 'too_large'),
      reset: x => x.reset(),
      log: x => {
        if (typeof x.filter !== 'string' && !x.finished) x.filter.log();
      },
      time: (_x, sidecar) => sidecar.advance(700),
      other: (_x, sidecar) => sidecar.serve(),
      order: (x, sidecar) => {
        if (sidecar.order !== undefined && !x.finished)
          x.attempt(sidecar.order, request => request.set('traceparent', TRACEPARENT));
      },
    };

    it('of callbacks: no trap, in-flight returns to 0, one row each', () => {
      const names = Object.keys(STEPS);
      fc.assert(
        fc.property(
          fc.array(fc.constantFrom(...names), { maxLength: 14 }),
          fc.boolean(),
          fc.boolean(),
          (steps, inbound, order) => {
            const sidecar = new Sidecar({ order });
            sidecar.connect();
            const headers: Pair[] = [GRPC, ['traceparent', TRACEPARENT]];
            const exchange = inbound ? sidecar.receive({ headers }) : sidecar.call({ headers });
            // A host passes request headers once per context; everything else in any order.
            const once = steps.filter((step, i) => step !== 'request headers' || steps.indexOf(step) === i);
            for (const step of once) STEPS[step]?.(exchange, sidecar);
            exchange.finish();
            sidecar.advance(3000);
            assertAlive(sidecar);
            const others = steps.filter(step => step === 'other').length;
            assert.equal(sidecar.collector.rows().length, others + 1, steps.join());
            assert.equal(inFlightOf(sidecar), 0, steps.join());
          },
        ),
        { numRuns: RUNS.sequences },
      );
    });

    it('of raw callbacks on contexts that exist, existed or never did', () => {
      const callbacks = [
        ...['proxy_on_request_headers', 'proxy_on_request_body', 'proxy_on_response_headers', 'proxy_on_response_body'],
        ...['proxy_on_log', 'proxy_on_done', 'proxy_on_delete', 'proxy_on_tick', 'proxy_on_context_create'],
        ...['proxy_on_grpc_receive', 'proxy_on_grpc_close', 'proxy_on_queue_ready', 'proxy_on_http_call_response'],
        ...['proxy_on_request_trailers', 'proxy_on_response_trailers'],
      ];
      const id = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.constantFrom(0x7fffffff, -1, 65536));
      const call = fc.tuple(
        fc.constantFrom(...callbacks),
        id,
        fc.integer({ min: -1, max: 70000 }),
        fc.integer({ min: -1, max: 70000 }),
      );
      fc.assert(
        fc.property(fc.array(call, { maxLength: 40 }), calls => {
          const sidecar = new Sidecar();
          sidecar.connect();
          sidecar.receive().requestHeaders();
          const root = sidecar.proxy.worker(0).root(sidecar.inbound);
          assert.ok(root !== undefined);
          for (const [name, context, a, b] of calls) {
            // Removing a root context is the host's own doing, tested elsewhere.
            if (context >= 0 && context <= 2 && /done|delete|create/.test(name)) continue;
            if (root.vm.has(name)) root.vm.upcall(root, name, [context, a, b, 0, 0], () => undefined);
          }
          sidecar.serve();
          sidecar.advance(3000);
          assertAlive(sidecar);
        }),
        { numRuns: RUNS.sequences },
      );
    });
  });

  it('are tracked up to a bound; past it requests pass, and the loss is a number', () => {
    const BOUND = 16384;
    const sidecar = new Sidecar();
    sidecar.connect();
    const open = Array.from({ length: BOUND + 100 }, () => {
      const exchange = sidecar.receive({
        headers: [['x-cuid', 'forged']],
        properties: { connection: { mtls: false } },
      });
      assert.equal(exchange.requestHeaders(), 'continue');
      assert.equal(exchange.request.get('x-cuid'), undefined);
      return exchange;
    });
    for (const exchange of open) sidecar.answer(exchange);
    sidecar.advance(20_000);
    assertAlive(sidecar);
    const dropped =
      sidecar.collector.hellos.at(-1)?.producers.reduce((sum, producer) => sum + Number(producer.droppedEvents), 0) ??
      0;
    const told = Math.max(
      dropped,
      ...[...sidecar.collector.batches.values()].flatMap(batches =>
        [...batches.values()].map(batch => Number(batch.droppedEvents)),
      ),
    );
    assert.equal(sidecar.collector.rows().length + told, open.length);
    assert.equal(inFlightOf(sidecar), 0);
  });

  it('keep the callback’s path closed when they are too many, or have too many headers to be read', () => {
    const sidecar = new Sidecar({ config: { rollback: { callback: { cluster: 'app', path: '/undo' } } } });
    const post = (path: string, more: [string, string][] = []): number | undefined => {
      const pairs: [string, string][] = [
        [':method', 'POST'],
        [':authority', 'a'],
        [':path', path],
      ];
      const exchange = sidecar.receive({ rawHeaders: [...pairs, ...more] });
      exchange.requestHeaders();
      return exchange.localReply?.code;
    };
    const many = Array.from({ length: 1100 }, (_, i): [string, string] => [`x-${i}`, 'a']);
    assert.deepEqual([post('/undo', many), post('/a', many)], [404, undefined]);
    for (let i = 0; i < 16_400; i++) post('/a');
    assert.deepEqual([post('/%75ndo'), post('/a')], [404, undefined]);
    assertAlive(sidecar);
  });
});
