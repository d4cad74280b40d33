/** What can go wrong between the leader, the other VMs and a collector that refuses or breaks off. */
import assert from 'node:assert/strict';
import { seededRandom, type Pair } from '../support/proxy-wasm-host.js';
import { Sidecar } from './sidecar.js';
import { postProgress, sidecars } from './suite.js';
import { decodeRequest, encodeReply, rowsOf, type Batch, type ReportRequest } from './wire.js';

const GRPC_UNAVAILABLE = 14;
const TEAPOT = 418;

describe('the leader', function () {
  this.timeout(120_000);
  const start = sidecars(true);

  const serveAll = (sidecar: Sidecar, count: number, everyMs = 10): void => {
    for (let i = 0; i < count; i++) {
      sidecar.serve({ worker: i % sidecar.proxy.workers.length });
      sidecar.advance(everyMs);
    }
  };
  const assertComplete = (sidecar: Sidecar, rows: number): void =>
    assert.deepEqual([sidecar.collector.rows().length, sidecar.collector.lost()], [rows, 0]);
  const kill = (sidecar: Sidecar, thread: 'main' | number): void =>
    (thread === 'main' ? sidecar.proxy.main : sidecar.proxy.worker(thread))
      .vm(sidecar.inbound)
      ?.fail('runtime', new Error('killed by the test'));
  const counter = (sidecar: Sidecar, name: string): number =>
    Number(sidecar.collector.hellos.at(-1)?.counters.find(candidate => candidate.name === name)?.value ?? 0);

  describe('when asked to come back later', () => {
    const ASKED_MS = 7000;

    it('opens no stream before, and comes soon after', () => {
      const waits = Array.from({ length: 20 }, (_, i) => {
        const sidecar = start({ random: seededRandom(i + 1) });
        const [stream] = sidecar.collector.openStreams;
        stream?.send(encodeReply({ hints: { retryAfterMs: ASKED_MS } }));
        stream?.close(8, 'too many');
        let waited = 0;
        for (; sidecar.collector.streams.length === 1 && waited < 60_000; waited += 100) sidecar.advance(100);
        return waited;
      });
      assert.ok(Math.min(...waits) >= ASKED_MS, JSON.stringify(waits));
      assert.ok(Math.max(...waits) <= 1.5 * ASKED_MS, JSON.stringify(waits));
      assert.ok(Math.max(...waits) - Math.min(...waits) >= 500, 'a fleet does not come at once');
    });

    it('makes no call before either', () => {
      const sidecar = new Sidecar();
      sidecar.collector.mode = 'refuse';
      sidecar.advance(15_000);
      sidecar.collector.hints = { retryAfterMs: ASKED_MS };
      const times: number[] = [];
      for (let ms = 0; ms < 60_000; ms += 100) {
        const before = sidecar.collector.calls.length;
        if (ms % 500 === 0) sidecar.serve();
        sidecar.advance(100);
        if (sidecar.collector.calls.length > before) times.push(ms);
      }
      const gaps = times.slice(1).map((time, i) => time - (times[i] ?? 0));
      assert.ok(gaps.length >= 4 && Math.min(...gaps) >= ASKED_MS, JSON.stringify(times));
      sidecar.collector.hints = undefined;
      sidecar.advance(20_000);
      assertComplete(sidecar, 120);
    });
  });

  describe('whose collector refuses content', () => {
    const poisoned = (batch: Batch): boolean =>
      batch.events !== null && rowsOf(batch.events).some(row => row.httpStatus === TEAPOT);
    const holdsPoison = (request: ReportRequest): boolean => request.batches.some(poisoned);

    /** Requests on all workers, and one in the middle that makes its batch unacceptable. */
    function loadWithPoison(sidecar: Sidecar, rounds: number): number {
      let sent = 0;
      for (let round = 0; round < rounds; round++) {
        serveAll(sidecar, 60);
        sidecar.serve({ worker: round % sidecar.proxy.workers.length }, { status: TEAPOT });
        serveAll(sidecar, 60);
        sent += 121;
        sidecar.advance(8000);
      }
      return sent;
    }

    for (const transport of ['stream', 'unary'] as const)
      it(`gives up exactly the refused batch, and counts it (${transport})`, () => {
        const sidecar = start({ workers: 3 });
        const { collector } = sidecar;
        if (transport === 'unary') {
          collector.mode = 'refuse';
          for (const stream of collector.openStreams) stream.close(GRPC_UNAVAILABLE, 'gone');
          sidecar.advance(20_000);
        }
        collector.refuses = holdsPoison;
        const rounds = 3;
        const sent = loadWithPoison(sidecar, rounds);
        serveAll(sidecar, 30);
        sidecar.advance(15_000);
        const arrived = collector.rows().length;
        assert.equal(collector.gaps(), rounds, 'one batch a round');
        assert.equal(arrived + collector.lost(), sent + 30);
        assert.ok(collector.lost() < rounds * 60, `${String(collector.lost())} rows lost`);
        assert.ok(collector.refusals <= 4 * rounds, `${String(collector.refusals)} refusals`);
        for (const stream of collector.openStreams) stream.close(GRPC_UNAVAILABLE, 'for a new hello');
        sidecar.advance(20_000);
        assert.equal(counter(sidecar, 'batches_refused'), rounds);
      });

    it('gives up the last batch there is, too: a later one then tells the gap', () => {
      const sidecar = start();
      sidecar.collector.refuses = holdsPoison;
      sidecar.serve({}, { status: TEAPOT });
      sidecar.advance(20_000);
      const { refusals } = sidecar.collector;
      sidecar.advance(120_000);
      assert.equal(sidecar.collector.refusals, refusals, 'not sent again');
      sidecar.serve();
      sidecar.advance(3000);
      assert.equal(sidecar.collector.rows().length, 1);
      const [batch] = [...sidecar.collector.batches.values()].flatMap(batches => [...batches.values()]);
      assert.deepEqual([batch?.seq, batch?.firstEvent], ['2', '1']);
    });

    it('asks once a session whether it is the greeting, and is through within seconds', () => {
      const sidecar = start({ config: { report: { intervalMs: 60_000 } } });
      const { collector } = sidecar;
      collector.refuses = holdsPoison;
      sidecar.serve({}, { status: TEAPOT });
      sidecar.serve({}, { status: 503 }); // a failure: both go at once
      sidecar.serve({}, { status: 503 });
      let waited = 0;
      for (; collector.rows().length === 0 && waited < 60_000; waited += 100) sidecar.advance(100);
      assert.ok(waited <= 6000, `${String(waited)} ms`);
      assert.equal(collector.hellos.length, collector.streams.length);
    });

    for (const mode of ['ack', 'refuse'] as const)
      it(`gives up nothing when it is hello that is refused (streams: ${mode})`, () => {
        const sidecar = new Sidecar({ workers: 2 });
        const { collector } = sidecar;
        collector.mode = mode;
        collector.refuses = request => request.hello !== null;
        serveAll(sidecar, 100, 300);
        assert.ok(collector.refusals >= 3 && collector.refusals < 60, String(collector.refusals));
        collector.refuses = () => false;
        sidecar.advance(90_000);
        assertComplete(sidecar, 100);
        assert.equal(counter(sidecar, 'batches_refused'), 0);
      });

    it('goes on without what it says of jobs, when that is refused', () => {
      const sidecar = start({ workers: 2 });
      const { collector } = sidecar;
      collector.refuses = request => request.progress.length > 0;
      for (let i = 0; i < 30; i++) {
        postProgress(sidecar, [['x-mp-progress', `job="j", done=${String(i)}`]], { worker: i % 2 });
        serveAll(sidecar, 10, 100);
      }
      sidecar.advance(15_000);
      assertComplete(sidecar, 300);
      assert.ok(collector.refusals <= 5, String(collector.refusals));
    });
  });

  describe('does not lose the last word of a job', () => {
    const REPORT: Pair = ['x-mp-progress', 'job="invoice", done=30, of=100'];
    const words = (sidecar: Sidecar): (string | undefined)[] =>
      sidecar.collector.requests.flatMap(({ request }) => request.progress.map(progress => progress.done));

    it('when the stream it was told on is gone', () => {
      const sidecar = start({ workers: 2 });
      sidecar.collector.openStreams[0]?.close(GRPC_UNAVAILABLE, 'restart');
      postProgress(sidecar, [REPORT], { worker: 1 });
      sidecar.advance(10_000);
      assert.deepEqual(words(sidecar), ['30']);
    });

    it('when a call has no room for the jobs of two VMs', () => {
      const sidecar = new Sidecar({ workers: 3 });
      sidecar.collector.mode = 'refuse';
      sidecar.advance(20_000);
      for (let worker = 0; worker < 3; worker++)
        postProgress(sidecar, [['x-mp-progress', `job="job-${String(worker)}", done=${String(worker)}`]], { worker });
      sidecar.advance(10_000);
      assert.deepEqual(words(sidecar).toSorted(), ['0', '1', '2']);
      for (const { request } of sidecar.collector.requests) assert.ok(request.progress.length <= 1);
    });

    it('when the proxy stops', () => {
      const sidecar = start();
      const headers: Pair[] = [REPORT];
      sidecar.callOut({ headers });
      sidecar.proxy.shutdown([sidecar.inbound, sidecar.outbound]);
      assert.deepEqual(words(sidecar), ['30']);
    });
  });

  it('sums what the VMs could not do, also of those that are gone', () => {
    const sidecar = new Sidecar({ workers: 3 });
    sidecar.connect();
    const many = Array.from({ length: 100 }, (_, i): Pair => [`x-${String(i)}`, 'v']);
    for (const worker of [0, 1, 1, 2, 2, 2]) sidecar.callOut({ worker, headers: many });
    sidecar.advance(15_000);
    assert.equal(counter(sidecar, 'unstamped'), 6);
    kill(sidecar, 2);
    sidecar.advance(10_000);
    sidecar.callOut({ worker: 0, headers: many });
    sidecar.advance(15_000);
    assert.equal(counter(sidecar, 'unstamped'), 7);
    assert.equal(sidecar.proxy.metrics.value('meshpulse_filter_unstamped_total'), 7);
  });

  it('sends whole fragments when the proxy closes the stream in the middle of a callback', () => {
    const sidecar = start({ workers: 2 });
    const { collector, proxy } = sidecar;
    const root = proxy.main.root(sidecar.inbound);
    assert.ok(root !== undefined);
    const FIRST_TOKEN = 2; // each further stream counts four up
    const FAILURES = 3; // within a minute: then what follows goes as a call
    for (let i = 0; i < FAILURES; i++) {
      const token = FIRST_TOKEN + 4 * i;
      const stream = collector.openStreams[0];
      assert.ok(stream !== undefined);
      // Two VMs' jobs need two messages, and the send of the first closes the stream before it returns.
      const take = stream.onMessage;
      stream.onMessage = message => {
        take(message);
        if (decodeRequest(message).progress.length === 0 || stream.closed) return;
        stream.closed = true;
        root.vm.upcall(root, 'proxy_on_grpc_close', [root.id, token, GRPC_UNAVAILABLE], () => undefined);
      };
      for (const worker of [0, 1]) {
        sidecar.serve({ worker });
        postProgress(sidecar, [['x-mp-progress', `job="j${String(worker)}", done=${String(i)}`]], { worker });
      }
      sidecar.advance(5000);
      assert.ok(stream.closed);
    }
    assert.ok(collector.calls.length > 0, 'unary calls');
    sidecar.advance(90_000);
    assertComplete(sidecar, 2 * FAILURES);
    const last = collector.requests.flatMap(({ request }) => request.progress.filter(one => one.done === '2'));
    assert.equal(new Set(last.map(one => one.job)).size, 2, 'the last word of both');
  });

  describe('at the end of the process', () => {
    const goodbyes = (sidecar: Sidecar): number =>
      sidecar.collector.requests.filter(({ request }) => request.goodbye !== null).length;

    for (const leader of ['main', 'worker'] as const)
      for (const order of ['main first', 'workers first'] as const)
        for (const transport of ['stream', 'unary'] as const)
          it(`says goodbye when all have handed over what they had (${leader} leads, ${order}, ${transport})`, () => {
            const sidecar = new Sidecar({ workers: 3 });
            const { collector } = sidecar;
            if (transport === 'unary') collector.mode = 'refuse';
            sidecar.connect();
            if (leader === 'worker') kill(sidecar, 'main');
            sidecar.advance(30_000);
            serveAll(sidecar, 30, 3);
            sidecar.proxy.removePlugin(sidecar.inbound, order);
            for (let i = 0; i < 30; i++) sidecar.callOut({ worker: i % 3 });
            sidecar.proxy.removePlugin(sidecar.outbound, order);
            sidecar.proxy.settle();
            assertComplete(sidecar, 60);
            assert.equal(goodbyes(sidecar), 1);
            assert.notEqual(collector.requests.at(-1)?.request.goodbye, null, 'the last word');
          });

    it('waits for the others where the VM lives on', () => {
      const sidecar = start({ workers: 2, order: true });
      serveAll(sidecar, 20, 3);
      sidecar.proxy.removePlugin(sidecar.inbound);
      for (let i = 0; i < 20; i++) sidecar.callOut({ worker: i % 2 });
      sidecar.proxy.removePlugin(sidecar.outbound);
      sidecar.advance(5000);
      assertComplete(sidecar, 40);
      assert.equal(goodbyes(sidecar), 1);
      assert.notEqual(sidecar.collector.requests.at(-1)?.request.goodbye, null);
      assert.equal(sidecar.collector.openStreams.length, 0);
    });

    it('says none while another VM still works on a request', () => {
      const sidecar = start({ workers: 2 });
      const exchange = sidecar.receive({ worker: 1 });
      exchange.requestHeaders();
      sidecar.advance(500);
      sidecar.proxy.shutdown([sidecar.inbound, sidecar.outbound]);
      assert.equal(goodbyes(sidecar), 0);
      sidecar.answer(exchange);
      sidecar.advance(6000);
      assert.equal(sidecar.collector.rows().length, 1);
      assert.equal(goodbyes(sidecar), 1);
    });
  });

  it('leads 128 VMs: further ones report nothing, and their rows are a number', () => {
    const VMS_MAX = 128;
    const workers = VMS_MAX + 1; // and the main thread's
    const sidecar = new Sidecar({ workers, canary: false });
    sidecar.advance(3000);
    const sent = 3;
    for (let round = 0; round < sent; round++)
      for (let worker = 0; worker < workers; worker++) {
        const exchange = sidecar.serve({ worker });
        assert.notEqual(exchange.response?.get('x-cuid'), undefined, 'stamped all the same');
      }
    sidecar.advance(15_000);
    const { collector } = sidecar;
    assert.equal(collector.batches.size, VMS_MAX - 1);
    assertComplete(sidecar, sent * (VMS_MAX - 1));
    assert.equal(counter(sidecar, 'rows_unreported'), sent * 2);
  });
});
