/** The same rows through the tables of the collector and through a model that is too plain to be wrong. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { batch, CALL, ENTRY, instance, T0, type TestRow } from './rows.js';
import { World, type Shown } from './world.js';

const SERVICES = ['a', 'b', 'c'] as const;

interface Told {
  readonly at: (typeof SERVICES)[number];
  readonly row: TestRow & { readonly event: string };
}

/** Few ids of each sort, so that rows meet, miss each other, and join what was apart; '' = none. */
const told: fc.Arbitrary<Told> = fc
  .record({
    at: fc.constantFrom(...SERVICES),
    key: fc.constantFrom('', '11', '12', 'ffffffff00000000ffffffff00000013', '14'),
    request: fc.constantFrom('', '80000000000000000000000000000021', '22'),
    event: fc.constantFrom('', '31', 'ffffffff00000032', '33', '34', '35'),
    start: fc.constantFrom(0, 100, 4_000_000_000),
    duration: fc.constantFrom(0, 50),
    flags: fc.constantFrom(0, ENTRY, CALL),
    status: fc.constantFrom(200, 404, 503),
  })
  .map(({ at, ...row }) => ({ at, row }));

interface Group {
  readonly ids: Set<string>;
  readonly rows: Told[];
}

/** Groups of rows that share any id, without rows that are there already. */
function reference(all: readonly Told[]): Group[] {
  let groups: Group[] = [];
  for (const one of all) {
    const { key, request, event } = one.row;
    const ids = [key && `k${key}`, request && `r${request}`, event && `e${event}`].filter(id => id !== '');
    const met = groups.filter(group => ids.some(id => group.ids.has(id!)));
    const group = {
      ids: new Set([...met.flatMap(({ ids: known }) => [...known]), ...ids.map(id => id!)]),
      rows: met.flatMap(({ rows }) => rows),
    };
    if (!group.rows.some(known => isSame(known, one))) group.rows.push(one);
    groups = [...groups.filter(other => !met.includes(other)), group];
  }
  return groups;
}

/** An event id is of one request: at one proxy, from one side, the same times are the same row. */
function isSame(a: Told, b: Told): boolean {
  const sides = (a.row.flags! & CALL) === (b.row.flags! & CALL);
  const times = a.row.start === b.row.start && a.row.duration === b.row.duration;
  return a.at === b.at && a.row.event === b.row.event && sides && times;
}

const STATES: Readonly<Record<number, string>> = { 200: 'SUCCEEDED', 404: 'DECLINED', 503: 'FAILED' };

/** What of a group is the same in whichever order its rows came. */
function summary({ rows }: Group): object {
  const events = rows.filter(({ row }) => (row.flags! & CALL) === 0);
  const entries = events.filter(({ row }) => (row.flags! & ENTRY) !== 0);
  const ends = entries.map(({ row }) => row.start + row.duration);
  const last = entries.filter((_, i) => ends[i] === Math.max(...ends)).map(({ row }) => STATES[row.status!]!);
  return {
    entries: entries.length,
    states: entries.length === 0 ? [] : [...new Set(last)].sort(),
    events: [...new Set(rows.map(({ row }) => row.event.padStart(16, '0')))].filter(id => !/^0*$/.test(id)).sort(),
    startUs: Math.min(...(entries.length > 0 ? entries : rows).map(({ row }) => row.start)),
  };
}

function shownSummary(shown: Shown): object {
  const ids = new Set(shown.events.map(({ eventId }) => eventId).filter(id => id !== '' && !/^0*$/.test(id)));
  const { seconds, nanos } = shown.started;
  return {
    entries: shown.entries,
    states: shown.entries === 0 ? [] : [shown.state.replace('TRANSACTION_STATE_', '')],
    events: [...ids].sort(),
    startUs: Number(seconds) * 1e6 + nanos / 1000 - T0,
  };
}

describe('transactions and a plain model of them', () => {
  it('agree, whatever shares which id, in batches of any size', () => {
    fc.assert(
      fc.property(fc.array(fc.array(told, { minLength: 1, maxLength: 12 }), { maxLength: 8 }), batches => {
        const world = new World();
        for (const rows of batches) {
          for (const at of SERVICES) {
            const own = rows.filter(one => one.at === at).map(({ row }) => row);
            if (own.length > 0) world.transactions.ingest(batch(instance(at), own));
          }
        }
        // In the order in which the collector got them.
        const all = batches.flatMap(rows => SERVICES.flatMap(at => rows.filter(one => one.at === at)));
        const groups = reference(all);
        assert.equal(world.transactions.size, groups.length);
        for (const group of groups) {
          const expected = summary(group) as { states: string[] };
          for (const id of group.ids) {
            const padded = id.slice(1).padStart(id.startsWith('e') ? 16 : 32, '0');
            const shown = shownSummary(world.get(padded)) as { states: string[] };
            // Of entries that end at the same moment either may have the last word.
            const states = expected.states.filter(state => shown.states.includes(state));
            assert.deepEqual(shown, { ...expected, states: states.length > 0 ? states : expected.states }, id);
          }
        }
      }),
      { numRuns: 250 },
    );
  });
});
