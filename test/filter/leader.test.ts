/** One VM of the process speaks for all: leases, replays, windows, and a collector that behaves badly. */
import assert from 'node:assert/strict';
import { seededRandom, type GrpcServerStream } from '../support/proxy-wasm-host.js';
import { Random } from './random.js';
import { assertAlive, COLLECTOR_CLUSTER, Sidecar, type SidecarOptions } from './sidecar.js';
import { encodeReply } from './wire.js';

const TAKE_OVER_MS = 6000;

describe('the leader', function () {
  this.timeout(120_000);

  const start = (options: SidecarOptions = {}): Sidecar => {
    const sidecar = new Sidecar(options);
    sidecar.connect();
    return sidecar;
  };

  /** Spreads `count` requests over all workers, with time passing. */
  function load(sidecar: Sidecar, count: number, everyMs = 10): void {
    for (let i = 0; i < count; i++) {
      const worker = i % sidecar.proxy.workers.length;
      if (sidecar.proxy.worker(worker).root(sidecar.inbound) !== undefined) sidecar.serve({ worker });
      sidecar.advance(everyMs);
    }
  }

  function kill(sidecar: Sidecar, thread: 'main' | number): void {
    const vm = (thread === 'main' ? sidecar.proxy.main : sidecar.proxy.worker(thread)).vm(sidecar.inbound);
    vm?.fail('runtime', new Error('killed by the test'));
  }

  const assertComplete = (sidecar: Sidecar, rows: number): void => {
    assert.deepEqual([sidecar.collector.rows().length, sidecar.collector.lost()], [rows, 0]);
  };

  it('is one, whatever the number of VMs, and carries all of them', () => {
    const sidecar = start({ workers: 6 });
    load(sidecar, 600);
    sidecar.advance(3000);
    assert.equal(sidecar.collector.streams.length, 1);
    assert.equal(sidecar.collector.batches.size, 6);
    assertComplete(sidecar, 600);
    assertAlive(sidecar);
  });

  it('is the main thread’s VM, which serves no requests', () => {
    const sidecar = start({ workers: 3 });
    const owner = sidecar.proxy.threads.filter(
      thread =>
        (thread.root(sidecar.inbound)?.grpc.handles ?? 0) + (thread.root(sidecar.outbound)?.grpc.handles ?? 0) > 0,
    );
    assert.deepEqual(
      owner.map(thread => thread.name),
      ['main'],
    );
  });

  it('is followed by another when it traps, with nothing of the others lost', () => {
    const sidecar = start({ workers: 3 });
    load(sidecar, 100);
    kill(sidecar, 'main');
    load(sidecar, 300);
    sidecar.advance(TAKE_OVER_MS + 5000);
    assertComplete(sidecar, 400);
    const [zombie, ...others] = sidecar.collector.streams;
    assert.equal(zombie?.open, true, 'the dead one’s stream stays open in the host: only silence tells');
    assert.equal(others.length, 1);
  });

  it('is followed within seconds', () => {
    const sidecar = start({ workers: 2 });
    kill(sidecar, 'main');
    sidecar.advance(TAKE_OVER_MS);
    assert.equal(sidecar.collector.streams.length, 2);
  });

  it('may be a worker, and a worker after that', () => {
    const sidecar = start({ workers: 3 });
    kill(sidecar, 'main');
    load(sidecar, 300, 20);
    const leaders = (): number[] =>
      [0, 1, 2].filter(i => (sidecar.proxy.worker(i).root(sidecar.inbound)?.grpc.handles ?? 0) > 0);
    const [first = -1] = leaders();
    assert.ok(first >= 0);
    kill(sidecar, first);
    sidecar.advance(TAKE_OVER_MS);
    const [second = -1] = leaders();
    assert.ok(second >= 0 && second !== first);
    const before = sidecar.collector.rows().length;
    load(sidecar, 90, 20);
    sidecar.advance(3000);
    assert.equal(sidecar.collector.rows().length, before + 60);
  });

  it('leaves a dead VM’s requests out of the in-flight number within 5 s', () => {
    const sidecar = start({ workers: 2 });
    for (let i = 0; i < 5; i++) sidecar.receive({ worker: 0 }).requestHeaders();
    sidecar.receive({ worker: 1 }).requestHeaders();
    sidecar.advance(500);
    const inFlight = (): string => sidecar.callOut({ worker: 1 }).request.get('x-mp-status') ?? '';
    assert.match(inFlight(), /^inflight=6\b/);
    kill(sidecar, 0);
    sidecar.advance(5000);
    assert.match(inFlight(), /^inflight=1\b/);
    sidecar.advance(1200);
    assert.equal(sidecar.collector.lastStatus?.inFlight, 1);
  });

  it('starts clean after a reload: a new producer, in-flight 0', () => {
    const sidecar = start({ workers: 1, plugin: { failurePolicy: 'reload' } });
    for (let i = 0; i < 5; i++) sidecar.receive().requestHeaders();
    kill(sidecar, 0);
    sidecar.advance(8000);
    const exchange = sidecar.serve();
    assert.notEqual(exchange.filter, 'fail');
    assert.match(exchange.response?.get('x-mp-status') ?? '', /^inflight=1\b/);
    sidecar.advance(3000);
    assert.equal(sidecar.collector.hellos.length >= 1, true);
    assert.equal(sidecar.collector.rows().length, 1);
  });

  describe('and a collector that', () => {
    it('restarts: everything unacknowledged comes again, once', () => {
      const sidecar = start({ workers: 3 });
      for (let round = 0; round < 5; round++) {
        load(sidecar, 60);
        sidecar.collector.mode = 'silent';
        load(sidecar, 60);
        for (const stream of sidecar.collector.openStreams) stream.close(14, 'restart');
        sidecar.collector.mode = 'ack';
        load(sidecar, 60);
        sidecar.advance(3000);
      }
      sidecar.advance(20_000);
      assertComplete(sidecar, 900);
      assert.ok(sidecar.collector.replays > 0);
      assertAlive(sidecar);
    });

    it('is gone for long: the window is bounded, and what falls out is a number', () => {
      const sidecar = start({ workers: 2 });
      sidecar.proxy.grpcClusters.delete(COLLECTOR_CLUSTER);
      for (const stream of sidecar.collector.openStreams) stream.close(14, 'gone');
      const sent = 60_000;
      load(sidecar, sent, 2);
      const pages = sidecar.proxy.worker(0).vm(sidecar.inbound)?.memory.byteLength ?? 0;
      assert.ok(pages <= 16 * 1024 * 1024, `${String(pages)} bytes`);
      sidecar.proxy.grpcClusters.set(COLLECTOR_CLUSTER, sidecar.collector);
      sidecar.advance(120_000);
      const { collector } = sidecar;
      assert.ok(collector.lost() > 0, 'something had to go');
      assert.equal(collector.rows().length + collector.lost(), sent);
      assert.ok(collector.rows().length > 1000, `only ${String(collector.rows().length)} kept`);
      assert.ok((sidecar.proxy.metrics.value('meshpulse_filter_batches_dropped_total') ?? 0) > 0);
      assertAlive(sidecar);
    });

    it('never acknowledges: the queue between VMs stays bounded', () => {
      const sidecar = start({ workers: 2 });
      sidecar.collector.mode = 'silent';
      let deepest = 0;
      for (let i = 0; i < 100; i++) {
        load(sidecar, 100, 1);
        deepest = Math.max(deepest, sidecar.proxy.queues.depth('meshpulse.queue'));
      }
      assert.ok(deepest <= 256, `${String(deepest)} waiting`);
      sidecar.collector.mode = 'ack';
      sidecar.advance(60_000);
      load(sidecar, 2, 1000);
      sidecar.advance(10_000);
      assert.equal(sidecar.collector.rows().length + sidecar.collector.lost(), 10_002);
      assertAlive(sidecar);
    });

    it('stays silent is given up, as a broken stream is', () => {
      const sidecar = start();
      sidecar.collector.mode = 'silent';
      load(sidecar, 10);
      sidecar.advance(60_000);
      assert.equal(sidecar.collector.streams[0]?.reset, true);
      assert.ok(sidecar.collector.streams.length > 1);
    });

    it('refuses streams: unary calls after three failures, the stream again every 60 s', () => {
      const sidecar = new Sidecar({ workers: 2 });
      sidecar.collector.mode = 'refuse';
      load(sidecar, 100, 100);
      const { collector } = sidecar;
      assert.equal(collector.streams.length, 3, 'three failures');
      assert.ok(collector.calls.length > 0);
      assert.equal(collector.calls[0]?.method.path, '/meshpulse.v1.Ingest/ReportOnce');
      for (const { stream, request } of collector.requests)
        if (stream === -1) assert.notEqual(request.hello, null, 'each with hello');
      sidecar.advance(10_000);
      assertComplete(sidecar, 100);
      sidecar.advance(55_000);
      assert.ok(collector.streams.length >= 4, 'tried again');
      collector.mode = 'ack';
      sidecar.advance(70_000);
      assert.equal(collector.openStreams.length, 1);
      const calls = collector.calls.length;
      load(sidecar, 20, 100);
      sidecar.advance(3000);
      assert.equal(collector.calls.length, calls, 'no more unary calls');
      assertComplete(sidecar, 120);
    });

    it('refuses streams for ever: reports arrive all the same, within seconds', () => {
      const sidecar = new Sidecar();
      sidecar.collector.mode = 'refuse';
      sidecar.advance(20_000);
      let slowest = 0;
      for (let i = 0; i < 120; i++) {
        const before = sidecar.collector.rows().length;
        sidecar.serve();
        let waited = 0;
        while (sidecar.collector.rows().length === before && waited < 120_000) {
          sidecar.advance(500);
          waited += 500;
        }
        slowest = Math.max(slowest, waited);
        sidecar.advance(3000);
      }
      assert.ok(slowest <= 10_000, `${String(slowest)} ms`);
    });

    it('refuses everything: the attempts keep their distance', () => {
      const sidecar = new Sidecar();
      sidecar.collector.mode = 'refuse';
      sidecar.collector.unary = 'refuse';
      load(sidecar, 6000, 100);
      const attempts = sidecar.collector.streams.length + sidecar.collector.calls.length;
      assert.ok(attempts >= 20 && attempts <= 120, `${String(attempts)} in 10 min`);
      assertAlive(sidecar);
    });

    it('answers garbage: no trap, and reports go on once it is well again', () => {
      const sidecar = start();
      sidecar.collector.mode = 'garbage';
      sidecar.collector.unary = 'garbage';
      load(sidecar, 50, 1000);
      sidecar.collector.mode = 'ack';
      sidecar.collector.unary = 'ack';
      sidecar.advance(120_000);
      assertComplete(sidecar, 50);
      assertAlive(sidecar);
    });

    it('is slow by 5 s: nothing is sent twice, nothing is lost', () => {
      const sidecar = new Sidecar({ workers: 2 });
      const { collector, proxy } = sidecar;
      proxy.grpcClusters.set(COLLECTOR_CLUSTER, {
        onStream: stream => {
          collector.onStream(stream);
          const take = stream.onMessage;
          const send = stream.send.bind(stream);
          stream.send = message => {
            proxy.clock.schedule(5000, () => send(message));
          };
          stream.onMessage = take;
        },
      });
      sidecar.connect();
      load(sidecar, 1000, 20);
      sidecar.advance(20_000);
      assert.equal(collector.streams.length, 1);
      assert.equal(collector.replays, 0);
      assertComplete(sidecar, 1000);
    });

    it('says what it likes: random replies never trap', () => {
      const random = new Random(21);
      const sidecar = start({ workers: 2 });
      const { collector } = sidecar;
      const good = encodeReply({
        acks: [{ producer: '1', seq: '7' }],
        hints: { intervalMs: 100, drainMs: 5, retryAfterMs: 5 },
        directives: [{ version: '1', ttlMs: 5, kind: 7, id: 's', body: Buffer.from('x') }],
      });
      for (let i = 0; i < 3000; i++) {
        const bytes = random.chance(0.5) ? Buffer.from(random.bytes(random.below(40)), 'latin1') : Buffer.from(good);
        if (bytes.length > 0 && random.chance(0.8)) bytes[random.below(bytes.length)] = random.below(256);
        const stream: GrpcServerStream | undefined = collector.openStreams.at(-1);
        stream?.send(random.chance(0.01) ? Buffer.alloc(random.below(2_000_000), random.below(256)) : bytes);
        sidecar.serve({ worker: random.below(2) });
        sidecar.advance(random.below(300));
      }
      assertAlive(sidecar);
    });

    it('closes and opens a hundred times: the host keeps no dead handles', () => {
      const sidecar = start();
      for (let i = 0; i < 100; i++) {
        for (const stream of sidecar.collector.openStreams) stream.close(i % 2 === 0 ? 0 : 14, 'again');
        sidecar.advance(35_000);
      }
      for (const root of sidecar.proxy.roots(sidecar.inbound))
        assert.ok(root.grpc.handles <= 1, String(root.grpc.handles));
      assert.ok(sidecar.collector.streams.length > 50);
    });
  });

  describe('hints', () => {
    it('change the interval within 100..60000 ms, for a while', () => {
      const sidecar = start();
      sidecar.collector.hints = { intervalMs: 5000 };
      load(sidecar, 30, 100);
      sidecar.collector.clear();
      load(sidecar, 100, 100);
      const batches = sidecar.collector.requests.flatMap(({ request }) => request.batches).length;
      assert.ok(batches <= 4, `${String(batches)} batches in 10 s`);
    });

    it('drain: reconnect within the time given, and nothing is lost', () => {
      const sidecar = start();
      load(sidecar, 10);
      sidecar.collector.hints = { drainMs: 2000 };
      load(sidecar, 5, 300);
      sidecar.collector.hints = undefined;
      load(sidecar, 50, 100);
      sidecar.advance(3000);
      assert.ok(sidecar.collector.streams.length >= 2);
      assert.equal(sidecar.collector.openStreams.length, 1);
      assertComplete(sidecar, 65);
    });

    it('retry_after: keeps away for so long after the close', () => {
      const sidecar = start();
      const [stream] = sidecar.collector.openStreams;
      stream?.send(encodeReply({ hints: { retryAfterMs: 20_000 } }));
      stream?.close(8, 'too many');
      sidecar.advance(9000);
      assert.equal(sidecar.collector.streams.length, 1);
      sidecar.advance(25_000);
      assert.equal(sidecar.collector.streams.length, 2);
    });
  });

  it('spreads reconnects of a fleet', () => {
    const delays = Array.from({ length: 40 }, (_, i) => {
      const sidecar = start({ random: seededRandom(i + 1) });
      const [first] = sidecar.collector.openStreams;
      first?.close(14, 'restart');
      let waited = 0;
      while (sidecar.collector.streams.length < 2 && waited < 60_000) {
        sidecar.advance(10);
        waited += 10;
      }
      return waited;
    });
    assert.ok(new Set(delays).size >= 2, 'not all at once');
    assert.ok(Math.max(...delays) - Math.min(...delays) >= 200, JSON.stringify(delays));
    assert.ok(Math.max(...delays) <= 5000);
  });

  it('copes with a wall clock that jumps', () => {
    const sidecar = start({ workers: 2 });
    for (const ms of [3_600_000, -3_600_000, -300_000, 86_400_000]) {
      sidecar.proxy.clock.stepRealtime(ms);
      load(sidecar, 50, 30);
    }
    sidecar.advance(3000);
    assertComplete(sidecar, 200);
    assert.ok(sidecar.collector.rows().every(row => row.durationUs < 1_000_000));
    assert.equal(sidecar.collector.streams.length, 1);
  });
});
