// Registry.GetFlow: the learned graph as messages of the API.

import { timestamp } from '../rpc/encode.js';
import { atOnce, MADE, type Pieces } from '../slices.js';
import { edgesInPieces, type EdgeView, type FlowGraph, type Kind, type Step } from './graph.js';

export interface FlowRequest {
  readonly kind?: string;
  /** 0 or unset = all that is kept. */
  readonly windowSeconds?: number;
}

/** Kinds and steps by name; edges by parent, then in the order in which they run. */
export const getFlow = (graph: FlowGraph, request: FlowRequest, nowUs: number): { flows: object[] } =>
  atOnce(flowPieces(graph, request, nowUs));

/** The same in pieces: one kind can have a hundred thousand edges. */
export function* flowPieces(graph: FlowGraph, request: FlowRequest, nowUs: number): Pieces<{ flows: object[] }> {
  const { kind = '', windowSeconds = 0 } = request;
  const sinceUs = windowSeconds === 0 ? 0 : nowUs - windowSeconds * 1e6;
  const kinds = [...graph.kinds.values()].filter(known => kind === '' || known.kind === kind);
  const seen = kinds.filter(known => known.lastSeenUs >= sinceUs);
  const flows: object[] = [];
  for (const known of seen.sort((a, b) => (a.kind < b.kind ? -1 : 1))) flows.push(yield* flow(known, sinceUs));
  return { flows };
}

function* flow(kind: Kind, sinceUs: number): Pieces<object> {
  yield;
  const steps = [...kind.steps].filter(([, step]) => step.lastSeenUs >= sinceUs).sort(([a], [b]) => (a < b ? -1 : 1));
  const all = yield* edgesInPieces(kind);
  const edges = all.filter(edge => edge.lastSeenUs >= sinceUs && kind.steps.has(edge.from));
  const shownSteps = yield* each(steps, ([, step]) => [flowStep(step)]);
  const shownEdges = yield* each(edges, edge => flowEdge(edge, kind));
  return {
    kind: kind.kind,
    transactions: String(kind.transactions),
    transactionsAbstained: String(kind.abstained),
    firstSeen: timestamp(kind.firstSeenUs),
    lastSeen: timestamp(kind.lastSeenUs),
    steps: shownSteps,
    edges: shownEdges,
    singleEntryRatio:
      kind.singles === '' ? 0 : [...kind.singles].filter(one => one === '1').length / kind.singles.length,
  };
}

function* each<T>(items: readonly T[], make: (item: T) => readonly object[]): Pieces<object[]> {
  const made: object[] = [];
  for (const [at, item] of items.entries()) {
    if (at % MADE === 0) yield;
    made.push(...make(item));
  }
  return made;
}

function flowStep(step: Step): object {
  const { service, operation, external } = step;
  return {
    service,
    operation,
    transactions: String(step.transactions),
    events: String(step.events),
    failures: String(step.failures),
    durationMsP50: step.durations.quantile(0.5) / 1000,
    durationMsP99: step.durations.quantile(0.99) / 1000,
    external,
  };
}

function flowEdge(edge: EdgeView, { steps }: Kind): object[] {
  const from = steps.get(edge.from);
  const to = steps.get(edge.to);
  if (from === undefined || to === undefined) return [];
  return [
    {
      fromService: from.service,
      fromOperation: from.operation,
      toService: to.service,
      toOperation: to.operation,
      transactions: String(edge.transactions),
      callsMean: edge.calls / edge.transactions,
      order: edge.order,
      parallel: edge.parallel,
      loop: edge.loop,
      failures: String(edge.failures),
      attemptsMean: edge.attempts / edge.calls,
    },
  ];
}
