// What one finished transaction teaches: the steps and edges of its kind, and in which order one
// parent's calls ran. Pure: nodes in, lessons out; graph.ts adds lessons up.

/** One request of a transaction. */
export interface FlowNode {
  readonly service: string;
  readonly operation: string;
  /** The callee has no sidecar. */
  readonly external: boolean;
  /** Position of the node that caused it; -1 = none is known. */
  readonly parent: number;
  /** No in-mesh caller: a transaction of this kind begins here. */
  readonly entry: boolean;
  /** Inbound events of it, 1 or more: one for each attempt that arrived. */
  readonly events: number;
  /** Of those, the failed ones. */
  readonly eventsFailed: number;
  /** As its caller saw it in the end. */
  readonly failed: boolean;
  /** Attempts of the caller's proxy, 1 or more. */
  readonly attempts: number;
  readonly durationUs: number;
  /** From begin to end of the call, by its caller's clock, us. */
  readonly startUs: number;
  readonly endUs: number;
}

/** What one tree teaches about its kind. */
export interface Lesson {
  /** `service OPERATION` of its entry. */
  readonly kind: string;
  readonly steps: ReadonlyMap<string, StepLesson>;
  readonly edges: ReadonlyMap<string, EdgeLesson>;
  /** One for each parent with at least two different callees. */
  readonly orders: readonly OrderLesson[];
}

export interface StepLesson {
  readonly service: string;
  readonly operation: string;
  external: boolean;
  events: number;
  failures: number;
  readonly durationsUs: number[];
}

export interface EdgeLesson {
  /** Keys of steps. */
  readonly from: string;
  readonly to: string;
  calls: number;
  failures: number;
  attempts: number;
  /** Comes back to a step further up, or to its own. */
  loop: boolean;
  /** Places, from 1, among the different callees of its parents, summed over `parents` of them. */
  rankSum: number;
  parents: number;
}

/** How the calls of one parent event stood to each other. */
export interface OrderLesson {
  readonly pairs: readonly OrderPair[];
}

/** Keys of two edges; `first` began first, or they ran at the same time. */
export interface OrderPair {
  readonly first: string;
  readonly second: string;
  readonly overlap: boolean;
}

/**
 * Calls that overlap by less than this share of the shorter one ran one after the other: a proxy notes
 * the end of a call a little after its application has the answer.
 */
const OVERLAP_SHARE_MIN = 0.1;

/** Different callees of one parent event that are compared with each other; those that began first. */
export const COMPARED_MAX = 32;

export const stepKey = (service: string, operation: string): string => `${service} ${operation}`;

export const edgeKey = (from: string, to: string): string => `${from}\n${to}`;

/**
 * The lessons of one transaction, one for each of its entries: several entries are several business
 * requests that share an id. Nodes that hang below no entry (a parent is missing) count for the first.
 * Without an entry there is nothing to learn. Nodes come in any order; parents must not form a circle.
 */
export function learn(nodes: readonly FlowNode[]): Lesson[] {
  const entries = [...nodes.keys()].filter(at => nodes[at]!.entry);
  if (entries.length === 0) return [];
  const trees = new Map(entries.map(entry => [entry, [] as number[]]));
  const roots = rootsOf(nodes);
  for (const at of nodes.keys()) (trees.get(roots[at]!) ?? trees.get(entries[0]!)!).push(at);
  return [...trees].map(([entry, members]) => lessonOf(nodes, entry, members));
}

function rootsOf(nodes: readonly FlowNode[]): number[] {
  const roots: number[] = [];
  for (const start of nodes.keys()) {
    let at = start;
    while (roots[at] === undefined && nodes[at]!.parent >= 0) at = nodes[at]!.parent;
    const root = roots[at] ?? at;
    for (at = start; roots[at] === undefined; at = nodes[at]!.parent) {
      roots[at] = root;
      if (nodes[at]!.parent < 0) break;
    }
  }
  return roots;
}

function lessonOf(nodes: readonly FlowNode[], entry: number, members: readonly number[]): Lesson {
  const keys = nodes.map(node => stepKey(node.service, node.operation));
  const steps = new Map<string, StepLesson>();
  const edges = new Map<string, EdgeLesson>();
  const children = new Map<number, number[]>();
  for (const at of members) {
    const node = nodes[at]!;
    addStep(steps, keys[at]!, node);
    if (node.parent < 0) continue;
    addEdge(edges, keys[node.parent]!, keys[at]!, node, comesBack(nodes, keys, at));
    const siblings = children.get(node.parent);
    if (siblings === undefined) children.set(node.parent, [at]);
    else siblings.push(at);
  }
  const orders: OrderLesson[] = [];
  for (const [parent, calls] of children) {
    const callees = calleesOf(nodes, keys, keys[parent]!, calls);
    rank(callees, edges);
    const compared = callees.slice(0, COMPARED_MAX);
    if (compared.length > 1) orders.push({ pairs: pairsOf(compared) });
  }
  return { kind: keys[entry]!, steps, edges, orders };
}

function addStep(steps: Map<string, StepLesson>, key: string, node: FlowNode): void {
  let step = steps.get(key);
  if (step === undefined) {
    const { service, operation, external } = node;
    steps.set(key, (step = { service, operation, external, events: 0, failures: 0, durationsUs: [] }));
  }
  step.external &&= node.external;
  step.events += node.events;
  step.failures += node.eventsFailed;
  step.durationsUs.push(node.durationUs);
}

function addEdge(edges: Map<string, EdgeLesson>, from: string, to: string, node: FlowNode, loop: boolean): void {
  const key = edgeKey(from, to);
  let edge = edges.get(key);
  if (edge === undefined) {
    edges.set(key, (edge = { from, to, calls: 0, failures: 0, attempts: 0, loop: false, rankSum: 0, parents: 0 }));
  }
  edge.calls += 1;
  edge.failures += node.failed ? 1 : 0;
  edge.attempts += node.attempts;
  edge.loop ||= loop;
}

function comesBack(nodes: readonly FlowNode[], keys: readonly string[], at: number): boolean {
  for (let above = nodes[at]!.parent; above >= 0; above = nodes[above]!.parent)
    if (keys[above] === keys[at]) return true;
  return false;
}

interface Callee {
  readonly edge: string;
  /** By start. */
  readonly calls: FlowNode[];
}

/** The different callees of one parent event, in the order of their first calls. */
function calleesOf(
  nodes: readonly FlowNode[],
  keys: readonly string[],
  parent: string,
  calls: readonly number[],
): Callee[] {
  const callees = new Map<string, Callee>();
  for (const at of [...calls].sort((a, b) => nodes[a]!.startUs - nodes[b]!.startUs)) {
    const edge = edgeKey(parent, keys[at]!);
    const callee = callees.get(edge);
    if (callee === undefined) callees.set(edge, { edge, calls: [nodes[at]!] });
    else callee.calls.push(nodes[at]!);
  }
  return [...callees.values()];
}

function rank(callees: readonly Callee[], edges: ReadonlyMap<string, EdgeLesson>): void {
  callees.forEach(({ edge }, index) => {
    const lesson = edges.get(edge)!;
    lesson.rankSum += index + 1;
    lesson.parents += 1;
  });
}

function pairsOf(callees: readonly Callee[]): OrderPair[] {
  const pairs: OrderPair[] = [];
  callees.forEach((a, index) => {
    for (const b of callees.slice(index + 1)) {
      pairs.push({ first: a.edge, second: b.edge, overlap: overlap(a.calls, b.calls) });
    }
  });
  return pairs;
}

/** Whether any of `a` ran at the same time as any of `b`; both by start. */
function overlap(a: readonly FlowNode[], b: readonly FlowNode[]): boolean {
  return a.some(x => b.some(y => y.startUs < x.endUs && x.startUs < y.endUs && together(x, y)));
}

function together(x: FlowNode, y: FlowNode): boolean {
  const shared = Math.min(x.endUs, y.endUs) - Math.max(x.startUs, y.startUs);
  const shorter = Math.min(x.endUs - x.startUs, y.endUs - y.startUs);
  return shared > OVERLAP_SHARE_MIN * shorter;
}
