/** Streams that move to another replica of the collector, and fleets that come back after one has died. */
import assert from 'node:assert/strict';
import { seededRandom } from '../support/proxy-wasm-host.js';
import { COLLECTOR_CLUSTER, type Sidecar } from './sidecar.js';
import { sidecars } from './suite.js';
import { encodeReply } from './wire.js';

const GRPC_UNAVAILABLE = 14;
/** A VM looks after itself this often, ms. */
const TICK_MS = 200;
const HOUR_MS = 3_600_000;
const FLEET = Number(process.env['FLEET'] ?? 300);
/** How long the collector of the fleet is away, ms. */
const OUTAGE_MS = 10_000;
const BACK_MS = 30_000;
/** Half the smallest pause: no attempt follows a failed one sooner. */
const FLOOR_MS = 500;

describe('a stream', function () {
  this.timeout(120_000);
  const start = sidecars(true);

  function load(sidecar: Sidecar, count: number, everyMs: number): void {
    for (let i = 0; i < count; i++) {
      sidecar.serve({ worker: i % sidecar.proxy.workers.length });
      sidecar.advance(everyMs);
    }
  }

  const assertComplete = (sidecar: Sidecar, rows: number): void =>
    assert.deepEqual([sidecar.collector.rows().length, sidecar.collector.lost()], [rows, 0]);

  /** Load while the collector says with every reply that it leaves; when the stream has moved, ms. */
  function moved(sidecar: Sidecar, drainMs: number): number {
    const { collector } = sidecar;
    collector.hints = { drainMs };
    collector.openStreams[0]?.send(encodeReply({ hints: { drainMs } }));
    const before = collector.streams.length;
    let waited = 0;
    for (; collector.streams.length === before && waited < 3 * drainMs; waited += 50) load(sidecar, 1, 50);
    collector.hints = undefined;
    return waited;
  }

  it('moves within the time it is given, however often it is told, spread over a fleet', () => {
    const DRAIN_MS = 5000;
    const waits = Array.from({ length: 30 }, (_, i) => moved(start({ random: seededRandom(i + 1) }), DRAIN_MS));
    assert.ok(Math.max(...waits) <= DRAIN_MS, JSON.stringify(waits));
    const [first, last] = [Math.min(...waits), Math.max(...waits)];
    assert.ok(last - first >= DRAIN_MS / 3, `all between ${String(first)} and ${String(last)} ms`);
  });

  it('moves with everything answered: nothing is repeated, nothing lost', () => {
    const sidecar = start({ workers: 3 });
    let rows = 0;
    for (let round = 0; round < 10; round++) {
      rows += moved(sidecar, 2000) / 50;
      load(sidecar, 30, 20);
      rows += 30;
    }
    sidecar.advance(3000);
    const { collector } = sidecar;
    assert.equal(collector.replays, 0);
    assert.equal(collector.openStreams.length, 1);
    assert.equal(collector.calls.length, 0, 'a move is no failure');
    assertComplete(sidecar, rows);
  });

  it('moves away from a collector that no longer answers, and sends again what it had not acknowledged', () => {
    const sidecar = start();
    const { collector } = sidecar;
    collector.openStreams[0]?.send(encodeReply({ hints: { drainMs: 2000 } }));
    collector.mode = 'silent';
    load(sidecar, 60, 50);
    collector.mode = 'ack';
    load(sidecar, 60, 50);
    sidecar.advance(5000);
    assert.equal(collector.streams[0]?.reset, true);
    assertComplete(sidecar, 120);
  });

  it('that ends before it has moved as asked is no failure of streams', () => {
    const sidecar = start();
    const { collector } = sidecar;
    for (let round = 0; round < 8; round++) {
      collector.openStreams[0]?.send(encodeReply({ hints: { drainMs: 60_000 } }));
      sidecar.advance(1);
      collector.openStreams[0]?.close(GRPC_UNAVAILABLE, 'the collector is leaving');
      load(sidecar, 20, 100);
    }
    assert.equal(collector.streams.length, 9);
    assert.equal(collector.calls.length, 0);
  });

  it('that lands on a collector which leaves moves on within what is left', () => {
    const sidecar = start();
    const { collector } = sidecar;
    let left = 4000;
    const leaving = setLeft();
    while (left > 0) {
      leaving();
      load(sidecar, 1, TICK_MS);
      left -= TICK_MS;
    }
    assert.ok(collector.streams.length >= 3, String(collector.streams.length));
    function setLeft(): () => void {
      return () => {
        collector.hints = { drainMs: Math.max(1, left) };
        collector.openStreams[0]?.send(encodeReply({ hints: collector.hints }));
      };
    }
  });

  it('moves by itself once an hour at most, and not all of a fleet at once', () => {
    const ages = Array.from({ length: 10 }, (_, i) => {
      const sidecar = start({ random: seededRandom(i + 1), canary: false });
      let age = 0;
      for (; sidecar.collector.streams.length === 1 && age < 2 * HOUR_MS; age += 10_000) sidecar.advance(10_000);
      sidecar.advance(1000);
      assert.equal(sidecar.collector.openStreams.length, 1);
      assert.equal(sidecar.collector.calls.length, 0);
      return age;
    });
    assert.ok(Math.min(...ages) >= HOUR_MS / 2 - 10_000 && Math.max(...ages) <= HOUR_MS + 10_000, JSON.stringify(ages));
    assert.ok(new Set(ages).size >= 8, JSON.stringify(ages));
  });

  /** A cluster of which every other endpoint is dead, taken in turn. */
  function halfDead(sidecar: Sidecar, first: number, streamsFail: number): void {
    const { collector } = sidecar;
    let [turn, streams] = [first, 0];
    const dead = (): boolean => turn++ % 2 === 0;
    sidecar.proxy.grpcClusters.set(COLLECTOR_CLUSTER, {
      onStream: stream =>
        streams++ < streamsFail || dead() ? stream.close(GRPC_UNAVAILABLE, 'dead') : collector.onStream(stream),
      onCall: call => (dead() ? call.fail(GRPC_UNAVAILABLE, 'dead') : collector.onCall(call)),
    });
    collector.openStreams[0]?.close(GRPC_UNAVAILABLE, 'died');
  }

  for (const [what, streamsFail, withinMs] of [
    ['at once', 0, 4000],
    ['soon, though only calls work at first', 3, 25_000],
  ] as const)
    it(`finds the replica that lives when every other one is dead: ${what}`, () => {
      const waits = Array.from({ length: 20 }, (_, i) => {
        const sidecar = start({ random: seededRandom(i + 1), canary: false });
        halfDead(sidecar, i, streamsFail);
        let waited = 0;
        for (; sidecar.collector.openStreams.length === 0 && waited < 120_000; waited += 100) load(sidecar, 1, 100);
        sidecar.advance(10_000);
        assertComplete(sidecar, waited / 100);
        return waited;
      });
      assert.ok(Math.max(...waits) <= withinMs, JSON.stringify(waits));
    });

  it('says goodbye though it is about to move', () => {
    const sidecar = start();
    const { collector } = sidecar;
    collector.openStreams[0]?.send(encodeReply({ hints: { drainMs: 1 } }));
    sidecar.serve();
    sidecar.proxy.settle();
    sidecar.proxy.shutdown([sidecar.inbound, sidecar.outbound]);
    sidecar.advance(5000);
    assert.equal(collector.requests.filter(({ request }) => request.goodbye !== null).length, 1);
    assertComplete(sidecar, 1);
  });
});

describe(`a fleet of ${String(FLEET)} filters whose collector dies`, function () {
  this.timeout(300_000);

  interface Comeback {
    /** When each attempt was made, and whether it failed at once; ms from the death. */
    readonly attempts: { atMs: number; failed: boolean }[];
    /** When the first message was answered. */
    readonly backMs: number;
    /** When a stream was. */
    readonly streamMs: number;
  }
  const start = sidecars(true);

  /** Filters know nothing of each other, so one after the other is as good as all at once. */
  function comeback(seed: number, busy: boolean): Comeback {
    const sidecar = start({ random: seededRandom(seed), canary: false });
    const { collector } = sidecar;
    const attempts: Comeback['attempts'] = [];
    let backMs = 0;
    let streamMs = 0;
    collector.mode = collector.unary = 'refuse';
    for (const stream of collector.openStreams) stream.close(GRPC_UNAVAILABLE, 'died');
    let [streams, calls] = [collector.streams.length, collector.calls.length];
    collector.requests.length = 0;
    for (let ms = 0; ms < 90_000 && streamMs === 0; ms += 50) {
      if (ms === OUTAGE_MS) collector.mode = collector.unary = 'ack';
      if (busy && ms % 500 === 0) sidecar.serve();
      sidecar.advance(50);
      const made = collector.streams.length - streams + collector.calls.length - calls;
      [streams, calls] = [collector.streams.length, collector.calls.length];
      // Calls that follow an answered one are no attempts.
      for (let i = 0; i < made && backMs === 0; i++) attempts.push({ atMs: ms, failed: ms < OUTAGE_MS });
      if (backMs === 0 && collector.requests.length > 0) backMs = ms;
      if (collector.openStreams.length > 0 && ms >= OUTAGE_MS) streamMs = ms;
    }
    if (busy) {
      sidecar.advance(5000);
      assert.equal(collector.lost(), 0);
    }
    return { attempts, backMs, streamMs };
  }

  for (const busy of [true, false])
    it(`comes back spread, within ${String(BACK_MS / 1000)} s, and never hurries (${busy ? 'busy' : 'idle'})`, () => {
      const fleet = Array.from({ length: busy ? FLEET : Math.ceil(FLEET / 10) }, (_, i) => comeback(i + 1, busy));
      for (const { attempts } of fleet)
        for (const [i, { atMs, failed }] of attempts.entries())
          if (failed && attempts[i + 1] !== undefined)
            assert.ok(attempts[i + 1]!.atMs - atMs >= FLOOR_MS, JSON.stringify(attempts));
      assert.ok(fleet.every(({ attempts }) => attempts[0]!.atMs >= FLOOR_MS - 50));
      const backs = fleet.map(({ backMs }) => backMs);
      assert.ok(Math.min(...backs) >= OUTAGE_MS && Math.max(...backs) <= BACK_MS, `${Math.max(...backs)} ms`);
      const streams = fleet.map(({ streamMs }) => streamMs);
      assert.ok(Math.max(...streams) <= BACK_MS, `a stream after ${Math.max(...streams)} ms`);
      const perSecond = histogram(
        fleet.flatMap(({ attempts }) => attempts.map(({ atMs }) => atMs)),
        1000,
      );
      const firsts = histogram(
        fleet.map(({ attempts }) => attempts[0]!.atMs),
        100,
      );
      if (busy) {
        console.log(`      attempts a second: ${perSecond.join(' ')}`);
        console.log(`      first attempts, per 100 ms: ${firsts.join(' ')}`);
        console.log(`      back (answered), per second: ${histogram(backs, 1000).join(' ')}`);
      }
      // After the first pause the fleet is spread: no second has more than half of it.
      for (const [second, count] of perSecond.entries())
        if (second >= 3) assert.ok(count <= fleet.length / 2, `${count} attempts in second ${second}`);
      assert.ok(Math.max(...firsts) <= fleet.length / 2, `first attempts: ${firsts.join(' ')}`);
    });
});

function histogram(values: readonly number[], width: number): number[] {
  const bins = Array.from({ length: Math.floor(Math.max(...values) / width) + 1 }, () => 0);
  for (const value of values) bins[Math.floor(value / width)]! += 1;
  return bins;
}
