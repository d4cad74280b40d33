import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';
import { service, SERVICES } from '../../collector/src/rpc/protos.js';
import { batch, hello } from './ingest-support.js';
import { frame, RawClient } from './raw-calls.js';
import { Clients } from './rpc-support.js';
import { spawnMeasured, type Measured } from './scale/measured.js';

const MIB = 2 ** 20;

/** What all that is thrown at it may leave behind. */
const GROWN_MIB_MAX = 300;

const METHODS = [
  ...SERVICES.flatMap(name => Object.values(service(name)).map(method => method.path)),
  '/grpc.health.v1.Health/Check',
  '/grpc.health.v1.Health/Watch',
  '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
  '/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo',
];

const varint = (value: number): Buffer =>
  value < 128
    ? Buffer.from([value])
    : Buffer.concat([Buffer.from([(value % 128) | 128]), varint(Math.floor(value / 128))]);

/** Field `number` with `bytes` in it. */
const field = (number: number, bytes: Buffer): Buffer =>
  Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);

const nested = (depth: number, number: number): Buffer =>
  Array.from({ length: depth }).reduce<Buffer>(bytes => field(number, bytes), Buffer.alloc(0));

/** Gzip of 512 MiB of nothing, in 16 KiB pieces: a file of several members unpacks to all of them. */
const gzipBomb = (): Buffer => {
  const member = gzipSync(Buffer.alloc(16 * MIB), { level: 9 });
  return Buffer.concat(Array.from({ length: 32 }, () => member));
};

const BOMBS: readonly (readonly [string, () => Buffer])[] = [
  ['messages 10,000 deep', () => frame(nested(10_000, 1))],
  ['unknown messages 10,000 deep', () => frame(nested(10_000, 999))],
  ['21 KiB of groups that begin', () => frame(Buffer.alloc(21 * 1024, 0x13))],
  ['groups 10,000 deep that end', () => frame(Buffer.concat([Buffer.alloc(10_000, 0x0b), Buffer.alloc(10_000, 0x0c)]))],
  ['a field of 4 GiB', () => frame(Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]))],
  ['a field of 2^63 bytes', () => frame(Buffer.from([0x0a, ...Array.from({ length: 9 }, () => 0xff), 0x01]))],
  ['a varint without end', () => frame(Buffer.alloc(1000, 0xff))],
  ['a message of 4 GiB', () => frame(Buffer.alloc(100), { length: 0xffffffff })],
  ['a million entries', () => frame(Buffer.alloc(2_000_000, Buffer.from([0x12, 0x00])))],
  ['a million entries of field 1', () => frame(Buffer.alloc(2_000_000, Buffer.from([0x0a, 0x00])))],
  ['a million numbers in one', () => frame(field(3, Buffer.alloc(1_000_000, 1)))],
  ['names that every object has', () => frame(Buffer.concat(names()))],
  ['nothing that is a message', () => Buffer.from('GET / HTTP/1.1\r\n\r\n')],
  ['the half of a frame', () => Buffer.from([0, 0, 0])],
];

/** A watch may take it for a request and never end; others have time, on a busy machine. */
const waitOf = (path: string): number => (path.includes('Watch') ? 300 : 20_000);

/** Fields 1 to 8 as text, and as a map entry with such a key. */
function names(): Buffer[] {
  const texts = ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty'].map(text => Buffer.from(text));
  return texts.flatMap(text =>
    Array.from({ length: 8 }, (_, i) => [
      field(i + 1, text),
      field(i + 1, Buffer.concat([field(1, text), field(2, Buffer.from('polluted'))])),
    ]).flat(),
  );
}

describe('bombs', function () {
  this.timeout(120_000);
  let collector: Measured;
  let clean: string;
  before(async () => {
    collector = await spawnMeasured(['--peer-messages-per-second', '100000']);
    clean = (await collector.figures()).prototype;
  });
  after(() => collector.kill());

  afterEach(async () => {
    const clients = new Clients(collector.grpc);
    const { acks } = await clients.call('Ingest.ReportOnce', { hello: hello(), batches: [batch(1, [{}])] });
    clients.close();
    assert.equal((acks as unknown[]).length, 1, 'it still answers');
    assert.equal((await collector.figures()).prototype, clean, 'every object has something new');
  });

  for (const [what, bomb] of BOMBS) {
    it(`${what}: every call of every service ends it with a status`, async () => {
      const before = await collector.figures();
      const body = bomb();
      const seen: Record<string, number> = {};
      const client = new RawClient(collector.grpc);
      const ask = async (path: string) => [path, await client.call(path, body, {}, waitOf(path))] as const;
      const answers = await Promise.all(METHODS.map(ask));
      client.close();
      for (const [path, { status, details }] of answers) {
        seen[status] = (seen[status] ?? 0) + 1;
        // A watch may take it for a request and go on: that is an answer as well.
        if (status === 'open' && /Watch/.test(path)) continue;
        assert.match(status, /^\d+$/, `${path}: ${status} ${details}`);
        assert.doesNotMatch(details, /\bat .*\.js:|node:internal|node_modules/, `${path} tells of our insides`);
      }
      const { rssMib, stallCpuMs } = await collector.figures();
      const grown = rssMib - before.rssMib;
      console.log(
        `      statuses ${JSON.stringify(seen)}; ${grown.toFixed(0)} MiB more, thread kept ${stallCpuMs.toFixed(0)} ms`,
      );
      assert.ok(grown < GROWN_MIB_MAX, `${grown} MiB more`);
    });
  }

  it('512 MiB in 512 KiB of gzip: refused by every call, within bounded memory', async () => {
    const before = await collector.figures();
    const body = frame(gzipBomb(), { compressed: true });
    const client = new RawClient(collector.grpc);
    for (const path of METHODS) {
      const { status, details } = await client.call(path, body, { 'grpc-encoding': 'gzip' }, 10_000);
      assert.equal(status, '8', `${path}: ${status} ${details}`);
    }
    client.close();
    const { rssMib } = await collector.figures();
    console.log(`      ${body.length} bytes ${METHODS.length} times: ${(rssMib - before.rssMib).toFixed(0)} MiB more`);
    assert.ok(rssMib - before.rssMib < GROWN_MIB_MAX);
  });

  it('names cut in the middle of a character, or of no characters at all, do not end the process', async () => {
    const client = new RawClient(collector.grpc);
    const texts = [76, 77, 78, 79, 80].map(length => Buffer.from('a'.repeat(length) + '\u{1f600}'.repeat(3)));
    texts.push(Buffer.from([0xed, 0xa0, 0x80]), Buffer.from([0xff, 0xfe, 0xc0, 0xaf]), Buffer.alloc(100_000, 0xc3));
    for (const text of texts) {
      const body = frame(Buffer.concat([1, 2, 3, 4, 5].map(number => field(number, text))));
      const answers = await Promise.all(METHODS.map(path => client.call(path, body, {}, waitOf(path))));
      for (const { status } of answers) assert.match(status, /^\d+$|^open$/);
    }
    client.close();
  });

  it('questions whose answers are not read are not answered for ever', async () => {
    const { rssMib: before } = await collector.figures();
    const client = new RawClient(collector.grpc);
    const questions = Buffer.concat(
      Array.from({ length: 100_000 }, () => frame(field(4, Buffer.from('meshpulse.v1.Ingest')))),
    );
    const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
    const stream = client.session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    stream.on('error', () => undefined);
    stream.write(questions);
    await new Promise(resolve => setTimeout(resolve, 3000));
    const grown = (await collector.figures()).rssMib - before;
    client.close();
    console.log(`      ${questions.length} bytes of questions: ${grown.toFixed(0)} MiB more`);
    assert.ok(grown < GROWN_MIB_MAX, `${grown} MiB more`);
  });

  it('names that every object has stay names over HTTP as well', async () => {
    for (const name of ['__proto__', 'constructor', 'toString', '%5F_proto__']) {
      for (const path of ['instances/X', 'transactions/X', 'rollback/plans/X', 'flow?kind=X', 'services?X=1', 'X']) {
        const response = await fetch(`http://${collector.http}/api/v1/${path.replace('X', name)}`);
        assert.ok([200, 400, 404].includes(response.status), `${path} with ${name}: ${response.status}`);
      }
    }
  });
});
