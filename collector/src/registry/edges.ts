// Calls from service to service, as the callers count them: for metrics.

/** Combinations kept; past them everything new is counted as `other` to `other`. */
export const EDGES_MAX = 50_000;

export interface Edge {
  readonly source: string;
  readonly sourceWorkload: string;
  readonly destination: string;
  readonly status: number;
  readonly responseFlags: number;
  readonly outcome: number;
  count: number;
}

const OTHER: Omit<Edge, 'count'> = {
  source: 'other',
  sourceWorkload: 'other',
  destination: 'other',
  status: 0,
  responseFlags: 0,
  outcome: 0,
};

export class Edges {
  private readonly edges = new Map<string, Edge>();

  add(edge: Readonly<Edge>): void {
    const key = keyOf(edge);
    const known = this.edges.get(key);
    if (known !== undefined) known.count += edge.count;
    else if (this.edges.size < EDGES_MAX) this.edges.set(key, { ...edge });
    else this.addOther(edge.count);
  }

  all(): Iterable<Edge> {
    return this.edges.values();
  }

  /** Takes back what a snapshot held, in place of what was counted so far. */
  restore(edges: readonly Edge[]): void {
    this.edges.clear();
    for (const edge of edges) this.edges.set(keyOf(edge), { ...edge });
  }

  private addOther(count: number): void {
    const key = keyOf(OTHER);
    const known = this.edges.get(key);
    if (known !== undefined) known.count += count;
    else this.edges.set(key, { ...OTHER, count });
  }
}

function keyOf(edge: Omit<Edge, 'count'>): string {
  const { source, sourceWorkload, destination, status, responseFlags, outcome } = edge;
  return [source, sourceWorkload, destination, status, responseFlags, outcome].join('\0');
}
