import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { encodeJson, readFrames, RECORD } from '../../collector/src/store/frames.js';
import { MemoryStore } from '../../collector/src/store/memory.js';
import type { SnapshotSource } from '../../collector/src/store/store.js';
import { OTHER_CUID } from './ingest-support.js';
import { EMPTY, life, Recovered, storeContract, stored } from './store-contract.js';

const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };
const folders: string[] = [];

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'meshpulse-store-'));
  folders.push(path);
  return path;
}

const open = (dataDir: string): MemoryStore =>
  new MemoryStore({ dataDir, retainMs: 900_000, logBytesMax: 1e9, positionsMax: 1000, log: quiet });

async function recover(
  dataDir: string,
  source: SnapshotSource = EMPTY,
): Promise<{ store: MemoryStore; recovered: Recovered }> {
  const store = open(dataDir);
  const recovered = new Recovered();
  await store.open(recovered, source);
  return { store, recovered };
}

const logs = (dataDir: string, kind: string): string[] =>
  readdirSync(dataDir)
    .filter(name => name.startsWith(kind) && name.endsWith('.log'))
    .sort()
    .map(name => join(dataDir, name));

after(() => folders.forEach(path => rmSync(path, { recursive: true, force: true })));

storeContract('memory', () => new MemoryStore({ retainMs: 900_000, logBytesMax: 1e9, positionsMax: 1000, log: quiet }));
storeContract('memory with a folder', () => open(folder()));

describe('memory store', () => {
  it('forgets the producers unheard for longest past its bound', async () => {
    const store = new MemoryStore({ retainMs: 1, logBytesMax: 1, positionsMax: 2, log: quiet });
    await store.open(new Recovered(), EMPTY);
    for (const producer of ['1', '2', '3']) await store.putBatches([stored(1, [{}], { producer })]);
    assert.deepEqual([store.stats().positions, store.stats().positionsEvicted], [2, 1]);
    assert.equal(store.stats().durable, false);
    await store.close();
  });
});

describe('memory store with a folder', function () {
  this.timeout(30_000);
  it('tells of each batch at once, before anything is on disk', async () => {
    const { store } = await recover(folder());
    const told: number[] = [];
    const put = store.putBatches([stored(1), stored(3)], ({ batch }) => told.push(batch.seq));
    assert.deepEqual(told, [1, 3]);
    await put;
    await store.close();
  });

  it('gives back lives, positions and batches after an end without warning', async () => {
    const dataDir = folder();
    const first = await recover(dataDir);
    await first.store.putLife(life());
    await first.store.putLife(life({ events: 7 }));
    const [result] = await first.store.putBatches([stored(1), stored(2)]);
    assert.equal(result?.durable, true);
    // No close: as after kill -9, but for the lock, which the kernel would have taken back.
    const copy = folder();
    for (const path of [...logs(dataDir, 'journal'), ...logs(dataDir, 'snapshot')]) {
      writeFileSync(join(copy, path.split('/').at(-1)!), readFileSync(path));
    }
    await first.store.close();
    const { store, recovered } = await recover(copy);
    assert.equal(recovered.lives.get(life().cuid)?.events, 7);
    assert.deepEqual(recovered.batches, [
      { seq: 1, counted: false },
      { seq: 2, counted: false },
    ]);
    const again = await store.putBatches([stored(2), stored(3)]);
    assert.deepEqual(
      again.map(({ fresh }) => fresh),
      [false, true],
    );
    await store.close();
  });

  it('gives back what the owners held, and older batches only for what is not counted', async () => {
    const dataDir = folder();
    const source: SnapshotSource = {
      lives: () => [life({ cuid: OTHER_CUID, events: 4 })],
      counts: () => [
        {
          service: 's',
          cluster: '',
          external: false,
          operation: 'GET /',
          status: 200,
          responseFlags: 0,
          flags: 0,
          count: 4,
          durationUsSum: 9,
        },
      ],
      countingSinceUs: () => 77,
      totals: () => ({ unclean: [['s', 5]] }),
      flow: () => ({ kinds: 3 }),
      rollback: () => [],
    };
    const first = await recover(dataDir, source);
    await first.store.putBatches([stored(1), stored(2)]);
    await first.store.close();
    const { store, recovered } = await recover(dataDir, source);
    assert.equal(recovered.lives.get(OTHER_CUID)?.events, 4);
    assert.equal(recovered.counts[0]?.count, 4);
    assert.equal(recovered.since, 77);
    assert.deepEqual(recovered.flowState, { kinds: 3 });
    assert.deepEqual(recovered.totalsState, { unclean: [['s', 5]] });
    assert.deepEqual(recovered.batches, [
      { seq: 1, counted: true },
      { seq: 2, counted: true },
    ]);
    assert.equal((await store.putBatches([stored(2)]))[0]?.fresh, false);
    await store.close();
  });

  it('finds the same losses again', async () => {
    const dataDir = folder();
    const first = await recover(dataDir);
    await first.store.putBatches([stored(1), stored(4, [{}], { firstEvent: '10' })]);
    await first.store.announce('x', 'p1', [{ id: 11n, nextSeq: 9, droppedEvents: 3, batchedEvents: 20 }]);
    const copy = folder();
    for (const path of logs(dataDir, 'journal')) writeFileSync(join(copy, path.split('/').at(-1)!), readFileSync(path));
    await first.store.close();
    const { store, recovered } = await recover(copy);
    assert.deepEqual(recovered.losses, [
      { reports: 2, events: 8 },
      { reports: 0, events: 3 },
    ]);
    await store.close();
  });

  it('starts from a log that is cut short or altered anywhere, keeping what is whole', async () => {
    const dataDir = folder();
    const first = await recover(dataDir);
    for (let seq = 1; seq <= 20; seq++) await first.store.putBatches([stored(seq)]);
    const [path] = logs(dataDir, 'journal');
    const whole = readFileSync(path!);
    await first.store.close();
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: whole.length - 1 }), fc.boolean(), async (at, cut) => {
        const copy = folder();
        const file = join(copy, 'journal-00000002.log');
        const bytes = Buffer.from(whole);
        bytes[at]! ^= 0x55;
        writeFileSync(file, cut ? whole.subarray(0, at) : bytes);
        const { store, recovered } = await recover(copy);
        recovered.batches.forEach(({ seq }, i) => assert.equal(seq, i + 1));
        assert.ok(recovered.batches.length < 20);
        await store.putBatches([stored(100)]);
        await store.close();
        const again = await recover(copy);
        assert.equal(again.recovered.batches.at(-1)?.seq, 100);
        await again.store.close();
        rmSync(copy, { recursive: true });
      }),
      { numRuns: 25 },
    );
  });

  it('puts an unreadable tail aside and counts it', async () => {
    const dataDir = folder();
    writeFileSync(join(dataDir, 'journal-00000001.log'), Buffer.from('not a log at all, by any means'));
    const { store } = await recover(dataDir);
    assert.equal(store.stats().quarantined, 1);
    assert.ok(readdirSync(dataDir).includes('journal-00000001.log.corrupt-0'));
    await store.close();
  });

  it('falls back to the snapshot before when the newest is damaged', async () => {
    const dataDir = folder();
    const source = { ...EMPTY, lives: () => [life()] };
    const first = await recover(dataDir, source);
    await first.store.putBatches([stored(1)]);
    await first.store.close();
    const newest = logs(dataDir, 'snapshot').at(-1)!;
    truncateSync(newest, statSync(newest).size - 3);
    const { store, recovered } = await recover(dataDir, source);
    assert.equal(recovered.lives.size, 1);
    assert.deepEqual(recovered.batches, [{ seq: 1, counted: false }]);
    await store.close();
  });

  it('goes on without a folder that cannot be used, and says that nothing is durable', async () => {
    const dataDir = join(folder(), 'file');
    writeFileSync(dataDir, 'in the way');
    const { store } = await recover(dataDir);
    const [result] = await store.putBatches([stored(1)]);
    assert.deepEqual([result?.fresh, result?.durable, store.stats().durable], [true, false, false]);
    await store.close();
  });

  it('refuses a folder that another collector uses', async () => {
    const dataDir = folder();
    const { store } = await recover(dataDir);
    await assert.rejects(open(dataDir).open(new Recovered(), EMPTY), /is in use by another collector/);
    await store.close();
    const { store: next } = await recover(dataDir);
    await next.close();
  });
});

describe('log records', () => {
  it('are read back up to the first bad one', () => {
    const frames = [1, 2, 3].map(value => encodeJson(RECORD.LIFE, value));
    const bytes = Buffer.concat(frames);
    const read = (from: Buffer): [string[], number] => {
      const seen: string[] = [];
      const good = readFrames(from, frame => seen.push(frame.payload.toString()));
      return [seen, good];
    };
    assert.deepEqual(read(bytes), [['1', '2', '3'], bytes.length]);
    for (let length = 0; length < bytes.length; length++) {
      const whole = Math.floor(length / frames[0]!.length);
      assert.deepEqual(read(bytes.subarray(0, length)), [['1', '2', '3'].slice(0, whole), whole * frames[0]!.length]);
    }
  });
});
