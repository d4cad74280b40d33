import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { batch, CUID, hello, type Plain } from '../ingest-support.js';
import { failAfterTwo, startShop, verdictsOf } from '../rollback/support.js';
import { start, until, type TestCollector } from '../rpc-support.js';
import { decodeOtlp, Sink } from './support.js';

const KEY = '0123456789abcdef0123456789abcdef';

describe('a collector with exports', () => {
  let folder: string;
  const sinks: Sink[] = [];
  let collector: TestCollector | undefined;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'meshpulse-export-'));
  });
  afterEach(async () => {
    await collector?.stop();
    collector = undefined;
    for (const sink of sinks.splice(0)) sink.close();
    rmSync(folder, { recursive: true });
  });

  async function sinkOf(answer?: ConstructorParameters<typeof Sink>[0]): Promise<{ sink: Sink; url: string }> {
    const sink = new Sink(answer);
    sinks.push(sink);
    return { sink, url: await sink.listen() };
  }

  const metric = async (line: string): Promise<number> => {
    const { text } = await collector!.get('/metrics');
    const found = text.split('\n').find(one => one.startsWith(`meshpulse_${line} `));
    return Number(found?.split(' ').at(-1) ?? Number.NaN);
  };
  const records = (sink: string, result: string): Promise<number> =>
    metric(`export_records_total{sink="${sink}",result="${result}"}`);

  /** Sends batches of three rows. */
  async function send(count: number): Promise<void> {
    const stream = collector!.report();
    await stream.ask({ hello: hello() });
    for (let seq = 1; seq <= count; seq++)
      await stream.ask({ batches: [batch(seq, [{}, { status: 503 }, { flags: 1 }])] });
  }

  it('sends each row once to each sink, and a replay to none', async () => {
    const { sink, url } = await sinkOf();
    collector = await start(['--export', `otlp=${url}`, '--export', `jsonl=${folder}`]);
    await send(10);
    const again = collector.report();
    await again.ask({ hello: hello() });
    await again.ask({ batches: [batch(10, [{}, {}, {}])] });
    await until('30 delivered', async () => ((await records('otlp', 'delivered')) === 30 ? true : undefined));
    assert.equal(await records('jsonl', 'delivered'), 30);
    await collector.stop();
    const sent = sink.got.flatMap(({ body }) => decodeOtlp(body)).flatMap(logs => logs.records);
    const uids = sent.map(({ attributes }) => attributes['log.record.uid'] as string).sort();
    assert.equal(new Set(uids).size, 30);
    const [name] = readdirSync(folder);
    assert.match(name!, /^events-2023-11-14T22-.*\.jsonl\.gz$/);
    const lines = gunzipSync(readFileSync(join(folder, name!)))
      .toString()
      .trimEnd()
      .split('\n');
    assert.deepEqual(lines.map(line => (JSON.parse(line) as Plain)['id']).sort(), uids);
    assert.equal((JSON.parse(lines[0]!) as Plain)['cuid'], CUID);
    assert.deepEqual(sink.got[0]!.headers['content-type'], 'application/x-protobuf');
    assert.equal(sink.got[0]!.url, '/v1/logs');
  });

  it('says what a sink refused: by its status, and by its answer', async () => {
    // ExportLogsPartialSuccess: 2 rejected.
    const partial = await sinkOf(response => void response.end(Buffer.from([0x0a, 2, 0x08, 2])));
    const never = await sinkOf(response => void response.writeHead(400).end());
    const absurd = await sinkOf(response => void response.end(Buffer.from([0x0a, 2, 0x08, 100])));
    collector = await start([partial, never, absurd].flatMap(({ url }) => ['--export', `otlp=${url}`]));
    await send(1);
    await until('both were asked', async () => ((await records('otlp-2', 'refused')) === 3 ? true : undefined));
    await until('the first answered', async () => ((await records('otlp', 'refused')) === 2 ? true : undefined));
    assert.equal(await records('otlp', 'delivered'), 1);
    await until('the third answered', async () => ((await records('otlp-3', 'refused')) === 3 ? true : undefined));
    assert.equal(await records('otlp-3', 'delivered'), 0, 'never less than nothing');
    assert.equal(await metric('export_tries_total{sink="otlp-2",result="refused"}'), 1);
  });

  it('tries again, and sends what it has when a sink comes back', async () => {
    const { sink, url } = await sinkOf((response, _, count) => void response.writeHead(count <= 3 ? 503 : 200).end());
    collector = await start(['--export', `otlp=${url}`]);
    await send(1);
    await until('delivered', async () => ((await records('otlp', 'delivered')) === 3 ? true : undefined));
    assert.equal(await metric('export_tries_total{sink="otlp",result="retried"}'), 3);
    assert.deepEqual(sink.got[0]!.body, sink.got[3]!.body);
  });

  it('sends the headers of its file', async () => {
    const { sink, url } = await sinkOf();
    const file = join(folder, 'headers');
    writeFileSync(file, 'Authorization: Bearer t0ken\n');
    collector = await start(['--export', `otlp=${url}`, '--export-headers-file', file]);
    await send(1);
    await until('delivered', () => (sink.got.length > 0 ? true : undefined));
    assert.equal(sink.got[0]!.headers.authorization, 'Bearer t0ken');
  });

  it('has no metrics of exports without a sink', async () => {
    collector = await start();
    assert.ok(!(await collector.get('/metrics')).text.includes('meshpulse_export_records_total{'));
  });

  it('a folder serves one collector, and one that cannot be written to is told at start', async () => {
    collector = await start(['--export', `jsonl=${folder}`]);
    await assert.rejects(start(['--export', `jsonl=${folder}`]), /--export jsonl=.* is in use by another collector/);
    writeFileSync(join(folder, 'file'), '');
    await assert.rejects(start(['--export', `jsonl=${join(folder, 'file')}`]), /--export/);
    await assert.rejects(start(['--export', 'jsonl=/dev/null/x']), /--export cannot be started/);
  });

  describe('webhooks', () => {
    const keyed = (url: string): string[] => {
      const file = join(folder, 'key');
      writeFileSync(file, `${KEY}\n`);
      return ['--export', `webhook=${url}`, '--export-webhook-key-file', file];
    };

    it('tell of a verdict, its signals and their acknowledgements, signed, once each', async () => {
      const { sink, url } = await sinkOf();
      const shop = await startShop(keyed(`${url}/hook?tenant=1`));
      try {
        await shop.teach(120);
        await failAfterTwo(shop);
        const verdict = await until('a verdict', async () => (await verdictsOf(shop))[0]);
        const told = (type: string): Plain[] =>
          sink.got.map(({ body }) => JSON.parse(body.toString()) as Plain).filter(event => event['type'] === type);
        await until('told', () => told('dev.meshpulse.verdict.decided')[0]);
        shop.pass(1);
        const signal = await until('a signal', () => told('dev.meshpulse.signal.sent')[0]);
        const { step } = signal['data'] as { step: Plain };
        await shop.collector.call('Rollback.Ack', { signal: step['signalId'], by: 'stock' });
        const done = await until('acknowledged', () => told('dev.meshpulse.signal.acknowledged')[0]);
        assert.equal(((done['data'] as Plain)['step'] as Plain)['state'], 'STEP_STATE_DONE');
        const [decided] = told('dev.meshpulse.verdict.decided');
        assert.deepEqual(
          [decided!['specversion'], decided!['id'], decided!['source'], decided!['subject']],
          [
            '1.0',
            `${verdict['id'] as string}.decided`,
            `/meshpulse/rollback/${verdict['id'] as string}`,
            verdict['key'],
          ],
        );
        assert.equal((decided!['data'] as Plain)['id'], verdict['id']);
        const ids = sink.got.map(({ body }) => (JSON.parse(body.toString()) as Plain)['id']);
        assert.equal(new Set(ids).size, ids.length, 'once each');
        for (const { headers, body, url: path } of sink.got) {
          const [id, at] = [headers['webhook-id'] as string, headers['webhook-timestamp'] as string];
          const hmac = createHmac('sha256', KEY).update(`${id}.${at}.`).update(body).digest('base64');
          assert.equal(headers['webhook-signature'], `v1,${hmac}`);
          assert.ok(Math.abs(Number(at) - Date.now() / 1000) < 60);
          assert.match(headers['content-type']!, /^application\/cloudevents\+json/);
          assert.equal((JSON.parse(body.toString()) as Plain)['id'], id);
          assert.equal(path, '/hook?tenant=1');
        }
      } finally {
        await shop.collector.stop();
      }
    });

    it('tell again after a restart what was decided minutes ago, under the same ids', async () => {
      const data = ['--data-dir', join(folder, 'data')];
      const shop = await startShop(data);
      await shop.teach(120);
      await failAfterTwo(shop);
      const verdict = await until('a verdict', async () => (await verdictsOf(shop))[0]);
      await shop.collector.stop();
      const { sink, url } = await sinkOf();
      const again = await start([...data, ...keyed(url)], shop.collector.clock);
      try {
        const got = await until('told', () => sink.got[0]);
        assert.equal(got.headers['webhook-id'], `${verdict['id'] as string}.decided`);
      } finally {
        await again.stop();
      }
      assert.ok(existsSync(join(folder, 'data')));
    });
  });
});
