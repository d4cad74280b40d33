/** Every host call made to answer every error: no trap, and traffic goes on with its headers as they were. */
import assert from 'node:assert/strict';
import { ERROR_STATUSES, Status, type Pair, type ProxyProcess } from '../support/proxy-wasm-host.js';
import { RUNS } from './counts.js';
import { directive, hashes, idWords, Kind, nameHash } from './directives.js';
import { application } from './headers.js';
import { assertAlive, PEER_CUID, REQUEST_ID, Sidecar, TRACEPARENT } from './sidecar.js';

/** Numbers that no host documents, besides those that one does. */
const STATUSES = [...ERROR_STATUSES, 13, 255, 0x7fffffff, 0xffffffff];

const HEADERS: readonly Pair[] = [
  ['x-app-1', 'a'],
  ['x-request-id', REQUEST_ID],
  ['traceparent', TRACEPARENT],
  ['x-cuid', PEER_CUID],
  ['x-mp-progress', 'job="j", done=1, queue=2'],
  ['x-app-2', 'b'],
];
const PROGRESS: readonly Pair[] = [
  [':path', '/.well-known/meshpulse/progress'],
  [':method', 'POST'],
  [':authority', 'localhost'],
];
const REPLY: readonly Pair[] = [
  ['x-app-3', 'c'],
  ['endpoint-load-metrics', 'TEXT cpu_utilization=0.5, named_metrics.queue=3'],
];

/** One wrong key, so that faults are told; plain ids, so that a header is read again at the end. */
const CONFIG = {
  report: { inFlightMs: 100, plainIds: true },
  transaction: { header: 'x-app-1' },
  rollback: { mode: 'enforce', callback: { cluster: 'inbound|8080||', path: '/undo' } },
  nonsense: 1,
};
const DOOMED = 'f'.repeat(32);

function start(prepare?: (proxy: ProxyProcess) => void): Sidecar {
  return new Sidecar({
    workers: 2,
    order: true,
    config: CONFIG,
    ...(prepare === undefined ? {} : { prepare }),
  });
}

/** A bit of everything the filter can meet. Application headers are compared on the way. */
function exercise(sidecar: Sidecar): void {
  const { collector, proxy } = sidecar;
  const same = (before: readonly Pair[], after: readonly Pair[]): void =>
    assert.deepEqual(
      application(after).filter(([name]) => name !== 'x-envoy-max-retries'), // its callee may count as down
      application(before),
    );
  const traffic = (): void => {
    for (const worker of [0, 1]) {
      for (const exchange of [
        sidecar.receive({ headers: HEADERS, worker }),
        sidecar.call({ headers: HEADERS, worker }),
      ]) {
        const before = exchange.request.pairs();
        assert.equal(exchange.requestHeaders(false), 'continue');
        if (sidecar.order !== undefined)
          exchange.attempt(sidecar.order, request => request.set('traceparent', TRACEPARENT));
        same(before, exchange.request.pairs());
        assert.equal(exchange.requestBody(Buffer.from('\0\0\0\0\x01xyz')), 'continue');
        const status: Pair = [':status', worker === 0 ? '200' : '503'];
        assert.equal(exchange.responseHeaders([status, ...REPLY], false), 'continue');
        same([status, ...REPLY], exchange.response?.pairs() ?? []);
        assert.equal(exchange.responseBody(Buffer.from('\0\0\0\0\x01x')), 'continue');
        exchange.finish();
      }
      const grpc = sidecar.receive({ headers: [['content-type', 'application/grpc'], ...HEADERS], worker });
      grpc.requestHeaders(false);
      proxy.clock.advance(300);
      grpc.reset();
      const progress = sidecar.call({ rawHeaders: [...PROGRESS, ...HEADERS], worker });
      progress.requestHeaders();
      progress.finish();
    }
  };
  /** A transaction that is doomed, whatever the proxy makes of it. */
  const doomed = (): void => {
    if (collector.openStreams.length === 0) return;
    const destinations = [nameHash('pay.shop.svc.cluster.local', '')];
    const refuse = hashes(['pay.shop.svc.cluster.local', 'GET /orders/*']);
    collector.direct(
      directive(Kind.Signal, { id: 's', body: Buffer.from('{}') }),
      directive(Kind.Down, { destinations }),
      directive(Kind.Doom, { keys: idWords(DOOMED), refuse, budgetPpm: 1_000_000 }),
      directive(Kind.Flush, { keys: idWords(DOOMED) }),
    );
    sidecar.advance(30);
    for (const worker of [0, 1]) {
      const headers: Pair[] = [['traceparent', TRACEPARENT.replace(/-.{32}-/, `-${DOOMED}-`)]];
      sidecar.callOut({ headers, worker });
    }
  };
  proxy.httpClusters.set('inbound|8080||', call => call.reply({ headers: [[':status', '204']] }));
  sidecar.advance(3000);
  traffic();
  doomed();
  sidecar.advance(1500);
  collector.mode = 'close';
  traffic();
  sidecar.advance(90_000); // into the unary fallback
  traffic();
  collector.mode = 'garbage';
  collector.unary = 'garbage';
  sidecar.advance(65_000);
  proxy.grpcClusters.clear(); // the cluster is gone
  traffic();
  sidecar.advance(5000);
}

describe('a host call that fails', function () {
  this.timeout(600_000);

  let calls: string[] = [];
  before(() => {
    const sidecar = start();
    exercise(sidecar);
    sidecar.proxy.shutdown([sidecar.inbound, sidecar.outbound]);
    const used = new Set(
      sidecar.proxy.threads.flatMap(thread => [...(thread.vm(sidecar.inbound)?.hostCalls.keys() ?? [])]),
    );
    calls = WebAssembly.Module.imports(sidecar.inbound.module).map(entry => entry.name);
    assert.deepEqual(
      [...used].filter(name => !calls.includes(name)),
      [],
    );
  });

  it('is one of many: the exercise reaches nearly all imports', () => {
    const sidecar = start();
    exercise(sidecar);
    const used = new Set(
      sidecar.proxy.threads.flatMap(thread => [...(thread.vm(sidecar.inbound)?.hostCalls.keys() ?? [])]),
    );
    const unused = calls.filter(name => !used.has(name));
    const rare = ['proxy_log', 'proxy_done', 'proxy_remove_header_map_value', 'proxy_call_foreign_function'];
    assert.deepEqual(
      unused.filter(name => !rare.includes(name)),
      [],
    );
  });

  const { NotFound, BadArgument, Empty, CasMismatch, InternalFailure } = Status;
  const FEW = [NotFound, BadArgument, Empty, CasMismatch, InternalFailure];
  const PATTERNS: readonly (readonly [string, readonly number[], (n: number) => boolean])[] = [
    ['always', STATUSES, () => true],
    ['every second time', RUNS.long ? STATUSES : FEW, n => n % 2 === 0],
    ['after ten good ones', RUNS.long ? STATUSES : FEW, n => n > 10],
  ];
  for (const [pattern, statuses, when] of PATTERNS) {
    it(`${pattern}: every call with ${String(statuses.length)} statuses, from the start of the VM to its end`, () => {
      let struck = 0;
      for (const call of calls) {
        for (const status of statuses) {
          const sidecar = start(proxy => proxy.faults.set({ call, status, when }));
          try {
            exercise(sidecar);
            sidecar.proxy.shutdown([sidecar.inbound, sidecar.outbound]);
            sidecar.advance(5000);
            assertAlive(sidecar);
          } catch (error) {
            throw new Error(`${call} = ${String(status)}, ${pattern}`, { cause: error });
          }
          struck += sidecar.proxy.faults.struck.get(call) ?? 0;
        }
      }
      assert.ok(struck > statuses.length, `${String(struck)} faults struck`);
    });
  }

  it('leaves the numbers right when it is over: in-flight 0, reports flow again', () => {
    for (const call of calls) {
      const sidecar = start();
      sidecar.connect();
      sidecar.proxy.faults.set({ call, status: 10 });
      sidecar.serve({ headers: HEADERS }, { headers: REPLY });
      sidecar.callOut({ headers: HEADERS });
      sidecar.advance(1000);
      sidecar.proxy.faults.clear();
      sidecar.advance(70_000);
      sidecar.collector.clear();
      sidecar.serve({ headers: HEADERS });
      sidecar.advance(3000);
      const { lastStatus } = sidecar.collector;
      if (lastStatus !== undefined)
        assert.deepEqual([call, lastStatus.inFlight, lastStatus.callsInFlight], [call, 0, 0]);
      assert.ok(sidecar.collector.rows().length >= 1, `${call}: nothing arrives any more`);
    }
  });
});
