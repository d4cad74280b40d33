// Readers that ask without pause, in a process of their own, and how long a report waits meanwhile.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { batch, hello, type Plain } from '../ingest-support.js';
import { Clients } from '../rpc-support.js';

const CALLS: readonly (readonly [string, Plain])[] = [
  ['Registry.ListInstances', { pageSize: 1000 }],
  ['Registry.ListServices', { pageSize: 1000 }],
  ['Transactions.List', { pageSize: 1000 }],
  ['Registry.GetFlow', {}],
];
const PATHS = ['instances?pageSize=1000', 'services?pageSize=1000', 'transactions?pageSize=100', 'flow'];

/** A reader that is told to come back does so; real ones wait for as long as they are told. */
const REFUSED_MS = 100;

export interface ReaderPlan {
  readonly grpc: string;
  readonly http: string;
  readonly clients: number;
}

export interface ReaderFigures {
  readonly answered: number;
  readonly refused: number;
  readonly failed: number;
}

/** Asks until the process ends. */
export function hammer({ grpc, http, clients }: ReaderPlan): ReaderFigures {
  const figures = { answered: 0, refused: 0, failed: 0 };
  for (let n = 0; n < clients; n++) void (n % 2 === 0 ? askGrpc(grpc, n, figures) : askHttp(http, n, figures));
  return figures;
}

type Counting = { -readonly [name in keyof ReaderFigures]: ReaderFigures[name] };

async function askGrpc(grpc: string, first: number, figures: Counting): Promise<void> {
  const client = new Clients(grpc);
  for (let n = first / 2; ; n++) {
    const [name, request] = CALLS[n % CALLS.length]!;
    try {
      await client.call(name, request);
      figures.answered += 1;
    } catch (error) {
      figures[(error as { code?: number }).code === 8 ? 'refused' : 'failed'] += 1;
      await new Promise(resolve => setTimeout(resolve, REFUSED_MS));
    }
  }
}

async function askHttp(http: string, first: number, figures: Counting): Promise<void> {
  for (let n = (first - 1) / 2; ; n++) {
    try {
      const answer = await fetch(`http://${http}/api/v1/${PATHS[n % PATHS.length]!}`);
      await answer.arrayBuffer();
      figures[answer.status === 200 ? 'answered' : answer.status === 429 ? 'refused' : 'failed'] += 1;
      if (answer.status !== 200) await new Promise(resolve => setTimeout(resolve, REFUSED_MS));
    } catch {
      figures.failed += 1;
      await new Promise(resolve => setTimeout(resolve, REFUSED_MS));
    }
  }
}

const PROCESS = fileURLToPath(new URL('./readers-process.js', import.meta.url));

export interface RunningReaders {
  /** Ends them, and says how they fared. */
  end(): Promise<ReaderFigures>;
}

export async function startReaders({ grpc, http, clients }: ReaderPlan): Promise<RunningReaders> {
  const child = fork(PROCESS, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const ready = once(child, 'message');
  child.send({ grpc, http, clients });
  await ready;
  return {
    async end() {
      const answer = once(child, 'message');
      child.send('end');
      const [figures] = (await answer) as [ReaderFigures];
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
      return figures;
    },
  };
}

/** Sends a small report every `everyMs` for `ms` and returns how long each waited for its answer, ms. */
export class Probe {
  private readonly clients: Clients;
  private readonly stream: ReturnType<Clients['report']>;
  private seq = 0;

  constructor(grpc: string) {
    this.clients = new Clients(grpc);
    this.stream = this.clients.report();
  }

  async begin(): Promise<void> {
    const who = {
      cuid: 'aaaaaaaa-d9cb-469f-a165-70867728950e',
      proxyId: 'probe',
      ip: '10.255.255.1',
      service: 'probe.shop',
    };
    await this.stream.ask({ hello: hello(who) });
  }

  async measure(ms: number, everyMs: number): Promise<number[]> {
    const tookMs: number[] = [];
    const endMs = performance.now() + ms;
    while (performance.now() < endMs) {
      const sentMs = performance.now();
      await this.stream.ask({ batches: [batch(++this.seq, [{}])] });
      tookMs.push(performance.now() - sentMs);
      await new Promise(resolve => setTimeout(resolve, everyMs));
    }
    return tookMs;
  }

  end(): void {
    this.clients.close();
  }
}
