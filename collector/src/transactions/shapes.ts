// What most transactions have in common: everything but ids and times.
//
// To learn from a transaction its rows are read, linked by cause and taken apart, which costs more than
// all that went before. But most of them look like one that was taken apart a moment ago. So each row adds
// to two sums that do not depend on the order in which rows come, its *shape*: who answered or called whom,
// for which operation, how often, and that it went well. Transactions of one shape teach the same steps,
// edges and counts; only how long they took, and which of two calls came first, is theirs alone.
//
// So while few end, each is looked at. When many do, those of a shape that was looked at count as the one
// before them, and some go on being looked at: for durations and order, samples are enough.
//
// A shape is only taken for known if its rows leave no question: everything is plain success below one
// entry, no service answers twice (then causes follow from who called, not from times), and each call in
// the mesh has its event. That the pairs are whole is told by the exclusive or of their ids, which is 0.

import type { Lesson } from '../flow/learn.js';
import { attemptsOf, NEVER_EVIDENCE, outcomeOf, ROW_FLAG } from '../ingest/columns.js';
import { mix } from './id-index.js';
import { inOrderOfCause, type Step } from './link.js';
import { FLAG, IS } from './slot-layout.js';
import type { Slots } from './slots.js';
import { OUTCOME } from './transaction.js';

/** Rows that have something about them that the shape does not say. */
const ODD_FLAGS =
  NEVER_EVIDENCE |
  ROW_FLAG.STREAM |
  ROW_FLAG.UNSEEN |
  ROW_FLAG.WOULD_REFUSE |
  ROW_FLAG.WITHHELD |
  ROW_FLAG.NO_RETRIES |
  ROW_FLAG.RETRY_REFUSED;

/** What of the flags belongs to a shape; attempts are in the highest bits. */
const SHAPED_FLAGS = ROW_FLAG.CALL | ROW_FLAG.ENTRY | ROW_FLAG.EXTERNAL | 0xff000000;

/** A row that is no plain success of a plain request. `peerCuid`: 0 = it names no life. */
export function isOdd(flags: number, peerCuid: number): boolean {
  if (outcomeOf(flags) !== OUTCOME.OK || (flags & ODD_FLAGS) !== 0) return true;
  return (flags & ROW_FLAG.EXTERNAL) !== 0 && peerCuid !== 0;
}

/** Adds a row to the shape of its transaction. Names come as hashes. */
export function noteShape(
  slots: Slots,
  slot: number,
  flags: number,
  service: number,
  operation: number,
  peerService: number,
  eventHigh: number,
  eventLow: number,
): void {
  const callee = (flags & ROW_FLAG.CALL) === 0 ? 0 : peerService;
  const row = mix(service ^ Math.imul(operation ^ Math.imul(callee, 0x9e3779b1), 0x85ebca6b) ^ (flags & SHAPED_FLAGS));
  slots.add(slot, IS.SHAPE_A, row);
  slots.add(slot, IS.SHAPE_B, mix(row ^ operation));
  const paired = (flags & (ROW_FLAG.CALL | ROW_FLAG.ENTRY)) !== ROW_FLAG.ENTRY && (flags & ROW_FLAG.EXTERNAL) === 0;
  if (paired)
    slots.setWord(slot, IS.PAIRS, slots.word(slot, IS.PAIRS) ^ mix(eventLow ^ Math.imul(eventHigh, 0x27d4eb2f)));
}

/** Shapes remembered, at most; the one not seen for longest goes first. */
const KNOWN_MAX = 2000;

/** One shape: what its transactions teach, and how many taught it since that was last told. */
export interface Known {
  /** Of the one that was looked at last: which call came first differs, so no single one stands for all. */
  lessons: readonly Lesson[];
  readonly shapeB: number;
  readonly kind: number;
  count: number;
  latestUs: number;
}

/** Transactions of known shapes that are looked at all the same, a second. */
export const LOOKS_PER_SECOND = 100;

export class Shapes {
  /** By SHAPE_A; longest not used first. */
  private readonly known = new Map<number, Known>();
  private readonly waiting = new Set<Known>();
  private looks: number;
  private sinceMs = 0;
  /** Transactions counted without a look. */
  skimmed = 0;

  /** @param looksPerSecond at transactions of known shapes */
  constructor(
    private readonly slots: Slots,
    private readonly looksPerSecond: number,
  ) {
    this.looks = looksPerSecond;
  }

  /** Whether there is time to look at a transaction although its shape is known. */
  get mayLook(): boolean {
    return this.looks > 0;
  }

  /** The shape of a transaction, if it is known. */
  find(slot: number): Known | undefined {
    const { slots } = this;
    if (!isPlain(slots, slot)) return undefined;
    const known = this.known.get(slots.word(slot, IS.SHAPE_A));
    if (known?.shapeB !== slots.word(slot, IS.SHAPE_B) || known.kind !== slots.word(slot, IS.KIND)) return undefined;
    return known;
  }

  /** One more of this shape ended at `atUs`. */
  count(known: Known, atUs: number): void {
    known.count += 1;
    this.skimmed += 1;
    known.latestUs = Math.max(known.latestUs, atUs);
    this.waiting.add(known);
  }

  /** A transaction was looked at: its shape is known from now on, if it leaves no question. */
  looked(slot: number, roots: readonly Step[], lessons: readonly Lesson[]): void {
    this.looks -= 1;
    const { slots } = this;
    if (!isPlain(slots, slot) || lessons.length !== 1 || !isClear(roots)) return;
    const shapeA = slots.word(slot, IS.SHAPE_A);
    const [shapeB, kind] = [slots.word(slot, IS.SHAPE_B), slots.word(slot, IS.KIND)];
    let known = this.known.get(shapeA);
    if (known?.shapeB === shapeB && known.kind === kind) known.lessons = lessons;
    else {
      if (known !== undefined) this.forget(shapeA, known);
      known = { lessons, shapeB, kind, count: 0, latestUs: 0 };
      slots.kinds.retain(kind);
    }
    this.known.delete(shapeA);
    this.known.set(shapeA, known);
    if (this.known.size > KNOWN_MAX) this.forget(...this.known.entries().next().value!);
  }

  private forget(shapeA: number, { kind }: Known): void {
    this.known.delete(shapeA);
    this.slots.kinds.release(kind);
  }

  /** Another moment: as many looks as belong to the time since the last. */
  tick(nowMs: number): void {
    const ms = Math.min(1000, Math.max(0, nowMs - this.sinceMs));
    this.sinceMs = nowMs;
    const most = this.looksPerSecond;
    this.looks = Math.min(most, Math.max(0, this.looks) + (most * ms) / 1000);
  }

  /** Tells what was counted since the last time. */
  flush(tell: (known: Known) => void): void {
    for (const known of this.waiting) {
      tell(known);
      known.count = 0;
      known.latestUs = 0;
    }
    this.waiting.clear();
  }
}

/** One entry, everything has ended well, and what was called answered. */
function isPlain(slots: Slots, slot: number): boolean {
  return (
    !slots.has(slot, FLAG.ODD | FLAG.REBUILT | FLAG.DOOMED) &&
    slots.word(slot, IS.PAIRS) === 0 &&
    slots.word(slot, IS.ENTRIES) === 1 &&
    slots.word(slot, IS.ENTRIES_ENDED) === 1 &&
    slots.word(slot, IS.OMITTED) === 0
  );
}

/** Whether causes follow from names alone: one tree, whole, in which no service answers twice. */
function isClear(roots: readonly Step[]): boolean {
  if (roots.length !== 1) return false;
  const services = new Set<string>();
  for (const { step } of inOrderOfCause(roots)) {
    const { call, events, parent } = step;
    if (call === undefined && parent !== undefined) return false;
    if (events.length > 1 || (call !== undefined && attemptsOf(call.flags) > 1)) return false;
    const [event] = events;
    if (event === undefined) {
      if ((call!.flags & ROW_FLAG.EXTERNAL) === 0) return false;
      continue;
    }
    if (services.has(event.instance.service)) return false;
    services.add(event.instance.service);
  }
  return true;
}
