// What a refusal looks like to callers, and what retries it: Envoy's, a client library's, nobody's.
import { strict as assert } from 'node:assert';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { connect as connectHttp2 } from 'node:http2';
import { App, callThrough, type AppRequest, type AppResponse } from '../../demo/src/mesh/app.js';
import { format } from '../../demo/src/mesh/address.js';
import { until } from '../../demo/src/mesh/child.js';
import { route } from '../../demo/src/mesh/listeners.js';
import { outboundCluster, serviceHost } from '../../demo/src/mesh/node.js';
import { directive, hashes, Kind, Mode, nameHash } from '../filter/directives.js';
import { Outcome, RowFlag, type Row } from '../filter/wire.js';
import { doom, rowsOfKey, STEP, transaction, VERDICT, type Transaction } from './support/doomed.js';
import { GrpcApp } from './support/grpc-app.js';
import { OddMesh } from './support/odd-mesh.js';
import { exchange, post, valuesOf, type RawAnswer } from './support/raw-http.js';

const EVERYTHING = '5xx,gateway-error,retriable-4xx,retriable-status-codes,reset,unavailable,cancelled';
const RETRIES = 3;
const CODES = [424, 503];
/** More than proxies and sockets hold. */
const BIG_BYTES = 8 * 1024 * 1024;
const SLOW_MS = 60_000;
const CHARGE = 'POST /charge';
const GRPC_CHARGE = '/test.Echo/Unary';

/** `back` as an application that a test can make answer anything. */
class Back {
  readonly seen: AppRequest[] = [];
  answer: (request: AppRequest) => Promise<AppResponse> | AppResponse = () => ({ status: 200 });

  handle(request: AppRequest): Promise<AppResponse> | AppResponse {
    this.seen.push(request);
    return this.answer(request);
  }

  arrivals(key: string): AppRequest[] {
    return this.seen.filter(request => String(request.headers['traceparent']).includes(key));
  }
}

describe('refusals on real Envoys', function () {
  this.timeout(120_000);
  let world: OddMesh;
  let app: App;
  let grpcApp: GrpcApp;
  const back = new Back();

  before(async () => {
    const retries = { on: EVERYTHING, attempts: RETRIES, statusCodes: CODES };
    const limited = { ...retries, on: `${EVERYTHING},envoy-ratelimited` };
    const rollback = (mode: string) => ({ settings: { rollback: { mode } } });
    world = await OddMesh.start(
      [
        { name: 'off', outboundOnly: true, proxy: rollback('off') },
        { name: 'watch', outboundOnly: true, proxy: rollback('observe') },
        { name: 'front', outboundOnly: true, proxy: rollback('enforce') },
        { name: 'ordered', outboundOnly: true, proxy: { ...rollback('enforce'), orderRole: true } },
        { name: 'wary', outboundOnly: true, proxy: { ...rollback('observe'), orderRole: true } },
        {
          name: 'back',
          proxy: rollback('enforce'),
          policy: { retries },
          routes: [route(outboundCluster('back', 'shop', 8080), { retries: limited }, '/limited')],
        },
        { name: 'bank', protocol: 'http2', appProtocol: 'http2', proxy: rollback('enforce'), policy: { retries } },
      ],
      { without: ['back', 'bank'] },
    );
    app = await App.start(world.mesh.proxy('back').app, undefined, request => back.handle(request));
    grpcApp = await GrpcApp.start(world.mesh.proxy('bank').app);
    await world.recorder.greeted('off', 'watch', 'front', 'ordered', 'wary', 'back', 'bank');
  });
  after(async () => {
    await world.stop();
    await app.stop();
    grpcApp.stop();
  });
  beforeEach(() => {
    back.answer = () => ({ status: 200 });
  });

  const send = (from: string, { fields }: Transaction, path = '/charge'): Promise<RawAnswer> =>
    exchange(world.mesh.proxy(from).outbound, post('back', path, fields));
  const callRow = async (from: string, key: string): Promise<Row> => {
    const [row] = await rowsOfKey(world.recorder, from, key);
    assert.ok(row);
    return row;
  };

  describe('by the callee, the second line', () => {
    it('are not repeated by the caller’s proxy, whatever it repeats', async () => {
      const healthy = transaction();
      back.answer = () => ({ status: 503 });
      assert.equal((await send('watch', healthy)).status, 503);
      assert.equal(back.arrivals(healthy.key).length, 1 + RETRIES, 'the route does repeat');

      for (const from of ['off', 'watch']) {
        const t = transaction();
        await world.recorder.hold('back', doom(t.key, { events: [CHARGE] }));
        if (from === 'watch') await world.recorder.hold(from, doom(t.key, { calls: [['back', CHARGE]] }));
        const answer = await send(from, t);
        assert.equal(answer.status, 424);
        assert.deepEqual(valuesOf(answer.head, 'x-mp-rollback'), [VERDICT]);
        const row = await callRow(from, t.key);
        assert.deepEqual([row.attempts, row.outcome], [1, Outcome.Refused]);
        assert.equal(row.flags & RowFlag.WouldRefuse, from === 'watch' ? RowFlag.WouldRefuse : 0);
        const events = await rowsOfKey(world.recorder, 'back', t.key);
        assert.deepEqual(
          events.map(event => [event.outcome, event.httpStatus]),
          [[Outcome.Refused, 424]],
        );
        assert.equal(back.arrivals(t.key).length, 0);
      }
    });

    it('are repeated as often as the route allows where it lists envoy-ratelimited', async () => {
      const t = transaction();
      await world.recorder.hold('back', doom(t.key, { events: ['POST /limited'] }));
      assert.equal((await send('watch', t, '/limited')).status, 424);
      assert.equal((await callRow('watch', t.key)).attempts, 1 + RETRIES);
      const events = await rowsOfKey(world.recorder, 'back', t.key, 1 + RETRIES);
      assert.deepEqual(new Set(events.map(event => event.outcome)), new Set([Outcome.Refused]));
      assert.equal(back.arrivals(t.key).length, 0, 'none reaches the application');
    });

    it('are not repeated for gRPC either', async () => {
      const t = transaction();
      await world.recorder.hold('bank', doom(t.key, { events: [GRPC_CHARGE] }));
      const { code } = await unary('watch', t);
      assert.equal(code, 9);
      assert.equal((await callRow('watch', t.key)).attempts, 1);
      assert.equal((await rowsOfKey(world.recorder, 'bank', t.key)).length, 1);
    });
  });

  /** One call with a client library that retries by itself whatever fails. */
  function unary(
    from: string,
    { fields }: Transaction,
    status = 0,
  ): Promise<{ code: number; metadata: Metadata | undefined }> {
    const config = {
      methodConfig: [
        {
          name: [{}],
          retryPolicy: {
            maxAttempts: 4,
            initialBackoff: '0.01s',
            maxBackoff: '0.02s',
            backoffMultiplier: 1,
            retryableStatusCodes: ['UNAVAILABLE', 'FAILED_PRECONDITION', 'INTERNAL'],
          },
        },
      ],
    };
    const client = new Client(format(world.mesh.proxy(from).outbound), credentials.createInsecure(), {
      'grpc.default_authority': 'bank',
      'grpc.service_config': JSON.stringify(config),
    });
    const bytes = (b: Buffer) => b;
    return new Promise(resolve => {
      const metadata = toMetadata(fields);
      client.makeUnaryRequest(
        GRPC_CHARGE,
        bytes,
        bytes,
        Buffer.from([status]),
        metadata,
        {},
        (error: ServiceError | null) => {
          client.close();
          resolve({ code: error?.code ?? 0, metadata: error?.metadata });
        },
      );
    });
  }

  describe('by the caller', () => {
    const PROBLEM = (key: string) =>
      `{"type":"urn:meshpulse:doomed","title":"The transaction cannot succeed any more","status":424,"transaction":"${key}","step":"${STEP}","signal":"${VERDICT}"}\n`;

    for (const from of ['front', 'ordered']) {
      it(`HTTP/1.1 from ${from}, to the byte`, async () => {
        const t = transaction();
        await world.recorder.hold(from, doom(t.key, { calls: [['back', CHARGE]] }));
        const answer = await send(from, t);
        assert.equal(answer.head.line, 'HTTP/1.1 424 Failed Dependency');
        assert.deepEqual(
          answer.head.fields.filter(([name]) => name !== 'date').toSorted(),
          [
            ['content-length', String(PROBLEM(t.key).length)],
            ['content-type', 'application/problem+json'],
            ['server', 'istio-envoy'],
            ['x-envoy-ratelimited', 'true'],
            ['x-mp-rollback', VERDICT],
          ].toSorted(),
        );
        assert.equal(answer.body, PROBLEM(t.key));
        assert.equal(back.arrivals(t.key).length, 0);
        const row = await callRow(from, t.key);
        assert.deepEqual([row.outcome, row.details, row.attempts], [Outcome.Refused, 'meshpulse_refused', 0]);
      });
    }

    it('HTTP/2, to the byte', async () => {
      const t = transaction();
      await world.recorder.hold('front', doom(t.key, { calls: [['back', CHARGE]] }));
      const session = connectHttp2(`http://${format(world.mesh.proxy('front').outbound)}`);
      const stream = session.request({
        ':method': 'POST',
        ':path': '/charge',
        ':authority': 'back',
        ...Object.fromEntries(t.fields),
      });
      let head: Record<string, unknown> = {};
      let body = '';
      await new Promise<void>((resolve, reject) => {
        stream.on('response', headers => (head = { ...headers }));
        stream.on('data', (chunk: Buffer) => (body += chunk.toString()));
        stream.on('end', resolve);
        stream.on('error', reject);
        stream.end();
      });
      session.close();
      delete head['date'];
      assert.deepEqual(Object.fromEntries(Object.entries(head)), {
        ':status': 424,
        'content-length': String(PROBLEM(t.key).length),
        'content-type': 'application/problem+json',
        server: 'istio-envoy',
        'x-envoy-ratelimited': 'true',
        'x-mp-rollback': VERDICT,
      });
      assert.equal(body, PROBLEM(t.key));
    });

    it('while the body is still on its way: the answer is read all the same', async () => {
      const t = transaction();
      await world.recorder.hold('front', doom(t.key, { calls: [['back', CHARGE]] }));
      const { outbound } = world.mesh.proxy('front');
      const body = 'x'.repeat(BIG_BYTES);
      for (let i = 0; i < 5; i++) {
        const headers = Object.fromEntries(t.fields);
        const answer = await callThrough(outbound, undefined, 'back', 'POST', '/charge', { headers, body });
        assert.equal(answer.status, 424);
        assert.equal(answer.body, PROBLEM(t.key));
      }
      assert.equal(back.arrivals(t.key).length, 0);
    });

    it('gRPC, and a client library with a retry policy stops', async () => {
      const healthy = transaction();
      // The policy of the route repeats what is unavailable, the library what is a failed precondition.
      assert.equal((await unary('front', healthy, 9)).code, 9);
      assert.equal((await rowsOfKey(world.recorder, 'front', healthy.key, 4)).length, 4, 'the library does repeat');

      const t = transaction();
      await world.recorder.hold('front', doom(t.key, { calls: [['bank', GRPC_CHARGE]] }));
      const { code, metadata } = await unary('front', t);
      assert.equal(code, 9);
      assert.deepEqual(metadata?.get('grpc-retry-pushback-ms'), ['-1']);
      assert.deepEqual(metadata.get('x-mp-rollback'), [VERDICT]);
      await world.settled('front');
      const rows = await rowsOfKey(world.recorder, 'front', t.key);
      assert.deepEqual(
        rows.map(row => [row.outcome, row.grpcStatus]),
        [[Outcome.Refused, 9]],
      );
    });
  });

  describe('of further attempts', () => {
    for (const [from, refuses] of [
      ['ordered', true],
      ['wary', false],
    ] as const) {
      it(`${refuses ? 'end the call' : 'are only told'} when the first one’s failure has doomed it`, async () => {
        const t = transaction();
        let attempts = 0;
        back.answer = async () => {
          // The verdict arrives between the first attempt's failure and the second.
          if (++attempts === 1) await world.recorder.hold(from, doom(t.key, { calls: [['back', CHARGE]] }));
          return { status: 503 };
        };
        const answer = await send(from, t);
        assert.equal(answer.status, refuses ? 424 : 503);
        assert.deepEqual(valuesOf(answer.head, 'x-mp-rollback'), refuses ? [VERDICT] : []);
        assert.equal(attempts, refuses ? 1 : 1 + RETRIES);
        const row = await callRow(from, t.key);
        const both = RowFlag.RetryRefused | RowFlag.WouldRefuse;
        assert.equal(row.flags & both, refuses ? RowFlag.RetryRefused : both);
        assert.deepEqual([row.outcome, row.attempts], refuses ? [Outcome.Refused, 2] : [Outcome.Failed, 1 + RETRIES]);
      });
    }
  });

  describe('of retries to what is down', () => {
    const CALLS = 100;
    const PROBES = CALLS / 20;
    const AT_ONCE = 25;
    const arrivalsOf = async (from: string, path: string): Promise<{ arrivals: number; key: string }> => {
      const t = transaction();
      back.answer = () => ({ status: 503 });
      for (let i = 0; i < CALLS; i += AT_ONCE) {
        const answers = await Promise.all(Array.from({ length: AT_ONCE }, () => send(from, t, path)));
        assert.deepEqual(new Set(answers.map(answer => answer.status)), new Set([503]));
      }
      return { arrivals: back.arrivals(t.key).length, key: t.key };
    };

    it('leave one call in twenty its retries, and compensation all of them', async () => {
      const down = {
        destinations: [nameHash(serviceHost('back', 'shop'), '')],
        spare: hashes([serviceHost('back', 'shop'), 'POST /refund']),
      };
      for (const from of ['front', 'ordered', 'watch']) {
        await world.recorder.hold(from, directive(Kind.Down, { ...down, ttlMs: 120_000, mode: Mode.Enforce }));
        const all = CALLS * (1 + RETRIES);
        const { arrivals, key } = await arrivalsOf(from, '/charge');
        assert.equal(arrivals, from === 'watch' ? all : CALLS + PROBES * RETRIES, from);
        const rows = await rowsOfKey(world.recorder, from, key, CALLS);
        const marked = rows.filter(row => (row.flags & RowFlag.NoRetries) !== 0);
        assert.equal(marked.length, from === 'watch' ? 0 : CALLS - PROBES);
        assert.ok(marked.every(row => row.attempts === 1));
        assert.ok(
          back.arrivals(key).every(({ headers }) => headers['x-envoy-max-retries'] === undefined),
          'nothing of it reaches the application',
        );
        if (from === 'watch') continue;
        assert.equal((await arrivalsOf(from, '/refund')).arrivals, all, 'compensation');
        await world.recorder.hold(from, directive(Kind.Up, { destinations: down.destinations }));
        assert.equal((await arrivalsOf(from, '/charge')).arrivals, all, 'lifted');
      }
    });
  });

  // The last one: streams do not come back for a minute.
  describe('where streams fail', () => {
    it('are told by the replies to calls', async () => {
      const { recorder } = world;
      recorder.stream = { kind: 'reset' };
      const calls = recorder.calls;
      await until('calls in place of streams', SLOW_MS, async () => {
        await send('front', transaction());
        return recorder.calls > calls ? true : undefined;
      });
      const t = transaction();
      assert.equal((await send('front', t)).status, 200);
      recorder.later('front', doom(t.key, { calls: [['back', CHARGE]] }));
      await until('a refusal', SLOW_MS, async () => ((await send('front', t)).status === 424 ? true : undefined));
    });
  });
});

function toMetadata(fields: [string, string][]): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of fields) metadata.set(name, value);
  return metadata;
}
