// The learned graph as plain data, and back.

import { Durations } from './durations.js';
import type { Edge, FlowGraph, Kind, Step } from './graph.js';
import type { Votes } from './order.js';

/** Raised when the layout changes; another layout is not read. */
const VERSION = 1;

interface StoredStep extends Omit<Step, 'durations' | 'slots' | 'votes'> {
  readonly key: string;
  readonly durations: [number, number][];
  readonly slots: (string | null)[];
  readonly votes: [number, Votes][];
}

interface StoredKind extends Omit<Kind, 'steps' | 'edges' | 'abstained'> {
  /** Absent in what older versions stored. */
  readonly abstained?: number;
  readonly steps: StoredStep[];
  readonly edges: [string, Edge][];
}

interface Stored {
  readonly version: number;
  readonly kinds: StoredKind[];
}

/** JSON-ready; shares nothing with the graph. */
export function snapshotOf(graph: FlowGraph): Stored {
  return { version: VERSION, kinds: [...graph.kinds.values()].map(storedKind) };
}

/** Makes the graph what it was. False, and the graph unchanged, when the data is none of this version. */
export function restoreTo(graph: FlowGraph, state: unknown): boolean {
  if (!isStored(state)) return false;
  const kinds = state.kinds.map(kindOf);
  graph.clear();
  for (const kind of kinds) graph.put(kind);
  return true;
}

function isStored(state: unknown): state is Stored {
  if (typeof state !== 'object' || state === null) return false;
  const { version, kinds } = state as Partial<Stored>;
  return version === VERSION && Array.isArray(kinds);
}

function storedKind({ steps, edges, ...head }: Kind): StoredKind {
  return {
    ...head,
    steps: [...steps].map(([key, { durations, slots, votes, ...step }]) => ({
      ...step,
      key,
      durations: durations.snapshot(),
      slots: slots.map(slot => slot ?? null),
      votes: [...votes].map(([pair, vote]) => [pair, { ...vote }]),
    })),
    edges: [...edges].map(([key, edge]) => [key, { ...edge }]),
  };
}

function kindOf({ steps, edges, ...head }: StoredKind): Kind {
  const kind: Kind = { abstained: 0, ...head, steps: new Map(), edges: new Map() };
  for (const { key, durations, slots, votes, ...step } of steps) {
    kind.steps.set(key, {
      ...step,
      durations: new Durations(durations),
      slots: slots.map(slot => slot ?? undefined),
      votes: new Map(votes.map(([pair, vote]) => [pair, { ...vote }])),
    });
  }
  for (const [key, edge] of edges) kind.edges.set(key, { ...edge });
  return kind;
}
