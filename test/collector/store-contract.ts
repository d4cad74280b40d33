// What every store must do, written once. A store's own test file stamps it onto that store.

import assert from 'node:assert/strict';
import { decodeReport } from '../../collector/src/ingest/decode-report.js';
import type { Batch } from '../../collector/src/ingest/report.js';
import type { RollbackEntry } from '../../collector/src/rollback/store-entries.js';
import type { Loss } from '../../collector/src/ingest/producers.js';
import type {
  PutResult,
  Recovery,
  SnapshotSource,
  Store,
  StoredBatch,
  StoredCount,
  StoredLife,
} from '../../collector/src/store/store.js';
import { batch, CUID, encodeReport, OTHER_CUID, type Plain, type RowSpec } from './ingest-support.js';

/** What a store gave back. */
export class Recovered implements Recovery {
  readonly lives = new Map<string, StoredLife>();
  readonly counts: StoredCount[] = [];
  readonly batches: { seq: number; counted: boolean }[] = [];
  readonly losses: Loss[] = [];
  since = 0;
  flowState: unknown;
  totalsState: unknown;

  life(life: StoredLife): void {
    this.lives.set(life.cuid, life);
  }
  count(count: StoredCount): void {
    this.counts.push(count);
  }
  countingSince(us: number): void {
    this.since = us;
  }
  totals(state: unknown): void {
    this.totalsState = state;
  }
  flow(state: unknown): void {
    this.flowState = state;
  }
  batch({ batch: { seq } }: StoredBatch, counted: boolean): void {
    this.batches.push({ seq, counted });
  }
  readonly rollbacks: { entry: RollbackEntry; counted: boolean }[] = [];
  rollback(entry: RollbackEntry, counted: boolean): void {
    this.rollbacks.push({ entry, counted });
  }
  loss(_cuid: string, loss: Loss): void {
    if (loss.reports > 0 || loss.events > 0) this.losses.push(loss);
  }
}

/** Owners that hold nothing. */
export const EMPTY: SnapshotSource = {
  rollback: () => [],
  lives: () => [],
  counts: () => [],
  countingSinceUs: () => 0,
  totals: () => ({}),
  flow: () => null,
};

export const life = (extra: Partial<StoredLife> = {}): StoredLife => ({
  cuid: CUID,
  cuidAliases: [],
  scope: 1,
  service: 'payment.shop',
  slot: 'payment-0',
  workload: 'payment',
  node: 'n',
  cluster: 'c',
  network: '',
  addresses: [{ ip: '10.0.0.7', ports: [8080], fromUs: 1 }],
  proxyId: 'p1',
  bootEpochUs: 1,
  version: '0.1.0',
  edge: false,
  transport: 'stream',
  reportIntervalMs: 1000,
  reportIdleMs: 60_000,
  reportInFlightMs: 5000,
  configErrors: [],
  firstSeenUs: 1,
  lastSeenUs: 2,
  clean: false,
  eventsLostMax: 0,
  events: 0,
  calls: 0,
  reportsLost: 0,
  eventsLost: 0,
  producers: [],
  ...extra,
});

/** Batch `seq` with its rows, as a store takes it. */
export function stored(seq: number, rows: readonly RowSpec[] = [{}, {}], extra: Plain = {}): StoredBatch {
  const decoded = decodeReport(encodeReport({ batches: [batch(seq, rows, extra)] })).batches[0] as Batch;
  return { cuid: CUID, proxyId: 'p1', receivedUs: 1_700_000_000_000_000, batch: decoded };
}

const brief = (results: readonly PutResult[]): unknown[] =>
  results.map(({ fresh, seq, loss }) => [fresh, seq, loss.reports, loss.events]);

/**
 * @param make a store that keeps nothing yet; `again` opens what the last one kept, if it keeps anything
 */
export function storeContract(name: string, make: () => Promise<Store> | Store): void {
  describe(`store contract: ${name}`, function () {
    this.timeout(30_000);
    let store: Store;
    beforeEach(async () => {
      store = await make();
      await store.open(new Recovered(), EMPTY);
    });
    afterEach(() => store.close());

    it('starts with nothing', async () => {
      const other = await make();
      const recovered = new Recovered();
      await other.open(recovered, EMPTY);
      await other.close();
      assert.deepEqual([recovered.lives.size, recovered.batches, recovered.counts], [0, [], []]);
    });

    it('takes batches in order and says what to acknowledge', async () => {
      assert.deepEqual(brief(await store.putBatches([stored(1), stored(2)])), [
        [true, 1, 0, 0],
        [true, 2, 0, 0],
      ]);
    });

    it('knows a replay, within one put and between puts', async () => {
      assert.deepEqual(brief(await store.putBatches([stored(1), stored(1)])), [
        [true, 1, 0, 0],
        [false, 1, 0, 0],
      ]);
      assert.deepEqual(brief(await store.putBatches([stored(1), stored(2), stored(1)])), [
        [false, 1, 0, 0],
        [true, 2, 0, 0],
        [false, 2, 0, 0],
      ]);
    });

    it('tells of each batch as soon as it has its place, in order', async () => {
      const told: [number, boolean, number, number][] = [];
      const results = await store.putBatches([stored(1), stored(1), stored(3)], ({ batch }, { fresh, seq, loss }) =>
        told.push([batch.seq, fresh, seq, loss.reports]),
      );
      assert.deepEqual(told, [
        [1, true, 1, 0],
        [1, false, 1, 0],
        [3, true, 3, 1],
      ]);
      assert.deepEqual(
        results.map(({ fresh, seq, loss }) => [fresh, seq, loss.reports]),
        told.map(([, ...result]) => result),
      );
    });

    it('finds what is missing between batches', async () => {
      await store.putBatches([stored(1)]);
      assert.deepEqual(brief(await store.putBatches([stored(5, [{}], { firstEvent: '12', droppedEvents: '3' })])), [
        [true, 5, 3, 13],
      ]);
    });

    it('takes a late batch into the gap that it left, once', async () => {
      await store.putBatches([stored(1), stored(5)]);
      assert.deepEqual(brief(await store.putBatches([stored(3), stored(3), stored(5), stored(4), stored(2)])), [
        [true, 5, -1, -2],
        [false, 5, 0, 0],
        [false, 5, 0, 0],
        [true, 5, -1, -2],
        [true, 5, -1, -2],
      ]);
    });

    it('keeps the producers of different proxies apart, even with equal ids', async () => {
      await store.putBatches([stored(1), stored(2)]);
      const other = { ...stored(1), proxyId: 'p2', cuid: OTHER_CUID };
      assert.deepEqual(brief(await store.putBatches([other])), [[true, 1, 0, 0]]);
    });

    it('counts announced drops once, and an announced tail when the producer is finished', async () => {
      await store.putBatches([stored(1)]);
      const told = { id: 11n, nextSeq: 4, droppedEvents: 2, batchedEvents: 9 };
      assert.deepEqual(await store.announce(CUID, 'p1', [told]), { reports: 0, events: 2 });
      assert.deepEqual(await store.announce(CUID, 'p1', [told]), { reports: 0, events: 0 });
      const producer = (11).toString(16).padStart(16, '0');
      assert.deepEqual(await store.finish(CUID, 'p1', [producer]), { reports: 2, events: 7 });
      assert.deepEqual(await store.finish(CUID, 'p1', [producer]), { reports: 0, events: 0 });
    });

    it('settles puts in the order they were made', async () => {
      const order: number[] = [];
      await Promise.all(
        Array.from({ length: 50 }, (_, i) =>
          store.putBatches([stored(i + 1)]).then(([result]) => order.push(result!.seq)),
        ),
      );
      assert.deepEqual(
        order,
        Array.from({ length: 50 }, (_, i) => i + 1),
      );
    });

    it('keeps what rollback puts, as durably as it says', async () => {
      const value = { scope: 'mesh', sinceUs: 1, reason: 'r', actor: 'a' };
      const { durable, stands } = await store.putRollback([
        { type: 'kill', id: 'mesh', value },
        { type: 'override', id: 'x', value: null },
      ]);
      assert.equal(durable, store.stats().durable);
      assert.deepEqual(stands, [true, true]);
      await store.close();
      await assert.rejects(store.putRollback([]));
    });

    it('lets only the first entry that claims an id stand, and that one as often as it is put', async () => {
      const claiming = (id: string, ...claims: string[]): RollbackEntry => ({ type: 'kill', id, value: null, claims });
      const first = await store.putRollback([claiming('a', 'x'), claiming('b', 'y', 'x'), claiming('a', 'x', 'z')]);
      assert.deepEqual(first.stands, [true, false, true]);
      // What is void holds nothing: y is free still.
      const second = await store.putRollback([claiming('c', 'y'), claiming('b', 'z'), claiming('d')]);
      assert.deepEqual(second.stands, [true, false, true]);
    });

    it('refuses everything once closed, and closing twice is harmless', async () => {
      await store.close();
      await store.close();
      await assert.rejects(store.putBatches([stored(1)]), /closed/);
      await assert.rejects(store.putLife(life()), /closed/);
    });
  });
}
