// The collector as users run it (`bin/meshpulse collector`), and a client for its API.
import { join } from 'node:path';
import { credentials, loadPackageDefinition, type ServiceError } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { format, freePort, type Address } from './address.js';
import { Child, until } from './child.js';
import { ROOT } from './envoy.js';

const READY_TIMEOUT_MS = 20_000;
const STOP_GRACE_MS = 10_000;
const CALL_TIMEOUT_MS = 10_000;

export interface CollectorOptions {
  /** For its log. */
  dir: string;
  /** Default: free ports on 127.0.0.1. */
  grpc?: Address;
  http?: Address;
  /** More flags, e.g. `['--data-dir', DIR]`. */
  args?: string[];
}

/** A collector as a child process. */
export class Collector {
  private constructor(
    private readonly child: Child,
    readonly grpc: Address,
    readonly http: Address,
    private readonly options: CollectorOptions,
  ) {}

  /** Starts it and waits until it is ready. */
  static async start(options: CollectorOptions): Promise<Collector> {
    const grpc = options.grpc ?? { host: '127.0.0.1', port: await freePort() };
    const http = options.http ?? { host: '127.0.0.1', port: await freePort() };
    const collector = new Collector(spawnCollector(options, grpc, http), grpc, http, options);
    await collector.ready();
    return collector;
  }

  /** The same flags and addresses again, after `kill` or `stop`. */
  async restarted(): Promise<Collector> {
    const collector = new Collector(
      spawnCollector(this.options, this.grpc, this.http),
      this.grpc,
      this.http,
      this.options,
    );
    await collector.ready();
    return collector;
  }

  get pid(): number {
    return this.child.pid;
  }

  async stop(): Promise<void> {
    await this.child.stop(STOP_GRACE_MS);
  }

  async kill(): Promise<void> {
    await this.child.kill();
  }

  signal(signal: NodeJS.Signals): void {
    this.child.signal(signal);
  }

  /** The metrics page, or another path of its HTTP side. */
  async get(path: string): Promise<string> {
    const answer = await fetch(`http://${format(this.http)}${path}`);
    return answer.text();
  }

  private async ready(): Promise<void> {
    await until('collector ready', READY_TIMEOUT_MS, async () => {
      if (!this.child.running) return 'ended';
      const answer = await fetch(`http://${format(this.http)}/readyz`);
      return answer.ok ? 'ready' : undefined;
    });
    if (!this.child.running) throw new Error(`collector ended (${this.child.end}):\n${this.child.lastWords()}`);
  }
}

function spawnCollector(options: CollectorOptions, grpc: Address, http: Address): Child {
  const more = options.args ?? [];
  const store = more.includes('--store') ? [] : ['--store', 'memory'];
  const flags = ['--grpc', format(grpc), '--http', format(http), ...store, ...more];
  const args = [join(ROOT, 'bin/meshpulse'), 'collector', ...flags];
  return Child.start('collector', process.execPath, args, { logFile: join(options.dir, 'collector.log') });
}

type Method = (
  request: object,
  options: { deadline: number },
  done: (error: ServiceError | null, answer: unknown) => void,
) => void;
type Stub = Record<string, Method> & { close(): void };
type StubClass = new (address: string, creds: unknown) => Stub;

/**
 * The read API by gRPC. Answers are proto-shaped: snake_case names as in the .proto files, 64-bit numbers as
 * decimal strings, enums by name.
 */
export class CollectorClient {
  private readonly stubs = new Map<string, Stub>();

  constructor(private readonly address: Address) {}

  async call<T>(service: 'Registry' | 'Transactions' | 'Rollback', method: string, request: object = {}): Promise<T> {
    const stub = this.stub(service);
    const call = stub[method];
    if (!call) throw new Error(`meshpulse.v1.${service} has no ${method}`);
    return new Promise<T>((resolve, reject) => {
      call.call(
        stub,
        request,
        { deadline: Date.now() + CALL_TIMEOUT_MS },
        (error: ServiceError | null, answer: unknown) => (error ? reject(error) : resolve(answer as T)),
      );
    });
  }

  close(): void {
    for (const stub of this.stubs.values()) stub.close();
  }

  private stub(service: string): Stub {
    const existing = this.stubs.get(service);
    if (existing) return existing;
    const stub = new (stubClass(service))(format(this.address), credentials.createInsecure());
    this.stubs.set(service, stub);
    return stub;
  }
}

const PROTOS = ['registry', 'transactions', 'rollback'].map(name => `meshpulse/v1/${name}.proto`);
let loaded: Record<string, StubClass> | undefined;

function stubClass(service: string): StubClass {
  loaded ??= loadStubs();
  const found = loaded[service];
  if (!found) throw new Error(`no service meshpulse.v1.${service}`);
  return found;
}

function loadStubs(): Record<string, StubClass> {
  const definition = loadSync(PROTOS, {
    includeDirs: [join(ROOT, 'protos')],
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  const tree = loadPackageDefinition(definition) as unknown as { meshpulse: { v1: Record<string, StubClass> } };
  return tree.meshpulse.v1;
}
