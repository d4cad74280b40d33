import assert from 'node:assert/strict';
import {
  decodeMessage,
  pieces,
  type ListNews,
  type Message,
  type StateMessage,
} from '../../../collector/src/replicas/messages.js';
import type { InFlight } from '../../../collector/src/ingest/report.js';
import { BUS_BYTES_MAX } from '../../../collector/src/store/shared.js';

const ITEM: InFlight = {
  eventId: '0123456789abcdef',
  keyHi: '0123456789abcdef',
  keyLo: '0123456789abcdef',
  requestHi: '0123456789abcdef',
  requestLo: '0123456789abcdef',
  operation: `POST /${'o'.repeat(100)}`,
  peerService: 'payment.shop.svc.cluster.local',
  peerCuid: '',
  ageMs: 60_000,
  flags: 0,
};
const REQUESTS = Array.from({ length: 256 }, () => ITEM);

const state = (lists: readonly ListNews[], lives: StateMessage['lives'] = []): StateMessage => ({
  ...{ type: 'state', lives, lists, told: [['v1', 3]], proxies: 2, streams: 250, version: 9 },
  ...{ sinceUs: 1, ledgerSinceUs: 1, fresh: false },
});
const read = (message: Message): StateMessage[] => [...pieces(message)].map(one => decodeMessage(one) as StateMessage);

describe('messages between replicas', () => {
  it('fit onto the bus when every sidecar has as many requests running as it may tell of', () => {
    const lists = Array.from({ length: 250 }, (_, i) => ({
      cuid: `c${i}`,
      lists: [{ producer: '1', items: REQUESTS, omitted: 0 }],
    }));
    const life = { cuid: 'c', connected: true, callback: false, ageMs: 1, offsetUs: 0, errorUs: 0 };
    const all = [...pieces(state(lists, [{ ...life, statusAgeMs: 0, jobs: [] }]))];
    assert.ok(all.length > 1 && all.every(({ length }) => length <= BUS_BYTES_MAX), `${all.length} messages`);
    const told = all.map(one => decodeMessage(one) as StateMessage);
    assert.deepEqual(
      told.flatMap(one => one.lists.map(({ cuid }) => cuid)),
      lists.map(({ cuid }) => cuid),
    );
    assert.equal(told.flatMap(({ lives }) => lives).length, 1);
    assert.deepEqual(
      told.flatMap(one => one.told),
      [['v1', 3]],
    );
    assert.ok(told.every(({ streams }) => streams === 250));
  });

  it('are one where one is enough', () => assert.equal(read(state([])).length, 1));

  it('divide what has begun, in its order', () => {
    const items = Array.from({ length: 100 }, (_, i) => [`c${i}`, REQUESTS] as const);
    const all = [...pieces({ type: 'began', items })];
    assert.ok(all.length > 1 && all.every(({ length }) => length <= BUS_BYTES_MAX));
    const told = all.flatMap(one => (decodeMessage(one) as Message & { type: 'began' }).items.map(([cuid]) => cuid));
    assert.deepEqual(
      told,
      items.map(([cuid]) => cuid),
    );
  });
});
