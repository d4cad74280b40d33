// Which batches are new, which are replays, and what is missing. Pure.
//
// A producer (one VM of a proxy) numbers its batches when it makes them, before anything can drop
// them, and says with each how many rows went before (`first_event`) and how many rows it had to
// drop unbatched (`dropped_events`). So loss has an exact size, known as soon as a later batch
// arrives:
//
//     seq     1   2   3   .   .   6        two reports lost,
//     rows   10  10  10  (?) (?)  10       first_event of 6 is 47: 47 - 30 = 17 rows lost
//
// Batches of one producer arrive in order on a connection, and after a reconnect a proxy starts again
// at its oldest unacknowledged batch. So what lies between two numbers is taken for lost at once: if
// acknowledgements waited for it, the proxy's window would fill up behind a batch that never comes. But
// it can be late: on its way by another connection, or cut off with a life that was given up too early.
// Therefore holes are remembered, and a batch that falls into one is new and takes its loss back. Any
// other number at or below the position is a replay.

import type { ProducerState } from './report.js';

/** Holes of one producer that are remembered: the latest. What is late in others is a replay. */
export const HOLES_MAX = 16;

/** Numbers that never came, both ends included, and the rows that are in them: from, and up to. */
export interface Hole {
  readonly fromSeq: number;
  readonly toSeq: number;
  readonly fromEvent: number;
  readonly toEvent: number;
}

/** Where a producer is: everything up to here is stored or counted as lost. */
export interface Position {
  /** Highest number accounted for; -1 until the first batch or acknowledged position is known. */
  readonly seq: number;
  /** Rows in the batches up to it. */
  readonly events: number;
  /** Rows dropped before batching, as last told. */
  readonly dropped: number;
  /** The furthest the producer said it had come, so that a missing tail can be told in the end. */
  readonly announced: { readonly seq: number; readonly events: number };
  /** By number; absent = none. */
  readonly holes?: readonly Hole[];
}

/** Below 0: a late batch takes back what was counted before. */
export interface Loss {
  readonly reports: number;
  readonly events: number;
}

export const NO_LOSS: Loss = { reports: 0, events: 0 };

/** Position of a producer never heard of. */
export const UNKNOWN: Position = { seq: -1, events: 0, dropped: 0, announced: { seq: 0, events: 0 } };

/** What sequence tracking needs of a batch. `rows`: how many rows it holds. */
export interface BatchHead {
  readonly seq: number;
  readonly firstEvent: number;
  readonly droppedEvents: number;
  readonly rows: number;
}

export interface Step {
  readonly position: Position;
  /** False: a replay, nothing of it counts. */
  readonly fresh: boolean;
  readonly loss: Loss;
}

/**
 * One batch arrives.
 *
 * A first batch that is not number 1 tells nothing about those before it, unless the hello said what
 * was acknowledged: counting starts there, and rows dropped before then are not this collector's.
 */
export function advance(before: Position, batch: BatchHead): Step {
  if (batch.seq <= before.seq) return fill(before, batch);
  const known = before.seq >= 0 ? before : startingAt(batch);
  const events = batch.firstEvent + batch.rows;
  const hole = holeAfter(known, batch.seq - 1, batch.firstEvent);
  const position = {
    seq: batch.seq,
    events: Math.max(known.events, events),
    dropped: Math.max(known.dropped, batch.droppedEvents),
    announced: furthest(known.announced, batch.seq, events),
    holes: withHole(known, hole),
  };
  const missing = hole.toEvent - hole.fromEvent + (position.dropped - known.dropped);
  return { position, fresh: true, loss: { reports: batch.seq - known.seq - 1, events: missing } };
}

/** A batch from before the position: late if it falls into a hole, which then has two parts, else a replay. */
function fill(before: Position, { seq, firstEvent, rows }: BatchHead): Step {
  const hole = before.holes?.find(({ fromSeq, toSeq }) => fromSeq <= seq && seq <= toSeq);
  if (hole === undefined) return { position: before, fresh: false, loss: NO_LOSS };
  const within = (event: number): number => Math.min(Math.max(event, hole.fromEvent), hole.toEvent);
  const from = within(firstEvent);
  const to = within(from + rows);
  const parts = [
    { ...hole, toSeq: seq - 1, toEvent: from },
    { ...hole, fromSeq: seq + 1, fromEvent: to },
  ];
  const holes = before.holes!.flatMap(other => (other === hole ? parts.filter(isHole) : other)).slice(-HOLES_MAX);
  return { position: { ...before, holes }, fresh: true, loss: { reports: -1, events: from - to } };
}

/** What lies between a position and `toSeq`, before row `toEvent`. */
const holeAfter = ({ seq, events }: Position, toSeq: number, toEvent: number): Hole => ({
  fromSeq: seq + 1,
  toSeq,
  fromEvent: events,
  toEvent: Math.max(events, toEvent),
});

const isHole = ({ fromSeq, toSeq }: Hole): boolean => fromSeq <= toSeq;

const withHole = ({ holes = [] }: Position, hole: Hole): readonly Hole[] =>
  isHole(hole) ? [...holes, hole].slice(-HOLES_MAX) : holes;

/**
 * A hello says where the producer is. Nothing but drops counts as lost yet: batches between our
 * position and the announced one may still be replayed.
 */
export function announce(before: Position, told: ProducerState): Step {
  const known = before.seq >= 0 ? before : firstHeard(before, told);
  const dropped = known.seq < 0 ? known.dropped : Math.max(known.dropped, told.droppedEvents);
  const position = { ...known, dropped, announced: furthest(known.announced, told.nextSeq - 1, told.batchedEvents) };
  return { position, fresh: false, loss: { reports: 0, events: dropped - known.dropped } };
}

/** The producer is taken for gone: what it announced and did not send is lost. */
export function finish(before: Position): Step {
  if (before.seq < 0) return { position: before, fresh: false, loss: NO_LOSS };
  const { announced } = before;
  const hole = holeAfter(before, announced.seq, announced.events);
  if (!isHole(hole)) return { position: before, fresh: false, loss: NO_LOSS };
  return {
    position: { ...before, seq: announced.seq, events: hole.toEvent, holes: withHole(before, hole) },
    fresh: false,
    loss: { reports: announced.seq - before.seq, events: hole.toEvent - hole.fromEvent },
  };
}

/** The position just before a producer's first batch that we see. */
function startingAt(batch: BatchHead): Position {
  const fromStart = batch.seq === 1;
  return {
    seq: batch.seq - 1,
    events: fromStart ? 0 : batch.firstEvent,
    dropped: fromStart ? 0 : batch.droppedEvents,
    announced: { seq: batch.seq - 1, events: batch.firstEvent },
  };
}

function firstHeard(before: Position, told: ProducerState): Position {
  if (told.acked !== undefined) return { ...before, seq: told.acked.seq, events: told.acked.events };
  // Nothing batched yet: the producer starts with us.
  if (told.nextSeq === 1) return { ...before, seq: 0 };
  return before;
}

function furthest(before: Position['announced'], seq: number, events: number): Position['announced'] {
  return { seq: Math.max(before.seq, seq), events: Math.max(before.events, events) };
}
