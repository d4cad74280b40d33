// What early rollback did: sums by failed step, and who changed what. Rows are counted when they are
// stored, so the sums are as exact as the counts of requests; work is an estimate from learned durations.

import { Audits, type Audit } from './audits.js';
import { RETENTION, type Retention } from './retention.js';
import { nothingSaved, type Saved, type VerdictRecord } from './verdicts.js';

/** Steps with a line of their own; the rest is one line. */
const LINES_MAX = 1000;
const OTHER = 'other';

export interface Line {
  readonly kind: string;
  readonly service: string;
  readonly operation: string;
  verdicts: number;
  heldOut: number;
  wrong: number;
  readonly saved: Saved;
  /** When something was added, as far as it has been looked; absent = since. */
  lastUs?: number | undefined;
}

export type { Audit } from './audits.js';

/** Requests by caller's and callee's service. */
export interface Refusals {
  readonly source: string;
  readonly destination: string;
  refused: number;
  wouldRefuse: number;
  withheld: number;
  retriesSuppressed: number;
  lastUs?: number | undefined;
}

export interface StoredLedger {
  readonly sinceUs: number;
  readonly lines: readonly Line[];
  readonly refusals: readonly Refusals[];
  readonly signals: readonly (readonly [string, number])[];
  readonly saved: Saved;
}

type Sum = 'refused' | 'wouldRefuse' | 'withheld' | 'retriesSuppressed';

export class Ledger {
  private lines = new Map<string, Line>();
  private refusals = new Map<string, Refusals>();
  /** Verdicts by `mode reason`. */
  private signals = new Map<string, number>();
  readonly audits: Audits;
  /** All that was saved, also by requests whose verdict is forgotten. */
  saved = nothingSaved();

  constructor(
    private sinceUs: number,
    private readonly retention: Retention = RETENTION,
  ) {
    this.audits = new Audits(retention);
  }

  get since(): number {
    return this.sinceUs;
  }

  /** Another replica, which has read the same log, knows of more. */
  reaches(sinceUs: number): void {
    this.sinceUs = Math.min(this.sinceUs, sinceUs);
  }

  verdict(record: VerdictRecord): void {
    const line = this.line(record);
    line.verdicts += 1;
    if (record.heldOut) line.heldOut += 1;
    const key = `${record.heldOut ? 'observe' : record.mode} ${record.reason}`;
    this.signals.set(key, (this.signals.get(key) ?? 0) + 1);
  }

  wrong(record: VerdictRecord): void {
    this.line(record).wrong += 1;
  }

  /** `count` requests from `source` to `destination`; `workUs`: what each of them would have cost. */
  requests(what: Sum, count: number, source: string, destination: string, record?: VerdictRecord, workUs = 0): void {
    this.edge(source, destination)[what] += count;
    for (const saved of record === undefined ? [this.saved] : [this.saved, record.saved, this.line(record).saved]) {
      saved[what] += count;
      if (what === 'refused') saved.workUs += count * workUs;
      if (what === 'wouldRefuse') saved.wouldWorkUs += count * workUs;
    }
  }

  /** Lines that nothing was added to for long go into one; sums stay as they are. To be called now and then. */
  expire(nowUs: number): void {
    this.audits.expire(nowUs);
    for (const [key, line] of this.lines) if (this.isOver(line, nowUs, line.service)) this.fold(key, line);
    for (const [key, edge] of this.refusals) if (this.isOver(edge, nowUs, edge.source)) this.foldEdge(key, edge);
  }

  audit(record: Audit): void {
    this.audits.add(record);
  }

  all(): Line[] {
    return [...this.lines.values()].sort((a, b) => b.saved.workUs - a.saved.workUs || b.verdicts - a.verdicts);
  }

  edges(): Iterable<Refusals> {
    return this.refusals.values();
  }

  /** Newest first. */
  auditRecords(limit: number): Audit[] {
    return this.audits.all().slice(0, limit);
  }

  *signalCounts(): Generator<{ mode: string; reason: string; count: number }> {
    for (const [key, count] of this.signals) {
      const [mode, reason] = key.split(' ') as [string, string];
      yield { mode, reason, count };
    }
  }

  snapshot(): StoredLedger {
    const { sinceUs, saved } = this;
    return {
      sinceUs,
      saved,
      lines: [...this.lines.values()],
      refusals: [...this.refusals.values()],
      signals: [...this.signals],
    };
  }

  restore({ sinceUs, lines, refusals, signals, saved }: StoredLedger): void {
    this.sinceUs = sinceUs;
    this.saved = saved;
    this.lines = new Map(lines.map(line => [lineKey(line), line]));
    this.refusals = new Map(refusals.map(edge => [`${edge.source}\n${edge.destination}`, edge]));
    this.signals = new Map(signals);
  }

  private isOver(one: { lastUs?: number | undefined }, nowUs: number, name: string): boolean {
    // Adding to a line forgets when that was last: the next look is it.
    one.lastUs ??= nowUs;
    return one.lastUs < nowUs - this.retention.ledgerUs && name !== OTHER;
  }

  private fold(key: string, from: Line): void {
    this.lines.delete(key);
    const to = this.line({ kind: OTHER, service: OTHER, operation: OTHER });
    for (const sum of ['verdicts', 'heldOut', 'wrong'] as const) to[sum] += from[sum];
    for (const sum of Object.keys(from.saved) as (keyof Saved)[]) to.saved[sum] += from.saved[sum];
  }

  private foldEdge(key: string, from: Refusals): void {
    this.refusals.delete(key);
    const to = this.edge(OTHER, OTHER);
    for (const sum of ['refused', 'wouldRefuse', 'withheld', 'retriesSuppressed'] as const) to[sum] += from[sum];
  }

  private line({ kind, service, operation }: Pick<VerdictRecord, 'kind' | 'service' | 'operation'>): Line {
    const full = this.lines.size >= LINES_MAX && !this.lines.has(lineKey({ kind, service, operation }));
    const names = full ? { kind: OTHER, service: OTHER, operation: OTHER } : { kind, service, operation };
    const key = lineKey(names);
    let line = this.lines.get(key);
    if (line === undefined) {
      this.lines.set(key, (line = { ...names, verdicts: 0, heldOut: 0, wrong: 0, saved: nothingSaved() }));
    }
    line.lastUs = undefined;
    return line;
  }

  private edge(source: string, destination: string): Refusals {
    const key = `${source}\n${destination}`;
    const known = this.refusals.get(key);
    if (known !== undefined) {
      known.lastUs = undefined;
      return known;
    }
    if (this.refusals.size >= LINES_MAX && source !== OTHER) return this.edge(OTHER, OTHER);
    const edge = { source, destination, refused: 0, wouldRefuse: 0, withheld: 0, retriesSuppressed: 0 };
    this.refusals.set(key, edge);
    return edge;
  }
}

const lineKey = ({ kind, service, operation }: { kind: string; service: string; operation: string }): string =>
  `${kind}\n${service}\n${operation}`;
