/** What a million rows leave behind: nothing, when there is no more room. */
import assert from 'node:assert/strict';
import v8 from 'node:v8';
import vm from 'node:vm';
import { Fleet } from '../../../bench/collector/traffic.js';
import { ManualClock } from '../../../collector/src/clock.js';
import { decodeReport } from '../../../collector/src/ingest/decode-report.js';
import { Transactions } from '../../../collector/src/transactions/index.js';
import { instance } from './rows.js';

/** Rows that fill the table and make the code fast, and those that are measured. */
const WARM_UP_ROWS = 300_000;
const ROWS = 1_000_000;

/** Objects and arrays that may have come up by themselves, MiB: a row that left 8 bytes would be at twice that. */
const GROWTH_MIB_MAX = 4;

v8.setFlagsFromString('--expose-gc');
const collectGarbage = vm.runInNewContext('gc') as () => void;

function usedMib(): number {
  for (let i = 0; i < 3; i++) collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return (heapUsed + arrayBuffers) / 2 ** 20;
}

describe('a million rows', function () {
  this.timeout(60_000);

  it('leave nothing behind once the table is full', () => {
    const clock = new ManualClock(Date.now() * 1000);
    const transactions = new Transactions({
      clock,
      retainMs: 15 * 60_000,
      retainFailedMs: 24 * 3_600_000,
      retainFlowMs: 14 * 24 * 3_600_000,
      transactionsMax: 20_000,
      resolveService: () => undefined,
    });
    const fleet = new Fleet(1, 0.001);
    const instances = fleet.hellos.map(({ service }) => instance(service as string));
    let taken = 0;
    const take = (rows: number): void => {
      for (const until = taken + rows; taken < until;) {
        for (const [hop, message] of fleet.block()) {
          const columns = decodeReport(message).batches[0]!.events!;
          transactions.ingest({ instance: instances[hop]!, columns, producer: 1n });
          taken += columns.rows;
        }
        clock.advanceMs(20);
        transactions.tick(clock.nowUs());
      }
    };
    take(WARM_UP_ROWS);
    const before = usedMib();
    take(ROWS);
    const growth = usedMib() - before;
    assert.equal(transactions.size, 20_000);
    assert.ok(growth < GROWTH_MIB_MAX, `${growth.toFixed(1)} MiB more after ${ROWS} rows`);
  });
});
