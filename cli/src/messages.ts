// The collector's answers as proto3 JSON, as far as commands read them. 64-bit numbers are text.

export interface Service {
  readonly name: string;
  readonly cluster: string;
  readonly live: number;
  readonly silent: number;
  readonly gone: number;
  readonly expected: number;
  readonly external: boolean;
  readonly inFlight?: number;
  readonly queue?: number;
  readonly operations: readonly {
    readonly outcome: string;
    readonly labels: readonly string[];
    readonly count: string;
  }[];
  readonly events: string;
}

export interface Instance {
  readonly cuid: string;
  readonly service: string;
  readonly slot: string;
  readonly node: string;
  readonly ip: string;
  readonly state: string;
  readonly unclean: boolean;
  readonly firstSeen?: string;
  readonly status?: Status;
  readonly statusAgeMs: number;
  readonly progress: readonly Progress[];
}

export interface Status {
  readonly inFlight?: number;
  readonly queue?: number;
  readonly queueSource: string;
  readonly waitMs?: number;
  readonly cpuRatio?: number;
  readonly memoryRatio?: number;
}

export interface Progress {
  readonly job: string;
  readonly done?: string;
  readonly of?: string;
  readonly queue?: string;
  readonly state: string;
  readonly ageMs: number;
}

export interface StatusUpdate {
  readonly instance?: Instance;
  readonly synced: boolean;
}

export interface AddressInterval {
  readonly cluster: string;
  readonly network: string;
  readonly ip: string;
  readonly port: number;
  readonly from?: string;
  readonly to?: string;
  readonly lastHeard?: string;
  readonly cuid: string;
  readonly service: string;
  readonly slot: string;
  readonly node: string;
}

export interface WhoHad {
  readonly intervals: readonly AddressInterval[];
  readonly ambiguous: boolean;
  readonly unknown: boolean;
  readonly note: string;
}

export interface Transaction {
  readonly key: string;
  readonly keyText: string;
  readonly keySource: string;
  readonly requestIds: readonly string[];
  readonly state: string;
  readonly kind: string;
  readonly started?: string;
  readonly ended?: string;
  readonly duration?: string;
  readonly entries: number;
  readonly events: readonly unknown[];
  readonly eventsOmitted: number;
  readonly unlinked: number;
}

export interface Explanation {
  readonly transaction: Transaction;
  readonly lines: readonly {
    readonly offset?: string;
    readonly depth: number;
    readonly text: string;
    readonly evidence: readonly string[];
  }[];
  readonly summary: string;
}

export interface FlowStep {
  readonly service: string;
  readonly operation: string;
  readonly transactions: string;
  readonly events: string;
  readonly failures: string;
  readonly durationMsP50: number;
  readonly durationMsP99: number;
  readonly external: boolean;
}

export interface FlowEdge {
  readonly fromService: string;
  readonly fromOperation: string;
  readonly toService: string;
  readonly toOperation: string;
  readonly callsMean: number;
  readonly order: number;
  readonly parallel: boolean;
  readonly loop: boolean;
  readonly failures: string;
  readonly attemptsMean: number;
}

export interface Flow {
  readonly kind: string;
  readonly transactions: string;
  readonly transactionsAbstained: string;
  readonly lastSeen?: string;
  readonly steps: readonly FlowStep[];
  readonly edges: readonly FlowEdge[];
  readonly singleEntryRatio: number;
}
