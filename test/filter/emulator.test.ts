/** The emulated proxy itself: each rule that the filter suites lean on, shown with a guest that only obeys. */
import assert from 'node:assert/strict';
import type { GrpcServerCall, GrpcServerStream } from '../support/proxy-wasm-host.js';
import {
  ConfigurationRejected,
  double,
  ProxyProcess,
  Status,
  struct,
  type HttpServerCall,
  type Pair,
  type Plugin,
  type ProxyOptions,
} from '../support/proxy-wasm-host.js';
import { guestModule } from './guests.js';

const BASE: readonly Pair[] = [
  [':authority', 'shop'],
  [':path', '/buy?x=1'],
  [':method', 'GET'],
  ['x-a', '1'],
  ['x-b', '2'],
  ['x-a', '3'],
];

describe('the emulated proxy', function () {
  this.timeout(30_000);
  let wasm: Buffer;
  before(() => {
    wasm = guestModule('probe');
  });

  function start(options: Partial<ProxyOptions> = {}, configuration = ''): { proxy: ProxyProcess; plugin: Plugin } {
    const proxy = new ProxyProcess({ wasm, ...options });
    const plugin = proxy.addPlugin({ configuration });
    proxy.logs.length = 0;
    return { proxy, plugin };
  }

  function command(proxy: ProxyProcess, plugin: Plugin, text: string, properties = {}) {
    const exchange = proxy.exchange(0, plugin, { headers: [...BASE, ['x-command', text]], properties });
    const action = exchange.requestHeaders();
    return { exchange, action };
  }

  const said = (proxy: ProxyProcess): string[] => proxy.logs.splice(0).map(line => line.text);

  describe('lifecycle', () => {
    it('configures a canary, then every thread, and throws the canary away without on_done', () => {
      const proxy = new ProxyProcess({ wasm, workers: 2 });
      proxy.addPlugin({ configuration: 'a' });
      const lines = said(proxy);
      assert.equal(lines.filter(line => line.startsWith('configure')).length, 4);
      assert.equal(lines.filter(line => line.startsWith('done')).length, 0);
      assert.deepEqual(lines.slice(0, 3), ['create 1 of 0', 'vm start 1', 'configure 1 status 0 "a"']);
    });

    it('refuses a configuration that the guest refuses or traps on', () => {
      for (const configuration of ['refuse', 'trap in configure']) {
        const proxy = new ProxyProcess({ wasm });
        assert.throws(() => proxy.addPlugin({ configuration }), ConfigurationRejected);
      }
    });

    it('gives two plugins of one vm_id root contexts in the same VM', () => {
      const proxy = new ProxyProcess({ wasm });
      const plugins = [proxy.addPlugin({ name: 'in' }), proxy.addPlugin({ name: 'out' })] as const;
      assert.equal(proxy.worker(0).vm(plugins[0]), proxy.worker(0).vm(plugins[1]));
    });

    it('ends a stream with log, done, delete, in this order', () => {
      const { proxy, plugin } = start();
      const { exchange } = command(proxy, plugin, 'nothing');
      exchange.responseHeaders([[':status', '200']]);
      said(proxy);
      exchange.finish();
      assert.deepEqual(said(proxy), ['log 2 request 0 response 1', 'done 2', 'delete 2']);
    });

    it('logs a request that the filter never saw', () => {
      const { proxy, plugin } = start();
      const exchange = proxy.exchange(0, plugin, { headers: [] });
      exchange.proxyReply(431, 'request_headers_too_large');
      exchange.finish();
      assert.deepEqual(said(proxy), ['create 2 of 1', 'log 2 request 1 response 1', 'done 2', 'delete 2']);
    });

    it('ticks by the clock, on every thread, and stops when the plugin goes', () => {
      const { proxy, plugin } = start({ workers: 2 }, 'tick 100');
      proxy.clock.advance(350);
      assert.equal(said(proxy).filter(line => line.startsWith('tick')).length, 9);
      proxy.removePlugin(plugin);
      assert.deepEqual(said(proxy), Array(3).fill(['done 1', 'delete 1']).flat());
      proxy.clock.advance(1000);
      assert.deepEqual(said(proxy), []);
    });
  });

  it('ends a VM with its last plugin, when no stream holds it any more', () => {
    const { proxy, plugin } = start({}, 'tick 100');
    const other = proxy.addPlugin({ name: 'other', configuration: 'tick 100' });
    const { exchange } = command(proxy, plugin, 'nothing');
    proxy.removePlugin(other);
    proxy.removePlugin(plugin);
    said(proxy);
    proxy.clock.advance(100);
    assert.deepEqual(said(proxy), ['tick 1 at 1100'], 'the worker’s root context lives on for its stream');
    exchange.finish();
    assert.deepEqual(said(proxy).slice(-2), ['done 1', 'delete 1']);
    proxy.clock.advance(1000);
    assert.deepEqual(said(proxy), []);
  });

  describe('headers', () => {
    it('keeps order and repeats when the same pairs are set back', () => {
      const { proxy, plugin } = start();
      const { exchange } = command(proxy, plugin, 'same pairs');
      assert.deepEqual(exchange.request.pairs(), [...BASE, ['x-command', 'same pairs']]);
      assert.equal(exchange.routeCacheCleared, 1);
    });

    it('reads a malformed buffer as an empty list: every header is gone', () => {
      const { proxy, plugin } = start();
      const { exchange } = command(proxy, plugin, 'bad pairs');
      assert.deepEqual(exchange.request.pairs(), []);
      assert.equal(proxy.malformedPairs, 1);
    });

    it('moves a replaced header to the end, unless it is inline', () => {
      const { proxy, plugin } = start();
      const names = (text: string): string[] =>
        command(proxy, plugin, text)
          .exchange.request.pairs()
          .map(pair => pair[0]);
      assert.deepEqual(names('replace x-b').slice(3), ['x-a', 'x-a', 'x-command', 'x-b']);
      assert.deepEqual(names('replace X-A').slice(3), ['x-b', 'x-command', 'x-a']);
      assert.deepEqual(names('replace host').slice(0, 3), [':authority', ':path', ':method']);
    });

    it('shows request headers in their own callback and in the log only', () => {
      const { proxy, plugin } = start();
      const { exchange } = command(proxy, plugin, 'nothing');
      said(proxy);
      exchange.responseHeaders([[':status', '200']]);
      assert.deepEqual(said(proxy), [`response headers 1 end 1, request headers ${String(Status.BadArgument)}`]);
    });

    it('passes a local reply through the response callbacks', () => {
      const { proxy, plugin } = start();
      const { exchange, action } = command(proxy, plugin, 'refuse');
      assert.equal(action, 'stop');
      assert.equal(exchange.localReply?.code, 418);
      assert.equal(exchange.localReply.details, 'by_probe');
      assert.deepEqual(exchange.response?.pairs(), [
        [':status', '418'],
        ['a', 'b'],
        ['content-length', '2'],
        ['content-type', 'text/plain'],
      ]);
      assert.ok(said(proxy).some(line => line.startsWith('response headers 4 end 0')));
    });
  });

  it('encodes properties as the host does', () => {
    const { proxy, plugin } = start({ properties: { xds: { node: { id: 'n1', metadata: struct({ PORT: 1 }) } } } });
    const properties = { upstream: { port: 8080, share: double(1), ok: true, list: { a: 'b' } }, request: { id: 'r' } };
    const rows = [
      ['request.method', '0 474554'],
      ['request.url_path', '0 2f627579'],
      ['request.id', '0 72'],
      ['request.headers.x-a', '0 312c33'],
      ['upstream.port', '0 901f000000000000'],
      ['upstream.share', '0 000000000000f03f'],
      ['upstream.ok', '0 01'],
      ['upstream.list', '0 0100000001000000010000006100' + '6200'],
      ['xds.node.id', '0 6e31'],
      ['xds.node.metadata.PORT', '0 000000000000f03f'],
      ['xds.node.none', '1 '],
      ['request.duration', '1 '],
      ['nothing', '1 '],
    ] as const;
    for (const [path, expected] of rows) {
      command(proxy, plugin, `property ${path}`, properties);
      assert.ok(said(proxy).includes(`property ${expected}`), path);
    }
  });

  it('keeps what set_property stored as filter state wasm.<name>', () => {
    const { proxy, plugin } = start();
    const { exchange } = command(proxy, plugin, 'state');
    assert.equal(exchange.filterState.get('wasm.cuid')?.toString(), 'abc');
  });

  it('compares and swaps shared data of one vm_id, and queues between threads', () => {
    const { proxy, plugin } = start({ workers: 2 });
    command(proxy, plugin, 'cas a');
    command(proxy, plugin, 'cas b');
    command(proxy, plugin, 'cas stale');
    assert.deepEqual(
      said(proxy).filter(line => line.startsWith('cas')),
      [`cas ${String(Status.NotFound)} 0`, 'cas 0 0', `cas 0 ${String(Status.CasMismatch)}`],
    );
    command(proxy, plugin, 'enqueue hello');
    assert.equal(proxy.queues.depth('queue'), 1);
    said(proxy);
    proxy.settle();
    assert.deepEqual(said(proxy), ['queue ready 1 0 "hello"']);
    assert.equal(proxy.metrics.value('inflight'), 4);
  });

  it('gives random bytes up to 64 KiB a call', () => {
    const { proxy, plugin } = start();
    command(proxy, plugin, 'random');
    assert.match(said(proxy)[1] ?? '', /^random 0 \d{5,} too much 28$/);
  });

  describe('traps', () => {
    it('ends the VM of one thread, answers 503 to its requests, and goes past it when it fails open', () => {
      const { proxy, plugin } = start({ workers: 2 });
      const neighbour = command(proxy, plugin, 'nothing').exchange;
      const { exchange } = command(proxy, plugin, 'trap');
      assert.equal(exchange.localReply?.details, 'wasm_fail_stream');
      neighbour.responseHeaders([[':status', '200']]);
      assert.equal(neighbour.response?.get(':status'), '503');
      const later = command(proxy, plugin, 'nothing');
      assert.equal(later.exchange.filter, 'bypass');
      assert.notEqual(proxy.exchange(1, plugin, { headers: BASE }).filter, 'bypass');
      assert.equal(proxy.failures(plugin).length, 1);
    });

    it('reloads only when a request comes after the back-off, if told so', () => {
      const proxy = new ProxyProcess({ wasm });
      const plugin = proxy.addPlugin({ failurePolicy: 'reload', configuration: 'tick 100' });
      command(proxy, plugin, 'trap');
      assert.equal(command(proxy, plugin, '').exchange.filter, 'fail');
      proxy.clock.advance(2000);
      said(proxy);
      proxy.clock.advance(1000);
      assert.ok(
        said(proxy).every(line => line.startsWith('tick 1 ')),
        'only the main thread ticks',
      );
      assert.notEqual(command(proxy, plugin, '').exchange.filter, 'fail');
    });
  });

  it('makes chosen host calls fail with a chosen status', () => {
    const { proxy, plugin } = start();
    proxy.faults.set({ call: 'proxy_set_header_map_pairs', status: Status.InternalFailure, when: n => n === 2 });
    const statuses = [1, 2, 3].map(() => {
      command(proxy, plugin, 'same pairs');
      return said(proxy).find(line => line.startsWith('set'));
    });
    assert.deepEqual(statuses, ['set 0', 'set 10', 'set 0']);
  });

  describe('gRPC', () => {
    it('carries messages both ways and delivers answers only when settled', () => {
      const { proxy, plugin } = start();
      let stream: GrpcServerStream | undefined;
      proxy.grpcClusters.set('c', {
        onStream: opened => {
          stream = opened;
          opened.onMessage = message => opened.send(Buffer.concat([message, Buffer.from('!')]));
        },
      });
      command(proxy, plugin, 'stream c');
      command(proxy, plugin, 'send hi');
      assert.equal(said(proxy).includes('receive true "hi!"'), false);
      proxy.settle();
      assert.deepEqual(said(proxy), ['receive true "hi!"']);
      assert.equal(stream?.method.path, '/p.S/M');
      assert.equal(stream.method.authority, 'c');
    });

    it('fails at once for a missing cluster, and still closes a token that the guest never saw', () => {
      const { proxy, plugin } = start();
      command(proxy, plugin, 'stream \n\x05\n\x03abc');
      assert.deepEqual(said(proxy).slice(1), ['stream 10', 'closed false 14']);
      command(proxy, plugin, 'stream no such cluster');
      assert.ok(said(proxy).includes(`stream ${String(Status.ParseFailure)}`));
    });

    it('keeps a stream that the remote closed until the guest closes it too', () => {
      const { proxy, plugin } = start();
      proxy.grpcClusters.set('c', { onStream: opened => opened.close(0) });
      command(proxy, plugin, 'stream c');
      proxy.settle();
      const grpc = proxy.worker(0).root(plugin)?.grpc;
      assert.equal(grpc?.handles, 1);
      command(proxy, plugin, 'send lost');
      command(proxy, plugin, 'close');
      assert.ok(said(proxy).includes('send 0'));
      assert.equal(grpc.handles, 0);
    });

    it('refuses an authority that holds a bar, as Envoy does', () => {
      const { proxy, plugin } = start();
      proxy.grpcClusters.set('outbound|1||c', {});
      command(proxy, plugin, 'stream outbound|1||c');
      proxy.settle();
      assert.ok(said(proxy).includes('closed true 13'));
    });

    it('answers a unary call with one message, or with a status alone', () => {
      const { proxy, plugin } = start();
      const calls: GrpcServerCall[] = [];
      proxy.grpcClusters.set('c', { onCall: call => calls.push(call) });
      for (let i = 0; i < 3; i++) command(proxy, plugin, 'call c');
      calls[0]?.reply(Buffer.from('yes'));
      calls[1]?.fail(8, 'full');
      said(proxy);
      proxy.clock.advance(1000);
      assert.deepEqual(said(proxy), ['receive false "yes"', 'closed false 8', 'closed false 4']);
      assert.equal(proxy.worker(0).root(plugin)?.grpc.handles, 0);
    });

    it('resets streams when the root context ends', () => {
      const { proxy, plugin } = start();
      const streams: GrpcServerStream[] = [];
      proxy.grpcClusters.set('c', { onStream: opened => streams.push(opened) });
      const { exchange } = command(proxy, plugin, 'stream c');
      proxy.removePlugin(plugin);
      assert.equal(streams[0]?.reset, false, 'a running request holds the plugin');
      exchange.finish();
      assert.equal(streams[0]?.reset, true);
    });
  });

  it('makes HTTP calls: answers, broken connections, timeouts', () => {
    const { proxy, plugin } = start();
    const calls: HttpServerCall[] = [];
    proxy.httpClusters.set('h', call => calls.push(call));
    for (let i = 0; i < 3; i++) command(proxy, plugin, 'http h');
    command(proxy, plugin, 'http none');
    assert.equal(said(proxy).filter(line => line === `http ${String(Status.BadArgument)}`).length, 1);
    calls[0]?.reply({ headers: [[':status', '200']], body: Buffer.from('abc') });
    calls[1]?.fail();
    proxy.clock.advance(500);
    assert.deepEqual(said(proxy), ['http response 1 3 0', 'http response 0 0 0', 'http response 1 24 0']);
  });
});
