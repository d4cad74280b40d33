// The collector's answers on rollback as proto3 JSON, as far as commands read them. 64-bit numbers are text.

export interface Saved {
  readonly refused: string;
  readonly wouldRefuse: string;
  readonly withheld: string;
  readonly retriesSuppressed: string;
  readonly work?: string;
  readonly wouldWork?: string;
}

export interface Verdict {
  readonly id: string;
  readonly key: string;
  readonly kind: string;
  readonly reason: string;
  readonly service: string;
  readonly operation: string;
  readonly mode: string;
  readonly heldOut: boolean;
  readonly decided?: string;
  readonly ended?: string;
  readonly endReason: string;
  readonly evidence: readonly string[];
  readonly forward: readonly string[];
  readonly proxies: number;
  readonly state: string;
  readonly wrong: boolean;
  readonly saved?: Saved;
  readonly operatorReason: string;
}

export interface PlanStep {
  readonly signalId: string;
  readonly order: number;
  readonly service: string;
  readonly operation: string;
  readonly eventId: string;
  readonly cuid: string;
  readonly unknown: boolean;
  readonly state: string;
  readonly deliveries: number;
  readonly acknowledged?: string;
  readonly acknowledgedBy: string;
}

export interface Plan {
  readonly verdict?: Verdict;
  readonly state: string;
  readonly steps: readonly PlanStep[];
  readonly omitted: number;
}

export interface Signal {
  readonly id: string;
  readonly resumeToken: string;
  readonly key: string;
  readonly reason: string;
  readonly step?: PlanStep;
  readonly delivery: number;
}

export interface Ledger {
  readonly since?: string;
  readonly lines: readonly {
    readonly kind: string;
    readonly service: string;
    readonly operation: string;
    readonly verdicts: string;
    readonly heldOut: string;
    readonly wrongVerdicts: string;
    readonly saved?: Saved;
  }[];
  readonly total?: Saved;
  readonly verdicts: string;
  readonly wrongVerdicts: string;
  readonly audit: readonly AuditRecord[];
}

export interface AuditRecord {
  readonly at?: string;
  readonly action: string;
  readonly actor: string;
  readonly reason: string;
  readonly subject: string;
  readonly result: string;
}

export interface PolicyView {
  readonly mode: string;
  readonly text: string;
  readonly path: string;
  readonly loaded?: string;
  readonly refused: string;
  readonly overrides: readonly Override[];
  readonly kills: readonly Kill[];
  readonly learned: readonly {
    readonly kind: string;
    readonly service: string;
    readonly operation: string;
    readonly failures: number;
    readonly fatal: number;
    readonly lowerBound: number;
    readonly decides: boolean;
    readonly withheld: string;
    readonly forward: readonly string[];
  }[];
}

export interface Override {
  readonly scope: string;
  readonly mode: string;
  readonly until?: string;
  readonly reason: string;
  readonly actor: string;
}

export interface Kill {
  readonly scope: string;
  readonly since?: string;
  readonly reason: string;
  readonly actor: string;
}

export interface Score {
  readonly transactions: string;
  readonly failing: string;
  readonly right: string;
  readonly wrong: string;
  readonly heldOut: string;
  readonly missed: string;
  readonly refused: string;
  readonly work?: string;
  readonly steps: readonly {
    readonly kind: string;
    readonly service: string;
    readonly operation: string;
    readonly reason: string;
    readonly right: string;
    readonly wrong: string;
    readonly forward: readonly string[];
  }[];
}

/** `enforce` of `ROLLBACK_MODE_ENFORCE`, and the like. */
export const word = (name: string): string =>
  name
    .replace(/^(?:ROLLBACK_MODE|ROLLBACK_STATE|STEP_STATE|VERDICT_REASON)_/, '')
    .toLowerCase()
    .replaceAll('_', '-');
