import { strict as assert } from 'node:assert';
import { connect } from 'node:net';
import type { Address } from '../../../demo/src/mesh/address.js';
import { App } from '../../../demo/src/mesh/app.js';
import type { ProxyOptions } from '../../../demo/src/mesh/bootstrap.js';
import { FILTER_WASM } from '../../../demo/src/mesh/envoy.js';
import { Mesh } from '../../../demo/src/mesh/mesh.js';
import { TraceSink } from '../../../demo/src/mesh/trace-sink.js';

type Header = [string, string];

const TRACE = /^(traceparent|tracestate|b3|x-b3-.*|uber-trace-id|sw8|x-cloud-trace-context|x-datadog-.*)$/;
/** Added or rewritten by Envoy or by the filter: everything else belongs to the application. */
const PROXY = /^(host|x-request-id|x-forwarded-.*|x-envoy-.*|x-cuid|x-mp-.*|content-length|transfer-encoding)$/;

const W3C = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
/** Header lists as applications send them: order, repetition, blanks, long and odd values. */
const CORPUS: Header[][] = [
  [],
  [['accept', '*/*']],
  [
    ['user-agent', 'corpus/1'],
    ['accept', 'text/html'],
    ['traceparent', W3C],
    ['cookie', 'a=1; b=2'],
  ],
  [
    ['x-z', 'last name first'],
    ['x-a', '1'],
    ['x-a', '2'],
    ['tracestate', 'vendor=opaque'],
    ['traceparent', W3C],
    ['x-m', ''],
  ],
  [
    ['x-b3-traceid', '463ac35c9f6413ad48485a3953bb6124'],
    ['x-one', 'v'],
    ['x-b3-spanid', 'a2fb4a1d1a96d312'],
    ['x-b3-sampled', '1'],
    ['x-two', 'ü, and  two blanks'],
  ],
  [
    ['x-long', 'v'.repeat(4000)],
    ['uber-trace-id', '4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0:1'],
    ['authorization', 'Bearer x'],
  ],
  Array.from({ length: 60 }, (_, i): Header => [`x-many-${(i * 37) % 60}`, `v${i}`]),
];

/** One HTTP/1.1 request with exactly these headers, on a connection of its own. Resolves with the status. */
function send(to: Address, host: string, headers: Header[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect(to.port, to.host);
    let answer = '';
    socket.on('data', chunk => (answer += chunk.toString('latin1')));
    socket.on('error', reject);
    socket.on('close', () => resolve(Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1] ?? 0)));
    const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
    socket.write(`GET /corpus HTTP/1.1\r\nhost: ${host}\r\n${lines}connection: close\r\n\r\n`, 'utf8');
  });
}

const application = (headers: Header[]) =>
  headers.filter(([name]) => !TRACE.test(name) && !PROXY.test(name) && name !== 'connection');

interface Setup {
  name: string;
  proxy: (sink: Address) => ProxyOptions;
  traced: boolean;
}

const SETUPS: Setup[] = [
  {
    name: 'OpenTelemetry tracing, role order in the upstream chain',
    proxy: sink => ({ tracing: { provider: 'opentelemetry', sink } }),
    traced: true,
  },
  {
    name: 'Zipkin tracing, role order in the upstream chain',
    proxy: sink => ({ tracing: { provider: 'zipkin', sink } }),
    traced: true,
  },
  {
    name: 'OpenTelemetry tracing, inline headers in the bootstrap',
    proxy: sink => ({ tracing: { provider: 'opentelemetry', sink }, orderRole: false, inlineTraceHeaders: true }),
    traced: true,
  },
  {
    name: 'tracing without context propagation',
    proxy: sink => ({ tracing: { provider: 'opentelemetry', sink, noContextPropagation: true }, orderRole: false }),
    traced: false,
  },
  { name: 'no tracing', proxy: () => ({}), traced: false },
];

describe('trace context at the front, on real Envoys', function () {
  this.timeout(60_000);

  for (const setup of SETUPS) {
    it(setup.name, async () => {
      const sink = await TraceSink.start();
      const seen: Header[][] = [];
      const mesh = await Mesh.create({
        services: [{ name: 'front', outboundOnly: true }, { name: 'back' }],
        proxy: { wasm: { file: FILTER_WASM }, ...setup.proxy(sink.address) },
      });
      const app = await App.start(mesh.proxy('back').app, undefined, request => {
        seen.push(request.rawHeaders);
        return { status: 200 };
      });
      try {
        await mesh.start();
        for (const headers of CORPUS) {
          assert.equal(await send(mesh.proxy('front').outbound, 'back', headers), 200);
          const got = seen.at(-1) ?? [];
          const names = got.map(([name]) => name);
          if (process.env['SHOW_HEADERS'])
            console.log(
              JSON.stringify(
                got.map(([n, v]) => `${n}: ${v.slice(0, 60)}`),
                null,
                1,
              ),
            );
          const traces = names.filter(name => TRACE.test(name));
          assert.deepEqual(names.slice(1, 1 + traces.length), traces, `behind host: ${names.join(' ')}`);
          if (setup.traced) assert.ok(traces.length > 0, `no trace context in: ${names.join(' ')}`);
          const sent = headers.map(([name, value]): Header => [name, Buffer.from(value).toString('latin1')]);
          assert.deepEqual(application(got), application(sent));
        }
      } finally {
        await app.stop();
        await mesh.stop('kill');
        await sink.stop();
      }
    });
  }
});
