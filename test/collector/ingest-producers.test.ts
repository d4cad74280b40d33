import assert from 'node:assert/strict';
import fc from 'fast-check';
import { advance, announce, finish, HOLES_MAX, UNKNOWN, type Position } from '../../collector/src/ingest/producers.js';

const told = (nextSeq: number, extra: object = {}): Parameters<typeof announce>[1] => ({
  id: 1n,
  nextSeq,
  droppedEvents: 0,
  batchedEvents: 0,
  ...extra,
});
const head = (seq: number, firstEvent: number, rows: number, droppedEvents = 0): Parameters<typeof advance>[1] => ({
  seq,
  firstEvent,
  rows,
  droppedEvents,
});

describe('producer positions', () => {
  it('take the first batch as the start when nothing was said', () => {
    const step = advance(UNKNOWN, head(500, 9000, 10, 7));
    assert.deepEqual([step.fresh, step.position.seq, step.loss], [true, 500, { reports: 0, events: 0 }]);
  });

  it('count what was lost before batch 1 was made', () => {
    assert.deepEqual(advance(UNKNOWN, head(1, 0, 10, 7)).loss, { reports: 0, events: 7 });
  });

  it('count from the acknowledged position when the hello says it', () => {
    const { position } = announce(UNKNOWN, told(20, { acked: { seq: 10, events: 100 }, batchedEvents: 190 }));
    const step = advance(position, head(13, 130, 10));
    assert.deepEqual(step.loss, { reports: 2, events: 30 });
  });

  it('count drops that a hello tells, once', () => {
    const known = advance(UNKNOWN, head(1, 0, 1)).position;
    const first = announce(known, told(2, { droppedEvents: 4 }));
    assert.deepEqual(first.loss, { reports: 0, events: 4 });
    assert.deepEqual(announce(first.position, told(2, { droppedEvents: 4 })).loss, { reports: 0, events: 0 });
    assert.deepEqual(advance(first.position, head(2, 1, 1, 5)).loss, { reports: 0, events: 1 });
  });

  it('count an announced tail only when the producer is gone', () => {
    const known = announce(advance(UNKNOWN, head(1, 0, 10)).position, told(5, { batchedEvents: 37 })).position;
    const end = finish(known);
    assert.deepEqual(end.loss, { reports: 3, events: 27 });
    assert.deepEqual(finish(end.position).loss, { reports: 0, events: 0 });
  });

  it('take back what comes although its producer was taken for gone', () => {
    const known = announce(advance(UNKNOWN, head(1, 0, 10)).position, told(5, { batchedEvents: 37 })).position;
    const late = advance(finish(known).position, head(4, 27, 10));
    assert.deepEqual([late.fresh, late.loss], [true, { reports: -1, events: -10 }]);
    assert.equal(advance(late.position, head(4, 27, 10)).fresh, false);
  });

  it('say nothing of a producer that never sent anything', () => {
    assert.deepEqual(finish(UNKNOWN).loss, { reports: 0, events: 0 });
    const announced = announce(UNKNOWN, told(9, { batchedEvents: 80 })).position;
    assert.deepEqual(finish(announced).loss, { reports: 0, events: 0 });
  });

  // The model: a producer makes batches, a channel loses some, a client replays some. What was taken
  // and what was counted as lost must always add up to what was made.
  it('account for every batch and row, whatever is lost and replayed', () => {
    const made = fc.array(
      fc.record({
        rows: fc.nat({ max: 5 }),
        drops: fc.nat({ max: 2 }),
        lost: fc.boolean(),
        replay: fc.nat({ max: 3 }),
      }),
      { minLength: 1, maxLength: 60 },
    );
    fc.assert(
      fc.property(made, batches => {
        let position: Position = announce(UNKNOWN, told(1)).position;
        let firstEvent = 0;
        let dropped = 0;
        const taken = { reports: 0, rows: 0 };
        const lost = { reports: 0, events: 0 };
        const sent: ReturnType<typeof head>[] = [];
        const deliver = (batch: ReturnType<typeof head>): void => {
          const step = advance(position, batch);
          position = step.position;
          if (step.fresh) {
            taken.reports += 1;
            taken.rows += batch.rows;
          }
          lost.reports += step.loss.reports;
          lost.events += step.loss.events;
        };
        batches.forEach(({ rows, drops, lost: isLost, replay }, i) => {
          dropped += drops;
          const batch = head(i + 1, firstEvent, rows, dropped);
          firstEvent += rows;
          if (isLost) return;
          sent.push(batch);
          deliver(batch);
          for (const again of sent.slice(-replay - 1)) deliver(again);
        });
        position = announce(
          position,
          told(batches.length + 1, { batchedEvents: firstEvent, droppedEvents: dropped }),
        ).position;
        const before = position.dropped;
        const end = finish(position);
        assert.equal(taken.reports + lost.reports + end.loss.reports, batches.length);
        assert.equal(before, dropped);
      }),
    );
  });

  it('come out the same in every order of arrival, with any number of repeats', () => {
    const batches = [3, 0, 5, 1, 4, 2, 2, 6, 1, 3].map((rows, i, all) =>
      head(
        i + 1,
        all.slice(0, i).reduce((a, b) => a + b, 0),
        rows,
      ),
    );
    const arrivals = fc
      .tuple(fc.shuffledSubarray(batches), fc.array(fc.constantFrom(...batches), { maxLength: 20 }))
      .chain(([some, repeats]) =>
        fc.shuffledSubarray([...some, ...repeats], { minLength: some.length + repeats.length }),
      );
    fc.assert(
      fc.property(arrivals, arriving => {
        let { position } = announce(UNKNOWN, told(1));
        const taken: number[] = [];
        const lost = { reports: 0, events: 0 };
        const note = ({ loss }: { loss: typeof lost }): void => {
          lost.reports += loss.reports;
          lost.events += loss.events;
        };
        for (const batch of arriving) {
          const step = advance(position, batch);
          position = step.position;
          if (step.fresh) taken.push(batch.seq);
          note(step);
        }
        note(finish(announce(position, told(11, { batchedEvents: 27 })).position));
        const came = batches.filter(batch => arriving.includes(batch));
        assert.deepEqual(
          [...taken].sort((a, b) => a - b),
          came.map(batch => batch.seq),
        );
        const rows = came.reduce((sum, batch) => sum + batch.rows, 0);
        assert.deepEqual(lost, { reports: 10 - came.length, events: 27 - rows });
      }),
    );
  });

  it('remember a bounded number of holes, the latest', () => {
    let { position } = announce(UNKNOWN, told(1));
    for (let seq = 2; seq <= 200; seq += 2) position = advance(position, head(seq, seq, 1)).position;
    assert.equal(position.holes?.length, HOLES_MAX);
    assert.deepEqual(
      [advance(position, head(1, 1, 1)).fresh, advance(position, head(199, 199, 1)).fresh],
      [false, true],
    );
  });

  it('account for rows and drops exactly when the last batch arrives', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ rows: fc.nat({ max: 5 }), drops: fc.nat({ max: 2 }), lost: fc.boolean() }), {
          minLength: 1,
          maxLength: 60,
        }),
        batches => {
          let position: Position = announce(UNKNOWN, told(1)).position;
          let rows = 0;
          let dropped = 0;
          let accounted = 0;
          [...batches, { rows: 1, drops: 0, lost: false }].forEach((made, i) => {
            dropped += made.drops;
            const batch = head(i + 1, rows, made.rows, dropped);
            rows += made.rows;
            if (made.lost) return;
            const step = advance(position, batch);
            position = step.position;
            accounted += made.rows + step.loss.events;
          });
          assert.equal(accounted, rows + dropped);
        },
      ),
    );
  });
});
