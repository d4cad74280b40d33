// A real collector and real clients for it, over loopback.

import { readFileSync } from 'node:fs';
import type { Client } from '@grpc/grpc-js';
import {
  credentials,
  makeGenericClientConstructor,
  Metadata,
  type ChannelCredentials,
  type ClientDuplexStream,
  type ServiceError,
} from '@grpc/grpc-js';
import { ManualClock, type Clock } from '../../collector/src/clock.js';
import { readConfig, startCollector, type RunningCollector } from '../../collector/src/main.js';
import { openLog } from '../../collector/src/log.js';
import type { Store } from '../../collector/src/store/store.js';
import { service } from '../../collector/src/rpc/protos.js';
import type { Plain } from './ingest-support.js';

export interface TestCollector {
  readonly running: RunningCollector;
  readonly clock: ManualClock;
  /** A unary call; rejects with the ServiceError. */
  call(name: string, request?: Plain): Promise<Plain>;
  report(): ReportClient;
  get(path: string): Promise<{ code: number; text: string; json: () => Plain }>;
  clients: Clients;
  stop(): Promise<void>;
}

/**
 * Starts a collector on free ports, with a clock that stands still unless `clock` says otherwise.
 *
 * @param sent headers of every call of its own clients
 * @param store in place of the one that the arguments name
 * @param busyRatio how busy it takes itself for: tests have other things to do
 */
export async function start(
  args: readonly string[] = [],
  clock: Clock = new ManualClock(),
  sent: Readonly<Record<string, string>> = {},
  store?: Store,
  busyRatio: () => number = () => 0,
): Promise<TestCollector> {
  const defaults = { '--grpc': '127.0.0.1:0', '--http': '127.0.0.1:0', '--drain-time': '100ms' };
  const unsaid = Object.entries(defaults).filter(([flag]) => !args.includes(flag));
  const all = [...unsaid.flat(), ...args];
  const config = readConfig(all, {}, path => readFileSync(path, 'utf8'));
  const given = store === undefined ? {} : { store };
  const running = await startCollector({ config, log: openLog('silent'), clock, busyRatio, ...given });
  const clients = new Clients(running.grpc, credentials.createInsecure(), sent);
  return {
    running,
    clock: clock as ManualClock,
    clients,
    call: (name, request = {}) => clients.call(name, request),
    report: () => clients.report(),
    async get(path) {
      const response = await fetch(`http://${running.http}${path}`);
      const text = await response.text();
      return { code: response.status, text, json: () => JSON.parse(text) as Plain };
    },
    async stop() {
      clients.close();
      await running.stop();
    },
  };
}

/** Clients of one address. */
export class Clients {
  private readonly clients = new Map<string, Client>();

  /** @param sent headers of every call */
  constructor(
    private readonly address: string,
    private readonly channel: ChannelCredentials = credentials.createInsecure(),
    private readonly sent: Readonly<Record<string, string>> = {},
  ) {}

  private get metadata(): Metadata {
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(this.sent)) metadata.set(name, value);
    return metadata;
  }

  call(name: string, request: Plain): Promise<Plain> {
    const [serviceName, method] = name.split('.') as [Parameters<typeof service>[0], string];
    const client = this.of(serviceName) as unknown as Record<
      string,
      (r: Plain, m: Metadata, done: (e: ServiceError | null, a: Plain) => void) => void
    >;
    return new Promise((resolve, reject) => {
      client[method]!(request, this.metadata, (error, answer) => (error === null ? resolve(answer) : reject(error)));
    });
  }

  stream(name: string, request: Plain): NodeJS.EventEmitter & { cancel(): void } {
    const [serviceName, method] = name.split('.') as [Parameters<typeof service>[0], string];
    const client = this.of(serviceName) as unknown as Record<
      string,
      (r: Plain, m: Metadata) => NodeJS.EventEmitter & { cancel(): void }
    >;
    return client[method]!(request, this.metadata);
  }

  report(): ReportClient {
    const client = this.of('Ingest') as unknown as { Report(m: Metadata): ClientDuplexStream<Plain, Plain> };
    return new ReportClient(client.Report(this.metadata));
  }

  close(): void {
    for (const client of this.clients.values()) client.close();
  }

  private of(name: Parameters<typeof service>[0]): Client {
    let client = this.clients.get(name);
    if (client === undefined) {
      const Constructor = makeGenericClientConstructor(service(name), name);
      client = new Constructor(this.address, this.channel);
      this.clients.set(name, client);
    }
    return client;
  }
}

/** One Report stream, as a queue of replies. */
export class ReportClient {
  private readonly replies: Plain[] = [];
  private readonly waiting: ((reply: Plain) => void)[] = [];
  /** How the stream ended. */
  readonly ended: Promise<{ code: number; details: string }>;

  constructor(readonly call: ClientDuplexStream<Plain, Plain>) {
    call.on('data', (reply: Plain) => {
      const waiter = this.waiting.shift();
      if (waiter === undefined) this.replies.push(reply);
      else waiter(reply);
    });
    call.on('error', () => undefined);
    this.ended = new Promise(resolve => call.on('status', resolve));
  }

  /** Sends a message without waiting. */
  send(report: Plain): void {
    this.call.write(report);
  }

  next(): Promise<Plain> {
    const reply = this.replies.shift();
    if (reply !== undefined) return Promise.resolve(reply);
    return new Promise(resolve => this.waiting.push(resolve));
  }

  /** Sends a message and waits for the next reply. */
  ask(report: Plain): Promise<Plain> {
    this.send(report);
    return this.next();
  }
}

/** Waits until `probe` returns something, at most 5 s. */
export async function until<T>(what: string, probe: () => T | undefined | Promise<T | undefined>): Promise<T> {
  const end = performance.now() + 5000;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    if (performance.now() > end) throw new Error(`not within 5 s: ${what}`);
    await new Promise(resolve => setTimeout(resolve, 10));
  }
}
