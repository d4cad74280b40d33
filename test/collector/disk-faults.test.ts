import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { batch, hello, type Plain } from './ingest-support.js';
import { Clients, type ReportClient } from './rpc-support.js';
import { spawnMeasured, type Measured } from './scale/measured.js';

const GIB = 2 ** 30;

/** What an oversized file may cost while it is looked at. */
const RSS_MIB_MAX = 400;

/** How long the collector may take to notice that a disk works again, ms: it tries once a second. */
const HEALED_MS_MAX = 15_000;

const metric = async ({ http }: Measured, name: string): Promise<number> => {
  const text = await (await fetch(`http://${http}/metrics`)).text();
  return Number(new RegExp(`^meshpulse_${name} (\\S+)$`, 'm').exec(text)?.[1]);
};

describe('a disk that fails', function () {
  this.timeout(120_000);
  const folders: string[] = [];
  const mounts: string[] = [];
  let collector: Measured | undefined;
  let clients: Clients | undefined;

  afterEach(async () => {
    clients?.close();
    await collector?.kill();
    for (const path of mounts.splice(0)) spawnSync('umount', ['-l', path]);
    for (const path of folders.splice(0)) rmSync(path, { recursive: true, force: true });
  });

  const folder = (): string => {
    folders.push(mkdtempSync(join(tmpdir(), 'meshpulse-disk-')));
    return folders.at(-1)!;
  };

  /** A file system of its own, or a printed reason why not. */
  const small = (context: Mocha.Context, size: string): string => {
    const path = folder();
    const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', path], {
      encoding: 'utf8',
    });
    if (status !== 0) {
      console.log(`      no tmpfs can be mounted here: ${stderr.trim()}`);
      context.skip();
    }
    mounts.push(path);
    return path;
  };

  const remount = (path: string, options: string): void =>
    void execFileSync('mount', ['-o', `remount,${options}`, path]);

  const run = async (dataDir: string): Promise<ReportClient> => {
    collector = await spawnMeasured(['--data-dir', dataDir, '--peer-messages-per-second', '100000']);
    clients = new Clients(collector.grpc);
    const stream = clients.report();
    await stream.ask({ hello: hello() });
    return stream;
  };

  const durable = async (stream: ReportClient, seq: number): Promise<boolean> => {
    const { acks } = (await stream.ask({ batches: [batch(seq, [{}, {}, {}])] })) as { acks: Plain[] };
    return acks[0]?.['durable'] === true;
  };

  /** Batches until `wanted` is what acknowledgements say; returns the next number. */
  const until = async (stream: ReportClient, from: number, wanted: boolean, timeoutMs: number): Promise<number> => {
    const endMs = performance.now() + timeoutMs;
    for (let seq = from; performance.now() < endMs; seq++) {
      if ((await durable(stream, seq)) === wanted) return seq + 1;
    }
    throw new Error(`no acknowledgement was ${wanted ? '' : 'not '}durable within ${timeoutMs} ms`);
  };

  const alerts = (): string[] =>
    collector!.lines.filter(line => line['level'] === 'error').map(line => String(line['msg']));

  it('for want of room (1 MiB): nothing stops, acknowledgements say so, and it goes on when there is room', async function () {
    const path = small(this, '1m');
    const stream = await run(path);
    assert.equal(await durable(stream, 1), true);
    const filler = join(path, 'filler');
    spawnSync('dd', ['if=/dev/zero', `of=${filler}`, 'bs=4k'], { stdio: 'ignore' });
    const full = await until(stream, 2, false, 20_000);
    assert.equal(await metric(collector!, 'store_durable'), 0);
    assert.ok((await metric(collector!, 'store_write_errors_total')) > 0);
    assert.ok(
      alerts().some(text => text.includes('cannot be written')),
      alerts().join('; '),
    );
    rmSync(filler);
    const beganMs = performance.now();
    const next = await until(stream, full, true, HEALED_MS_MAX);
    console.log(`      durable again ${Math.round(performance.now() - beganMs)} ms after there was room`);
    assert.equal(await metric(collector!, 'store_durable'), 1);
    const life = await clients!.call('Registry.GetInstance', { cuid: hello()['cuid'] });
    assert.deepEqual([life['events'], life['reportsLost']], [String(3 * (next - 1)), '0']);
  });

  it('because it became read-only: the same', async function () {
    const path = small(this, '16m');
    const stream = await run(path);
    assert.equal(await durable(stream, 1), true);
    // A file that is open for writing keeps a file system from becoming read-only, so the folder is covered by one.
    remount(path, 'size=16k');
    const full = await until(stream, 2, false, 20_000);
    assert.equal(await metric(collector!, 'store_durable'), 0);
    remount(path, 'size=16m');
    await until(stream, full, true, HEALED_MS_MAX);
  });

  it('because it is read-only from the start: it starts, says so, and takes reports', async function () {
    const path = small(this, '1m');
    remount(path, 'ro');
    const stream = await run(path);
    assert.equal(await durable(stream, 1), false);
    assert.equal(await metric(collector!, 'store_durable'), 0);
    assert.ok(alerts().length > 0, 'nobody is told');
  });

  const CORRUPT: readonly (readonly [string, (path: string) => void])[] = [
    ['noise', path => writeFileSync(path, Buffer.alloc(100_000, 0xa5))],
    ['nothing', path => writeFileSync(path, '')],
    ['text', path => writeFileSync(path, '{"version": 3, "lives": [')],
    ['a record that claims 4 GiB', path => writeFileSync(path, Buffer.alloc(64, 0xff))],
    ['3 GiB of zeros', path => (writeFileSync(path, ''), truncateSync(path, 3 * GIB))],
  ];
  for (const [what, damage] of CORRUPT) {
    for (const name of ['journal-00000001.log', 'snapshot-00000001.log']) {
      it(`with ${what} in ${name}: it starts, puts it aside, and tells`, async () => {
        const path = folder();
        damage(join(path, name));
        const stream = await run(path);
        assert.equal(await durable(stream, 1), true);
        const { rssMib } = await collector!.figures();
        assert.ok(rssMib < RSS_MIB_MAX, `${rssMib} MiB`);
        if (what === 'nothing') return;
        assert.ok((await metric(collector!, 'store_quarantined_total')) > 0, 'counted');
        assert.ok(
          readdirSync(path).some(file => file.startsWith(`${name}.corrupt`)),
          readdirSync(path).join(' '),
        );
        assert.ok(
          collector!.lines.some(
            line => ['warn', 'error'].includes(String(line['level'])) && /aside|unreadable/.test(String(line['msg'])),
          ),
          'told',
        );
      });
    }
  }
});
