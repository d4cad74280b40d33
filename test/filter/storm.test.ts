/** A storm of directives: most are repeats, many come late. */
import assert from 'node:assert/strict';
import type { Pair } from '../support/proxy-wasm-host.js';
import { directive, hashes, idWords, Kind } from './directives.js';
import { Random } from './random.js';
import { assertAlive, Sidecar } from './sidecar.js';
import type { Directive } from './wire.js';

const PER_SECOND = 10_000;
const FRESH_PER_SECOND = 100;
/** Of directives in the order of their numbers, this share is overtaken by the next one. */
const OVERTAKEN_RATIO = 0.2;
/** One message of the collector. */
const PER_MESSAGE = 64;
const SECONDS = process.env['TEST_LONG'] === '1' ? 60 : 10;
/** Repeats are of one of the last so many. */
const REMEMBERED = 1000;
const BUDGET = { budgetPpm: 200_000, budgetMin: 10 };
const CALLS_PER_SECOND = 50;
const BUDGET_SECONDS = 10;
/** The filter counts in two windows of 5 s; any 10 s touch three. */
const WINDOWS_TOUCHED = 3 / 2;

const trace = (number: number): string => number.toString(16).padStart(32, 'a');
const doom = (number: number): Directive =>
  directive(Kind.Doom, {
    keys: idWords(trace(number)),
    refuse: hashes(['pay.shop.svc.cluster.local', 'POST /charge']),
    ttlMs: 300_000,
    ...BUDGET,
  });

function call(sidecar: Sidecar, number: number): boolean {
  const rawHeaders: Pair[] = [
    [':authority', 'pay.shop'],
    [':path', '/charge'],
    [':method', 'POST'],
    [':scheme', 'http'],
    ['traceparent', `00-${trace(number)}-00f067aa0ba902b7-01`],
  ];
  return sidecar.callOut({ rawHeaders }).localReply !== undefined;
}

describe('10,000 directives a second', function () {
  this.timeout(900_000);

  it(`for ${SECONDS} s, 99 % of them repeats: each takes effect once, and budgets hold`, () => {
    const random = new Random(9);
    const sidecar = new Sidecar({ config: { rollback: { mode: 'enforce' } } });
    sidecar.connect();
    const sent: Directive[] = [];
    const expected = new Set<string>();
    const accepted: number[] = [];
    const calls: number[] = [];
    const refused: number[] = [];
    let highest = 0;
    for (let second = 0; second < SECONDS; second++) {
      const fresh = Array.from({ length: FRESH_PER_SECOND }, (_, i) => doom(second * FRESH_PER_SECOND + i));
      for (let i = 0; i + 1 < fresh.length; i++) {
        if (random.chance(OVERTAKEN_RATIO)) [fresh[i], fresh[i + 1]] = [fresh[i + 1]!, fresh[i]!];
      }
      const storm = Array.from({ length: PER_SECOND }, (_, i) => {
        const isFresh = i % (PER_SECOND / FRESH_PER_SECOND) === 0;
        const one = isFresh
          ? fresh[i / (PER_SECOND / FRESH_PER_SECOND)]!
          : random.pick(sent.slice(-REMEMBERED).concat(fresh[0]!));
        if (isFresh) sent.push(one);
        // What a filter has to make of it: only what is above everything before.
        if (Number(one.version) > highest) {
          highest = Number(one.version);
          expected.add(one.version);
          accepted.push(sent.length - 1);
        }
        return one;
      });
      calls.push(0);
      refused.push(0);
      const messages = Math.ceil(storm.length / PER_MESSAGE);
      for (let at = 0; at < messages; at++) {
        sidecar.collector.direct(...storm.slice(at * PER_MESSAGE, (at + 1) * PER_MESSAGE));
        sidecar.advance(1000 / messages);
        if (at % Math.floor(messages / CALLS_PER_SECOND) !== 0) continue;
        calls[second]! += 1;
        if (call(sidecar, second * FRESH_PER_SECOND)) refused[second]! += 1;
      }
      assertAlive(sidecar);
    }
    sidecar.advance(3000);
    const acks = sidecar.collector.requests.flatMap(({ request }) => request.directiveAcks.map(ack => ack.version));
    assert.equal(new Set(acks).size, acks.length, 'each is told to be in force once');
    assert.deepEqual(new Set(acks), expected);
    assert.ok(expected.size > SECONDS * FRESH_PER_SECOND * (1 - 2 * OVERTAKEN_RATIO), 'most of them were in order');
    const sum = (counts: readonly number[]): number => counts.reduce((total, count) => total + count, 0);
    const share = BUDGET.budgetPpm / 1e6;
    for (let from = 0; from + BUDGET_SECONDS <= SECONDS; from++) {
      const [within, of] = [refused, calls].map(counts => sum(counts.slice(from, from + BUDGET_SECONDS)));
      assert.ok(within! > 0 && within! <= of! * share * WINDOWS_TOUCHED, `${within} of ${of} refused`);
    }
    assert.ok(sum(refused) <= sum(calls) * share + BUDGET.budgetMin, `${sum(refused)} of ${sum(calls)} refused`);
  });
});
