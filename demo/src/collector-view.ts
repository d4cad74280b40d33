// What the demo asks the collector, in the shapes it prints and checks.
import { CollectorClient, type Collector } from './mesh/collector.js';

export interface Timestamp {
  seconds: string;
  nanos: number;
}

export interface OperationCount {
  operation: string;
  response_code: number;
  response_flags: string;
  count: string;
}

export interface Service {
  name: string;
  live: number;
  external: boolean;
  in_flight?: number;
  queue?: number;
  events: string;
  operations: OperationCount[];
}

export interface Progress {
  job: string;
  done?: string;
  of?: string;
  queue?: string;
  state: string;
}

export interface Instance {
  cuid: string;
  ip: string;
  service: string;
  state: string;
  progress: Progress[];
}

export interface TransactionHead {
  key: string;
  kind: string;
  state: string;
}

export interface WhoHad {
  intervals: { cuid: string; from: Timestamp; to: Timestamp | null }[];
  ambiguous: boolean;
  unknown: boolean;
  note: string;
}

export interface Verdict {
  id: string;
  key: string;
  service: string;
  operation: string;
  mode: string;
  state: string;
  wrong: boolean;
}

export interface FlowEdge {
  from_service: string;
  from_operation: string;
  to_service: string;
  to_operation: string;
  calls_mean: number;
  parallel: boolean;
}

export interface Flow {
  kind: string;
  transactions: string;
  edges: FlowEdge[];
}

export function toTimestamp(ms: number): Timestamp {
  const seconds = Math.floor(ms / 1000);
  return { seconds: String(seconds), nanos: (ms - seconds * 1000) * 1e6 };
}

/** The demo's questions. Page sizes cover the shop many times over. */
export class CollectorView {
  private readonly clients: readonly CollectorClient[];
  /** How many questions each replica has answered. */
  readonly answered: number[];
  private next = 0;

  /** @param replicas are asked in turn: whichever it is, the answer is the same */
  constructor(private readonly replicas: readonly Collector[]) {
    this.clients = replicas.map(({ grpc }) => new CollectorClient(grpc));
    this.answered = replicas.map(() => 0);
  }

  private get client(): CollectorClient {
    const at = this.next++ % this.clients.length;
    this.answered[at]! += 1;
    return this.clients[at]!;
  }

  close(): void {
    for (const client of this.clients) client.close();
  }

  async services(): Promise<Map<string, Service>> {
    const { services } = await this.client.call<{ services: Service[] }>('Registry', 'ListServices', {
      page_size: 1000,
    });
    return new Map(services.map(service => [service.name, service]));
  }

  async instances(service: string): Promise<Instance[]> {
    const request = { service, page_size: 1000 };
    return (await this.client.call<{ instances: Instance[] }>('Registry', 'ListInstances', request)).instances;
  }

  /** Transactions in work for at least `seconds`. */
  async runningFor(seconds: number): Promise<TransactionHead[]> {
    const request = { states: ['TRANSACTION_STATE_RUNNING'], older_than: { seconds: String(seconds), nanos: 0 } };
    const answer = await this.client.call<{ transactions: TransactionHead[] }>('Transactions', 'List', request);
    return answer.transactions;
  }

  /** The state of one transaction, by any of its ids. */
  async transaction(id: string): Promise<TransactionHead> {
    return this.client.call<TransactionHead>('Transactions', 'Get', { id });
  }

  async whoHad(ip: string, atMs?: number): Promise<WhoHad> {
    const at = atMs === undefined ? {} : { at: toTimestamp(atMs) };
    return this.client.call<WhoHad>('Registry', 'WhoHad', { ip, ...at });
  }

  /** What is in force: the policy's own mode. */
  async rollbackMode(): Promise<string> {
    return (await this.client.call<{ mode: string }>('Rollback', 'GetPolicy')).mode;
  }

  /** The newest verdicts. */
  async verdicts(): Promise<Verdict[]> {
    return (await this.client.call<{ verdicts: Verdict[] }>('Rollback', 'List', { page_size: 1000 })).verdicts;
  }

  async flow(kind: string): Promise<Flow | undefined> {
    const { flows } = await this.client.call<{ flows: Flow[] }>('Registry', 'GetFlow', { kind });
    return flows[0];
  }

  /** Sum of all series of a metric, which of several replicas each has its own; undefined if none exports it. */
  async metric(name: string): Promise<number | undefined> {
    const pages = await Promise.all(this.replicas.map(replica => replica.get('/metrics')));
    const lines = pages.flatMap(page => page.split('\n'));
    const series = lines.filter(line => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
    if (series.length === 0) return undefined;
    return series.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  }
}
