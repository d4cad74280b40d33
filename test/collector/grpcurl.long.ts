import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { batch, CUID, hello, type Plain } from './ingest-support.js';
import { start, until, type TestCollector } from './rpc-support.js';

const run = promisify(execFile);

/** The checkout: this file runs from build/js/test/collector. */
const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));
const GRPCURL = join(ROOT, '.cache/grpcurl/v1.9.3/grpcurl');

const KEY = '00000000000000010000000000000001';
const ENTRY = 2;

interface Answer {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

describe('grpcurl, knowing nothing but the address', function () {
  this.timeout(300_000);
  let collector: TestCollector;
  const called = new Set<string>();

  before(async function () {
    if (!existsSync(GRPCURL)) {
      const { stdout, stderr } = await run(join(ROOT, 'scripts/setup.sh'), ['grpcurl']).catch(
        (error: unknown) => error as { stdout: string; stderr: string },
      );
      if (!existsSync(GRPCURL)) {
        console.log(`      skipped: ${(stderr || stdout).trim()}`);
        this.skip();
      }
    }
    collector = await start();
    const now = collector.clock.nowUs();
    const { events, ...rest } = batch(1, [{ flags: ENTRY }]);
    const recent = { ...rest, events: { ...(events as Plain), baseUnixUs: String(now) } };
    await collector.call('Ingest.ReportOnce', { hello: hello(), batches: [recent], sentUnixUs: String(now) });
    collector.clock.advanceMs(4000);
    collector.running.tick();
  });
  after(() => collector?.stop());

  const grpcurl = (...args: string[]): Promise<Answer> =>
    run(GRPCURL, ['-plaintext', ...args]).then(
      ({ stdout, stderr }) => ({ code: 0, out: stdout, err: stderr }),
      (error: unknown) => {
        const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
        return { code, out: stdout, err: stderr };
      },
    );
  const ask = async (method: string, request: object, ...options: string[]): Promise<Plain> => {
    called.add(method);
    const { code, out, err } = await grpcurl(...options, '-d', JSON.stringify(request), collector.running.grpc, method);
    assert.equal(code, 0, err);
    return JSON.parse(out) as Plain;
  };
  const methodsOf = async (service: string): Promise<string[]> =>
    (await grpcurl(collector.running.grpc, 'list', service)).out.trim().split('\n');

  it('lists the services, and describes each of them with its messages', async () => {
    const { out } = await grpcurl(collector.running.grpc, 'list');
    const services = out.trim().split('\n');
    for (const name of [
      'grpc.health.v1.Health',
      'meshpulse.v1.Ingest',
      'meshpulse.v1.Registry',
      'meshpulse.v1.Transactions',
    ]) {
      assert.ok(services.includes(name), out);
      const described = await grpcurl(collector.running.grpc, 'describe', name);
      assert.deepEqual([described.code, described.err], [0, '']);
      for (const [, type] of described.out.matchAll(/\(? ?(?:stream )?\.([\w.]+) \)/g)) {
        const message = await grpcurl(collector.running.grpc, 'describe', type!);
        assert.equal(message.code, 0, `${type}: ${message.err}`);
      }
    }
  });

  const reads: [string, object, (answer: Plain) => unknown, unknown][] = [
    ['grpc.health.v1.Health/Check', { service: 'meshpulse.v1.Registry' }, one => one['status'], 'SERVING'],
    ['meshpulse.v1.Registry/ListServices', {}, one => (one['services'] as Plain[])[0]!['name'], 'payment.shop'],
    ['meshpulse.v1.Registry/ListInstances', { page_size: 5 }, one => (one['instances'] as Plain[]).length, 1],
    ['meshpulse.v1.Registry/GetInstance', { cuid: CUID }, one => one['state'], 'INSTANCE_STATE_LIVE'],
    ['meshpulse.v1.Registry/WhoHad', { ip: '10.0.0.7' }, one => (one['intervals'] as Plain[])[0]!['cuid'], CUID],
    ['meshpulse.v1.Registry/GetFlow', {}, one => (one['flows'] as Plain[])[0]!['kind'], 'payment.shop GET /pay'],
    ['meshpulse.v1.Transactions/Get', { id: KEY }, one => one['key'], KEY],
    [
      'meshpulse.v1.Transactions/List',
      { states: ['TRANSACTION_STATE_SUCCEEDED'] },
      one => (one['transactions'] as Plain[])[0]!['key'],
      KEY,
    ],
    ['meshpulse.v1.Transactions/Explain', { id: KEY }, one => (one['transaction'] as Plain)['key'], KEY],
  ];
  for (const [method, request, pick, expected] of reads) {
    it(`calls ${method}`, async () => assert.deepEqual(pick(await ask(method, request)), expected));
  }

  const streams: [string, string, () => Promise<unknown>][] = [
    ['meshpulse.v1.Registry/WatchStatus', '"synced": true', () => Promise.resolve()],
    ['meshpulse.v1.Transactions/Watch', '"kind": "payment.shop GET /late"', () => late()],
    ['grpc.health.v1.Health/Watch', '"status": "SERVING"', () => Promise.resolve()],
  ];
  for (const [method, wanted, cause] of streams) {
    it(`follows ${method}`, async () => {
      called.add(method);
      const following = execFile(GRPCURL, ['-plaintext', '-d', '{}', collector.running.grpc, method]);
      let out = '';
      following.stdout!.on('data', (chunk: string) => (out += chunk));
      try {
        await until(wanted, async () => {
          if (out.includes(wanted)) return true;
          await cause();
          return undefined;
        });
      } finally {
        following.kill();
      }
    });
  }

  let seq = 1;
  /** One more transaction, so that whoever watches by now hears of it. */
  const late = async (): Promise<void> => {
    seq += 1;
    const now = String(collector.clock.nowUs());
    const { events, ...rest } = batch(seq, [{ flags: ENTRY, operation: 'GET /late' }]);
    const keys = { keyHi: [String(seq + 100)], keyLo: ['1'], eventId: [String(seq + 100)] };
    const recent = { ...rest, events: { ...(events as Plain), ...keys, baseUnixUs: now } };
    await collector.call('Ingest.ReportOnce', { hello: hello(), batches: [recent] });
  };

  it('has called every read call there is', async () => {
    for (const service of ['meshpulse.v1.Registry', 'meshpulse.v1.Transactions']) {
      for (const method of await methodsOf(service)) {
        assert.ok(called.has(method.replace(/\.(\w+)$/, '/$1')), `${method} was not called`);
      }
    }
  });

  it('is told field, value and range of a mistake', async () => {
    const address = collector.running.grpc;
    const wrong = await grpcurl('-d', '{"page_size": 1001}', address, 'meshpulse.v1.Registry/ListServices');
    assert.match(wrong.err, /Code: InvalidArgument\n\s+Message: page_size is 1001, must be 1 to 1000/);
    assert.notEqual(wrong.code, 0);
  });
});
