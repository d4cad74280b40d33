/** Early rollback in the filter: what is refused, and everything that must pass. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Exchange, Pair } from '../support/proxy-wasm-host.js';
import { directive, hashes, idWords, Kind, Mode, nameHash } from './directives.js';
import { assertAlive, REQUEST_ID, SHOP_NODE, Sidecar, TRACE_ID, TRACEPARENT, type SidecarOptions } from './sidecar.js';
import { encodeReply, Outcome, RowFlag, type Directive } from './wire.js';

const PAY = 'pay.shop.svc.cluster.local';
const CHARGE = 'POST /charge';
const ID = 'verdict-1';
const RUNS = process.env['TEST_LONG'] === '1' ? 100_000 : 2_000;

describe('early rollback', () => {
  const alive: Sidecar[] = [];
  const start = (options: SidecarOptions = {}): Sidecar => {
    const sidecar = new Sidecar({ ...options, config: { rollback: { mode: 'enforce' }, ...options.config } });
    sidecar.connect();
    alive.push(sidecar);
    return sidecar;
  };
  afterEach(() => {
    for (const sidecar of alive.splice(0)) assertAlive(sidecar);
  });

  const doom = (parts: Partial<Directive> = {}): Directive =>
    directive(Kind.Doom, {
      keys: idWords(TRACE_ID),
      refuse: hashes([PAY, CHARGE], [PAY, '/pay.Pay/Charge']),
      refuseIn: hashes(['', CHARGE]),
      budgetPpm: 1_000_000,
      id: ID,
      step: 'stock.shop POST /reserve',
      ...parts,
    });
  const charge = (headers: readonly Pair[] = [], traceparent = TRACEPARENT): Pair[] => [
    [':authority', 'pay.shop'],
    [':path', '/charge?n=1'],
    [':method', 'POST'],
    [':scheme', 'http'],
    ['traceparent', traceparent],
    ...headers,
  ];
  const EVENT: Pair = ['x-mp-progress', 'event="00000000000000aa"'];
  /** A call, as it ends when nothing refuses it. */
  const call = (sidecar: Sidecar, headers = charge(), worker = 0): Exchange =>
    sidecar.callOut({ rawHeaders: headers, worker });
  const serve = (sidecar: Sidecar, headers = charge([EVENT])): Exchange => sidecar.serve({ rawHeaders: headers });
  const code = (exchange: Exchange): number | undefined => exchange.localReply?.code;
  const rowOf = (sidecar: Sidecar) => {
    sidecar.advance(3000);
    const row = sidecar.collector.rows().at(-1);
    assert.ok(row);
    return row;
  };
  const direct = (sidecar: Sidecar, ...directives: Directive[]): void => {
    sidecar.collector.direct(...directives);
    sidecar.advance(1);
  };

  describe('refuses', () => {
    it('a forward call of a doomed transaction, and says which and why', () => {
      const sidecar = start();
      direct(sidecar, doom());
      const exchange = call(sidecar);
      assert.equal(code(exchange), 424);
      assert.equal(exchange.response?.get('x-mp-rollback'), ID);
      assert.equal(exchange.response.get('x-envoy-ratelimited'), 'true');
      assert.equal(exchange.response.get('content-type'), 'application/problem+json');
      assert.deepEqual(JSON.parse(exchange.localReply?.body.toString() ?? ''), {
        type: 'urn:meshpulse:doomed',
        title: 'The transaction cannot succeed any more',
        status: 424,
        transaction: TRACE_ID,
        step: 'stock.shop POST /reserve',
        signal: ID,
      });
      const row = rowOf(sidecar);
      assert.equal(row.outcome, Outcome.Refused);
      assert.equal(row.flags & (RowFlag.Call | RowFlag.LocalReply), RowFlag.Call | RowFlag.LocalReply);
      assert.deepEqual([row.httpStatus, row.details, row.attempts], [424, 'meshpulse_refused', 1]);
    });

    it('gRPC with FAILED_PRECONDITION, and stops the client’s own retries', () => {
      const sidecar = start();
      direct(sidecar, doom());
      const exchange = call(sidecar, [
        [':authority', 'pay.shop'],
        [':path', '/pay.Pay/Charge'],
        [':method', 'POST'],
        [':scheme', 'http'],
        ['content-type', 'application/grpc'],
        ['traceparent', TRACEPARENT],
      ]);
      assert.equal(exchange.localReply?.grpcStatus, 9);
      assert.equal(exchange.response?.get('grpc-retry-pushback-ms'), '-1');
      assert.equal(exchange.response.get('x-mp-rollback'), ID);
    });

    it('as the settings want it answered', () => {
      const sidecar = start({ config: { rollback: { mode: 'enforce', httpStatus: 409, grpcStatus: 10 } } });
      direct(sidecar, doom());
      assert.equal(code(call(sidecar)), 409);
    });

    it('at the callee as the second line', () => {
      const sidecar = start();
      direct(sidecar, doom());
      const exchange = serve(sidecar);
      assert.equal(code(exchange), 424);
      assert.equal(exchange.response?.get('x-mp-rollback'), ID);
      assert.equal(rowOf(sidecar).outcome, Outcome.Refused);
    });

    it('by x-request-id too, whatever Envoy has packed into it', () => {
      const sidecar = start();
      const packed = `${REQUEST_ID.slice(0, 14)}9${REQUEST_ID.slice(15)}`;
      direct(sidecar, doom({ keys: [], requests: idWords(packed) }));
      const headers = charge([['x-request-id', REQUEST_ID]]).filter(([name]) => name !== 'traceparent');
      assert.equal(code(call(sidecar, headers)), 424);
    });

    it('in every VM of the process within the same moment', () => {
      const sidecar = start({ workers: 3 });
      for (let worker = 0; worker < 3; worker++) call(sidecar, charge(), worker);
      sidecar.advance(1000);
      direct(sidecar, doom());
      for (let worker = 0; worker < 3; worker++)
        assert.equal(code(call(sidecar, charge(), worker)), 424, String(worker));
      direct(sidecar, directive(Kind.End, { keys: idWords(TRACE_ID) }));
      for (let worker = 0; worker < 3; worker++) assert.equal(code(call(sidecar, charge(), worker)), undefined);
    });

    it('and the caller’s filter takes the callee’s refusal for what it is', () => {
      const sidecar = start();
      sidecar.callOut({ rawHeaders: charge() }, { status: 424, headers: [['x-mp-rollback', ID]] });
      assert.equal(rowOf(sidecar).outcome, Outcome.Refused);
      sidecar.callOut({ rawHeaders: charge() }, { status: 424 });
      assert.equal(rowOf(sidecar).outcome, Outcome.Declined);
    });
  });

  describe('passes', () => {
    const passes = (exchange: Exchange): void => {
      assert.equal(code(exchange), undefined);
      assert.equal(exchange.response?.get(':status'), '200');
    };

    it('every operation that is not listed: compensation has its own', () => {
      const sidecar = start();
      direct(sidecar, doom());
      for (const [path, method] of [
        ['/refund', 'POST'],
        ['/charge', 'DELETE'],
        ['/charge/undo', 'POST'],
      ] as const) {
        const headers = charge().map(([name, value]): Pair =>
          name === ':path' ? [name, path] : name === ':method' ? [name, method] : [name, value],
        );
        passes(call(sidecar, headers));
        passes(serve(sidecar, [...headers, EVENT]));
      }
    });

    it('other transactions, other callees, requests without an id', () => {
      const sidecar = start();
      direct(sidecar, doom());
      passes(call(sidecar, charge([], TRACEPARENT.replace(TRACE_ID, 'f'.repeat(32)))));
      passes(call(sidecar, charge([], 'none')));
      passes(
        sidecar.callOut({
          rawHeaders: charge(),
          properties: { xds: { cluster_name: 'outbound|80||bank.shop.svc.cluster.local' } },
        }),
      );
    });

    it('entry requests, and then everything of that id: two business requests share it', () => {
      const sidecar = start();
      direct(sidecar, doom());
      passes(serve(sidecar, charge()));
      passes(call(sidecar));
      passes(serve(sidecar));
      sidecar.advance(100);
      const began = sidecar.collector.requests.flatMap(({ request }) => request.began);
      assert.equal(began.length, 1, 'the collector is told at once');
      assert.equal(began[0]?.operation, CHARGE);
    });

    it('shadows, probes, upgrades and what is its own', () => {
      const sidecar = start();
      direct(sidecar, doom({ refuse: hashes([PAY, CHARGE], [PAY, 'POST /meshpulse.v1.Ingest/Report']) }));
      passes(call(sidecar, charge([['user-agent', 'kube-probe/1.31']])));
      passes(call(sidecar, charge([['upgrade', 'websocket']])));
      passes(
        call(
          sidecar,
          charge().map(pair => (pair[0] === ':authority' ? [':authority', 'pay.shop-shadow'] : pair)),
        ),
      );
    });

    it('what carries the id of a live signal, and nothing else for it', () => {
      const sidecar = start();
      direct(sidecar, doom(), directive(Kind.Signal, { id: 'signal-7', ttlMs: 10_000, body: Buffer.from('{}') }));
      passes(call(sidecar, charge([['x-mp-rollback', 'signal-7']])));
      assert.equal(code(call(sidecar, charge([['x-mp-rollback', 'signal-8']]))), 424);
      sidecar.advance(10_000);
      assert.equal(code(call(sidecar, charge([['x-mp-rollback', 'signal-7']]))), 424, 'the signal is over');
    });

    it('everything after the TTL, after END and after CLEAR', () => {
      const sidecar = start();
      direct(sidecar, doom({ ttlMs: 5000 }));
      sidecar.advance(4900);
      assert.equal(code(call(sidecar)), 424);
      sidecar.advance(200);
      passes(call(sidecar));
      direct(sidecar, doom({ ttlMs: 4_000_000_000 }));
      sidecar.advance(299_000);
      assert.equal(code(call(sidecar)), 424);
      sidecar.advance(2000);
      passes(call(sidecar));
      direct(sidecar, doom());
      direct(sidecar, directive(Kind.End, { keys: idWords(TRACE_ID) }));
      passes(call(sidecar));
      direct(sidecar, doom());
      direct(sidecar, directive(Kind.Clear));
      passes(call(sidecar));
    });

    it('everything while the collector is gone, once the TTL is over', () => {
      const sidecar = start();
      direct(sidecar, doom());
      sidecar.collector.mode = 'refuse';
      sidecar.collector.unary = 'refuse';
      sidecar.collector.openStreams[0]?.close(14, 'gone');
      assert.equal(code(call(sidecar)), 424);
      sidecar.advance(30_001);
      passes(call(sidecar));
    });

    it('what a replayed or older directive says', () => {
      const sidecar = start();
      const old = doom();
      direct(sidecar, old, directive(Kind.End, { keys: idWords(TRACE_ID) }));
      direct(sidecar, old);
      passes(call(sidecar));
    });

    it('whatever the weaker of both modes does not enforce, and marks it', () => {
      const cases = [
        ['enforce', Mode.Observe],
        ['observe', Mode.Enforce],
        ['observe', Mode.Observe],
        ['enforce', Mode.Off],
      ] as const;
      for (const [mode, told] of cases) {
        const sidecar = start({ config: { rollback: { mode } } });
        direct(sidecar, doom({ mode: told }));
        const exchange = call(sidecar);
        passes(exchange);
        const row = rowOf(sidecar);
        assert.equal(row.outcome, Outcome.Ok);
        assert.equal(row.flags & RowFlag.WouldRefuse, told === Mode.Off ? 0 : RowFlag.WouldRefuse, `${mode} ${told}`);
      }
      const off = start({ config: { rollback: { mode: 'off' } } });
      direct(off, doom());
      passes(call(off));
      assert.equal(rowOf(off).flags & RowFlag.WouldRefuse, 0);
    });

    it('in observe the same bytes as with nothing held', () => {
      const bytes = (told: boolean): Pair[][] => {
        const sidecar = start({ config: { rollback: { mode: 'observe' } } });
        if (told) direct(sidecar, doom(), directive(Kind.Down, { destinations: [nameHash(PAY, '')] }));
        else sidecar.advance(1);
        const varying = new Set(['x-cuid', 'x-mp-progress']);
        return [call(sidecar), serve(sidecar)].flatMap(exchange =>
          [exchange.request.pairs(), exchange.response?.pairs() ?? []].map(pairs =>
            pairs.map(([name, value]): Pair => [name, varying.has(name) ? '' : value]),
          ),
        );
      };
      assert.deepEqual(bytes(true), bytes(false));
    });
  });

  it('refuses at most the budget of a callee’s requests, and marks what it let through', () => {
    const sidecar = start();
    const others = charge([], TRACEPARENT.replace(TRACE_ID, 'f'.repeat(32)));
    direct(sidecar, doom({ budgetPpm: 200_000, budgetMin: 1 }));
    let refused = 0;
    for (let i = 0; i < 200; i++) {
      if (code(call(sidecar, i % 2 === 0 ? others : charge())) !== undefined) refused++;
    }
    assert.ok(refused >= 35 && refused <= 40, `${refused} of 200`);
    sidecar.advance(3000);
    const rows = sidecar.collector.rows();
    assert.equal(rows.filter(row => (row.flags & RowFlag.Withheld) !== 0).length, 100 - refused);
    direct(sidecar, doom());
    assert.equal(code(call(sidecar)), 424, 'a named step has no such bound');
  });

  it('refuses further attempts in the upstream chain, and says so in the call’s row', () => {
    for (const mode of ['enforce', 'observe']) {
      const sidecar = start({ order: true, config: { rollback: { mode } } });
      const order = sidecar.order;
      assert.ok(order);
      const exchange = sidecar.call({ rawHeaders: charge(), properties: { upstream: { request_attempt_count: 2 } } });
      exchange.requestHeaders();
      assert.equal(exchange.attempt(order).action, 'continue');
      direct(sidecar, doom());
      const second = exchange.attempt(order);
      assert.equal(second.action, mode === 'enforce' ? 'stop' : 'continue');
      const flags = RowFlag.RetryRefused | RowFlag.WouldRefuse;
      // Without x-request-id too, another transaction's call is another call.
      call(sidecar, charge([], TRACEPARENT.replace(TRACE_ID, 'f'.repeat(32))));
      assert.equal(rowOf(sidecar).flags & flags, 0);
      if (mode === 'observe') sidecar.answer(exchange);
      else exchange.finish();
      const row = rowOf(sidecar);
      assert.equal(row.flags & flags, mode === 'enforce' ? RowFlag.RetryRefused : flags);
    }
  });

  it('takes the retries of calls to what is down for all, but of one in twenty and of compensation', () => {
    const sidecar = start();
    const retries = (headers = charge()): string | undefined =>
      call(sidecar, headers).request.get('x-envoy-max-retries');
    const many = (): number => Array.from({ length: 200 }, () => retries()).filter(value => value === '0').length;
    assert.equal(many(), 0);
    const down = { destinations: [nameHash(PAY, '')], spare: hashes([PAY, 'POST /refund']), ttlMs: 10_000 };
    direct(sidecar, directive(Kind.Down, down));
    assert.equal(many(), 190);
    assert.equal(rowOf(sidecar).flags & RowFlag.NoRetries, RowFlag.NoRetries);
    const refund = charge().map((pair): Pair => (pair[0] === ':path' ? [':path', '/refund'] : pair));
    assert.equal(retries(refund), undefined);
    // Each service comes with what compensates there; one says nothing of the other.
    direct(
      sidecar,
      directive(Kind.Down, { destinations: [nameHash('bank.shop.svc.cluster.local', '')], ttlMs: 10_000 }),
    );
    for (let i = 0; i < 40; i++) assert.equal(retries(refund), undefined);
    direct(sidecar, directive(Kind.Up, { destinations: down.destinations }));
    assert.equal(many(), 0);
    direct(sidecar, directive(Kind.Down, { ...down, mode: Mode.Observe }));
    assert.equal(many(), 0);
    direct(sidecar, directive(Kind.Down, down));
    sidecar.advance(10_001);
    assert.equal(many(), 0);
  });

  it('posts signals to the application, and reports its answer', () => {
    const callback = { cluster: 'inbound|8080||', path: '/undo' };
    const sidecar = start({ config: { rollback: { mode: 'enforce', callback } } });
    assert.equal(sidecar.collector.hellos[0]?.rollbackCallback, true);
    assert.equal(sidecar.collector.hellos[0].rollbackMode, 'ROLLBACK_MODE_ENFORCE');
    const body = Buffer.from('{"signal":"s-1"}');
    const answers = [
      { status: 204, told: 204 },
      { status: 503, told: 503 },
      { status: 503, body: 'down for maintenance', told: 503 },
      // What the proxy says for an application that says nothing.
      {
        status: 503,
        body: 'upstream connect error or disconnect/reset before headers. reset reason: timeout',
        told: 0,
      },
      { status: 503, body: 'no healthy upstream', told: 0 },
      { status: 504, body: 'upstream request timeout', told: 0 },
      { status: 0, told: 0 },
    ];
    for (const { status, body: text = '' } of answers) {
      sidecar.proxy.httpClusters.set('inbound|8080||', httpCall => {
        assert.equal(httpCall.header(':path'), '/undo');
        assert.equal(httpCall.header(':method'), 'POST');
        assert.equal(httpCall.header('x-mp-rollback'), 's-1');
        assert.deepEqual(httpCall.body, body);
        if (status === 0) httpCall.fail();
        else httpCall.reply({ headers: [[':status', String(status)]], body: Buffer.from(text) });
      });
      direct(sidecar, directive(Kind.Signal, { id: 's-1', body }));
      sidecar.advance(1000);
    }
    const results = sidecar.collector.requests.flatMap(({ request }) => request.signalResults);
    assert.deepEqual(
      results,
      answers.map(({ told }) => ({ id: 's-1', status: told })),
    );
  });

  it('tells at once what the collector asks for', () => {
    const sidecar = start({ config: { rollback: { mode: 'enforce' }, report: { intervalMs: 60_000 } } });
    const entry = sidecar.receive({ rawHeaders: charge() });
    entry.requestHeaders();
    call(sidecar);
    sidecar.collector.clear();
    direct(sidecar, directive(Kind.Flush, { keys: idWords(TRACE_ID) }));
    sidecar.advance(1);
    assert.equal(sidecar.collector.rows().length, 1);
    const began = sidecar.collector.requests.flatMap(({ request }) => request.began);
    assert.deepEqual(
      began.map(item => [item.operation, item.flags & RowFlag.Entry]),
      [[CHARGE, RowFlag.Entry]],
    );
    entry.finish();
  });

  it('tells entry requests that are older than 20 ms, once', () => {
    const sidecar = start();
    const began = () => sidecar.collector.requests.flatMap(({ request }) => request.began);
    const short = sidecar.receive({ rawHeaders: charge() });
    short.requestHeaders();
    sidecar.advance(10);
    sidecar.answer(short);
    const long = sidecar.receive({ rawHeaders: charge() });
    long.requestHeaders();
    sidecar.receive({ rawHeaders: charge([EVENT]) }).requestHeaders();
    sidecar.advance(60);
    assert.equal(began().length, 1);
    sidecar.advance(5000);
    assert.equal(began().length, 1);
  });

  it('tells no begin where rows are thinned: its end might never be told', () => {
    const sidecar = start({ config: { rollback: { mode: 'enforce' }, report: { events: 'failures' } } });
    sidecar.receive({ rawHeaders: charge() }).requestHeaders();
    sidecar.advance(100);
    direct(sidecar, directive(Kind.Flush, { keys: idWords(TRACE_ID) }));
    sidecar.advance(1000);
    assert.deepEqual(
      sidecar.collector.requests.flatMap(({ request }) => request.began),
      [],
    );
  });

  it('takes what answers a unary call, whatever number the collector before had come to', () => {
    const sidecar = start();
    const { collector } = sidecar;
    direct(sidecar, doom({ version: '9000000000000000', ttlMs: 300_000 }));
    collector.mode = 'refuse';
    collector.streams.at(-1)?.close(14, 'restarting');
    const untilCalled = (n: number): void => {
      for (let ms = 0; collector.calls.length < n && ms < 60_000; ms += 1000) {
        serve(sidecar);
        sidecar.advance(1000);
      }
      assert.ok(collector.calls.length >= n);
    };
    untilCalled(1);
    assert.equal(code(call(sidecar)), 424);
    collector.waiting.push(directive(Kind.Clear, { version: '5' }));
    untilCalled(collector.calls.length + 2);
    assert.deepEqual(collector.waiting, []);
    assert.equal(code(call(sidecar)), undefined);
  });

  it('tells the end of a doomed transaction’s entry at once', () => {
    const sidecar = start({ config: { rollback: { mode: 'enforce' }, report: { intervalMs: 60_000 } } });
    const ends = (): number => {
      const before = sidecar.collector.rows().length;
      const entry = sidecar.receive({ rawHeaders: charge() });
      entry.requestHeaders();
      if (before > 0) direct(sidecar, doom({ refuse: [], refuseIn: [] }));
      sidecar.answer(entry, { status: 402 });
      sidecar.advance(1);
      return sidecar.collector.rows().length - before;
    };
    assert.equal(ends(), 0);
    direct(sidecar, directive(Kind.Flush, { keys: idWords(TRACE_ID) }));
    assert.equal(sidecar.collector.rows().length, 1);
    assert.equal(ends(), 1);
  });

  it('is counted once where a gateway refuses: in the row of its call', () => {
    const node = { ...SHOP_NODE, id: 'router~10.0.0.7~gateway-1.shop~shop.svc.cluster.local' };
    const properties = { xds: { cluster_name: `outbound|80||${PAY}` } };
    for (const grpc of [false, true]) {
      for (const mode of [Mode.Enforce, Mode.Observe]) {
        const sidecar = start({ node });
        direct(sidecar, doom({ mode }));
        const headers = charge([EVENT]).map((pair): Pair =>
          grpc && pair[0] === ':path' ? [':path', '/pay.Pay/Charge'] : pair,
        );
        if (grpc) headers.push(['content-type', 'application/grpc']);
        sidecar.serve({ rawHeaders: headers, properties });
        sidecar.advance(3000);
        const rows = sidecar.collector.rows();
        assert.equal(rows.length, 2);
        const flag = mode === Mode.Enforce ? RowFlag.LocalReply : RowFlag.WouldRefuse;
        const telling = rows.filter(row => (row.flags & flag) !== 0);
        assert.deepEqual(
          telling.map(row => row.flags & RowFlag.Call),
          [RowFlag.Call],
        );
        for (const row of rows) assert.equal(row.outcome === Outcome.Refused, mode === Mode.Enforce);
      }
    }
  });

  it('marks what the callee’s filter refuses as its own answer, gRPC too', () => {
    const sidecar = start();
    direct(sidecar, doom({ refuseIn: hashes(['', CHARGE], ['', '/pay.Pay/Charge']) }));
    const grpc = charge([EVENT, ['content-type', 'application/grpc']]).map((pair): Pair =>
      pair[0] === ':path' ? [':path', '/pay.Pay/Charge'] : pair,
    );
    for (const headers of [charge([EVENT]), grpc]) {
      assert.notEqual(serve(sidecar, headers).localReply, undefined);
      const row = rowOf(sidecar);
      assert.deepEqual([row.outcome, row.flags & RowFlag.LocalReply], [Outcome.Refused, RowFlag.LocalReply]);
    }
  });

  it('never refuses a call whose destination stands for many', () => {
    const sidecar = start();
    direct(sidecar, doom({ refuse: hashes(['PassthroughCluster', CHARGE], ['', CHARGE], ['other', CHARGE]) }));
    for (const cluster_name of ['PassthroughCluster', '', 'inbound|8080||']) {
      const exchange = sidecar.callOut({ rawHeaders: charge(), properties: { xds: { cluster_name } } });
      assert.equal(code(exchange), undefined, cluster_name);
    }
  });

  it('holds further attempts to the same: the budget, and what always passes', () => {
    const attempt = (parts: Partial<Directive>, more: Pair[] = []): readonly [string, number] => {
      const sidecar = start({ order: true });
      assert.ok(sidecar.order);
      const properties = { upstream: { request_attempt_count: 2 } };
      const exchange = sidecar.call({ rawHeaders: charge(more), properties });
      exchange.requestHeaders();
      direct(sidecar, doom(parts));
      const { action } = exchange.attempt(sidecar.order);
      if (action === 'continue') sidecar.answer(exchange);
      else exchange.finish();
      return [action, rowOf(sidecar).flags & (RowFlag.RetryRefused | RowFlag.Withheld)];
    };
    assert.deepEqual(attempt({ budgetPpm: 200_000, budgetMin: 10 }), ['stop', RowFlag.RetryRefused]);
    assert.deepEqual(attempt({ budgetPpm: 0, budgetMin: 0 }), ['continue', RowFlag.Withheld]);
    assert.deepEqual(attempt({}, [['user-agent', 'kube-probe/1.30']]), ['continue', 0]);
  });

  it('acknowledges directives', () => {
    const sidecar = start();
    const one = doom();
    direct(sidecar, one);
    sidecar.advance(1000);
    const acks = sidecar.collector.requests.flatMap(({ request }) => request.directiveAcks);
    assert.deepEqual(
      acks.map(ack => ack.version),
      [one.version],
    );
  });

  it('holds a bounded number, and lets the oldest go', () => {
    const sidecar = start();
    const trace = (i: number): string => (i + 1).toString(16).padStart(32, '0');
    for (let i = 0; i < 3000; i++) sidecar.collector.direct(doom({ keys: idWords(trace(i)) }));
    sidecar.advance(1);
    const refusedAt = (i: number): boolean =>
      code(call(sidecar, charge([], TRACEPARENT.replace(TRACE_ID, trace(i))))) !== undefined;
    assert.equal(refusedAt(2999), true);
    assert.equal(refusedAt(2000), true);
    assert.equal(refusedAt(1000), false);
    direct(sidecar, directive(Kind.Clear));
    assert.equal(refusedAt(2999), false);
  });

  it('believes no directive with a broken part', () => {
    const unsorted = hashes([PAY, CHARGE], [PAY, 'POST /a']).toReversed();
    const broken: Partial<Directive>[] = [
      { ttlMs: 0 },
      { version: '0' },
      { kind: 0 },
      { kind: 99 },
      { mode: 0 },
      { mode: 9 },
      { id: '' },
      { id: 'x'.repeat(65) },
      { id: 'a\r\nb' },
      { step: '"}' },
      { step: 's'.repeat(257) },
      { keys: idWords(TRACE_ID).slice(1) },
      { keys: [] },
      { keys: Array.from({ length: 18 }, (_, i) => String(i)) },
      { refuse: unsorted },
      { refuse: Array.from({ length: 65 }, (_, i) => String(i)) },
      { body: Buffer.alloc(4097) },
    ];
    const sidecar = start();
    for (const parts of broken) {
      direct(sidecar, doom(parts));
      assert.equal(code(call(sidecar)), undefined, JSON.stringify(parts));
    }
    direct(sidecar, doom());
    assert.equal(code(call(sidecar)), 424, 'the stream goes on');
  });

  it(`survives ${RUNS} mutated directives, and refuses nothing that the original did not mean`, function () {
    this.timeout(3_600_000);
    const sidecar = start();
    const other = charge([], TRACEPARENT.replace(TRACE_ID, 'e'.repeat(32)));
    const refund = charge().map((pair): Pair => (pair[0] === ':path' ? [':path', '/refund'] : pair));
    let streams = 0;
    const stream = () => sidecar.collector.streams.at(-1);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(255)), { maxLength: 6 }),
        fc.constantFrom('set', 'cut', 'insert'),
        (edits, how) => {
          let bytes = encodeReply({ directives: [doom()] });
          for (const [where, value] of edits) {
            const at = Math.floor(where * bytes.length);
            if (how === 'set') bytes.writeUInt8(value, Math.min(at, bytes.length - 1));
            else if (how === 'cut') bytes = bytes.subarray(0, Math.max(1, at));
            else bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from([value]), bytes.subarray(at)]);
          }
          if (stream()?.open !== true) {
            streams++;
            sidecar.collector.clear();
          }
          // No longer than it takes to come back: each second is as much work as many directives.
          for (let ms = 0; ms < 120_000 && stream()?.open !== true; ms += 250) sidecar.advance(250);
          stream()?.send(bytes);
          sidecar.advance(1);
          assert.equal(code(call(sidecar, other)), undefined);
          assert.equal(code(call(sidecar, refund)), undefined);
          if (edits.length === 0 && stream()?.open === true) assert.equal(code(call(sidecar)), 424);
        },
      ),
      { numRuns: RUNS },
    );
    assert.ok(streams > 0, 'some of it was no protobuf at all');
  });
});
