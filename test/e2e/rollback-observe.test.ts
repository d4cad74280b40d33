// `observe` beside `off`, byte by byte, at the application behind and at the client.
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { FILTER_WASM } from '../../demo/src/mesh/envoy.js';
import { Mesh } from '../../demo/src/mesh/mesh.js';
import { serviceHost } from '../../demo/src/mesh/node.js';
import { directive, Kind, Mode, nameHash } from '../filter/directives.js';
import { RowFlag } from '../filter/wire.js';
import { doom } from './support/doomed.js';
import {
  get,
  lines,
  post,
  RawClient,
  RawUpstream,
  valuesOf,
  type Answer,
  type Field,
  type Head,
} from './support/raw-http.js';
import { Recorder } from './support/recorder.js';

const KEY = '4bf92f3577b34da6a3ce929d0e0e4736';
const SIGNAL = 'signal-1';
const PATHS = ['/charge', '/orders/17?n=1', '/flaky', '/missing', '/broken'];
const OPERATIONS = ['/charge', '/orders/*', '/flaky', '/missing', '/broken'].flatMap(path => [
  `GET ${path}`,
  `POST ${path}`,
]);
/** Time for a directive to be held by a proxy that does not say so. */
const TRAVEL_MS = 2000;

function answerOf(head: Head): Answer {
  const path = head.line.split(' ')[1] ?? '';
  const again = valuesOf(head, 'x-envoy-attempt-count').some(count => count !== '1');
  const status = path === '/broken' || (path === '/flaky' && !again) ? 503 : path === '/missing' ? 404 : 200;
  return {
    status,
    fields: [
      ['Content-Type', 'text/plain'],
      ['x-mp-rollback', 'by-the-app'],
      ['x-app', path],
    ],
    body: `answer to ${path}`,
  };
}

/** What is asked in both modes, in this order. */
function requests(): string[] {
  let n = 0;
  const common = (): Field[] => [
    ['X-Request-Id', `aaaaaaaa-bbbb-4ccc-8ddd-${String(++n).padStart(12, '0')}`],
    ['traceparent', `00-${KEY}-${'1'.repeat(16)}-01`],
    ['x-mp-progress', 'event="00000000000000aa"'],
  ];
  const more: Field[][] = [
    [],
    [['x-mp-rollback', SIGNAL]],
    [['x-mp-rollback', 'forged']],
    [
      ['x-envoy-max-retries', '1'],
      ['tracestate', 'a=b'],
      ['X-App', 'x'],
    ],
  ];
  return PATHS.flatMap(path =>
    more.flatMap(fields => [
      get('back', path, [...common(), ...fields]),
      post('back', path, [...common(), ...fields], 'a body'),
      `POST ${path} HTTP/1.1\r\nhost: back\r\n${lines([...common(), ...fields])}transfer-encoding: chunked\r\n\r\n6\r\na body\r\n0\r\n\r\n`,
    ]),
  );
}

/** Without what differs from one request to the next, mode or not. */
function masked(text: string): string {
  return text
    .replace(/^(x-cuid|x-mp-status|date|x-envoy-upstream-service-time): .*$/gm, '$1: *')
    .replace(/event="[0-9a-f]{16}"/g, 'event="*"');
}

interface Traffic {
  atApp: string[];
  atClient: string[];
  wouldRefuse: number;
}

async function run(mode: string, orderRole: boolean): Promise<Traffic> {
  const recorder = await Recorder.start();
  const settings = { rollback: { mode }, report: { intervalMs: 200 } };
  const mesh = await Mesh.create({
    collector: recorder.address,
    services: [
      { name: 'front', outboundOnly: true },
      { name: 'back', policy: { retries: { on: '5xx', attempts: 2 } } },
    ],
    proxy: { wasm: { file: FILTER_WASM }, orderRole, settings },
  });
  const app = await RawUpstream.start(mesh.proxy('back').app);
  app.answer = answerOf;
  await mesh.start();
  const client = RawClient.open(mesh.proxy('front').outbound);
  try {
    await recorder.greeted('front', 'back');
    // Both are told the same; only one listens.
    const calls = OPERATIONS.map((operation): [string, string] => ['back', operation]);
    const told = [
      doom(KEY, { calls, events: OPERATIONS }, { ttlMs: 120_000, mode: Mode.Enforce }),
      directive(Kind.Down, { destinations: [nameHash(serviceHost('back', 'shop'), '')], ttlMs: 120_000 }),
      directive(Kind.Signal, { id: SIGNAL, body: Buffer.from('{}'), ttlMs: 120_000 }),
    ];
    for (const service of ['front', 'back']) {
      if (mode === 'off') recorder.direct(service, ...told);
      else await recorder.hold(service, ...told);
    }
    if (mode === 'off') await sleep(TRAVEL_MS);
    const atClient: string[] = [];
    const asked = requests();
    for (const request of asked) atClient.push(masked((await client.send(request)).text));
    const rows = await recorder.rowsOf('front', asked.length);
    const wouldRefuse = rows.filter(row => (row.flags & RowFlag.WouldRefuse) !== 0).length;
    return { atApp: app.texts.map(masked), atClient, wouldRefuse };
  } finally {
    client.close();
    await mesh.stop('kill');
    await app.stop();
    recorder.stop();
  }
}

describe('rollback.mode observe on real Envoys', function () {
  this.timeout(120_000);

  for (const orderRole of [false, true]) {
    it(`changes no byte compared with off, ${orderRole ? 'with' : 'without'} role order`, async () => {
      const off = await run('off', orderRole);
      const observe = await run('observe', orderRole);
      assert.deepEqual(observe.atApp, off.atApp);
      assert.deepEqual(observe.atClient, off.atClient);
      assert.ok(off.atApp.length > requests().length, 'with retries among them');
      assert.equal(off.wouldRefuse, 0);
      // All but those that carry the id of a live signal.
      assert.equal(observe.wouldRefuse, (requests().length * 3) / 4);
    });
  }
});
