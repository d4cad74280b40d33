/** How each way for a request to end is judged, counted and described: one row each, and in-flight back at 0. */
import assert from 'node:assert/strict';
import { ResponseFlag, type Exchange, type Pair } from '../support/proxy-wasm-host.js';
import { assertAlive, inFlightOf, Sidecar } from './sidecar.js';
import { frame, GRPC, OK } from './suite.js';
import { Outcome, RowFlag, type Row } from './wire.js';

describe('the end of a request', function () {
  this.timeout(120_000);

  /** Runs one request and gives its one row, with in-flight back at 0. */
  function rowOf(play: (sidecar: Sidecar) => Exchange, config = {}): Row {
    const sidecar = new Sidecar({ config });
    sidecar.connect();
    play(sidecar);
    sidecar.advance(3000);
    assertAlive(sidecar);
    const rows = sidecar.collector.rows();
    assert.equal(rows.length, 1, `${String(rows.length)} rows`);
    sidecar.call().requestHeaders();
    assert.equal(inFlightOf(sidecar), 0);
    return rows[0] as Row;
  }

  /** The answer begins, and the stream ends with a flag instead of an end. */
  function endedBy(sidecar: Sidecar, flag: number, headers: readonly Pair[]): Exchange {
    const exchange = sidecar.receive({ headers });
    exchange.requestHeaders();
    exchange.responseHeaders(OK, false);
    exchange.info.flags |= flag;
    exchange.finish();
    return exchange;
  }

  describe('are counted once, with the right outcome:', () => {
    const ROWS: readonly (readonly [
      string,
      (sidecar: Sidecar) => Exchange,
      { outcome: number; flags?: number; status?: number },
    ])[] = [
      ['200', s => s.serve(), { outcome: Outcome.Ok, flags: RowFlag.Entry, status: 200 }],
      ['301', s => s.serve({}, { status: 301 }), { outcome: Outcome.Ok, status: 301 }],
      ['404', s => s.serve({}, { status: 404 }), { outcome: Outcome.Declined, status: 404 }],
      ['500', s => s.serve({}, { status: 500 }), { outcome: Outcome.Failed, status: 500 }],
      [
        'the upstream reset it',
        s =>
          s.serve(
            {},
            {
              status: 503,
              details: 'upstream_reset_before_response_started',
              flags: ResponseFlag.UpstreamConnectionFailure,
            },
          ),
        { outcome: Outcome.Failed, flags: RowFlag.LocalReply, status: 503 },
      ],
      [
        'a timeout',
        s => s.serve({}, { status: 504, details: 'response_timeout', flags: ResponseFlag.UpstreamRequestTimeout }),
        { outcome: Outcome.Failed, flags: RowFlag.LocalReply, status: 504 },
      ],
      [
        'no healthy upstream',
        s => s.serve({}, { status: 503, details: 'no_healthy_upstream', flags: ResponseFlag.NoHealthyUpstream }),
        { outcome: Outcome.Failed, flags: RowFlag.LocalReply, status: 503 },
      ],
      [
        'the client went away before the answer',
        s => {
          const exchange = s.receive();
          exchange.requestHeaders();
          exchange.reset();
          return exchange;
        },
        { outcome: Outcome.Cancelled, status: 0 },
      ],
      [
        'the client went away during the answer',
        s => {
          const exchange = s.receive();
          exchange.requestHeaders();
          exchange.responseHeaders(OK, false);
          exchange.reset();
          return exchange;
        },
        { outcome: Outcome.Cancelled, status: 200 },
      ],
      [
        'the client reset its HTTP/2 stream during the answer',
        s => endedBy(s, ResponseFlag.DownstreamRemoteReset, []),
        { outcome: Outcome.Cancelled, status: 200 },
      ],
      [
        'the client reset its gRPC stream during the answer',
        s => endedBy(s, ResponseFlag.DownstreamRemoteReset, [GRPC]),
        { outcome: Outcome.Cancelled, status: 200 },
      ],
      [
        'the upstream went away during the answer',
        s => endedBy(s, ResponseFlag.UpstreamConnectionTermination, []),
        { outcome: Outcome.Failed, status: 200 },
      ],
      [
        'the upstream reset its stream during the answer',
        s => endedBy(s, ResponseFlag.UpstreamRemoteReset, []),
        { outcome: Outcome.Failed, status: 200 },
      ],
      [
        'the stream was idle for too long during the answer',
        s => endedBy(s, ResponseFlag.StreamIdleTimeout, []),
        { outcome: Outcome.Failed, status: 200 },
      ],
      [
        'rejected before the filter: no route',
        s => {
          const exchange = s.receive();
          exchange.proxyReply(404, 'route_not_found', ResponseFlag.NoRouteFound);
          exchange.finish();
          return exchange;
        },
        { outcome: Outcome.Declined, flags: RowFlag.Unseen | RowFlag.LocalReply, status: 404 },
      ],
      [
        'rejected before the filter: headers too large, none known',
        s => {
          const exchange = s.receive({ rawHeaders: [] });
          exchange.proxyReply(431, 'request_headers_too_large');
          exchange.finish();
          return exchange;
        },
        { outcome: Outcome.Declined, flags: RowFlag.Unseen, status: 431 },
      ],
      [
        '413 in mid-request',
        s => {
          const exchange = s.receive();
          exchange.requestHeaders(false);
          exchange.requestBody(Buffer.alloc(100), false);
          exchange.proxyReply(413, 'request_payload_too_large');
          exchange.finish();
          return exchange;
        },
        { outcome: Outcome.Declined, flags: RowFlag.LocalReply, status: 413 },
      ],
      [
        'gRPC OK in trailers',
        s => s.serve({ headers: [GRPC] }, { trailers: [['grpc-status', '0']] }),
        { outcome: Outcome.Ok, flags: RowFlag.Grpc },
      ],
      [
        'gRPC NOT_FOUND',
        s => s.serve({ headers: [GRPC] }, { trailers: [['grpc-status', '5']] }),
        { outcome: Outcome.Declined },
      ],
      [
        'gRPC UNAVAILABLE, trailers only',
        s => s.serve({ headers: [GRPC] }, { headers: [['grpc-status', '14']] }),
        { outcome: Outcome.Failed },
      ],
      [
        'gRPC CANCELLED',
        s => s.serve({ headers: [GRPC] }, { trailers: [['grpc-status', '1']] }),
        { outcome: Outcome.Cancelled },
      ],
      ...[2, 4, 8, 13, 14, 15].map(
        code =>
          [
            `gRPC ${String(code)}`,
            (s: Sidecar) => s.serve({ headers: [GRPC] }, { trailers: [['grpc-status', String(code)]] }),
            { outcome: Outcome.Failed },
          ] as const,
      ),
      ...[3, 6, 7, 9, 10, 11, 12, 16].map(
        code =>
          [
            `gRPC ${String(code)}`,
            (s: Sidecar) => s.serve({ headers: [GRPC] }, { trailers: [['grpc-status', String(code)]] }),
            { outcome: Outcome.Declined },
          ] as const,
      ),
      [
        'a probe',
        s => s.serve({ headers: [['user-agent', 'kube-probe/1.31']] }),
        { outcome: Outcome.Ok, flags: RowFlag.Probe },
      ],
      [
        'a shadow request',
        s =>
          s.serve({
            rawHeaders: [
              [':authority', 'shop-shadow:8080'],
              [':path', '/'],
              [':method', 'GET'],
            ],
          }),
        { outcome: Outcome.Ok, flags: RowFlag.Shadow },
      ],
      [
        'a WebSocket',
        s =>
          s.serve(
            {
              headers: [
                ['connection', 'upgrade'],
                ['upgrade', 'websocket'],
              ],
            },
            { status: 101 },
          ),
        { outcome: Outcome.Ok, flags: RowFlag.Stream, status: 101 },
      ],
      [
        'CONNECT',
        s =>
          s.serve({
            rawHeaders: [
              [':authority', 'db:5432'],
              [':method', 'CONNECT'],
            ],
          }),
        { outcome: Outcome.Ok, flags: RowFlag.Stream },
      ],
    ];
    for (const [name, play, expected] of ROWS) {
      it(name, () => {
        const row = rowOf(play);
        assert.equal(row.outcome, expected.outcome);
        if (expected.flags !== undefined)
          assert.equal(row.flags & expected.flags, expected.flags, row.flags.toString(2));
        if (expected.status !== undefined) assert.equal(row.httpStatus, expected.status);
      });
    }
  });

  it('gives gRPC rows the path as operation and the status plus one', () => {
    const rawHeaders: Pair[] = [[':authority', 'a'], [':path', '/shop.v1.Orders/Get'], [':method', 'POST'], GRPC];
    const row = rowOf(s => s.serve({ rawHeaders }, { trailers: [['grpc-status', '0']] }));
    assert.deepEqual([row.operation, row.grpcStatus], ['/shop.v1.Orders/Get', 0]);
  });

  it('has durations from request headers to end, and none for streams', () => {
    assert.equal(rowOf(s => s.serve({}, { afterMs: 1234 })).durationUs, 1_234_000);
    const stream = rowOf(s => s.serve({ headers: [['upgrade', 'websocket']] }, { status: 101, afterMs: 1000 }));
    assert.equal(stream.durationUs, 0);
  });

  it('tells a gRPC stream by its second message, however it is cut into buffers', () => {
    const whole = Buffer.concat([frame(7), frame(3)]);
    for (let cut = 0; cut <= whole.length; cut++) {
      const row = rowOf(sidecar => {
        const exchange = sidecar.receive({ headers: [GRPC] });
        exchange.requestHeaders(false);
        exchange.requestBody(whole.subarray(0, cut), false);
        exchange.requestBody(whole.subarray(cut), true);
        exchange.responseHeaders([...OK, GRPC], false);
        exchange.responseTrailers([['grpc-status', '0']]);
        exchange.finish();
        return exchange;
      });
      assert.equal(row.flags & RowFlag.Stream, RowFlag.Stream, `cut at ${String(cut)}`);
    }
    const unary = rowOf(sidecar => {
      const exchange = sidecar.receive({ headers: [GRPC] });
      exchange.requestHeaders(false);
      for (const byte of frame(9)) exchange.requestBody(Buffer.from([byte]), false);
      exchange.responseHeaders([...OK, GRPC], false);
      exchange.responseBody(frame(0), false);
      exchange.responseTrailers([['grpc-status', '0']]);
      exchange.finish();
      return exchange;
    });
    assert.equal(unary.flags & RowFlag.Stream, 0);
  });

  it('fills bytes for streams only', () => {
    const stream = rowOf(sidecar => {
      const exchange = sidecar.receive({ headers: [['upgrade', 'websocket']] });
      exchange.requestHeaders(false);
      exchange.responseHeaders([[':status', '101']], false);
      exchange.requestBody(Buffer.alloc(1000), false);
      exchange.responseBody(Buffer.alloc(5000), false);
      exchange.finish();
      return exchange;
    });
    assert.ok(stream.requestBytes >= 1000 && stream.responseBytes >= 5000);
    const plain = rowOf(s => s.serve());
    assert.deepEqual([plain.requestBytes, plain.responseBytes], [0, 0]);
  });

  it('leaves 1xx alone: only the final headers are stamped and counted', () => {
    const row = rowOf(s => s.serve({}, { status: 204 }));
    assert.equal(row.httpStatus, 204);
  });

  it('counts calls with attempts, wait and Envoy’s flags', () => {
    const properties = { upstream: { request_attempt_count: 3, cx_pool_ready_duration: 4_500_000n } };
    const row = rowOf(s =>
      s.callOut(
        { properties },
        { status: 503, flags: ResponseFlag.UpstreamRetryLimitExceeded, details: 'via_upstream', afterMs: 9 },
      ),
    );
    assert.deepEqual(
      [row.attempts, row.waitUs, row.responseFlags, row.outcome, row.details, row.flags & RowFlag.Call],
      [3, 4500, ResponseFlag.UpstreamRetryLimitExceeded, Outcome.Failed, '', RowFlag.Call],
    );
  });

  it('takes the attempts from the router’s header, never from a client’s', () => {
    const attempts = (client: readonly Pair[], router: string | undefined): number =>
      rowOf(sidecar => {
        const exchange = sidecar.call({ headers: client, properties: { upstream: { request_attempt_count: 2 } } });
        exchange.requestHeaders();
        if (router !== undefined) exchange.request.set('x-envoy-attempt-count', router);
        return sidecar.answer(exchange);
      }).attempts;
    assert.equal(attempts([], '3'), 3);
    assert.equal(attempts([], undefined), 2);
    assert.equal(attempts([], 'many'), 2);
    assert.equal(attempts([['x-envoy-attempt-count', '9']], undefined), 2);
  });
});
