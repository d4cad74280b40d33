import assert from 'node:assert/strict';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { gzipSync } from 'node:zlib';
import { ANSWER_BYTES_MAX, Poster, type Outcome } from '../../../collector/src/export/post.js';
import { Resolver } from '../../../collector/src/export/resolver.js';
import { Sink } from './support.js';

const DEADLINE_MS = 400;

describe('a POST to a sink', () => {
  const sinks: Sink[] = [];
  const posters: Poster[] = [];
  let raw: Server | undefined;
  afterEach(() => {
    for (const sink of sinks.splice(0)) sink.close();
    for (const poster of posters.splice(0)) poster.close();
    raw?.close();
  });

  async function post(url: string, resolver = new Resolver(false)): Promise<Outcome & { ms: number }> {
    const poster = new Poster(resolver, 2, DEADLINE_MS);
    posters.push(poster);
    const beganMs = performance.now();
    const outcome = await poster.post({ url: new URL(url), headers: { 'x-a': 'b' }, body: Buffer.from('hello') });
    return { ...outcome, ms: performance.now() - beganMs };
  }

  async function sinkOf(answer: ConstructorParameters<typeof Sink>[0]): Promise<string> {
    const sink = new Sink(answer);
    sinks.push(sink);
    return sink.listen();
  }

  /** A server that says what it likes, byte by byte. */
  async function rawSink(talk: (socket: Socket) => void): Promise<string> {
    raw = createServer(socket => {
      socket.on('error', () => undefined);
      socket.once('data', () => talk(socket));
    });
    await new Promise<void>(resolve => raw!.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(raw.address() as AddressInfo).port}`;
  }

  it('is delivered with its headers and its body', async () => {
    const url = await sinkOf(response => void response.end('thanks'));
    const outcome = await post(`${url}/in`);
    assert.equal(outcome.kind === 'delivered' && outcome.answer.toString(), 'thanks');
    const [got] = sinks[0]!.got;
    assert.deepEqual([got!.url, got!.body.toString(), got!.headers['x-a']], ['/in', 'hello', 'b']);
    assert.equal(got!.headers['accept-encoding'], 'identity');
  });

  const statuses: [number, Outcome['kind']][] = [
    [200, 'delivered'],
    [202, 'delivered'],
    [204, 'delivered'],
    [400, 'refused'],
    [401, 'refused'],
    [404, 'refused'],
    [410, 'refused'],
    [413, 'refused'],
    [408, 'retry'],
    [429, 'retry'],
    [500, 'retry'],
    [503, 'retry'],
    [504, 'retry'],
  ];
  for (const [status, kind] of statuses) {
    it(`answered ${status} is ${kind}`, async () => {
      const url = await sinkOf(response => void response.writeHead(status).end());
      assert.equal((await post(url)).kind, kind);
    });
  }

  it('heeds Retry-After', async () => {
    const url = await sinkOf(response => void response.writeHead(503, { 'retry-after': '3' }).end());
    const outcome = await post(url);
    assert.equal(outcome.kind === 'retry' && outcome.wishMs, 3000);
  });

  for (const status of [301, 302, 307, 308]) {
    it(`does not follow a redirect (${status})`, async () => {
      const other = await sinkOf(undefined);
      const url = await sinkOf(response => void response.writeHead(status, { location: `${other}/stolen` }).end());
      const outcome = await post(url);
      assert.ok(outcome.kind === 'refused' && /redirects are not followed/.test(outcome.why));
      assert.deepEqual(sinks[0]!.got, []);
    });
  }

  it('reads no more than it must of an endless answer', async () => {
    let sent = 0;
    const url = await rawSink(socket => {
      socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n');
      const more = (): void => {
        if (socket.destroyed || sent > 64 * 1024 * 1024) return;
        sent += 65_536;
        socket.write(`10000\r\n${'x'.repeat(65_536)}\r\n`, more);
      };
      more();
    });
    const outcome = await post(url);
    assert.ok(outcome.kind === 'delivered' && outcome.answer.length <= ANSWER_BYTES_MAX);
    assert.ok(sent < 16 * 1024 * 1024, `${sent} bytes were taken`);
  });

  it('does not unpack an answer', async () => {
    const bomb = gzipSync(Buffer.alloc(32 * 1024 * 1024));
    const url = await sinkOf(response => void response.writeHead(200, { 'content-encoding': 'gzip' }).end(bomb));
    const outcome = await post(url);
    assert.ok(outcome.kind === 'delivered' && outcome.answer.length <= ANSWER_BYTES_MAX);
  });

  it('ends at its deadline when the answer never comes, or comes a byte at a time', async () => {
    const silent = await post(await rawSink(() => undefined));
    assert.ok(silent.kind === 'retry' && /no answer within 400 ms/.test(silent.why) && silent.ms < 3000);
    raw!.close();
    const dripping = await post(
      await rawSink(socket => {
        const timer = setInterval(() => socket.write('x-a: b\r\n'), 20);
        socket.write('HTTP/1.1 200 OK\r\n');
        socket.on('close', () => clearInterval(timer));
      }),
    );
    assert.ok(dripping.kind === 'retry' && dripping.ms < 3000, JSON.stringify(dripping));
  });

  it('counts as delivered when only the rest of the answer does not come', async () => {
    const url = await rawSink(socket => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome'));
    const outcome = await post(url);
    assert.ok(outcome.kind === 'delivered' && outcome.ms < 3000, JSON.stringify(outcome));
  });

  const garbage: [string, string][] = [
    ['no HTTP', 'SSH-2.0-OpenSSH_9.2\r\n'],
    ['headers without an end', `HTTP/1.1 200 OK\r\n${'x-a: b\r\n'.repeat(10_000)}`],
    ['one header without an end', `HTTP/1.1 200 OK\r\nx-a: ${'b'.repeat(100_000)}`],
    ['two lengths', 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab'],
    ['nothing', ''],
  ];
  for (const [what, text] of garbage) {
    it(`is tried again after an answer of ${what}`, async () => {
      const outcome = await post(await rawSink(socket => socket.end(text)));
      assert.equal(outcome.kind, 'retry', JSON.stringify(outcome));
    });
  }

  it('is tried again when nobody listens', async () => {
    assert.equal((await post('http://127.0.0.1:9')).kind, 'retry');
  });

  it('is refused where the name of the sink has come to point at a metadata service', async () => {
    for (const address of ['169.254.169.254', '::ffff:169.254.169.254', 'fe80::1']) {
      const family = address.includes(':') ? 6 : 4;
      const outcome = await post(
        'http://sink.test/',
        new Resolver(false, () => Promise.resolve([{ address, family }])),
      );
      assert.ok(outcome.kind === 'refused' && /sink\.test resolves to/.test(outcome.why), JSON.stringify(outcome));
    }
  });

  it('is refused at an address that the URL names, whatever was checked before', async () => {
    const outcome = await post('http://169.254.169.254/latest/meta-data');
    assert.ok(outcome.kind === 'refused' && outcome.ms < 200);
    assert.equal((await post('http://127.0.0.1:9/', new Resolver(true))).kind, 'refused');
  });

  it('asks for a name once at a time, however many wait for it', async () => {
    const url = new URL(await sinkOf(undefined));
    let asked = 0;
    const resolver = new Resolver(false, async () => {
      asked += 1;
      await new Promise(resolve => setTimeout(resolve, 200));
      return [{ address: '127.0.0.1', family: 4 }];
    });
    const outcomes = await Promise.all([1, 2, 3].map(() => post(`http://sink.test:${url.port}/`, resolver)));
    assert.deepEqual(
      outcomes.map(({ kind }) => kind),
      ['delivered', 'delivered', 'delivered'],
    );
    assert.equal(asked, 1);
  });

  it('goes to a name by the address that was checked', async () => {
    const url = new URL(await sinkOf(undefined));
    const resolver = new Resolver(false, () => Promise.resolve([{ address: '127.0.0.1', family: 4 }]));
    assert.equal((await post(`http://sink.test:${url.port}/`, resolver)).kind, 'delivered');
    assert.equal(sinks[0]!.got[0]!.headers.host, `sink.test:${url.port}`);
  });
});
