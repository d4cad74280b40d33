// The gRPC server: which function answers which call, and the limits all of them share.

import {
  Server,
  ServerCredentials,
  type handleServerStreamingCall,
  type handleUnaryCall,
  type ServerUnaryCall,
  type ServerWritableStream,
} from '@grpc/grpc-js';
import { ReflectionService } from '@grpc/reflection';
import { HealthImplementation } from 'grpc-health-check';
import type { Address } from '../config.js';
import { ConfigError } from '../errors.js';
import type { Logger } from '../log.js';
import type { Rollback } from '../rollback/controller.js';
import { ack, kill, override, trigger } from '../rollback/operator-changes.js';
import { getLedger, getPlan, getPolicy, listVerdicts, simulate, type ListRequest } from '../rollback/operator-reads.js';
import { getInstance, listInstances } from './instances.js';
import { listServices } from './list-services.js';
import type { ReadParts } from './parts.js';
import { PACKAGE, reflectedDefinitions, service, SERVICES, withRawRequests } from './protos.js';
import { reading, refused, type Answer } from './reading.js';
import { report, reportOnce, type ReportParts } from './report.js';
import { withPreparedAnswers } from './serialized.js';
import { explain, getFlow, getTransaction, listTransactions, watchTransactions } from './transactions.js';
import { watchStatus } from './watch-status.js';
import { watchSignals, type WatchSignalsRequest } from './rollback.js';
import { whoHad } from './who-had.js';

export interface ServerLimits {
  readonly messageBytesMax: number;
  readonly peerStreamsMax: number;
  readonly sessionMemoryMax: number;
}

/** HTTP/2 window a stream: reports are a few dozen KiB, and one window update for each would cost more. */
const FLOW_CONTROL_BYTES = 1024 * 1024;

/** A connection on which nothing moves is asked whether it is still there. */
const KEEPALIVE_MS = 30_000;
const KEEPALIVE_TIMEOUT_MS = 20_000;

export class RpcServer {
  private readonly server: Server;
  private readonly health: HealthImplementation;

  constructor(reports: ReportParts, reads: ReadParts, limits: ServerLimits, log: Logger) {
    this.server = new Server({
      'grpc.max_receive_message_length': limits.messageBytesMax,
      'grpc.max_send_message_length': -1,
      'grpc.max_concurrent_streams': limits.peerStreamsMax,
      'grpc-node.max_session_memory': Math.ceil(limits.sessionMemoryMax / 2 ** 20), // MiB
      'grpc-node.flow_control_window': FLOW_CONTROL_BYTES,
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
    });
    const read = <Q>(type: string, answer: Answer<Q>): handleUnaryCall<Q, object> => reading(reads, type, answer, log);
    const stream = <Q>(
      answer: (parts: ReadParts, call: ServerWritableStream<Q, object>) => void,
    ): handleServerStreamingCall<Q, object> => streaming(reads, answer, log);
    const act = <Q>(work: (rollback: Rollback, request: Q) => Promise<object>): handleUnaryCall<Q, object> =>
      acting(reads, work, log);
    this.server.addService(withRawRequests(service('Ingest')), {
      Report: report.bind(undefined, reports),
      ReportOnce: reportOnce.bind(undefined, reports),
    });
    this.server.addService(withPreparedAnswers(service('Registry')), {
      ListServices: read('ListServicesResponse', listServices),
      ListInstances: read('ListInstancesResponse', listInstances),
      GetInstance: read('Instance', getInstance),
      WhoHad: read('WhoHadResponse', whoHad),
      WatchStatus: stream(watchStatus),
      GetFlow: read('GetFlowResponse', getFlow),
    });
    this.server.addService(withPreparedAnswers(service('Transactions')), {
      Get: read('Transaction', getTransaction),
      List: read('ListTransactionsResponse', listTransactions),
      Explain: read('Explanation', explain),
      Watch: stream(watchTransactions),
    });
    this.server.addService(withPreparedAnswers(service('Rollback')), {
      List: read('ListRollbacksResponse', ({ rollback }, request: ListRequest) => listVerdicts(rollback, request)),
      GetPlan: read('Plan', ({ rollback }, request: { id?: string }) => getPlan(rollback, request)),
      GetLedger: read('Ledger', ({ rollback }, request: Parameters<typeof getLedger>[1]) =>
        getLedger(rollback, request),
      ),
      GetPolicy: read('PolicyView', ({ rollback }) => getPolicy(rollback)),
      Trigger: act(trigger),
      Ack: act(ack),
      Override: act(override),
      Kill: act(kill),
      Simulate: act(simulate),
      Watch: stream(({ rollback }, call: ServerWritableStream<WatchSignalsRequest, object>) =>
        watchSignals(rollback, call),
      ),
    });
    this.health = new HealthImplementation({ '': 'NOT_SERVING' });
    this.health.addToServer(this.server);
    new ReflectionService(reflectedDefinitions).addToServer(this.server);
  }

  /** @returns the port listened on @throws ConfigError when the address cannot be had */
  listen({ host, port }: Address): Promise<number> {
    const address = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
    return new Promise((resolve, reject) => {
      this.server.bindAsync(address, ServerCredentials.createInsecure(), (error, bound) => {
        if (error === null) resolve(bound);
        else
          reject(
            new ConfigError(
              `--grpc ${address} cannot be listened on (${error.message}); choose another with --grpc HOST:PORT`,
            ),
          );
      });
    });
  }

  /** What grpc.health.v1 says of the whole and of each service. */
  serving(yes: boolean): void {
    const status = yes ? 'SERVING' : 'NOT_SERVING';
    for (const name of ['', ...SERVICES.map(name => `${PACKAGE}.${name}`)]) this.health.setStatus(name, status);
  }

  /** Takes no new calls; settles when those under way are done, which after `graceMs` are cut off. */
  async stop(graceMs: number): Promise<void> {
    const done = new Promise<void>(resolve => this.server.tryShutdown(() => resolve()));
    const timer = setTimeout(() => this.server.forceShutdown(), graceMs);
    await done;
    clearTimeout(timer);
  }
}

function acting<Q>(
  { rollback }: ReadParts,
  work: (rollback: Rollback, request: Q) => Promise<object>,
  log: Logger,
): handleUnaryCall<Q, object> {
  return (call: ServerUnaryCall<Q, object>, done) => {
    work(rollback, call.request).then(
      answer => done(null, answer),
      (error: unknown) => done(refused(error, call.getPath(), log)),
    );
  };
}

function streaming<Q>(
  parts: ReadParts,
  answer: (parts: ReadParts, call: ServerWritableStream<Q, object>) => void,
  log: Logger,
): handleServerStreamingCall<Q, object> {
  return call => {
    try {
      answer(parts, call);
    } catch (error) {
      call.emit('error', refused(error, call.getPath(), log));
    }
  };
}
