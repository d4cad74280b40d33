import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { addressFault } from '../../../collector/src/export/addresses.js';
import { readConfig } from '../../../collector/src/config.js';
import { waitMs, WAIT_MS_MAX } from '../../../collector/src/export/backoff.js';
import { BoundedQueue } from '../../../collector/src/export/queue.js';
import { Resolver } from '../../../collector/src/export/resolver.js';
import { readExports, type ExportTexts } from '../../../collector/src/export/settings.js';
import { parseKeys, signed } from '../../../collector/src/export/signature.js';
import { masked, parseSinks } from '../../../collector/src/export/sinks.js';

describe('addresses of sinks', () => {
  const NEVER = [
    '169.254.169.254',
    '169.254.0.1',
    '100.100.100.200',
    '168.63.129.16',
    '192.0.0.192',
    'fe80::1',
    '[fe80::1]',
    'fe80::1%eth0',
    'fd00:ec2::254',
    'fd20:ce::254',
    '::ffff:169.254.169.254',
    '::ffff:a9fe:a9fe',
    '[::ffff:a9fe:a9fe]',
    '::a9fe:a9fe',
    '64:ff9b::169.254.169.254',
    '2002:a9fe:a9fe::1',
    '0.0.0.0',
    '::',
    '255.255.255.255',
    '224.0.0.1',
    'ff02::1',
    'metadata.google.internal',
    'METADATA.google.internal.',
    'metadata',
  ];
  for (const host of NEVER) {
    it(`${host} is refused, always`, () => assert.notEqual(addressFault(host, false), undefined));
  }

  const PRIVATE = [
    '127.0.0.1',
    '10.1.2.3',
    '172.31.0.1',
    '192.168.1.1',
    '100.64.0.1',
    '::1',
    'fd12::1',
    '::ffff:10.0.0.1',
  ];
  for (const host of PRIVATE) {
    it(`${host} is a sink of a cluster, and refused only with --export-deny-private`, () => {
      assert.deepEqual([addressFault(host, false), addressFault(host, true) === undefined], [undefined, false]);
    });
  }

  for (const host of ['8.8.8.8', '172.32.0.1', '169.253.1.1', '2606:4700::1', 'otel.example.com', '::ffff:8.8.8.8']) {
    it(`${host} is allowed, always`, () => assert.equal(addressFault(host, true), undefined));
  }

  it('a name is refused for any address that it resolves to, when it is connected to', async () => {
    let answers = [{ address: '10.0.0.1', family: 4 }];
    const resolver = new Resolver(false, () => Promise.resolve(answers));
    const ask = (host: string): Promise<unknown> =>
      new Promise((resolve, reject) =>
        resolver.lookup(host, { all: true }, (error, found) => (error === null ? resolve(found) : reject(error))),
      );
    assert.deepEqual(await ask('good.test'), answers);
    answers = [...answers, { address: '169.254.169.254', family: 4 }];
    assert.deepEqual(await ask('good.test'), [answers[0]], 'kept for a while');
    await assert.rejects(ask('turned.test'), /turned\.test resolves to 169\.254\.169\.254, a link-local or metadata/);
  });
});

describe('--export', () => {
  it('names its sinks by kind and number, and completes the path of OTLP', () => {
    const texts = ['otlp=http://otel:4318', 'jsonl=/var/lib/out', 'otlp=https://x/custom', 'webhook=http://h:1/a?b=c'];
    assert.deepEqual(
      parseSinks(texts, false).map(({ name, target }) => `${name} ${target}`),
      ['otlp http://otel:4318/v1/logs', 'jsonl /var/lib/out', 'otlp-2 https://x/custom', 'webhook http://h:1/a?b=c'],
    );
  });

  const refused: [string, RegExp][] = [
    ['kafka=x', /must be otlp=URL, jsonl=DIR or webhook=URL/],
    ['otlp=', /must be otlp=URL/],
    ['otlp=ftp://x', /is not a URL of http or https/],
    ['otlp=collector:4318', /is not a URL of http or https/],
    ['webhook=http://u:secret@x/', /holds a user or password/],
    ['otlp=http://169.254.169.254/', /names a link-local or metadata address/],
    ['otlp=http://0xa9fea9fe/', /names a link-local or metadata address/],
    ['otlp=http://2852039166/', /names a link-local or metadata address/],
    ['otlp=http://[::ffff:169.254.169.254]/', /names a link-local or metadata address/],
    ['webhook=http://metadata.google.internal/', /names a metadata service/],
  ];
  for (const [text, message] of refused) {
    it(`${text} is refused, without telling secrets`, () => {
      assert.throws(
        () => parseSinks([text], false),
        (error: Error) => message.test(error.message) && !error.message.includes('secret'),
      );
    });
  }

  it('the same sink twice, and more than eight, are refused', () => {
    assert.throws(() => parseSinks(['jsonl=a', 'jsonl=a'], false), /given twice/);
    assert.throws(
      () =>
        parseSinks(
          Array.from({ length: 9 }, (_, i) => `jsonl=${i}`),
          false,
        ),
      /at most 8/,
    );
  });

  it('private sinks are refused at start when they are denied', () => {
    assert.throws(() => parseSinks(['otlp=http://127.0.0.1:4318'], true), /private address/);
  });

  it('may be given more than once, as a list in the file, and apart by spaces in the environment', () => {
    const sinks = (args: string[], env = {}, file = ''): string[] =>
      readConfig(args, env, () => file).exports.sinks.map(({ name, target }) => `${name} ${target}`);
    const both = ['jsonl /a b', 'otlp http://h/v1/logs'];
    assert.deepEqual(sinks(['--export', 'jsonl=/a b', '--export=otlp=http://h']), both);
    assert.deepEqual(sinks([], { MESHPULSE_EXPORT: 'jsonl=/a b  otlp=http://h' }), both);
    assert.deepEqual(sinks(['--config', 'f'], {}, 'export:\n  - jsonl=/a b\n  - otlp=http://h\n'), both);
    assert.deepEqual(sinks(['--config', 'f'], {}, 'export: jsonl=/a b\n'), ['jsonl /a b']);
    assert.deepEqual(sinks([]), []);
  });

  it('shows in the effective settings no more than may be logged', () => {
    const env = { MESHPULSE_EXPORT_WEBHOOK_KEY: 'k'.repeat(32) };
    const { effective } = readConfig(['--export', 'webhook=http://h/secret', '--export', 'jsonl=/a'], env, () => '');
    assert.equal(effective['export'], 'webhook=http://h/… jsonl=/a');
    assert.ok(!JSON.stringify(effective).includes('kkk'));
  });

  it('logs show neither path nor query of a URL', () => {
    assert.equal(masked('webhook=https://hooks.example/T0/secret?k=v'), 'webhook=https://hooks.example/…');
  });

  const texts = (extra: Partial<ExportTexts>): ExportTexts => ({
    exports: ['webhook=http://h/'],
    denyPrivate: false,
    queueBytesMax: 1,
    filesBytesMax: 1,
    headersFile: '',
    keyFile: '',
    key: '',
    ...extra,
  });

  it('a webhook without a key is refused, and so are keys that can be guessed', () => {
    const file = (content: string) => (): string => content;
    assert.throws(() => readExports(texts({}), file('')), /needs a key .* MESHPULSE_EXPORT_WEBHOOK_KEY/);
    assert.throws(
      () => readExports(texts({ key: 'short' }), file('')),
      /MESHPULSE_EXPORT_WEBHOOK_KEY holds a key of 5/,
    );
    assert.throws(() => readExports(texts({ keyFile: 'k' }), file('\n\n')), /k holds 0 keys/);
    assert.equal(readExports(texts({ keyFile: 'k' }), file(`${'a'.repeat(32)}\n${'b'.repeat(32)}\n`)).keys.length, 2);
  });

  it('headers are read by line, and a bad line is told by its number', () => {
    const read = (content: string): object =>
      readExports(texts({ exports: [], headersFile: 'h' }), () => content).headers;
    assert.deepEqual(read('Authorization: Bearer a b\r\n\nx-scope: 1\n'), {
      authorization: 'Bearer a b',
      'x-scope': '1',
    });
    assert.throws(
      () => read('a: b\nsecret\n'),
      (error: Error) => /line 2/.test(error.message) && !/secret/.test(error.message),
    );
  });
});

describe('signatures of webhooks', () => {
  it('are what Standard Webhooks says: HMAC-SHA256 of id, time and body, one for each key', () => {
    const secret = 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
    const keys = parseKeys(`whsec_${secret}\n0123456789abcdef\n`, 'k');
    const body = Buffer.from('{"test": 2432232314}');
    const headers = signed(keys, 'msg_p5jXN8AQM9LWM0D4loKWxJek', 1614265330, body);
    // The first is the example of the scheme's own documentation.
    assert.equal(headers['webhook-signature']!.split(' ')[0], 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=');
    const second = createHmac('sha256', '0123456789abcdef')
      .update('msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.')
      .update(body);
    assert.equal(headers['webhook-signature']!.split(' ')[1], `v1,${second.digest('base64')}`);
  });
});

describe('the queue of a sink', () => {
  const item = (bytes: number, records = 1): { bytes: number; records: number } => ({ bytes, records });

  it('drops the oldest past its bound, and counts their records', () => {
    const queue = new BoundedQueue(100);
    for (let i = 1; i <= 5; i++) queue.push(item(40, i));
    assert.deepEqual([queue.bytes, queue.records, queue.dropped], [80, 9, 6]);
    assert.deepEqual(
      queue.take(1000, 1000).map(({ records }) => records),
      [4, 5],
    );
    queue.push(item(101, 7));
    assert.deepEqual([queue.bytes, queue.dropped], [0, 13]);
  });

  it('gives at least one, and no more than fits', () => {
    const queue = new BoundedQueue(1000);
    for (let i = 0; i < 4; i++) queue.push(item(100, 10));
    assert.equal(queue.take(10, 1).length, 1);
    assert.equal(queue.take(250, 1000).length, 2);
    assert.equal(queue.take(250, 1000).length, 1);
    assert.equal(queue.take(250, 1000).length, 0);
  });

  it('stays in order over many turns', () => {
    const queue = new BoundedQueue<{ bytes: number; records: number; at: number }>(1e9);
    let next = 0;
    for (let at = 0; at < 20_000; at++) {
      queue.push({ bytes: 1, records: 1, at });
      if (at % 3 === 0) for (const one of queue.take(2, 2)) assert.equal(one.at, next++);
    }
    for (const one of queue.take(Infinity, Infinity)) assert.equal(one.at, next++);
    assert.equal(next, 20_000);
  });
});

describe('the wait before the next try', () => {
  it('doubles, is at least half of that, and ends below what a recovery may take', () => {
    assert.deepEqual(
      [1, 2, 3].map(failures => waitMs(failures, 0)),
      [125, 250, 500],
    );
    assert.ok(waitMs(99, 0.999) < WAIT_MS_MAX + 1);
    assert.equal(waitMs(1, 0, 1e9), WAIT_MS_MAX);
    assert.equal(waitMs(1, 0, 3000), 3000);
  });
});
