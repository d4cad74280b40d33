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
// at its oldest unacknowledged batch. So a number that jumps will not be filled in later, and what
// lies between is counted as lost at once; a number at or below the position is a replay.

import type { ProducerState } from './report.js';

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
}

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
  if (batch.seq <= before.seq) return { position: before, fresh: false, loss: NO_LOSS };
  const known = before.seq >= 0 ? before : startingAt(batch);
  const events = batch.firstEvent + batch.rows;
  const position = {
    seq: batch.seq,
    events: Math.max(known.events, events),
    dropped: Math.max(known.dropped, batch.droppedEvents),
    announced: furthest(known.announced, batch.seq, events),
  };
  const missing = Math.max(0, batch.firstEvent - known.events) + (position.dropped - known.dropped);
  return { position, fresh: true, loss: { reports: batch.seq - known.seq - 1, events: missing } };
}

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

/** The producer is gone: what it announced and never sent is lost. */
export function finish(before: Position): Step {
  if (before.seq < 0) return { position: before, fresh: false, loss: NO_LOSS };
  const reports = Math.max(0, before.announced.seq - before.seq);
  const events = reports === 0 ? 0 : Math.max(0, before.announced.events - before.events);
  const seq = Math.max(before.seq, before.announced.seq);
  return {
    position: { ...before, seq, events: before.events + events },
    fresh: false,
    loss: { reports, events },
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
