import assert from 'node:assert/strict';
import fc from 'fast-check';
import { SETTLE_MS } from '../../collector/src/ingest/settling-sum.js';
import { batch, CUID, hello, OTHER_CUID, type Plain, type RowSpec } from './ingest-support.js';
import { start, type TestCollector } from './rpc-support.js';

const ENTRY = 2;
const CALL = 1;
const HOUR_MS = 3_600_000;

/** Rows in each of the batches that the tests send in many orders. */
const SIZES = [3, 1, 4, 1, 5, 2];
const TOTAL = SIZES.reduce((a, b) => a + b, 0);

describe('reports that arrive as they like', function () {
  this.timeout(60_000);
  let collector: TestCollector;
  beforeEach(async () => (collector = await start(['--peer-messages-per-second', '100000'])));
  afterEach(() => collector.stop());

  const made = SIZES.map((rows, i) => {
    const firstEvent = SIZES.slice(0, i).reduce((a, b) => a + b, 0);
    return batch(i + 1, Array<RowSpec>(rows).fill({}), { firstEvent: String(firstEvent) });
  });

  // Single messages on one connection, all under way at the same time, as after a fallback.
  it('out of order and repeated, all at once: counted once, and none lost', async () => {
    let lives = 0;
    const orders = fc.tuple(fc.array(fc.nat(SIZES.length - 1), { maxLength: 6 }), fc.infiniteStream(fc.nat(1000)));
    await fc.assert(
      fc.asyncProperty(orders, async ([repeats, random]) => {
        lives += 1;
        const cuid = `${lives.toString(16).padStart(8, '0')}${CUID.slice(8)}`;
        const who = { cuid, proxyId: `p${lives}`, ip: `10.1.${lives >> 8}.${lives & 255}` };
        await collector.call('Ingest.ReportOnce', { hello: hello(who) });
        const arriving = [...made.keys(), ...repeats]
          .map(index => ({ index, at: random.next().value as number }))
          .sort((a, b) => a.at - b.at);
        await Promise.all(
          arriving.map(({ index }) =>
            collector.call('Ingest.ReportOnce', { hello: hello(who), batches: [made[index]!] }),
          ),
        );
        const life = await collector.call('Registry.GetInstance', { cuid });
        assert.deepEqual([life['events'], life['reportsLost'], life['eventsLost']], [String(TOTAL), '0', '0']);
      }),
      { numRuns: 40 },
    );
    collector.clock.advanceMs(SETTLE_MS);
    const { text } = await collector.get('/metrics');
    assert.match(text, /reports_lost_total\{[^}]*\} 0\n/);
  });

  for (const offsetMs of [HOUR_MS, -HOUR_MS]) {
    it(`from a clock that is ${offsetMs / HOUR_MS} h off: told, taken out, and no duration below 0`, async () => {
      const nowUs = collector.clock.nowUs();
      const [mine, theirs] = [String(nowUs), String(nowUs + offsetMs * 1000)];
      const one = (rows: RowSpec[], at: string, ids: Plain): Plain => {
        const { events, ...rest } = batch(1, rows);
        return { ...rest, events: { ...(events as Plain), baseUnixUs: at, ...ids } };
      };
      const shared = { keyHi: ['7', '7'], keyLo: ['7', '7'] };
      const caller = [
        { flags: ENTRY, durationUs: 9000 },
        { flags: CALL, peerCuid: OTHER_CUID, durationUs: 8000 },
      ];
      await collector.call('Ingest.ReportOnce', {
        hello: hello({ bootEpoch: '0' }),
        batches: [one(caller, mine, { ...shared, eventId: ['1', '2'] })],
        sentUnixUs: mine,
      });
      await collector.call('Ingest.ReportOnce', {
        hello: hello({ cuid: OTHER_CUID, proxyId: 'p2', ip: '10.0.0.8', service: 'stock.shop', bootEpoch: '0' }),
        batches: [one([{ peerCuid: CUID, durationUs: 7000 }], theirs, { keyHi: ['7'], keyLo: ['7'], eventId: ['2'] })],
        sentUnixUs: theirs,
      });
      const life = await collector.call('Registry.GetInstance', { cuid: OTHER_CUID });
      assert.equal(life['clockOffsetMs'], offsetMs);
      assert.equal(life['state'], 'INSTANCE_STATE_LIVE');
      const id = '00000000000000070000000000000007';
      const shown = await collector.call('Transactions.Get', { id });
      assert.equal(shown['state'], 'TRANSACTION_STATE_SUCCEEDED');
      const events = shown['events'] as {
        started: { seconds: string };
        duration: { seconds: string; nanos: number };
      }[];
      assert.deepEqual(
        (shown['events'] as Plain[]).map(event => event['service']),
        ['payment.shop', 'stock.shop'],
      );
      for (const { started, duration } of events) {
        assert.ok(Math.abs(Number(started.seconds) - nowUs / 1e6) < 2, started.seconds);
        assert.ok(Number(duration.seconds) >= 0 && duration.nanos >= 0);
      }
    });
  }
});
