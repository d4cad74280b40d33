/** What a VM holds after many requests, many reconnects and many configurations: as much as after few. */
import assert from 'node:assert/strict';
import type { Pair } from '../support/proxy-wasm-host.js';
import { RUNS } from './counts.js';
import { Random } from './random.js';
import { assertAlive, COLLECTOR_CLUSTER, Sidecar } from './sidecar.js';

const GROWTH_BYTES_MAX = 64 * 1024;
/** Per VM; a sidecar with two workers has three of them in its 25 MiB. */
const VM_BYTES_MAX = 8 * 1024 * 1024;

describe('memory', function () {
  this.timeout(1_800_000);

  const bytes = (sidecar: Sidecar): number[] =>
    sidecar.proxy.threads.map(thread => thread.vm(sidecar.inbound)?.memory.byteLength ?? 0);

  function traffic(sidecar: Sidecar, random: Random, count: number): void {
    for (let i = 0; i < count; i++) {
      const trace = Array.from({ length: 4 }, () => random.u32().toString(16).padStart(8, '0')).join('');
      const headers: Pair[] = [
        ['x-request-id', `${trace}-${String(i)}`],
        ['traceparent', `00-${trace}-00f067aa0ba902b7-01`],
        ['x-mp-progress', `job="j${String(random.below(1000))}", done=${String(i)}`],
      ];
      const rawHeaders: Pair[] = [
        [':authority', 'a'],
        [':path', `/p/${String(random.below(100_000))}/${trace}`],
        [':method', 'GET'],
        ...headers,
      ];
      const status = random.chance(0.02) ? 503 : 200;
      if (i % 2 === 0) sidecar.serve({ rawHeaders }, { status });
      else {
        const cluster = `outbound|80||s${String(random.below(300))}.shop.svc.cluster.local`;
        sidecar.callOut(
          { rawHeaders, properties: { xds: { cluster_name: cluster } } },
          { status, headers: [['x-cuid', `${trace.slice(0, 8)}-0000-4000-8000-${trace.slice(0, 12)}`]] },
        );
      }
      if (i % 50 === 49) sidecar.advance(100);
    }
  }

  it(`is flat over ${String(RUNS.requests)} requests with reports on`, () => {
    const random = new Random(99);
    const sidecar = new Sidecar();
    sidecar.connect();
    traffic(sidecar, random, Math.min(20_000, RUNS.requests / 4));
    const early = bytes(sidecar);
    let left = RUNS.requests;
    while (left > 0) {
      const part = Math.min(left, 20_000);
      traffic(sidecar, random, part);
      sidecar.collector.clear();
      left -= part;
    }
    const late = bytes(sidecar);
    for (const [i, size] of late.entries()) {
      assert.ok(size - (early[i] ?? 0) <= GROWTH_BYTES_MAX, `VM ${String(i)}: ${String(early[i])} -> ${String(size)}`);
      assert.ok(size <= VM_BYTES_MAX, `VM ${String(i)}: ${String(size)}`);
    }
    assertAlive(sidecar);
  });

  it('is flat over 500 pushed configurations', () => {
    const sidecar = new Sidecar();
    sidecar.connect();
    const push = (i: number): void => {
      const configuration = JSON.stringify({
        collector: { cluster: COLLECTOR_CLUSTER },
        report: { intervalMs: 500 + i },
        mesh: { clusters: [`c${String(i)}`] },
      });
      const plugin = sidecar.proxy.addPlugin({
        name: `push-${String(i)}`,
        rootId: 'meshpulse',
        configuration,
        properties: sidecar.inbound.properties,
      });
      for (let n = 0; n < 20; n++) {
        const exchange = sidecar.proxy.exchange(0, plugin, {
          headers: [
            [':method', 'GET'],
            [':path', '/'],
            [':authority', 'a'],
          ],
        });
        sidecar.finish(exchange);
      }
      sidecar.advance(1000);
      sidecar.proxy.removePlugin(plugin);
      sidecar.collector.clear();
    };
    for (let i = 0; i < 50; i++) push(i);
    const early = bytes(sidecar);
    for (let i = 50; i < 550; i++) push(i);
    for (const [i, size] of bytes(sidecar).entries()) {
      assert.ok(size - (early[i] ?? 0) <= GROWTH_BYTES_MAX, `VM ${String(i)}: ${String(early[i])} -> ${String(size)}`);
    }
    assertAlive(sidecar);
  });

  it('is flat while the collector is away, and over many reconnects', () => {
    const random = new Random(5);
    const sidecar = new Sidecar();
    sidecar.connect();
    sidecar.collector.mode = 'silent';
    traffic(sidecar, random, 20_000);
    const early = bytes(sidecar);
    for (let i = 0; i < 30; i++) {
      sidecar.collector.mode = i % 3 === 0 ? 'garbage' : i % 3 === 1 ? 'refuse' : 'silent';
      for (const stream of sidecar.collector.openStreams) stream.close(14, 'again');
      traffic(sidecar, random, 2000);
      sidecar.collector.clear();
    }
    for (const [i, size] of bytes(sidecar).entries()) {
      assert.ok(size - (early[i] ?? 0) <= GROWTH_BYTES_MAX, `VM ${String(i)}: ${String(early[i])} -> ${String(size)}`);
    }
    assertAlive(sidecar);
  });

  it('holds one CUID for all VMs of a process, over config pushes and traps, and another for the next process', () => {
    const cuids = (sidecar: Sidecar): Set<string | undefined> =>
      new Set(sidecar.proxy.workers.map((_, worker) => sidecar.serve({ worker }).response?.get('x-cuid')));
    const sidecar = new Sidecar({ workers: 4, plugin: { failurePolicy: 'reload' } });
    const [first] = cuids(sidecar);
    assert.equal(cuids(sidecar).size, 1);
    sidecar.proxy.worker(2).vm(sidecar.inbound)?.fail('runtime', new Error('killed by the test'));
    sidecar.advance(5000);
    assert.deepEqual([...cuids(sidecar)], [first]);
    const other = new Sidecar({ random: length => new Uint8Array(length).fill(7) });
    assert.notEqual([...cuids(other)][0], first);
  });
});
