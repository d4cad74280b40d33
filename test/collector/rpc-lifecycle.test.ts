import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { batch, CUID, hello, type Plain } from './ingest-support.js';
import { spawnCollector, type Child } from './process-support.js';
import { Clients, start, until, type ReportClient } from './rpc-support.js';

/** Streams open when the collector is told to stop. */
const DRAINED_STREAMS = process.env['TEST_LONG'] === '1' ? 500 : 50;

const ROWS = 3;
const rows = Array.from({ length: ROWS }, () => ({}));

/** A proxy as the contract wants it: keeps what is not acknowledged, replays it after a reconnect. */
class Proxy {
  private made = 0;
  acked = 0;
  private stream: ReportClient | undefined;

  constructor(private readonly window: number) {}

  connect(clients: Clients): void {
    const stream = clients.report();
    this.stream = stream;
    stream.call.on('data', (reply: Plain) => {
      for (const ack of (reply['acks'] ?? []) as Plain[]) {
        if (ack['durable'] === true) this.acked = Math.max(this.acked, Number(ack['seq']));
      }
      this.fill();
    });
    const producers = [{ id: '11', nextSeq: String(this.made + 1), batchedEvents: String(this.made * ROWS) }];
    const replay = Array.from({ length: this.made - this.acked }, (_, i) => batch(this.acked + i + 1, rows));
    stream.send({ hello: hello({ producers }), batches: replay });
    this.fill();
  }

  /** Makes no more batches. */
  stop(): void {
    this.limit = this.made;
  }

  get total(): number {
    return this.made;
  }

  private limit = Number.MAX_SAFE_INTEGER;

  private fill(): void {
    while (this.made - this.acked < this.window && this.made < this.limit) {
      this.made += 1;
      this.stream?.send({ batches: [batch(this.made, rows)] });
    }
  }
}

describe('collector process', function () {
  this.timeout(60_000);
  const folders: string[] = [];
  const children: Child[] = [];
  const run = async (...args: string[]): Promise<Child> => {
    const child = await spawnCollector(args);
    children.push(child);
    return child;
  };
  afterEach(async () => {
    for (const child of children.splice(0)) {
      child.process.kill('SIGKILL');
      await child.exited;
    }
    for (const path of folders.splice(0)) rmSync(path, { recursive: true });
  });
  const folder = (): string => {
    folders.push(mkdtempSync(join(tmpdir(), 'meshpulse-life-')));
    return folders.at(-1)!;
  };

  it('loses nothing it acknowledged as durable when it is killed in mid-load, again and again', async () => {
    const dataDir = folder();
    const proxy = new Proxy(40);
    for (let round = 0; round < 5; round++) {
      const child = await run('--data-dir', dataDir, '--log-level', 'info');
      const clients = new Clients(child.grpc);
      const before = proxy.acked;
      proxy.connect(clients);
      await until('some batches acknowledged', () => (proxy.acked > before + 100 ? true : undefined));
      child.process.kill('SIGKILL');
      await child.exited;
      clients.close();
    }
    proxy.stop();
    const child = await run('--data-dir', dataDir, '--log-level', 'info');
    const clients = new Clients(child.grpc);
    const kept = (await clients.call('Registry.GetInstance', { cuid: CUID }))['events'];
    assert.ok(Number(kept) >= proxy.acked * ROWS, `${String(kept)} events kept, ${proxy.acked * ROWS} acknowledged`);
    proxy.connect(clients);
    await until('all acknowledged', () => (proxy.acked === proxy.total ? true : undefined));
    const life = await clients.call('Registry.GetInstance', { cuid: CUID });
    assert.deepEqual([life['events'], life['reportsLost'], life['eventsLost']], [String(proxy.total * ROWS), '0', '0']);
    const { services } = (await clients.call('Registry.ListServices', {})) as { services: Plain[] };
    assert.equal(services[0]!['events'], String(proxy.total * ROWS));
    clients.close();
  });

  it('still knows transactions after it was killed, and tells them as they come', async () => {
    const dataDir = folder();
    const first = await run('--data-dir', dataDir);
    let clients = new Clients(first.grpc);
    const seen: Plain[] = [];
    const watch = clients.stream('Transactions.Watch', {});
    watch.on('data', (transaction: Plain) => seen.push(transaction));
    watch.on('error', () => undefined);
    await new Promise(resolve => setTimeout(resolve, 200));
    const now = String(Date.now() * 1000);
    const entries = [
      { flags: 2, operation: 'GET /checkout' },
      { flags: 2, status: 503, outcome: 2 },
    ];
    const { events, ...rest } = batch(1, entries);
    const recent = { ...rest, events: { ...(events as Plain), baseUnixUs: now } };
    await clients.report().ask({ hello: hello(), batches: [recent], sentUnixUs: now });
    await until('both told', () => (seen.length >= 2 ? true : undefined));
    const key = '00000000000000010000000000000001';
    const before = await clients.call('Transactions.Get', { id: key });
    assert.deepEqual(
      [before['key'], before['state'], before['kind']],
      [key, 'TRANSACTION_STATE_SUCCEEDED', 'payment.shop GET /checkout'],
    );
    first.process.kill('SIGKILL');
    await first.exited;
    clients.close();
    const second = await run('--data-dir', dataDir);
    clients = new Clients(second.grpc);
    const after = await clients.call('Transactions.Get', { id: key });
    assert.deepEqual([after['state'], after['kind']], [before['state'], before['kind']]);
    const failed = await clients.call('Transactions.List', { states: ['TRANSACTION_STATE_FAILED'] });
    assert.equal((failed['transactions'] as Plain[]).length, 1);
    const { lines } = (await clients.call('Transactions.Explain', { id: key })) as { lines: Plain[] };
    assert.ok(lines.length >= 1);
    const json = (await (await fetch(`http://${second.http}/api/v1/transactions/${key}/explain`)).json()) as Plain;
    assert.equal((json['transaction'] as Plain)['key'], key);
    clients.close();
  });

  it('goes on counting where it stopped, or begins at 0, and its metrics say what its answers say', async () => {
    const dataDir = folder();
    const series = async ({ http }: Child): Promise<Map<string, number>> => {
      const lines = (await (await fetch(`http://${http}/metrics`)).text()).split('\n');
      return new Map(
        lines
          .filter(line => /^meshpulse_\w+_total\b/.test(line))
          .map(line => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
      );
    };
    const lifeNow = (clients: Clients): Promise<Plain> => clients.call('Registry.GetInstance', { cuid: CUID });
    const said = { configErrors: ['report.ratio is 7, must be 0 to 1'], counters: [{ name: 'unstamped', value: '3' }] };
    const lostMetric = 'meshpulse_reports_lost_total{destination_service="payment.shop"}';
    // One round before a snapshot (a clean stop makes one), one before a kill.
    let before = new Map<string, number>();
    for (const round of [0, 1, 2]) {
      const child = await run('--data-dir', dataDir);
      const clients = new Clients(child.grpc);
      const now = await series(child);
      for (const [name, value] of now)
        assert.ok(value === 0 || value === before.get(name), `${name} begins at ${value}`);
      if (round > 0) {
        const durable = /_(events|event_duration_seconds|external_calls|lost|config_errors|shortfalls|unclean)_/;
        const kept = [...before].filter(([name]) => durable.test(name) || name.includes('_lost_total'));
        assert.ok(kept.length >= 6, kept.join(' '));
        for (const [name, value] of kept) assert.equal(now.get(name), value, name);
        const life = await lifeNow(clients);
        assert.equal(String(now.get(lostMetric)), life['reportsLost']);
      }
      if (round === 2) break;
      const calls = [...rows, { flags: 1, peerService: 'stock.shop' }];
      const seq = 10 * round + 1;
      const at = { firstEvent: String(100 * round) };
      await clients.report().ask({ hello: hello(said), batches: [batch(seq, calls, at), batch(seq + 3, calls)] });
      await until('the loss counted', async () => {
        const lost = (await series(child)).get(lostMetric) ?? 0;
        return String(lost) === (await lifeNow(clients))['reportsLost'] ? true : undefined;
      });
      before = await series(child);
      assert.ok(before.get(lostMetric)! > 0);
      clients.close();
      child.process.kill(round === 0 ? 'SIGTERM' : 'SIGKILL');
      await child.exited;
    }
  });

  it('counts a restart without a folder as no loss, and a hole in it exactly', async () => {
    const first = await run();
    let clients = new Clients(first.grpc);
    await clients.report().ask({ hello: hello(), batches: [batch(1, rows), batch(2, rows)] });
    first.process.kill('SIGKILL');
    await first.exited;
    clients.close();
    const second = await run();
    clients = new Clients(second.grpc);
    const producers = [{ id: '11', nextSeq: '7', batchedEvents: '18', ackedSeq: '2', ackedEvents: '6' }];
    await clients.report().ask({ hello: hello({ producers }), batches: [batch(5, rows), batch(6, rows)] });
    const life = await clients.call('Registry.GetInstance', { cuid: CUID });
    assert.deepEqual([life['events'], life['reportsLost'], life['eventsLost']], ['6', '2', '6']);
    clients.close();
  });

  it('drains on SIGTERM: not ready, streams told, everything answered, exit 0', async () => {
    const child = await run('--drain-time', '30s', '--data-dir', folder());
    const clients = new Clients(child.grpc);
    const streams = Array.from({ length: DRAINED_STREAMS }, () => clients.report());
    await Promise.all(
      streams.map((stream, i) => {
        const cuid = `${i.toString(16).padStart(8, '0')}${CUID.slice(8)}`;
        return stream.ask({ hello: hello({ proxyId: `p${i}`, cuid, ip: `10.0.${i >> 8}.${i & 255}` }) });
      }),
    );
    child.process.kill('SIGTERM');
    for (const stream of streams) assert.equal(((await stream.next())['hints'] as Plain)['drainMs'], 30_000);
    assert.equal((await fetch(`http://${child.http}/readyz`)).status, 503);
    await Promise.all(
      streams.map(async stream => {
        const { acks, hints } = (await stream.ask({ batches: [batch(1, rows)] })) as { acks: Plain[]; hints: Plain };
        assert.equal(acks[0]!['durable'], true);
        const leftMs = Number(hints['drainMs']);
        assert.ok(leftMs > 0 && leftMs < 30_000, `${leftMs} ms are left`);
        stream.call.end();
      }),
    );
    assert.deepEqual(await child.exited, [0, null]);
    for (const stream of streams) assert.equal((await stream.ended).code, 0);
    clients.close();
  });

  it('ends streams that do not leave in time', async () => {
    const child = await run('--drain-time', '200ms');
    const clients = new Clients(child.grpc);
    const stream = clients.report();
    await stream.ask({ hello: hello() });
    child.process.kill('SIGTERM');
    assert.equal((await stream.ended).code, 14);
    assert.deepEqual(await child.exited, [0, null]);
    clients.close();
  });

  it('says at start what a restart loses', async () => {
    const child = await run();
    await until('the warning', () =>
      child.lines.find(line => /without --data-dir or Redis a restart loses/.test(String(line['msg']))),
    );
    const settings = child.lines.find(line => line['msg'] === 'collector started')!['settings'] as Plain;
    assert.equal(settings['retain-lives'], '30d');
  });

  it('says in one line that an address is taken', async () => {
    const one = await start();
    try {
      await assert.rejects(start(['--grpc', one.running.grpc]), {
        name: 'ConfigError',
        message: /--grpc 127\.0\.0\.1:\d+ cannot be listened on/,
      });
      await assert.rejects(start(['--http', one.running.http]), {
        name: 'ConfigError',
        message: /--http 127\.0\.0\.1:\d+ cannot be listened on/,
      });
    } finally {
      await one.stop();
    }
  });
});
