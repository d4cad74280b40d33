import assert from 'node:assert/strict';
import { connect as connectHttp2, constants } from 'node:http2';
import { once } from 'node:events';
import { connect } from 'node:net';
import { credentials, makeGenericClientConstructor, type ServiceError } from '@grpc/grpc-js';
import { service } from '../../collector/src/rpc/protos.js';
import { batch, CUID, encodeReport, hello, type Plain } from './ingest-support.js';
import { start, type TestCollector } from './rpc-support.js';

/** Bytes on the wire whatever the contract says. */
const raw = Object.fromEntries(
  Object.entries(service('Ingest')).map(([name, method]) => [
    name,
    { ...method, requestSerialize: (bytes: Buffer) => bytes },
  ]),
);
const GZIP = 2;

describe('what a stranger may send', function () {
  this.timeout(30_000);
  let collector: TestCollector;
  beforeEach(async () => (collector = await start(['--peer-messages-per-second', '100000'])));
  afterEach(async () => {
    assert.deepEqual(Object.keys(Object.prototype), []);
    const reply = await collector.call('Ingest.ReportOnce', { hello: hello(), batches: [batch(1, [{}])] });
    assert.equal((reply['acks'] as Plain[]).length, 1, 'the collector still answers');
    await collector.stop();
  });

  const send = (bytes: Buffer, options: object = {}): Promise<ServiceError | null> => {
    const Constructor = makeGenericClientConstructor(raw, 'Ingest');
    const client = new Constructor(collector.running.grpc, credentials.createInsecure(), options) as unknown as {
      ReportOnce(bytes: Buffer, done: (error: ServiceError | null) => void): void;
      close(): void;
    };
    return new Promise(resolve =>
      client.ReportOnce(bytes, error => {
        client.close();
        resolve(error);
      }),
    );
  };

  it('a message that unpacks to far more than the limit is refused', async () => {
    const before = process.memoryUsage().rss;
    const error = await send(Buffer.alloc(64 * 1024 * 1024), {
      'grpc.default_compression_algorithm': GZIP,
      'grpc.max_send_message_length': -1,
    });
    assert.equal(error?.code, 8);
    assert.ok(process.memoryUsage().rss - before < 300 * 1024 * 1024);
  });

  it('lengths that claim gigabytes, groups and deep nesting are refused', async () => {
    const claims = Buffer.from([0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    const groups = Buffer.alloc(21_000, 0x13);
    const nested = Buffer.concat(Array.from({ length: 10_000 }, () => Buffer.from([0x0a, 0x80, 0x80, 0x01])));
    for (const bytes of [claims, groups, nested]) assert.equal((await send(bytes))?.code, 3);
  });

  it('names like __proto__ stay names', async () => {
    const names = ['__proto__', 'constructor', 'toString'];
    for (const [i, name] of names.entries()) {
      const cuid = `${i}${CUID.slice(1)}`;
      const bytes = encodeReport({
        hello: hello({ service: name, workload: name, proxyId: name, cuid, ip: `10.0.0.${i}` }),
        batches: [batch(1, [{ operation: name }])],
        progress: [{ job: name }],
      });
      assert.equal(await send(bytes), null);
    }
    const services = (await collector.call('Registry.ListServices'))['services'] as Plain[];
    assert.deepEqual(services.map(one => one['name']).sort(), [...names].sort());
    assert.equal((await collector.get('/api/v1/services')).code, 200);
    assert.match((await collector.get('/metrics')).text, /destination_service="__proto__"/);
  });

  it('connections that speak another protocol or nothing are no harm', async () => {
    const [host, port] = collector.running.grpc.split(':') as [string, string];
    const sockets = ['GET / HTTP/1.1\r\n\r\n', '\0\0\0', '', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff'].map(
      text => {
        const socket = connect(Number(port), host);
        socket.on('error', () => undefined);
        socket.write(text);
        return socket;
      },
    );
    await new Promise(resolve => setTimeout(resolve, 100));
    sockets.forEach(socket => socket.destroy());
  });

  it('streams opened and reset at once do not stop it', async () => {
    const session = connectHttp2(`http://${collector.running.grpc}`);
    session.on('error', () => undefined);
    const headers = {
      ':method': 'POST',
      ':path': '/meshpulse.v1.Ingest/Report',
      'content-type': 'application/grpc',
      te: 'trailers',
    };
    for (let i = 0; i < 5000 && !session.destroyed; i++) {
      const stream = session.request(headers);
      stream.on('error', () => undefined);
      stream.close(constants.NGHTTP2_CANCEL);
      if (i % 100 === 0) await new Promise(resolve => setImmediate(resolve));
    }
    session.destroy();
    await once(session, 'close').catch(() => undefined);
    const streams = /report_streams (\d+)/.exec((await collector.get('/metrics')).text)?.[1];
    assert.ok(Number(streams) < 100, `${streams} streams left behind`);
  });
});
