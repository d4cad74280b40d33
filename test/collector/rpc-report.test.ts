import assert from 'node:assert/strict';
import { status as Code } from '@grpc/grpc-js';
import { MemoryStore } from '../../collector/src/store/memory.js';
import type { PutResult, StoredLife } from '../../collector/src/store/store.js';
import { SETTLE_MS } from '../../collector/src/ingest/settling-sum.js';
import { batch, CUID, hello, OTHER_CUID, type Plain } from './ingest-support.js';
import { start, until, type TestCollector } from './rpc-support.js';

const acksOf = (reply: Plain): unknown => reply['acks'];
const ack = (seq: number, durable = false): Plain[] => [{ producer: '11', seq: String(seq), durable }];

/** Has no room for lives at first. */
class FullStore extends MemoryStore {
  readonly order: string[] = [];
  full = true;
  override putLife(life: StoredLife): Promise<void> {
    this.order.push(this.full ? 'refused' : 'life');
    return this.full ? Promise.reject(new Error('no room')) : super.putLife(life);
  }
  override putBatches(...puts: Parameters<MemoryStore['putBatches']>): Promise<PutResult[]> {
    this.order.push('batches');
    return super.putBatches(...puts);
  }
}

describe('report stream', function () {
  this.timeout(30_000);
  let collector: TestCollector;
  beforeEach(async () => (collector = await start()));
  afterEach(() => collector.stop());

  const instance = (cuid = CUID): Promise<Plain> => collector.call('Registry.GetInstance', { cuid });
  const metric = async (line: RegExp): Promise<string | undefined> =>
    line.exec((await collector.get('/metrics')).text)?.[1];

  const lost = (): Promise<(string | undefined)[]> =>
    Promise.all([
      metric(/reports_lost_total\{destination_service="payment.shop"\} (\d+)/),
      metric(/events_lost_total\{destination_service="payment.shop"\} (\d+)/),
    ]);

  it('acknowledges a batch once it is stored, and answers with both clocks', async () => {
    const stream = collector.report();
    const reply = await stream.ask({ hello: hello(), batches: [batch(1, [{}, {}])], sentUnixUs: '1699999999000000' });
    assert.deepEqual(acksOf(reply), ack(1));
    assert.equal(reply['receivedUnixUs'], '1700000000000000');
    assert.equal(reply['echoSentUnixUs'], '1699999999000000');
    const life = await instance();
    assert.equal(life['events'], '2');
    assert.equal(life['clockOffsetMs'], -1000);
    assert.equal(life['transport'], 'stream');
  });

  it('counts a replay once, on the same stream and after a reconnect', async () => {
    const first = collector.report();
    await first.ask({ hello: hello(), batches: [batch(1, [{}]), batch(2, [{}])] });
    assert.deepEqual(acksOf(await first.ask({ batches: [batch(1, [{}])] })), ack(2));
    first.call.cancel();
    const second = collector.report();
    const replayed = await second.ask({ hello: hello(), batches: [batch(1, [{}]), batch(2, [{}]), batch(3, [{}])] });
    assert.deepEqual(acksOf(replayed), ack(3));
    const life = await instance();
    assert.deepEqual([life['events'], life['reportsLost'], life['state']], ['3', '0', 'INSTANCE_STATE_LIVE']);
    assert.equal(await metric(/ingest_batches_total\{result="replayed"\} (\d+)/), '3');
  });

  it('puts a life that the store had no room for before the batches that tell of it', async () => {
    const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };
    const store = new FullStore({ retainMs: 1000, logBytesMax: 1e6, positionsMax: 100, log: quiet });
    const one = await start([], undefined, {}, store);
    try {
      const stream = one.report();
      await stream.ask({ hello: hello() });
      store.full = false;
      await stream.ask({ batches: [batch(1, [{}])] });
      await stream.ask({ batches: [batch(2, [{}])] });
      assert.deepEqual(store.order, ['refused', 'life', 'batches', 'batches']);
    } finally {
      await one.stop();
    }
  });

  it('goes on telling a proxy that lives, whoever claims its address', async () => {
    const enforcing = { rollbackMode: 'ROLLBACK_MODE_ENFORCE' };
    const [first, second] = [collector.report(), collector.report()];
    await first.ask({ hello: hello(enforcing) });
    await second.ask({ hello: hello({ ...enforcing, proxyId: 'another', cuid: OTHER_CUID, service: 'cart.shop' }) });
    assert.equal((await instance())['state'], 'INSTANCE_STATE_GONE');
    await first.ask({ heartbeat: {} });
    assert.equal((await instance())['state'], 'INSTANCE_STATE_LIVE');
    assert.equal((await collector.call('Rollback.Kill', { reason: 'a test' }))['proxies'], 2);
  });

  it('counts a gap exactly, in reports and in events', async () => {
    const stream = collector.report();
    await stream.ask({ hello: hello(), batches: [batch(1, [{}, {}])] });
    const reply = await stream.ask({ batches: [batch(4, [{}], { firstEvent: '9', droppedEvents: '5' })] });
    assert.deepEqual(acksOf(reply), ack(4));
    const life = await instance();
    assert.deepEqual([life['events'], life['reportsLost'], life['eventsLost']], ['3', '2', '12']);
    assert.deepEqual(await lost(), ['0', '0'], 'it may only be late');
    collector.clock.advanceMs(SETTLE_MS);
    assert.deepEqual(await lost(), ['2', '12']);
  });

  it('takes back what was lost when it comes late, but no counter goes down', async () => {
    const stream = collector.report();
    await stream.ask({ hello: hello(), batches: [batch(1, [{}, {}]), batch(3, [{}, {}]), batch(5, [{}, {}])] });
    const told = async (): Promise<unknown[]> => {
      const life = await instance();
      return [life['events'], life['reportsLost'], life['eventsLost']];
    };
    assert.deepEqual(await told(), ['6', '2', '4']);
    const reply = await stream.ask({ batches: [batch(2, [{}, {}])] });
    assert.deepEqual([acksOf(reply), await told()], [ack(5), ['8', '1', '2']]);
    collector.clock.advanceMs(SETTLE_MS);
    assert.deepEqual(await lost(), ['1', '2']);
    await stream.ask({ batches: [batch(4, [{}, {}])] });
    assert.deepEqual(
      [await told(), await lost()],
      [
        ['10', '0', '0'],
        ['1', '2'],
      ],
      'too late for the counter',
    );
    await stream.ask({ batches: [batch(8, [{}, {}])] });
    collector.clock.advanceMs(SETTLE_MS);
    assert.deepEqual(
      [await told(), await lost()],
      [
        ['12', '2', '4'],
        ['2', '4'],
      ],
      'set against what is lost next',
    );
  });

  it('counts the missing tail of a life that ends', async () => {
    const stream = collector.report();
    await stream.ask({ hello: hello(), batches: [batch(1, [{}, {}])] });
    await stream.ask({
      hello: hello({ producers: [{ id: '11', nextSeq: '4', batchedEvents: '8', droppedEvents: '1' }] }),
    });
    await stream.ask({ goodbye: { reason: 'stopped' } });
    const life = await until('tail counted', async () => {
      const now = await instance();
      return now['reportsLost'] === '0' ? undefined : now;
    });
    assert.deepEqual([life['reportsLost'], life['eventsLost'], life['unclean']], ['2', '7', false]);
  });

  it('acknowledges several producers of one proxy each on its own', async () => {
    const stream = collector.report();
    const reply = await stream.ask({
      hello: hello(),
      batches: [batch(1, [{}]), batch(1, [{}], { producer: '22' }), batch(2, [{}])],
    });
    assert.deepEqual(acksOf(reply), [...ack(2), { producer: '22', seq: '1', durable: false }]);
  });

  it('wants a hello first', async () => {
    const stream = collector.report();
    stream.send({ batches: [batch(1, [{}])] });
    const { code, details } = await stream.ended;
    assert.deepEqual([code, details], [Code.INVALID_ARGUMENT, 'hello: is missing, the first message must carry it']);
  });

  it('refuses a bad message naming field, value and range, and keeps what came before', async () => {
    const stream = collector.report();
    await stream.ask({ hello: hello(), batches: [batch(1, [{}])] });
    stream.send({ batches: [{ producer: '11', seq: '2', events: { rows: 5000 } }] });
    const { code, details } = await stream.ended;
    assert.deepEqual([code, details], [Code.INVALID_ARGUMENT, 'batches[0].events.rows: is 5000, must be 1 to 4096']);
    assert.equal((await instance())['events'], '1');
  });

  it('refuses a message past the size limit and stays up', async () => {
    await collector.stop();
    collector = await start(['--message-bytes-max', '64KiB']);
    const stream = collector.report();
    stream.send({ hello: hello(), goodbye: { reason: 'x'.repeat(70_000) } });
    assert.equal((await stream.ended).code, Code.RESOURCE_EXHAUSTED);
    assert.deepEqual(acksOf(await collector.report().ask({ hello: hello(), batches: [batch(1, [{}])] })), ack(1));
  });

  it('slows a peer down that sends too much, with a time to come back', async () => {
    await collector.stop();
    collector = await start(['--peer-messages-per-second', '2']);
    const stream = collector.report();
    for (let i = 0; i < 6; i++) stream.send({ hello: hello() });
    const { code, details } = await stream.ended;
    assert.equal(code, Code.RESOURCE_EXHAUSTED);
    assert.match(details, /peer-messages-per-second/);
    const replies = [
      await stream.next(),
      await stream.next(),
      await stream.next(),
      await stream.next(),
      await stream.next(),
    ];
    assert.deepEqual(replies.at(-1)!['hints'], { retryAfterMs: 500 });
  });

  it('limits how many streams are open', async () => {
    await collector.stop();
    collector = await start(['--streams-max', '1']);
    const first = collector.report();
    await first.ask({ hello: hello() });
    const second = collector.report();
    second.send({ hello: hello({ cuid: OTHER_CUID, proxyId: 'p2' }) });
    assert.equal((await second.ended).code, Code.RESOURCE_EXHAUSTED);
    first.call.cancel();
    await until('room again', async () => ((await metric(/report_streams (\d+)/)) === '0' ? true : undefined));
    await collector.report().ask({ hello: hello() });
  });

  it('ends a stream that is silent for 30 s', async () => {
    const stream = collector.report();
    await stream.ask({ hello: hello() });
    collector.clock.advanceMs(29_000);
    await stream.ask({ heartbeat: {} });
    collector.clock.advanceMs(29_000);
    collector.running.tick();
    await stream.ask({ heartbeat: {} });
    collector.clock.advanceMs(30_001);
    collector.running.tick();
    const { code, details } = await stream.ended;
    assert.deepEqual([code, details], [Code.DEADLINE_EXCEEDED, 'silent for 30 s']);
    assert.equal((await instance())['state'], 'INSTANCE_STATE_SILENT');
    collector.clock.advanceMs(300_000);
    collector.running.tick();
    const life = await instance();
    assert.deepEqual([life['state'], life['unclean']], ['INSTANCE_STATE_GONE', true]);
  });

  it('lets a new stream of the same proxy take the place of the old one', async () => {
    const first = collector.report();
    await first.ask({ hello: hello() });
    const second = collector.report();
    await second.ask({ hello: hello() });
    assert.equal((await first.ended).code, Code.ABORTED);
    await second.ask({ heartbeat: {} });
    assert.equal((await instance())['state'], 'INSTANCE_STATE_LIVE');
  });

  it('calls a life unclean when the proxy comes back as another one', async () => {
    const first = collector.report();
    await first.ask({ hello: hello(), batches: [batch(1, [{}, {}])], status: { inFlight: 2 } });
    first.call.cancel();
    collector.clock.advanceMs(2000);
    await collector.report().ask({ hello: hello({ cuid: OTHER_CUID, bootEpoch: '1700000001000000' }) });
    const life = await instance();
    assert.deepEqual([life['state'], life['unclean']], ['INSTANCE_STATE_GONE', true]);
    assert.ok(Number(life['eventsLostMax']) >= 2);
    assert.equal(await metric(/lives_unclean_total\{destination_service="payment.shop"\} (\d+)/), '1');
  });

  it('takes single messages of proxies that cannot stream', async () => {
    const reply = await collector.call('Ingest.ReportOnce', { hello: hello(), batches: [batch(1, [{}])] });
    assert.deepEqual(acksOf(reply), ack(1));
    await collector.call('Ingest.ReportOnce', { hello: hello(), batches: [batch(1, [{}]), batch(2, [{}])] });
    const life = await instance();
    assert.deepEqual([life['events'], life['transport']], ['2', 'unary']);
    await assert.rejects(collector.call('Ingest.ReportOnce', {}), { code: Code.INVALID_ARGUMENT });
    collector.clock.advanceMs(179_000);
    assert.equal((await instance())['state'], 'INSTANCE_STATE_LIVE');
    collector.clock.advanceMs(2000);
    assert.equal((await instance())['state'], 'INSTANCE_STATE_SILENT');
  });

  it('answers what is under way when the proxy half-closes', async () => {
    const stream = collector.report();
    stream.send({ hello: hello(), batches: [batch(1, [{}])] });
    stream.call.end();
    assert.deepEqual(acksOf(await stream.next()), ack(1));
    assert.equal((await stream.ended).code, Code.OK);
  });

  it('keeps what thousands of pipelined messages say', async () => {
    const stream = collector.report();
    const messages = 3000;
    stream.send({ hello: hello() });
    for (let seq = 1; seq <= messages; seq++) stream.send({ batches: [batch(seq, [{}, {}, {}])] });
    stream.call.end();
    assert.equal((await stream.ended).code, Code.OK);
    const life = await instance();
    assert.deepEqual([life['events'], life['reportsLost']], [String(messages * 3), '0']);
  });
});
