import { strict as assert } from 'node:assert';
import { freePort } from '../../../demo/src/mesh/address.js';
import { App, type AppRequest } from '../../../demo/src/mesh/app.js';
import { FILTER_WASM } from '../../../demo/src/mesh/envoy.js';
import { FaultProxy } from '../../../demo/src/mesh/fault-proxy.js';
import { luaFilter } from '../../../demo/src/mesh/http-filters.js';
import { Load, total } from '../../../demo/src/mesh/load.js';
import { Mesh, type MeshOptions, type Proxy } from '../../../demo/src/mesh/mesh.js';
import { TraceSink } from '../../../demo/src/mesh/trace-sink.js';

const ANY_TIME_MS = 60_000;

/** A mesh of `front` calling `back`, with an application behind each that remembers what it saw. */
class Pair {
  readonly seen: { service: string; request: AppRequest }[] = [];
  private readonly apps: App[] = [];

  private constructor(readonly mesh: Mesh) {}

  static async start(options: Partial<MeshOptions> = {}): Promise<Pair> {
    const mesh = await Mesh.create({ services: [{ name: 'front' }, { name: 'back' }], ...options });
    const pair = new Pair(mesh);
    await pair.app(mesh.proxy('front'), async request => {
      pair.seen.push({ service: 'front', request });
      const reply = await request.call('back', 'GET', request.path);
      return { status: reply.status };
    });
    await pair.app(mesh.proxy('back'), request => {
      pair.seen.push({ service: 'back', request });
      return { status: request.path === '/broken' ? 503 : 200 };
    });
    await mesh.start();
    return pair;
  }

  private async app(proxy: Proxy, handler: Parameters<typeof App.start>[2]): Promise<void> {
    this.apps.push(await App.start(proxy.app, proxy.outbound, handler));
  }

  load(rate: number, count: number, path = '/ok'): Load {
    const targets = [this.mesh.proxy('front').inbound];
    return Load.start({ targets, host: 'front', rate, count, next: () => ({ operation: path, method: 'GET', path }) });
  }

  async stop(): Promise<void> {
    await Promise.all(this.apps.map(app => app.stop()));
    await this.mesh.stop('kill');
  }
}

describe('the mesh driver', function () {
  this.timeout(ANY_TIME_MS);

  it('sends requests through both sidecars and logs them', async () => {
    const pair = await Pair.start();
    try {
      const report = await pair.load(100, 50).ended();
      assert.equal(total(report), 50);
      assert.equal(
        total(report, status => status === 200),
        50,
      );
      const back = pair.mesh.proxy('back').envoy;
      assert.equal(await back.stat('http.inbound_8080.downstream_rq_2xx'), 50);
      assert.ok((await back.residentBytes()) > 10_000_000);
      assert.ok(Number((await back.memory())['allocated']) > 1_000_000);
      await back.stopGracefully(200);
      assert.equal(back.running, false);
      assert.equal((await back.accessLog()).filter(line => line.path === '/ok' && line.code === 200).length, 50);
    } finally {
      await pair.stop();
    }
  });

  it('speaks mTLS and HTTP/2 between sidecars, and repeats failed calls', async () => {
    const policy = { retries: { on: '5xx', attempts: 2 } };
    const back = { name: 'back', protocol: 'http2' as const, policy };
    const pair = await Pair.start({ mtls: true, services: [{ name: 'front', proxy: { permissive: true } }, back] });
    try {
      const tls = pair.mesh.proxy('front').envoy;
      const through = await callOutbound(pair, '/broken');
      assert.equal(through, 503);
      assert.equal(pair.seen.length, 3);
      assert.match(String(pair.seen[0]?.request.headers['x-forwarded-client-cert']), /URI=spiffe:.*\/sa\/front/);
      const log = await pair.mesh.proxy('back').envoy.accessLog();
      assert.deepEqual([...new Set(log.map(line => line.protocol))], ['HTTP/2']);
      assert.equal(await tls.stat('cluster.outbound|8080||back.shop.svc.cluster.local.upstream_rq_retry'), 2);
    } finally {
      await pair.stop();
    }
  });

  it('starts another life on the same address', async () => {
    const pair = await Pair.start();
    try {
      const back = pair.mesh.proxy('back');
      const first = back.pod;
      await back.kill();
      await back.startNewLife();
      assert.notEqual(back.pod, first);
      assert.equal(await callOutbound(pair, '/ok'), 200);
    } finally {
      await pair.stop();
    }
  });

  it('runs the filter with tracing, in both roles, behind a filter that chooses the route', async () => {
    const sink = await TraceSink.start();
    const lua = 'function envoy_on_request(h) h:headers():add("x-choice", "b") end';
    const proxy = {
      wasm: { file: FILTER_WASM },
      tracing: { provider: 'opentelemetry' as const, sink: sink.address },
      outboundFiltersBefore: [luaFilter(lua)],
    };
    const pair = await Pair.start({ proxy });
    try {
      const report = await pair.load(50, 20).ended();
      assert.equal(
        total(report, status => status === 200),
        20,
      );
      const names = pair.seen.find(s => s.service === 'back')?.request.rawHeaders.map(([name]) => name) ?? [];
      assert.equal(names[0], 'host');
      assert.equal(names[1], 'traceparent');
      assert.ok(names.includes('x-choice'));
    } finally {
      await pair.stop();
      await sink.stop();
    }
  });
});

/** The status of one request that `front`'s own application makes. */
async function callOutbound(pair: Pair, path: string): Promise<number> {
  const report = await Load.start({
    targets: [pair.mesh.proxy('front').outbound],
    host: 'back',
    rate: 100,
    count: 1,
    next: () => ({ operation: 'one', method: 'GET', path }),
  }).ended();
  return [...(report.counts.get('one')?.keys() ?? [])][0] ?? 0;
}

describe('the fault proxy', function () {
  this.timeout(ANY_TIME_MS);

  it('passes, delays, cuts, garbles and swallows bytes', async () => {
    const target = { host: '127.0.0.1', port: await freePort() };
    const server = await App.start(target, undefined, () => ({ status: 200 }));
    const proxy = await FaultProxy.start(target);
    const ask = async (): Promise<string> => {
      const signal = AbortSignal.timeout(3000);
      const url = `http://127.0.0.1:${proxy.address.port}/`;
      try {
        const answer = await fetch(url, { signal, headers: { connection: 'close' } });
        return String(answer.status);
      } catch (error) {
        return error instanceof Error && error.name === 'TimeoutError' ? 'timeout' : 'error';
      }
    };
    try {
      assert.equal(await ask(), '200');
      proxy.set({ kind: 'delay', ms: 60 });
      const began = Date.now();
      assert.equal(await ask(), '200');
      assert.ok(Date.now() - began >= 120);
      proxy.set({ kind: 'cut', bytes: 10 });
      assert.equal(await ask(), 'error');
      proxy.set({ kind: 'garbage' });
      assert.equal(await ask(), 'error');
      proxy.set({ kind: 'refuse' });
      assert.equal(await ask(), 'error');
      proxy.set({ kind: 'blackhole' });
      assert.equal(await ask(), 'timeout');
    } finally {
      await proxy.stop();
      await server.stop();
    }
  });
});
