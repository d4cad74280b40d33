// The learned graph of every kind of transaction: lessons added up, what is gone forgotten.

import { atOnce, LOOKED_AT, type Pieces } from '../slices.js';
import { Durations } from './durations.js';
import { COMPARED_MAX, type EdgeLesson, type Lesson, type OrderLesson, type StepLesson } from './learn.js';
import { places, type Votes } from './order.js';

/** Bounds over all kinds. Past one, the kind that was not seen for longest goes first. */
export interface FlowBounds {
  readonly kindsMax: number;
  readonly stepsMax: number;
  readonly edgesMax: number;
}

export const BOUNDS: FlowBounds = { kindsMax: 2000, stepsMax: 20_000, edgesMax: 200_000 };

/** Traces that `single_entry_ratio` looks back on. */
const TRACES = 100;

/** Times are us since 1970 by the collector's clock. */
export interface Kind {
  readonly kind: string;
  transactions: number;
  /** Transactions that nothing could be learned from, because their rows were thinned. */
  abstained: number;
  firstSeenUs: number;
  lastSeenUs: number;
  /** Of the last TRACES traces, oldest first, a 1 for each that had exactly one entry event, else a 0. */
  singles: string;
  /** Both least recently seen first. */
  readonly steps: Map<string, Step>;
  readonly edges: Map<string, Edge>;
}

export interface Step {
  readonly service: string;
  readonly operation: string;
  external: boolean;
  transactions: number;
  events: number;
  failures: number;
  lastSeenUs: number;
  readonly durations: Durations;
  /** Keys of the edges from here that are compared with each other; an edge's place here is its slot. */
  readonly slots: (string | undefined)[];
  /** Of the edges in slots a < b, at a * COMPARED_MAX + b. */
  readonly votes: Map<number, Votes>;
}

export interface Edge {
  readonly from: string;
  readonly to: string;
  transactions: number;
  calls: number;
  failures: number;
  attempts: number;
  loop: boolean;
  rankSum: number;
  parents: number;
  lastSeenUs: number;
}

export interface EdgeView extends Edge {
  readonly order: number;
  readonly parallel: boolean;
}

export class FlowGraph {
  /** Least recently seen first. */
  readonly kinds = new Map<string, Kind>();
  /** Kinds, steps and edges given up for want of room. */
  dropped = 0;
  private steps = 0;
  private edges = 0;

  constructor(private readonly bounds: FlowBounds = BOUNDS) {}

  get size(): { kinds: number; steps: number; edges: number } {
    return { kinds: this.kinds.size, steps: this.steps, edges: this.edges };
  }

  /** Adds the lessons of one transaction that ended at `atUs`. */
  add(lessons: readonly Lesson[], atUs: number): void {
    const single = lessons.length === 1 ? '1' : '0';
    const traced = new Set<Kind>();
    for (const lesson of lessons) {
      const kind = this.kindOf(lesson.kind, atUs);
      kind.transactions += 1;
      kind.lastSeenUs = Math.max(kind.lastSeenUs, atUs);
      kind.firstSeenUs = Math.min(kind.firstSeenUs, atUs);
      for (const [key, step] of lesson.steps) {
        this.addStep(kind, key, step, atUs, 1);
        for (const us of step.durationsUs) kind.steps.get(key)!.durations.add(us);
      }
      for (const [key, edge] of lesson.edges) this.addEdge(kind, key, edge, atUs, 1);
      for (const order of lesson.orders) vote(kind, order);
      traced.add(kind);
      this.keepBounds(kind);
    }
    for (const kind of traced) kind.singles = (kind.singles + single).slice(-TRACES);
  }

  /**
   * Adds the same lessons of `count` transactions, the last of which ended at `atUs`. Durations and order are
   * left out: those are each transaction's own.
   */
  addMany(lessons: readonly Lesson[], count: number, atUs: number): void {
    const singles = (lessons.length === 1 ? '1' : '0').repeat(Math.min(count, TRACES));
    for (const lesson of lessons) {
      const kind = this.kindOf(lesson.kind, atUs);
      kind.transactions += count;
      kind.lastSeenUs = Math.max(kind.lastSeenUs, atUs);
      for (const [key, step] of lesson.steps) this.addStep(kind, key, step, atUs, count);
      for (const [key, edge] of lesson.edges) this.addEdge(kind, key, edge, atUs, count);
      this.keepBounds(kind);
      kind.singles = (kind.singles + singles).slice(-TRACES);
    }
  }

  /** Nothing can be learned from a transaction of this kind that ended at `atUs`. */
  abstain(name: string, atUs: number): void {
    const kind = this.kindOf(name, atUs);
    kind.abstained += 1;
    kind.lastSeenUs = Math.max(kind.lastSeenUs, atUs);
    this.keepBounds(kind);
  }

  /** Forgets what was not seen since `beforeUs`. */
  forget(beforeUs: number): void {
    for (const kind of this.kinds.values()) {
      if (kind.lastSeenUs < beforeUs) {
        this.removeKind(kind);
        continue;
      }
      for (const [key, edge] of kind.edges) if (edge.lastSeenUs < beforeUs) this.removeEdge(kind, key);
      for (const [key, step] of kind.steps) if (step.lastSeenUs < beforeUs) this.removeStep(kind, key);
    }
  }

  /** Puts back a kind as it was; replaces what is known of it. */
  put(kind: Kind): void {
    const before = this.kinds.get(kind.kind);
    if (before !== undefined) this.removeKind(before);
    this.kinds.set(kind.kind, kind);
    this.steps += kind.steps.size;
    this.edges += kind.edges.size;
    this.keepBounds(kind);
  }

  clear(): void {
    this.kinds.clear();
    this.steps = 0;
    this.edges = 0;
  }

  private kindOf(name: string, atUs: number): Kind {
    let kind = this.kinds.get(name);
    if (kind === undefined) {
      const seen = { firstSeenUs: atUs, lastSeenUs: atUs };
      kind = { kind: name, transactions: 0, abstained: 0, ...seen, singles: '', steps: new Map(), edges: new Map() };
    }
    toEnd(this.kinds, name, kind);
    return kind;
  }

  private addStep(kind: Kind, key: string, lesson: StepLesson, atUs: number, times: number): void {
    let step = kind.steps.get(key);
    if (step === undefined) {
      const { service, operation, external } = lesson;
      const counts = { transactions: 0, events: 0, failures: 0, lastSeenUs: atUs };
      step = { service, operation, external, ...counts, durations: new Durations(), slots: [], votes: new Map() };
      this.steps += 1;
    }
    toEnd(kind.steps, key, step);
    step.external = lesson.external;
    step.transactions += times;
    step.events += times * lesson.events;
    step.failures += times * lesson.failures;
    step.lastSeenUs = Math.max(step.lastSeenUs, atUs);
  }

  private addEdge(kind: Kind, key: string, lesson: EdgeLesson, atUs: number, times: number): void {
    let edge = kind.edges.get(key);
    if (edge === undefined) {
      const { from, to } = lesson;
      const sums = { transactions: 0, calls: 0, failures: 0, attempts: 0, rankSum: 0, parents: 0 };
      edge = { from, to, ...sums, loop: false, lastSeenUs: atUs };
      this.edges += 1;
      takeSlot(kind, key, from);
    }
    toEnd(kind.edges, key, edge);
    edge.transactions += times;
    edge.calls += times * lesson.calls;
    edge.failures += times * lesson.failures;
    edge.attempts += times * lesson.attempts;
    edge.loop ||= lesson.loop;
    edge.rankSum += times * lesson.rankSum;
    edge.parents += times * lesson.parents;
    edge.lastSeenUs = Math.max(edge.lastSeenUs, atUs);
  }

  private keepBounds(kept: Kind): void {
    const { kindsMax, stepsMax, edgesMax } = this.bounds;
    while (this.kinds.size > kindsMax || this.steps > stepsMax || this.edges > edgesMax) {
      const [oldest] = this.kinds.values();
      if (oldest !== undefined && oldest !== kept) {
        this.removeKind(oldest);
        this.dropped += 1;
      } else if (!this.trim(kept)) return;
    }
  }

  /** One kind alone is too big: its least recently seen edges and steps go. */
  private trim(kind: Kind): boolean {
    const key = this.edges > this.bounds.edgesMax ? kind.edges.keys().next().value : undefined;
    const step = this.steps > this.bounds.stepsMax ? kind.steps.keys().next().value : undefined;
    if (key !== undefined) this.removeEdge(kind, key);
    if (step !== undefined) this.removeStep(kind, step);
    if (key === undefined && step === undefined) return false;
    this.dropped += 1;
    return true;
  }

  private removeKind(kind: Kind): void {
    this.kinds.delete(kind.kind);
    this.steps -= kind.steps.size;
    this.edges -= kind.edges.size;
  }

  private removeEdge(kind: Kind, key: string): void {
    const { from } = kind.edges.get(key)!;
    kind.edges.delete(key);
    this.edges -= 1;
    const step = kind.steps.get(from);
    const slot = step?.slots.indexOf(key) ?? -1;
    if (step === undefined || slot < 0) return;
    step.slots[slot] = undefined;
    for (const pair of step.votes.keys()) {
      if (Math.floor(pair / COMPARED_MAX) === slot || pair % COMPARED_MAX === slot) step.votes.delete(pair);
    }
  }

  private removeStep(kind: Kind, key: string): void {
    kind.steps.delete(key);
    this.steps -= 1;
    for (const [edge, { from, to }] of kind.edges) if (from === key || to === key) this.removeEdge(kind, edge);
  }
}

/** The edges of a kind with their places: by parent, then in the order in which they run. */
export const edgesOf = (kind: Kind): EdgeView[] => atOnce(edgesInPieces(kind));

/** The same in pieces. Edges may come and go meanwhile. */
export function* edgesInPieces(kind: Kind): Pieces<EdgeView[]> {
  const views: EdgeView[] = [];
  const parents = yield* byParent(kind);
  for (const from of [...parents.keys()].sort()) {
    yield;
    const ofParent = viewsOf(kind, from, parents.get(from)!);
    views.push(...ofParent.sort((a, b) => a.order - b.order || (a.to < b.to ? -1 : a.to > b.to ? 1 : 0)));
  }
  return views;
}

function viewsOf(kind: Kind, from: string, keysOnce: readonly string[]): EdgeView[] {
  const keys = keysOnce.filter(key => kind.edges.has(key));
  const step = kind.steps.get(from);
  const slots = keys.map(key => step?.slots.indexOf(key) ?? -1);
  const edges = keys.map(key => kind.edges.get(key)!);
  const ranks = edges.map(edge => (edge.parents === 0 ? 1 : edge.rankSum / edge.parents));
  const found = places(ranks, (a, b) => (step === undefined ? undefined : votesOf(step, slots[a]!, slots[b]!)));
  // Without a slot there are no votes: the mean place has to do.
  return found.map(({ order, parallel }, at) => ({
    ...edges[at]!,
    order: slots[at] === -1 ? Math.round(ranks[at]!) : order,
    parallel,
  }));
}

function* byParent(kind: Kind): Pieces<Map<string, string[]>> {
  const parents = new Map<string, string[]>();
  let looked = 0;
  for (const [key, { from }] of kind.edges) {
    if (++looked % LOOKED_AT === 0) yield;
    const keys = parents.get(from);
    if (keys === undefined) parents.set(from, [key]);
    else keys.push(key);
  }
  return parents;
}

function takeSlot(kind: Kind, edge: string, from: string): void {
  const slots = kind.steps.get(from)?.slots;
  if (slots === undefined) return;
  const free = slots.indexOf(undefined);
  if (free >= 0) slots[free] = edge;
  else if (slots.length < COMPARED_MAX) slots.push(edge);
}

function vote(kind: Kind, { pairs }: OrderLesson): void {
  for (const { first, second, overlap } of pairs) {
    const step = kind.steps.get(kind.edges.get(first)?.from ?? '');
    const a = step?.slots.indexOf(first) ?? -1;
    const b = step?.slots.indexOf(second) ?? -1;
    if (step === undefined || a < 0 || b < 0) continue;
    const key = Math.min(a, b) * COMPARED_MAX + Math.max(a, b);
    let votes = step.votes.get(key);
    if (votes === undefined) step.votes.set(key, (votes = { before: 0, after: 0, overlap: 0 }));
    if (overlap) votes.overlap += 1;
    else if (a < b) votes.before += 1;
    else votes.after += 1;
  }
}

function votesOf(step: Step, a: number, b: number): Votes | undefined {
  if (a < 0 || b < 0) return undefined;
  const votes = step.votes.get(Math.min(a, b) * COMPARED_MAX + Math.max(a, b));
  if (votes === undefined || a < b) return votes;
  return { before: votes.after, after: votes.before, overlap: votes.overlap };
}

function toEnd<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
}
