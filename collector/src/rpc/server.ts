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
import type { AddressInfo, Server as NetServer } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Gate } from '../access/gate.js';
import { permitAt } from '../access/permit.js';
import { callOf } from '../access/roles.js';
import { createTlsListener, type TlsFiles, type TlsPeer } from '../access/tls.js';
import type { Address } from '../config.js';
import { ConfigError } from '../errors.js';
import type { Logger } from '../log.js';
import { ackBy, killBy, overrideBy, simulateBy, triggerBy } from './rollback-changes.js';
import { ledger, listAudit, plan, policy, verdicts } from './rollback-reads.js';
import { Health } from './health.js';
import { getInstance, listInstances } from './instances.js';
import { listServices } from './list-services.js';
import type { ReadParts } from './parts.js';
import { PACKAGE, reflectedDefinitions, reportService, service, SERVICES } from './protos.js';
import { reading, refused, type Answer, type At } from './reading.js';
import { report, reportOnce, type ReportParts } from './report.js';
import { sayStale } from './stale.js';
import { withPreparedAnswers } from './serialized.js';
import { explain, getFlow, getTransaction, listTransactions, watchTransactions } from './transactions.js';
import { watchStatus } from './watch-status.js';
import { watchSignals } from './rollback.js';
import { answeringAtTheirPace } from './pace.js';
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
  private readonly health = new Health(['', ...SERVICES.map(name => `${PACKAGE}.${name}`)]);
  private listener: NetServer | undefined;

  /** @param gate who is let in; absent = everybody */
  constructor(
    reports: ReportParts,
    reads: ReadParts,
    limits: ServerLimits,
    private readonly log: Logger,
    private readonly gate?: Gate,
  ) {
    this.server = new Server({
      ...(gate === undefined ? {} : { interceptors: [gate.interceptor] }),
      'grpc.max_receive_message_length': limits.messageBytesMax,
      'grpc.max_send_message_length': -1,
      'grpc.max_concurrent_streams': limits.peerStreamsMax,
      'grpc-node.max_session_memory': Math.ceil(limits.sessionMemoryMax / 2 ** 20), // MiB
      'grpc-node.flow_control_window': FLOW_CONTROL_BYTES,
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
    });
    const at: At = call =>
      gate === undefined ? reads : { ...reads, permit: permitAt(gate, call.metadata, callOf(call.getPath())) };
    const read = <Q>(type: string, answer: Answer<Q>): handleUnaryCall<Q, object> =>
      reading(reads.gate, at, type, answer, log);
    const stream = <Q>(
      answer: (parts: ReadParts, call: ServerWritableStream<Q, object>) => void,
    ): handleServerStreamingCall<Q, object> => streaming(at, answer, log);
    const act = <Q>(work: (parts: ReadParts, request: Q) => Promise<object>): handleUnaryCall<Q, object> =>
      acting(at, work, log);
    this.server.addService(reportService(), {
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
      List: read('ListRollbacksResponse', verdicts),
      GetPlan: read('Plan', plan),
      GetLedger: read('Ledger', ledger),
      GetPolicy: read('PolicyView', policy),
      ListAudit: read('ListAuditResponse', listAudit),
      Trigger: act(triggerBy),
      Ack: act(ackBy),
      Override: act(overrideBy),
      Kill: act(killBy),
      Simulate: act(simulateBy),
      Watch: stream(watchSignals),
    });
    this.health.addTo(this.server);
    new ReflectionService(reflectedDefinitions).addToServer(answeringAtTheirPace(this.server));
  }

  /**
   * @param tls  absent = in the clear
   * @returns the port listened on @throws ConfigError when the address cannot be had
   */
  listen({ host, port }: Address, tls?: { readonly files: TlsFiles; readonly asksClients: boolean }): Promise<number> {
    const address = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
    const taken = (why: string): ConfigError =>
      new ConfigError(`--grpc ${address} cannot be listened on (${why}); choose another with --grpc HOST:PORT`);
    if (tls !== undefined) return this.listenTls({ host, port }, tls.files, tls.asksClients, taken);
    return new Promise((resolve, reject) => {
      this.server.bindAsync(address, ServerCredentials.createInsecure(), (error, bound) => {
        if (error === null) resolve(bound);
        else reject(taken(error.message));
      });
    });
  }

  /** Our own listener, because the library does not tell what is wrong with a certificate. */
  private listenTls(
    { host, port }: Address,
    files: TlsFiles,
    asksClients: boolean,
    taken: (why: string) => ConfigError,
  ): Promise<number> {
    const { gate, log } = this;
    const injector = this.server.createConnectionInjector(ServerCredentials.createInsecure());
    const onConnection = (socket: TLSSocket, peer: TlsPeer): void => {
      const forget = gate?.connected(socket.remoteAddress ?? '', socket.remotePort ?? 0, peer);
      if (forget !== undefined) socket.once('close', forget);
      injector.injectConnection(socket);
    };
    const listener = createTlsListener(files, asksClients, onConnection, (peer, error) => {
      log.debug({ peer, why: error.message }, 'a TLS handshake failed');
      gate?.access.note({ who: peer, call: 'TLS', why: 'the TLS handshake failed', cause: 'tls' });
    });
    this.listener = listener;
    return new Promise((resolve, reject) => {
      listener.once('error', (error: Error) => reject(taken(error.message)));
      listener.listen(port, host, () => resolve((listener.address() as AddressInfo).port));
    });
  }

  /** What grpc.health.v1 says of the whole and of each service. */
  serving(yes: boolean): void {
    this.health.set(yes);
  }

  /** Takes no new calls; settles when those under way are done, which after `graceMs` are cut off. */
  async stop(graceMs: number): Promise<void> {
    this.listener?.close();
    const done = new Promise<void>(resolve => this.server.tryShutdown(() => resolve()));
    const timer = setTimeout(() => this.server.forceShutdown(), graceMs);
    await done;
    clearTimeout(timer);
  }
}

function acting<Q>(
  at: At,
  work: (parts: ReadParts, request: Q) => Promise<object>,
  log: Logger,
): handleUnaryCall<Q, object> {
  const run = async (call: ServerUnaryCall<Q, object>): Promise<object> => work(at(call), call.request);
  return (call: ServerUnaryCall<Q, object>, done) => {
    run(call).then(
      answer => {
        sayStale(call, at(call).staleMs());
        done(null, answer);
      },
      (error: unknown) => done(refused(error, call.getPath(), log)),
    );
  };
}

function streaming<Q>(
  at: At,
  answer: (parts: ReadParts, call: ServerWritableStream<Q, object>) => void,
  log: Logger,
): handleServerStreamingCall<Q, object> {
  return call => {
    try {
      const parts = at(call);
      sayStale(call, parts.staleMs());
      answer(parts, call);
    } catch (error) {
      call.emit('error', refused(error, call.getPath(), log));
    }
  };
}
