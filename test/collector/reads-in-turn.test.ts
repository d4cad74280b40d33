import assert from 'node:assert/strict';
import { toJson, toText } from '../../collector/src/http/json.js';
import { page } from '../../collector/src/rpc/pages.js';
import { message } from '../../collector/src/rpc/protos.js';
import { ReadGate } from '../../collector/src/rpc/read-gate.js';
import { prepared, serialized } from '../../collector/src/rpc/serialized.js';
import { atOnce, type Pieces } from '../../collector/src/slices.js';
import { start } from './rpc-support.js';
import type { ServiceError } from '@grpc/grpc-js';

/** Work of about `ms`, in pieces of about 1 ms. */
function* busy<T>(ms: number, result: T): Pieces<T> {
  for (let done = 0; done < ms; done++) {
    const endMs = performance.now() + 1;
    while (performance.now() < endMs);
    yield;
  }
  return result;
}

describe('reads', () => {
  it('take turns: a short one does not wait for a long one, and timers for none', async () => {
    const gate = new ReadGate(10);
    const order: string[] = [];
    let turns = 0;
    const timer = setInterval(() => (turns += 1), 1);
    const long = gate.run(() => busy(100, 'long')).then(name => order.push(name));
    const short = gate.run(() => 'short').then(name => order.push(name));
    await Promise.all([long, short]);
    clearInterval(timer);
    assert.deepEqual(order, ['short', 'long']);
    assert.ok(turns >= 5, `${turns} turns of a timer in 100 ms of work`);
    assert.deepEqual([gate.size, gate.answered, gate.refused], [0, 2, 0]);
  });

  it('past their number are refused with a time, and taken again when there is room', async () => {
    const gate = new ReadGate(2);
    const two = [gate.run(() => busy(3, 1)), gate.run(() => busy(3, 2))];
    await assert.rejects(
      gate.run(() => 3),
      { name: 'Exhausted', message: /reads-max/, retryAfterMs: 1000 },
    );
    assert.deepEqual(await Promise.all(two), [1, 2]);
    assert.equal(await gate.run(() => 4), 4);
    assert.equal(gate.refused, 1);
  });

  it('that nobody waits for any more are not done, and one that fails takes no other with it', async () => {
    const gate = new ReadGate(10);
    let started = false;
    void gate.run(
      () => (started = true),
      () => true,
    );
    const failing = gate.run(() => {
      throw new RangeError('mine');
    });
    const well = gate.run(() => busy(2, 'well'));
    await assert.rejects(failing, { name: 'RangeError' });
    assert.equal(await well, 'well');
    assert.deepEqual([started, gate.size], [false, 0]);
  });

  it('are refused over gRPC and HTTP with when to come back', async () => {
    const collector = await start(['--reads-max', '1']);
    try {
      const ask = (): Promise<unknown> => collector.call('Registry.ListInstances').catch((e: unknown) => e);
      const asked = await someRefused(ask, answer => answer instanceof Error);
      const refused = asked.filter(one => one instanceof Error) as ServiceError[];
      assert.ok(refused.length < asked.length, 'all refused');
      for (const { code, details, metadata } of refused) {
        assert.deepEqual([code, metadata.get('retry-after-ms')], [8, ['1000']], details);
      }
      const read = (): Promise<Response> => fetch(`http://${collector.running.http}/api/v1/services`);
      const late = (await someRefused(read, ({ status }) => status === 429)).filter(({ status }) => status === 429);
      for (const { headers } of late) assert.equal(headers.get('retry-after'), '1');
      assert.match((await collector.get('/metrics')).text, /meshpulse_reads_total\{result="refused"\} [1-9]/);
    } finally {
      await collector.stop();
    }
  });
});

/** Twenty at once, again and again until some are refused: whether they meet is for the machine to say. */
async function someRefused<T>(ask: () => Promise<T>, isRefused: (answer: T) => boolean): Promise<T[]> {
  for (let round = 0; round < 50; round++) {
    const answers = await Promise.all(Array.from({ length: 20 }, ask));
    if (answers.some(isRefused)) return answers;
  }
  return assert.fail('of 50 rounds of 20 reads at once none was refused');
}

describe('answers in pieces', () => {
  const instances = Array.from({ length: 100 }, (_, n) => ({
    cuid: `c${n}`,
    ports: [1, 2, 300],
    state: 'INSTANCE_STATE_LIVE',
    firstSeen: { seconds: String(1_700_000_000 + n), nanos: 5000 },
    progress: Array.from({ length: n % 40 }, (_, job) => ({ job: `job ${job}`, done: String(2 ** 40 + job) })),
  }));

  it('are the bytes of the same message', () => {
    for (const length of [0, 1, 16, 17, 100]) {
      const value = { instances: instances.slice(0, length), nextPageToken: 'more' };
      const type = message('ListInstancesResponse');
      const inPieces = type.deserialize(atOnce(serialized('ListInstancesResponse', value)));
      assert.deepEqual(inPieces, type.deserialize(prepared('ListInstancesResponse', value)));
    }
  });

  it('are the text of the same JSON', () => {
    for (const length of [0, 1, 16, 17, 100]) {
      const value = { instances: instances.slice(0, length), nextPageToken: 'a "quoted"\n token' };
      const text = atOnce(toText('ListInstancesResponse', value));
      assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(toJson('ListInstancesResponse', value))));
    }
  });

  it('list every item once, in order, whatever the size of a page', () => {
    const all = Array.from({ length: 1000 }, (_, n) => `k${(n * 7919) % 1000}`.padEnd(5, '_'));
    for (const size of [1, 3, 100, 999, 1000]) {
      const seen: string[] = [];
      for (let token = ''; ;) {
        const { items, nextPageToken } = atOnce(
          page(all, key => (key.startsWith('k5') ? undefined : key), size, token),
        );
        seen.push(...items);
        if ((token = nextPageToken) === '') break;
      }
      assert.deepEqual(seen, all.filter(key => !key.startsWith('k5')).sort());
    }
  });

  it('name an item once that was moved while they were made', () => {
    function* moving(): Iterable<string> {
      yield* ['b', 'a', 'c', 'b', 'a'];
    }
    assert.deepEqual(atOnce(page(moving(), key => key, 2, '')).items, ['a', 'b']);
  });
});
