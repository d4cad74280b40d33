/** Bytes that were meant to be something: reports with what they say of directives and signals, and requests. */
import assert from 'node:assert/strict';
import { Client, credentials, status as Code, type ServiceError } from '@grpc/grpc-js';
import { service } from '../../../collector/src/rpc/protos.js';
import { Random } from '../../filter/random.js';
import type { Plain } from '../ingest-support.js';
import { until } from '../rpc-support.js';
import { hostOf, serviceOf, type Shop } from './shop.js';
import { failAfterTwo, planOf, startShop, verdictsOf } from './support.js';

const RUNS = process.env['TEST_LONG'] === '1' ? 100_000 : 3_000;
/** Calls under way at once. */
const CALLS = 50;
const EDITS_MAX = 6;
const SEED = Number(process.env['MESHPULSE_SEED'] ?? 11);

/** What a mutated message may be answered with: taken, not understood, too much, or about something unknown. */
const EXPECTED = new Set([
  Code.OK,
  Code.INVALID_ARGUMENT,
  Code.NOT_FOUND,
  Code.RESOURCE_EXHAUSTED,
  Code.FAILED_PRECONDITION,
]);

type Call = { readonly path: string; readonly bytes: Buffer };

/** What is mutated. As it is, none of it decides, undoes or ends anything. */
function originals(key: string, signal: string): Call[] {
  const halves = [key.slice(0, 16), key.slice(16)].map(half => String(BigInt(`0x${half}`)));
  const began = {
    eventId: '77',
    keyHi: halves[0],
    keyLo: '99',
    operation: 'POST /checkout',
    flags: 2 | (2 << 20),
    ageMs: 20,
  };
  const events = {
    rows: 2,
    baseUnixUs: '1700000000000000',
    endOffsetUs: [10, 20],
    durationUs: [10, 10],
    keyHi: ['5', '5'],
    keyLo: ['6', '6'],
    eventId: ['7', '8'],
    operation: [1, 1],
    peerService: [2, 2],
    status: [503, 200],
    flags: [1 | (2 << 16) | (2 << 20), 1 | (1 << 16) | (2 << 20)],
    strings: ['', 'POST /reserve', hostOf('stock')],
  };
  const hello = {
    proxyId: 'sidecar~10.9.9.9~stranger-1.shop~cluster.local',
    cluster: 'east',
    cuid: '99999999-0000-4000-8000-000000000001',
    scope: 'CUID_SCOPE_PROXY',
    service: 'stranger.shop',
    workload: 'stranger',
    bootEpoch: '1700000000000000',
    producers: [{ id: '4242', nextSeq: '1' }],
    reportIntervalMs: 1000,
    reportIdleMs: 60_000,
    rollbackMode: 'ROLLBACK_MODE_ENFORCE',
    rollbackCallback: true,
  };
  const report = (parts: Plain): Call => {
    const method = service('Ingest')['ReportOnce']!;
    return { path: method.path, bytes: method.requestSerialize({ hello, ...parts }) };
  };
  const ask = (name: string, request: Plain): Call => {
    const method = service('Rollback')[name]!;
    return { path: method.path, bytes: method.requestSerialize(request) };
  };
  return [
    report({ began: [began] }),
    report({ directiveAcks: Array.from({ length: 20 }, (_, i) => ({ version: String(i), heldUs: i })) }),
    // Not the one whom this signal is for.
    report({
      signalResults: [
        { id: signal, status: 204 },
        { id: 'unknown', status: 500 },
      ],
    }),
    report({ batches: [{ producer: '4242', seq: '1', firstEvent: '0', events }] }),
    ask('Ack', { signal: 'ffffffffffffffff', step: '0000000000000007', by: 'stranger' }),
    ask('Trigger', { id: 'ffffffffffffffffffffffffffffffff', reason: 'test', actor: 'me' }),
    ask('GetPlan', { id: key }),
    ask('List', { states: ['ROLLBACK_STATE_STUCK'], service: serviceOf('payment'), pageSize: 5 }),
    ask('GetLedger', { pageSize: 5 }),
    // A scope that there is not. `Kill` is left out: a byte away from each of its requests is one that kills.
    ask('Override', { scope: 'nowhere/x', mode: 'ROLLBACK_MODE_OFF', ttl: { seconds: '60' }, reason: 'test' }),
  ];
}

function mutate(bytes: Buffer, random: Random): Buffer {
  let result = Buffer.from(bytes);
  for (let edits = 1 + random.below(EDITS_MAX); edits > 0; edits--) {
    const at = random.below(result.length + 1);
    const how = random.below(4);
    if (how === 0 && at < result.length) result.writeUInt8(random.below(256), at);
    else if (how === 1 && at < result.length) result.writeUInt8(result.readUInt8(at) ^ (1 << random.below(8)), at);
    else if (how === 2) result = result.subarray(0, at);
    else result = Buffer.concat([result.subarray(0, at), Buffer.from([random.below(256)]), result.subarray(at)]);
  }
  return result;
}

describe('mutated messages to the collector', function () {
  this.timeout(900_000);
  let shop: Shop;
  afterEach(() => shop.stop());

  it(`${RUNS} of them: no crash, and no effect that was not meant`, async () => {
    shop = await startShop(['--peer-messages-per-second', '100000']);
    await shop.teach(120);
    const key = await failAfterTwo(shop);
    shop.pass(1);
    const [first] = await planOf(shop, key);
    const before = await state(shop, key);
    const client = new Client(shop.collector.running.grpc, credentials.createInsecure());
    const bytes = (value: Buffer): Buffer => value;
    const call = ({ path, bytes: message }: Call): Promise<number> =>
      new Promise(resolve => client.makeUnaryRequest(path, bytes, bytes, message, error => resolve(codeOf(error))));
    const calls = originals(key, String(first!['signalId']));
    const random = new Random(SEED);
    const codes = new Map<number, number>();
    for (let done = 0; done < RUNS; done += CALLS) {
      const mutated = Array.from({ length: CALLS }, () => {
        const { path, bytes: message } = random.pick(calls);
        return { path, bytes: mutate(message, random) };
      });
      for (const code of await Promise.all(mutated.map(call))) codes.set(code, (codes.get(code) ?? 0) + 1);
    }
    client.close();
    const counted = [...codes].map(([code, count]) => `${Code[code]} ${count}`).join(', ');
    assert.deepEqual(
      [...codes.keys()].filter(code => !EXPECTED.has(code)),
      [],
      `${counted}; seed ${SEED}`,
    );
    assert.ok((codes.get(Code.OK) ?? 0) > RUNS / 20 && (codes.get(Code.INVALID_ARGUMENT) ?? 0) > RUNS / 20, counted);
    assert.deepEqual(await state(shop, key), before, `seed ${SEED}`);
    const { shipping } = shop.sidecars;
    const dooms = shipping.take('DOOM').length;
    await shop.fail();
    await until('it goes on', () => shipping.take('DOOM')[dooms]);
  });
});

/** What the library says of requests that are no protobuf of theirs counts as not understood; our own bugs do not. */
function codeOf(error: ServiceError | null): number {
  if (error === null) return Code.OK;
  const isUnread = error.code === Code.INTERNAL && error.details.startsWith('Error deserializing request');
  return isUnread ? Code.INVALID_ARGUMENT : error.code;
}

/** All that early rollback has decided, and what became of it. */
async function state(shop: Shop, key: string): Promise<unknown> {
  const { overrides, kills, text } = await shop.collector.call('Rollback.GetPolicy');
  const { audit, lines } = await shop.collector.call('Rollback.GetLedger', { pageSize: 1000 });
  const steps = (await planOf(shop, key)).map(({ signalId, state: at }) => [signalId, at]);
  // A failed call of an unknown kind may be asked about; that changes nothing.
  const told = Object.values(shop.sidecars).map(sidecar => sidecar.kinds().filter(kind => kind !== 'FLUSH'));
  return { verdicts: await verdictsOf(shop), overrides, kills, text, audit, lines, steps, told };
}
