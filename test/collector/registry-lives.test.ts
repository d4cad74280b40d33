import assert from 'node:assert/strict';
import { ManualClock } from '../../collector/src/clock.js';
import { InvalidArgument, Exhausted } from '../../collector/src/errors.js';
import { decodeReport } from '../../collector/src/ingest/decode-report.js';
import type { Hello } from '../../collector/src/ingest/report.js';
import { toStored, type Life } from '../../collector/src/registry/life.js';
import { Registry, type RegistryOptions } from '../../collector/src/registry/registry.js';
import { CUID, encodeReport, hello, OTHER_CUID, type Plain } from './ingest-support.js';

const T0 = 1_700_000_000_000_000;
const S = 1_000_000;
const THIRD_CUID = '11111111-2222-4333-8444-555555555555';

const said = (extra: Plain = {}): Hello =>
  decodeReport(encodeReport({ hello: hello({ bootEpoch: '0', ...extra }) })).hello!;

function setUp(options: Partial<RegistryOptions> = {}): { clock: ManualClock; registry: Registry } {
  const clock = new ManualClock(T0);
  const registry = new Registry({ clock, retainMs: 3_600_000, retainMax: 100, instancesMax: 100, ...options });
  return { clock, registry };
}

describe('lives', () => {
  it('run out: silent after 30 s, gone after 5 min', () => {
    const { clock, registry } = setUp();
    const { life } = registry.hello(said(), 'stream', 0);
    clock.advanceMs(30_000);
    assert.equal(registry.stateOf(life), 'INSTANCE_STATE_LIVE');
    clock.advanceMs(1);
    assert.equal(registry.stateOf(life), 'INSTANCE_STATE_SILENT');
    clock.advanceMs(270_000);
    registry.tick();
    assert.deepEqual([registry.stateOf(life), life.clean, life.endedUs], ['INSTANCE_STATE_GONE', false, T0 + 300 * S]);
  });

  it('run out by time that passed, not by a wall clock that was set', () => {
    const { clock, registry } = setUp();
    const { life } = registry.hello(said(), 'stream', 0);
    clock.setWallMs(3_600_000);
    registry.tick();
    assert.equal(registry.stateOf(life), 'INSTANCE_STATE_LIVE');
    clock.setWallMs(-7_200_000);
    clock.advanceMs(31_000);
    assert.equal(registry.stateOf(life), 'INSTANCE_STATE_SILENT');
  });

  it('of unary senders are silent after three idle periods', () => {
    const { clock, registry } = setUp();
    const { life } = registry.hello(said({ reportIdleMs: 20_000 }), 'unary', 0);
    clock.advanceMs(60_000);
    assert.equal(registry.stateOf(life), 'INSTANCE_STATE_LIVE');
    clock.advanceMs(1);
    assert.equal(registry.stateOf(life), 'INSTANCE_STATE_SILENT');
  });

  it('are the same when the proxy reconnects', () => {
    const { registry } = setUp();
    const first = registry.hello(said(), 'stream', 0);
    const second = registry.hello(said(), 'stream', 0);
    assert.equal(first.life, second.life);
    assert.equal(registry.size, 1);
  });

  it('come back when they were given up too early', () => {
    const { clock, registry } = setUp();
    const { life } = registry.hello(said(), 'stream', 0);
    clock.advanceMs(300_001);
    registry.tick();
    assert.equal(registry.stateOf(life), 'INSTANCE_STATE_GONE');
    registry.hello(said(), 'stream', 0);
    registry.heard(life, 0);
    assert.equal(registry.stateOf(life), 'INSTANCE_STATE_LIVE');
    assert.equal(registry.whoHad('10.0.0.7', 0, clock.nowUs(), '', '').holders[0]?.life, life);
  });

  it('end unclean when their proxy starts as another life', () => {
    const { clock, registry } = setUp();
    const { life } = registry.hello(said(), 'stream', 0);
    clock.advanceMs(10_000);
    const next = registry.hello(said({ cuid: OTHER_CUID, bootEpoch: String(T0 + 8 * S) }), 'stream', clock.nowUs());
    assert.deepEqual(next.ended, [life]);
    assert.deepEqual([life.clean, life.endedUs, registry.livesUnclean], [false, T0 + 8 * S, 1]);
  });

  it('end cleanly after a goodbye', () => {
    const { clock, registry } = setUp();
    const { life } = registry.hello(said(), 'stream', 0);
    registry.goodbye(life);
    clock.advanceMs(10_000);
    assert.deepEqual(registry.hello(said({ cuid: OTHER_CUID }), 'stream', 0).ended, []);
    assert.deepEqual([life.clean, registry.livesUnclean], [true, 0]);
  });

  it('take the container CUID and keep the former one as alias', () => {
    const { registry } = setUp();
    const { life } = registry.hello(said(), 'stream', 0);
    const again = registry.hello(
      said({ cuid: OTHER_CUID, scope: 'CUID_SCOPE_CONTAINER', cuidAliases: [CUID] }),
      'stream',
      0,
    );
    assert.equal(again.life, life);
    assert.equal(registry.find(CUID), life);
    assert.equal(registry.find(OTHER_CUID), life);
    assert.deepEqual([life.cuid, life.cuidAliases], [OTHER_CUID, [CUID]]);
  });

  it('cannot be taken over by another proxy while they are connected', () => {
    const { registry } = setUp();
    const { life } = registry.hello(said(), 'stream', 0);
    registry.stream(life, 1);
    assert.throws(() => registry.hello(said({ proxyId: 'intruder' }), 'stream', 0), InvalidArgument);
  });

  it('are refused past their number, and room comes when some end', () => {
    const { registry } = setUp({ instancesMax: 1 });
    const { life } = registry.hello(said(), 'stream', 0);
    const other = said({ cuid: OTHER_CUID, proxyId: 'p2', ip: '10.0.0.8' });
    assert.throws(() => registry.hello(other, 'stream', 0), Exhausted);
    registry.goodbye(life);
    registry.hello(other, 'stream', 0);
  });

  it('are forgotten by age and by number, longest ended first', () => {
    const { clock, registry } = setUp({ retainMax: 2 });
    for (let i = 0; i < 4; i++) {
      const { life } = registry.hello(
        said({ cuid: `${i}${CUID.slice(1)}`, ip: `10.0.1.${i}`, proxyId: `p${i}` }),
        'stream',
        0,
      );
      registry.goodbye(life);
    }
    registry.tick();
    assert.deepEqual([registry.size, registry.livesEvicted, registry.find(`0${CUID.slice(1)}`)], [2, 2, undefined]);
    clock.advanceMs(3_600_001);
    registry.tick();
    assert.equal(registry.size, 0);
    assert.equal(registry.whoHad('10.0.1.3', 0, clock.nowUs(), '', '').unknown, true);
  });

  it('state the most events that can be missing when they end unclean', () => {
    const { clock, registry } = setUp();
    const { life } = registry.hello(said(), 'stream', 0);
    life.rate = { minute: 0, now: 100, before: 0, sinceMs: 0 };
    registry.status(life, { inFlight: 3, queueSource: 0, ageMs: 0, windowMs: 0, requests: 0, failures: 0 });
    clock.advanceMs(2000);
    registry.hello(said({ cuid: OTHER_CUID }), 'stream', 0);
    assert.equal(life.eventsLostMax, 203);
  });

  it('survive being stored and given back', () => {
    const { clock, registry } = setUp();
    const { life } = registry.hello(said({ cuidAliases: [THIRD_CUID] }), 'stream', 0);
    registry.goodbye(registry.hello(said({ cuid: OTHER_CUID, proxyId: 'p2', ip: '10.0.0.8' }), 'stream', 0).life);
    const other = setUp();
    const stored: Life[] = [...registry.all()];
    for (const one of stored)
      other.registry.restore(JSON.parse(JSON.stringify(toStored(one))) as ReturnType<typeof toStored>);
    const ask = (of: Registry, ip: string): unknown =>
      of.whoHad(ip, 0, clock.nowUs(), '', '').holders.map(holder => holder.life.cuid);
    assert.deepEqual(ask(other.registry, '10.0.0.7'), ask(registry, '10.0.0.7'));
    assert.deepEqual(ask(other.registry, '10.0.0.8'), ask(registry, '10.0.0.8'));
    assert.equal(other.registry.find(THIRD_CUID)?.cuid, life.cuid);
    assert.equal(other.registry.hello(said(), 'stream', 0).life.firstSeenUs, T0);
  });
});

describe('who had an address', () => {
  /** A lived from T0 and was heard until +60 s; B started on the same address at +100 s. */
  function twoLives(goodbye: boolean): {
    registry: Registry;
    clock: ManualClock;
    who: (s: number, port?: number) => unknown;
  } {
    const { clock, registry } = setUp();
    const { life: a } = registry.hello(said(), 'stream', 0);
    clock.advanceMs(60_000);
    registry.heard(a, 0);
    if (goodbye) registry.goodbye(a);
    clock.advanceMs(45_000);
    const boot = { cuid: OTHER_CUID, proxyId: 'p2', bootEpoch: String(clock.nowUs() - 5 * S) };
    const { life: b } = registry.hello(said(boot), 'stream', clock.nowUs());
    registry.stream(b, 1);
    const names = new Map([
      [a, 'A'],
      [b, 'B'],
    ]);
    const who = (s: number, port = 0): unknown => {
      const answer = registry.whoHad('10.0.0.7', port, T0 + s * S, '', '');
      const holders = answer.holders.map(holder => names.get(holder.life)).join('');
      return `${holders}${answer.ambiguous ? '?' : ''}${answer.unknown ? 'unknown' : ''}`;
    };
    return { registry, clock, who };
  }

  it('tells two lives on one address apart after a goodbye', () => {
    const { who } = twoLives(true);
    assert.deepEqual(
      [-1, 0, 30, 59.9, 60, 80, 99.9, 100, 105].map(s => who(s)),
      ['unknown', 'A', 'A', 'A', 'unknown', 'unknown', 'unknown', 'B', 'B'],
    );
  });

  it('says perhaps between the last word of a life without goodbye and the next life', () => {
    const { who, registry } = twoLives(false);
    assert.deepEqual(
      [0, 30, 60, 61, 99.9, 100, 105].map(s => who(s)),
      ['A', 'A', 'A', 'A?', 'A?', 'B', 'B'],
    );
    const { holders, note } = registry.whoHad('10.0.0.7', 0, T0 + 80 * S, '', '');
    assert.equal(holders[0]?.lastHeardUs, T0 + 60 * S);
    assert.equal(holders[0]?.span.toUs, T0 + 100 * S);
    assert.match(note, /was last heard at 2023-11-14T22:14:20.000Z; it ended without goodbye/);
  });

  it('says unknown once a life without goodbye counts as gone', () => {
    const { clock, registry } = setUp();
    const { life } = registry.hello(said(), 'stream', 0);
    clock.advanceMs(600_000);
    registry.tick();
    const at = (s: number): unknown => {
      const { ambiguous, unknown } = registry.whoHad('10.0.0.7', 0, T0 + s * S, '', '');
      return [ambiguous, unknown];
    };
    assert.deepEqual(
      [at(0), at(299), at(300), at(600)],
      [
        [false, false],
        [true, false],
        [false, true],
        [false, true],
      ],
    );
    assert.match(
      registry.whoHad('10.0.0.7', 0, T0 + 500 * S, '', '').note,
      new RegExp(`${life.cuid}, was last heard at`),
    );
  });

  it('names the silent life, and until when it is certain', () => {
    const { clock, registry } = setUp();
    registry.hello(said(), 'stream', 0);
    clock.advanceMs(40_000);
    const { holders, ambiguous, note } = registry.whoHad('10.0.0.7', 0, clock.nowUs(), '', '');
    assert.deepEqual([holders.length, holders[0]?.lastHeardUs, ambiguous], [1, T0, false]);
    assert.match(note, /silent since then/);
  });

  it('tells proxies that share an address apart by their ports', () => {
    const { clock, registry } = setUp();
    const { life: a } = registry.hello(said({ ports: [8080] }), 'stream', 0);
    registry.stream(a, 1);
    const { life: b, ended } = registry.hello(said({ cuid: OTHER_CUID, proxyId: 'p2', ports: [9090] }), 'stream', 0);
    assert.deepEqual(ended, []);
    const who = (port: number): unknown => {
      const { holders, ambiguous } = registry.whoHad('10.0.0.7', port, clock.nowUs(), '', '');
      return [holders.map(holder => holder.life), holders.map(holder => holder.port), ambiguous];
    };
    assert.deepEqual(who(8080), [[a], [8080], false]);
    assert.deepEqual(who(9090), [[b], [9090], false]);
    assert.deepEqual(who(0), [[a, b], [0, 0], true]);
    assert.deepEqual(who(41_000), [[a, b], [0, 0], true]);
  });

  it('keeps clusters and networks apart, and says when they differ', () => {
    const { clock, registry } = setUp();
    registry.hello(said(), 'stream', 0);
    registry.hello(said({ cuid: OTHER_CUID, proxyId: 'p2', cluster: 'c2' }), 'stream', 0);
    const both = registry.whoHad('10.0.0.7', 0, clock.nowUs(), '', '');
    assert.equal(both.ambiguous, true);
    assert.match(both.note, /different clusters or networks/);
    assert.equal(registry.whoHad('10.0.0.7', 0, clock.nowUs(), 'c2', '').holders[0]?.life.cuid, OTHER_CUID);
  });

  it('ends a silent life whose address another proxy takes', () => {
    const { clock, registry } = setUp();
    const { life } = registry.hello(said(), 'stream', 0);
    clock.advanceMs(5000);
    assert.deepEqual(registry.hello(said({ cuid: OTHER_CUID, proxyId: 'p2' }), 'stream', 0).ended, [life]);
  });

  it('believes a start time only by the distance on the proxy own clock', () => {
    const { clock, registry } = setUp();
    const hourAhead = T0 + 3_600 * S;
    registry.hello(said({ bootEpoch: String(hourAhead - 10 * S) }), 'stream', hourAhead);
    const at = (s: number): boolean => registry.whoHad('10.0.0.7', 0, clock.nowUs() + s * S, '', '').unknown;
    assert.deepEqual([at(-11), at(-10), at(0)], [true, false, false]);
  });

  it('finds one address however it is written', () => {
    const { clock, registry } = setUp();
    registry.hello(said({ ip: '2001:DB8:0:0:0:0:0:7' }), 'stream', 0);
    assert.equal(registry.whoHad('2001:db8::7', 0, clock.nowUs(), '', '').holders.length, 1);
    registry.hello(said({ cuid: OTHER_CUID, proxyId: 'p2', ip: '::ffff:10.0.0.9' }), 'stream', 0);
    assert.equal(registry.whoHad('10.0.0.9', 0, clock.nowUs(), '', '').holders.length, 1);
  });
});
