// gRPC and WebSocket: status from trailers, streams told apart from unary calls, open ones in flight.
import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { until } from '../../demo/src/mesh/child.js';
import { type Row } from '../filter/wire.js';
import { GrpcApp, GrpcCaller } from './support/grpc-app.js';
import { logEntry, rowEntry, rowStory, tally } from './support/ledger.js';
import { OddMesh } from './support/odd-mesh.js';

const SETTLED_MS = 1000;
const FAST_MS = 15_000;
const stories = (rows: Row[]) => tally(rows.map(row => `${row.operation}: ${rowStory(row)}`));
const times = (n: number, text: string) => Array<string>(n).fill(text);

/** Istio's default policy repeats what is cancelled or unavailable, twice. */
const EXPECTED_CALLS = tally([
  ...times(8, '/test.Echo/Unary: 200 - ok grpc=0 attempts=1 [call grpc]'),
  ...times(3, '/test.Echo/Unary: 200 - declined grpc=5 attempts=1 [call grpc]'),
  ...times(2, '/test.Echo/Unary: 200 - failed grpc=13 attempts=1 [call grpc]'),
  ...times(2, '/test.Echo/Unary: 200 URX failed grpc=14 attempts=3 [call grpc]'),
  ...times(2, '/test.Echo/Unary: 200 - declined grpc=9 attempts=1 [call grpc]'),
  ...times(2, '/test.Echo/Unary: 200 URX cancelled grpc=1 attempts=3 [call grpc]'),
  '/test.Echo/Down: 200 - ok grpc=0 attempts=1 [call stream grpc]',
  '/test.Echo/Down: 200 - ok grpc=0 attempts=1 [call grpc]',
  '/test.Echo/Down: 200 - failed grpc=8 attempts=1 [call stream grpc]',
  ...times(2, '/test.Echo/Both: 200 - ok grpc=0 attempts=1 [call stream grpc]'),
  // Without trailers the status is inferred from HTTP, as in the access log.
  '/test.Echo/Both: 200 DR cancelled grpc=2 attempts=1 [call stream grpc]',
]);
const EXPECTED_EVENTS = tally([
  ...times(8, '/test.Echo/Unary: 200 - ok grpc=0 [grpc]'),
  ...times(3, '/test.Echo/Unary: 200 - declined grpc=5 [grpc]'),
  ...times(2, '/test.Echo/Unary: 200 - failed grpc=13 [grpc]'),
  ...times(2 * 3, '/test.Echo/Unary: 200 - failed grpc=14 [grpc]'),
  ...times(2, '/test.Echo/Unary: 200 - declined grpc=9 [grpc]'),
  ...times(2 * 3, '/test.Echo/Unary: 200 - cancelled grpc=1 [grpc]'),
  '/test.Echo/Down: 200 - ok grpc=0 [stream grpc]',
  '/test.Echo/Down: 200 - ok grpc=0 [grpc]',
  '/test.Echo/Down: 200 - failed grpc=8 [stream grpc]',
  ...times(2, '/test.Echo/Both: 200 - ok grpc=0 [stream grpc]'),
  '/test.Echo/Both: 200 DR cancelled grpc=2 [stream grpc]',
]);

describe('gRPC', function () {
  this.timeout(60_000);

  for (const mtls of [false, true]) {
    it(`unary and streams by their final status, ${mtls ? 'with' : 'without'} mTLS`, async () => {
      const world = await OddMesh.start(
        [
          { name: 'front', outboundOnly: true },
          { name: 'back', protocol: 'http2', appProtocol: 'http2' },
        ],
        { mtls, without: ['back'] },
      );
      const app = await GrpcApp.start(world.mesh.proxy('back').app);
      const caller = new GrpcCaller(world.mesh.proxy('front').outbound, 'back');
      try {
        await world.recorder.greeted('front', 'back');
        const back = world.recorder.life('back');
        for (const [status, n] of [
          [0, 7],
          [5, 3],
          [13, 2],
          [14, 2],
          [9, 2],
          [1, 2],
        ] as const) {
          const answers = await Promise.all(Array.from({ length: n }, () => caller.unary(status)));
          assert.deepEqual(new Set(answers), new Set([status]));
        }
        // Long enough for frames to be cut anywhere.
        assert.equal(await caller.unary(0, 300_000), 0);
        assert.equal(await caller.down(0, 3), 0);
        assert.equal(await caller.down(0, 1), 0);
        assert.equal(await caller.down(8, 2), 8);

        const streams = [await caller.both(), await caller.both(), await caller.both()];
        await until('streams shown while open', FAST_MS, () => {
          const last = back.statuses.at(-1)?.status;
          return last?.inFlight === 3 && last.streamsOpen === 3 ? true : undefined;
        });
        const [ends, cancels, ends2] = streams;
        ends?.end();
        ends2?.end();
        await sleep(100);
        cancels?.cancel();
        await world.settled('front', 'back');

        for (const service of ['front', 'back'] as const) {
          const expected = service === 'front' ? EXPECTED_CALLS : EXPECTED_EVENTS;
          const rows = world.recorder.rows(service);
          assert.deepEqual(stories(rows), expected, service);
          assert.deepEqual(tally(rows.map(rowEntry)), tally((await world.log(service)).map(logEntry)), service);
          for (const row of rows.filter(r => r.operation.endsWith('/Both'))) {
            assert.equal(row.durationUs, 0);
            assert.ok(
              row.requestBytes >= 60 && row.responseBytes >= 60,
              `${row.requestBytes}, ${row.responseBytes} bytes`,
            );
          }
          assert.deepEqual(world.recorder.life(service).lost, { batches: 0, rows: 0 });
          const last = world.recorder.life(service).statuses.at(-1)?.status;
          assert.deepEqual([last?.inFlight, last?.callsInFlight, last?.streamsOpen], [0, 0, 0], service);
        }
      } finally {
        caller.close();
        await world.stop();
        app.stop();
      }
    });
  }
});

describe('WebSocket', function () {
  this.timeout(60_000);

  it('is a stream: in flight while open, bytes and no duration when it ends', async () => {
    const world = await OddMesh.start([{ name: 'front', outboundOnly: true }, { name: 'back' }]);
    const { host, port } = world.mesh.proxy('front').outbound;
    const open = async () => {
      const socket = new WebSocket(`ws://${host}:${port}/socket`, { headers: { host: 'back' } });
      await once(socket, 'open');
      socket.send('x'.repeat(500));
      await once(socket, 'message');
      return socket;
    };
    try {
      await world.recorder.greeted('front', 'back');
      const sockets = [await open(), await open(), await open()];
      const back = world.recorder.life('back');
      await until('three open streams', FAST_MS, () => {
        const last = back.statuses.at(-1)?.status;
        return last?.streamsOpen === 3 && last.inFlight === 3 ? true : undefined;
      });
      sockets[0]?.close();
      sockets[1]?.close();
      await sleep(200);
      sockets[2]?.terminate();
      await world.settled('front', 'back');
      for (const service of ['front', 'back']) {
        const rows = world.recorder.rows(service);
        assert.equal(rows.length, 3, service);
        for (const row of rows) {
          assert.equal(row.operation, 'GET /socket');
          assert.equal(row.httpStatus, 101);
          assert.match(rowStory(row), /\[(call )?stream\]$/);
          assert.equal(row.durationUs, 0);
          assert.ok(
            row.requestBytes >= 500 && row.responseBytes >= 500,
            `${row.requestBytes}, ${row.responseBytes} bytes`,
          );
        }
        assert.deepEqual(tally(rows.map(rowEntry)), tally((await world.log(service)).map(logEntry)), service);
        const last = world.recorder.life(service).statuses.at(-1)?.status;
        assert.deepEqual([last?.inFlight, last?.callsInFlight, last?.streamsOpen], [0, 0, 0], service);
      }
    } finally {
      await world.stop();
    }
  });

  it('an upgrade that the application refuses is an ordinary answer', async () => {
    const world = await OddMesh.start([{ name: 'front', outboundOnly: true }, { name: 'back' }], { without: ['back'] });
    try {
      await world.recorder.greeted('front', 'back');
      const { host, port } = world.mesh.proxy('front').outbound;
      const socket = new WebSocket(`ws://${host}:${port}/nobody`, { headers: { host: 'back' } });
      await once(socket, 'error');
      const [row] = await world.recorder.rowsOf('front', 1, SETTLED_MS);
      assert.ok(row && row.httpStatus === 503, row && rowStory(row));
      await world.atRest('back');
    } finally {
      await world.stop();
    }
  });
});
