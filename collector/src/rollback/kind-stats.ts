// What is known of one kind of transaction: how often it has one entry, what its failed steps meant, and
// which edges belong to its normal course.

import { OTHER } from '../registry/counts.js';
import { EVIDENCE_US, RepeatsSeen, type Seen } from './repeats.js';
import type { Edge, EdgeSeen, Sample } from './sample.js';
import { isAfterFailure, ratesOf, sparedEdges, type Rate } from './spared.js';

/** Samples of each sort; the oldest go first. */
export const SUCCESSES_MAX = 200;
export const FAILURES_MAX = 400;
export const ENFORCED_MAX = 100;

/** Once there are enough of them, successes are looked at this often only, us: they are much alike. */
const SUCCESS_EVERY_US = 20_000;

/** Traces that the single-entry share looks back on; and how many there have to be. */
export const TRACES_MAX = 200;

const ALL_SINGLE = '1'.repeat(TRACES_MAX);
export const TRACES_MIN = 100;

/** Successful transactions in which an edge must have been seen after the failed step. */
export const FORWARD_MIN = 20;

/**
 * Failures of a step that must have been seen before anybody but those who see it fail is told to refuse: until
 * then nobody knows what the compensations need that they call.
 */
export const REACTIONS_MIN = 3;

/** A kind whose rows were thinned abstains for this long after the last of them, us. */
export const THINNED_US = 10 * 60 * 1e6;

/** Edges of one kind that are told apart; what is new past them is not learned. */
const EDGES_MAX = 2048;

/** What was found in the samples is good until this share of them is new. */
const STALE_SHARE = 0.05;

export interface Evidence {
  /** Transactions in which the step failed for good, and those of them that failed as a whole. */
  readonly failures: number;
  readonly fatal: number;
}

export interface ForwardEdge {
  readonly edge: Edge;
  /** Successes in which it began after the step. */
  readonly seen: number;
  /** Nobody calls the operation but by edges that are forward too. */
  readonly onlyForward: boolean;
  /** Mean of its work and all that it causes, us. */
  readonly workUs: number;
}

export interface StoredKind {
  readonly kind: string;
  readonly singles: string;
  readonly thinnedUs: number;
  readonly successes: readonly Sample[];
  readonly failures: readonly Sample[];
  readonly enforced: readonly Sample[];
  readonly spared: readonly (readonly [string, number])[];
  readonly repeats: readonly [string, readonly Seen[]][];
}

/** Stands for edges past EDGES_MAX. */
const UNTOLD: Edge = { caller: '', service: '', operation: '', destination: '', step: '', name: '' };

interface Found {
  readonly forward: Map<string, readonly ForwardEdge[]>;
  readonly rates: ReadonlyMap<string, Rate>;
  /** Edges that are never forward, by name. */
  readonly spared: ReadonlySet<string>;
  /** `added` when it was found. */
  readonly at: number;
}

export class KindStats {
  /** Of the last traces, oldest first, a 1 for each that had exactly one entry, else a 0. */
  private singles = '';
  /** When one of its transactions was last thinned; 0 = never. */
  thinnedUs = 0;
  readonly repeats: RepeatsSeen;
  private readonly successes: Sample[] = [];
  private readonly failures: Sample[] = [];
  /** Of no use as evidence, but they show what applications do after a failure. */
  private readonly enforced: Sample[] = [];
  private readonly edges = new Map<string, Edge>();
  /** When an edge, by name, was last known to be needed by more than the normal course. At most EDGES_MAX. */
  private readonly sparedUs: Map<string, number>;
  private lastUs = 0;
  private readonly steps = new Set<string>();
  private added = 0;
  private found: Found | undefined;

  constructor(
    readonly kind: string,
    stored?: StoredKind,
  ) {
    this.repeats = new RepeatsSeen(stored?.repeats);
    this.sparedUs = new Map(stored?.spared);
    if (stored === undefined) return;
    this.singles = stored.singles;
    this.thinnedUs = stored.thinnedUs;
    for (const sample of [...stored.successes, ...stored.failures]) this.add(sample);
    for (const sample of stored.enforced) this.addEnforced(sample);
  }

  get traces(): number {
    return this.singles.length;
  }

  /** 0 to 1; 0 when there was no trace. */
  get singleRatio(): number {
    return this.traces === 0 ? 0 : [...this.singles].filter(one => one === '1').length / this.traces;
  }

  trace(single: boolean): void {
    if (single && this.singles === ALL_SINGLE) return;
    this.singles = (this.singles + (single ? '1' : '0')).slice(-TRACES_MAX);
    // The very same text each time, so that it need not be read to be compared.
    if (this.singles === ALL_SINGLE) this.singles = ALL_SINGLE;
  }

  notSingle(): void {
    const last = this.singles.lastIndexOf('1');
    if (last >= 0) this.singles = `${this.singles.slice(0, last)}0${this.singles.slice(last + 1)}`;
  }

  add(sample: Sample): void {
    const known = this.known(sample);
    if (sample.failures.length > 0) keep(this.failures, known, FAILURES_MAX);
    else if (!sample.failed) keep(this.successes, known, SUCCESSES_MAX);
    else return;
    this.added += 1;
  }

  /** One that was interfered with, with what was refused in it. It can only take edges off the lists. */
  addEnforced(sample: Sample): void {
    keep(this.enforced, this.known(sample), ENFORCED_MAX);
    this.added += 1;
  }

  /** Whether another success would teach something. */
  wantsSuccess(atUs: number): boolean {
    const last = this.successes.at(-1);
    return (
      this.successes.length < SUCCESSES_MAX || last === undefined || Math.abs(atUs - last.atUs) >= SUCCESS_EVERY_US
    );
  }

  evidence(step: string, nowUs: number): Evidence {
    let [failures, fatal] = [0, 0];
    for (const sample of this.failures) {
      if (sample.atUs < nowUs - EVIDENCE_US || !sample.failures.some(one => one.step === step)) continue;
      failures += 1;
      if (sample.failed) fatal += 1;
    }
    return { failures, fatal };
  }

  /** Steps that have failed for good. */
  failedSteps(): string[] {
    return [...new Set(this.failures.flatMap(sample => sample.failures.map(one => one.step)))];
  }

  /** Whether any of these steps was seen in a transaction of this kind. */
  knows(steps: ReadonlySet<string>): boolean {
    for (const step of steps) if (this.steps.has(step)) return true;
    return false;
  }

  /** Edges that belong to what comes after the step when all goes well, and to nothing else. */
  forward(step: string): readonly ForwardEdge[] {
    const { forward, spared } = this.look();
    let edges = forward.get(step);
    if (edges === undefined) forward.set(step, (edges = this.findForward(step, spared)));
    return edges;
  }

  /** Edges that are there because something failed: compensations, fallbacks, alerts. */
  spare(): Edge[] {
    const { rates } = this.look();
    return [...this.edges.values()].filter(edge => isAfterFailure(rates.get(edge.name)));
  }

  stored(): StoredKind {
    const { kind, singles, thinnedUs, successes, failures, enforced } = this;
    const spared = [...this.sparedUs];
    return { kind, singles, thinnedUs, successes, failures, enforced, spared, repeats: this.repeats.stored() };
  }

  private known(sample: Sample): Sample {
    this.lastUs = Math.max(this.lastUs, sample.atUs);
    return { ...sample, edges: sample.edges.map(seen => ({ ...seen, edge: this.intern(seen.edge) })) };
  }

  /** One object an edge, so that samples share their texts. One edge may have several destinations. */
  private intern(seen: Edge): Edge {
    const key = `${seen.name} ${seen.destination}`;
    const edge = this.edges.get(key);
    if (edge !== undefined) return edge;
    if (this.edges.size >= EDGES_MAX) return UNTOLD;
    this.edges.set(key, seen);
    this.steps.add(seen.step);
    // It may be what undoes others: that must not wait.
    this.found = undefined;
    return seen;
  }

  private look(): Found {
    const stale = Math.max(1, STALE_SHARE * (this.successes.length + this.failures.length));
    if (this.found === undefined || this.added - this.found.at >= stale) {
      const failures = [...this.failures, ...this.enforced];
      const rates = ratesOf(this.successes, failures);
      const spared = this.remember(sparedEdges(this.successes, failures, rates));
      for (const [name, rate] of rates) if (isAfterFailure(rate)) spared.add(name);
      this.found = { forward: new Map(), rates, spared, at: this.added };
    }
    return this.found;
  }

  /** What was seen to be needed otherwise stays so for a day: frequent failures push rare ones out of the rings. */
  private remember(spared: ReadonlySet<string>): Set<string> {
    // With few successes everything looks like a compensation.
    if (this.successes.length >= TRACES_MIN) for (const name of spared) this.sparedUs.set(name, this.lastUs);
    for (const [name, us] of this.sparedUs) if (us < this.lastUs - EVIDENCE_US) this.sparedUs.delete(name);
    return new Set([...spared, ...this.sparedUs.keys()]);
  }

  /** Transactions that show what applications do when the step has failed. */
  private reactions(step: string): number {
    const failed = ({ failures }: Sample): boolean => failures.some(one => one.step === step);
    return this.failures.filter(failed).length + this.enforced.filter(failed).length;
  }

  /** Services that see the step fail: its callers, their callers, up to the entry. */
  private callersAbove(step: string): Set<string> {
    const callers = new Set<string>();
    for (const { edges } of this.successes) {
      for (const seen of edges.filter(({ edge }) => edge.step === step)) {
        for (let at: EdgeSeen | undefined = seen; at !== undefined; at = edges[at.under]) callers.add(at.edge.caller);
      }
    }
    return callers;
  }

  private findForward(step: string, spared: ReadonlySet<string>): ForwardEdge[] {
    const sums = new Map<Edge, { seen: number; workUs: number; times: number }>();
    for (const { edges } of this.successes) {
      const from = edges.findIndex(({ edge }) => edge.step === step);
      if (from < 0) continue;
      const inThis = new Set<Edge>();
      for (const { edge, workUs } of edges.slice(from + 1)) {
        if (edge.step === step) continue;
        const sum = sums.get(edge) ?? { seen: 0, workUs: 0, times: 0 };
        if (!inThis.has(edge)) sum.seen += 1;
        inThis.add(edge);
        sum.workUs += workUs;
        sum.times += 1;
        sums.set(edge, sum);
      }
    }
    const known = this.reactions(step) >= REACTIONS_MIN;
    const above = this.callersAbove(step);
    const found = [...sums].filter(
      ([edge, { seen }]) =>
        seen >= FORWARD_MIN && isNamed(edge) && !spared.has(edge.name) && (known || above.has(edge.caller)),
    );
    const names = new Set(found.map(([edge]) => edge.name));
    const otherwise = new Set([...this.edges.values()].filter(({ name }) => !names.has(name)).map(edge => edge.step));
    return found
      .map(([edge, { seen, workUs, times }]) => {
        return { edge, seen, onlyForward: !otherwise.has(edge.step), workUs: workUs / times };
      })
      .sort((a, b) => (a.edge.name < b.edge.name ? -1 : 1));
  }
}

/** Operations past a service's bound share one name, and a callee without one cannot be told from others. */
const isNamed = ({ operation, destination }: Edge): boolean => operation !== OTHER && destination !== '';

function keep(ring: Sample[], sample: Sample, max: number): void {
  ring.push(sample);
  if (ring.length > max) ring.shift();
}
