// Who caused whom within one transaction. Pure.
//
// A call and the events it caused share an event id. The call itself lies in an event of the same
// instance: the one whose outgoing span is the call's incoming one if exactly one is, else the one that
// started last among those that were in work when the call began. All of that compares times of one
// proxy only, so clocks that disagree cannot turn cause and effect round. Nothing is assumed about the
// order in which rows came.

import { ROW_FLAG } from '../ingest/columns.js';
import { ROW_STATE, type Row } from './rows.js';

/** One request: the caller's row, if it was heard, and the callee's, one for each attempt that arrived. */
export interface Step {
  readonly eventId: string;
  readonly call: Row | undefined;
  /** In the order they started. Without a call there is at least one. */
  readonly events: readonly Row[];
  readonly entry: boolean;
  parent: Step | undefined;
  /** The event of `parent` that the call lies in. */
  parentRow: Row | undefined;
  /** In the order their calls began. */
  readonly children: Step[];
}

interface Place {
  readonly step: Step;
  readonly row: Row;
}

/** One name for each life: a life may have been given another CUID while its requests ran. */
export type LifeOf = (cuid: string) => string;

/** The steps nobody is known to have caused, entries first, then by start. */
export function link(rows: readonly Row[], lifeOf: LifeOf): Step[] {
  const steps = group(rows);
  const places = placesOf(steps, lifeOf);
  const parents = new Map<Step, Place>();
  for (const step of steps) {
    const place = parentOf(step, places, lifeOf);
    if (place !== undefined) parents.set(step, place);
  }
  const began = new Map(steps.map(step => [step, beganUs(step, parents.get(step)?.row)]));
  const ordered = [...steps].sort((a, b) => began.get(a)! - began.get(b)! || compare(a.eventId, b.eventId));
  for (const step of ordered) adopt(step, parents.get(step));
  const roots = ordered.filter(step => step.parent === undefined);
  return [...roots.filter(step => step.entry), ...roots.filter(step => !step.entry)];
}

/** All steps, each before those it caused. */
export function* inOrderOfCause(roots: readonly Step[]): Generator<{ step: Step; depth: number }> {
  // By hand: a chain of calls can be as long as a transaction has rows.
  const stack = [...roots].reverse().map(step => ({ step, depth: 0 }));
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    yield next;
    const { step, depth } = next;
    for (const child of [...step.children].reverse()) stack.push({ step: child, depth: depth + 1 });
  }
}

/** Start of a step by its parent's clock where there is one, else by the collector's. */
export function beganUs(step: Step, parent: Row | undefined): number {
  const { call } = step;
  const row = call ?? step.events[0]!;
  if (parent !== undefined && row.instance.proxyId === parent.instance.proxyId) return row.startUs;
  return row.startUs - row.offsetUs + (parent?.offsetUs ?? 0);
}

function group(rows: readonly Row[]): Step[] {
  const byId = new Map<string, Row[]>();
  const alone: Row[][] = [];
  for (const row of rows) {
    const known = row.eventId === '' ? undefined : byId.get(row.eventId);
    if (known !== undefined) known.push(row);
    else if (row.eventId === '') alone.push([row]);
    else byId.set(row.eventId, [row]);
  }
  return [...byId.values(), ...alone].flatMap(toSteps);
}

/** Call ids are random: two calls with one id are an accident, kept apart as well as can be. */
function toSteps(rows: readonly Row[]): Step[] {
  const calls = rows.filter(row => row.call).sort(byStart);
  const events = rows.filter(row => !row.call).sort(byStart);
  const first = stepOf(calls[0], events);
  return [first, ...calls.slice(1).map(call => stepOf(call, []))];
}

function stepOf(call: Row | undefined, events: readonly Row[]): Step {
  const { eventId } = (call ?? events[0])!;
  const entry = call === undefined && events.some(row => (row.flags & ROW_FLAG.ENTRY) !== 0);
  return { eventId, call, events, entry, parent: undefined, parentRow: undefined, children: [] };
}

function placesOf(steps: readonly Step[], lifeOf: LifeOf): Map<string, Place[]> {
  const places = new Map<string, Place[]>();
  for (const step of steps) {
    for (const row of step.events) {
      const life = lifeOf(row.instance.cuid);
      const list = places.get(life);
      if (list === undefined) places.set(life, [{ step, row }]);
      else list.push({ step, row });
    }
  }
  return places;
}

function parentOf(step: Step, places: ReadonlyMap<string, readonly Place[]>, lifeOf: LifeOf): Place | undefined {
  if (step.entry) return undefined;
  const { call } = step;
  const at = (cuid: string): Place[] => (places.get(lifeOf(cuid)) ?? []).filter(place => place.step !== step);
  if (call !== undefined) return around(call, at(call.instance.cuid));
  // The caller's row is missing. If the peer has one event in this transaction, it can only be that one.
  const peer = step.events.find(row => row.peerCuid !== '')?.peerCuid;
  const there = peer === undefined ? [] : at(peer);
  return there.length === 1 ? there[0] : undefined;
}

function around(call: Row, places: readonly Place[]): Place | undefined {
  const before = places.filter(({ row }) => startOf(row) <= call.startUs);
  const bySpan = call.spanIn === 0 ? [] : before.filter(({ row }) => row.spanOut === call.spanIn);
  if (bySpan.length === 1) return bySpan[0];
  return latest(bySpan.filter(at => contains(at.row, call))) ?? latest(before.filter(at => contains(at.row, call)));
}

const contains = (event: Row, call: Row): boolean => event.state !== ROW_STATE.ENDED || call.startUs <= event.endUs;

/** Streams come without a duration, so when they began is not known: before anything else. */
function startOf(row: Row): number {
  const unknown = (row.flags & ROW_FLAG.STREAM) !== 0 && row.durationUs === 0;
  return unknown ? Number.NEGATIVE_INFINITY : row.startUs;
}

function latest(places: readonly Place[]): Place | undefined {
  let best: Place | undefined;
  for (const place of places) {
    if (best === undefined || later(place, best)) best = place;
  }
  return best;
}

function later(a: Place, b: Place): boolean {
  const [x, y] = [startOf(a.row), startOf(b.row)];
  return x === y ? a.step.eventId < b.step.eventId : x > y;
}

/** Rows that contradict each other could make a step its own ancestor; then it has no parent. */
function adopt(step: Step, place: Place | undefined): void {
  if (place === undefined) return;
  for (let above: Step | undefined = place.step; above !== undefined; above = above.parent) if (above === step) return;
  step.parent = place.step;
  step.parentRow = place.row;
  place.step.children.push(step);
}

const byStart = (a: Row, b: Row): number =>
  a.startUs - a.offsetUs - (b.startUs - b.offsetUs) || compare(a.instance.cuid, b.instance.cuid);

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
