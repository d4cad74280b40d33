// The gate of the gRPC server: every call of every service passes here first, also of services that are added
// later, of health and of reflection. Handlers ask it afterwards who it was.

import { ServerInterceptingCall, type Metadata, type ServerInterceptor } from '@grpc/grpc-js';
import { statusOf } from '../errors.js';
import type { Logger } from '../log.js';
import type { Access, Credentials } from './access.js';
import type { Caller } from './caller.js';
import { callOf } from './roles.js';
import type { TlsPeer } from './tls.js';

export class Gate {
  private readonly callers = new WeakMap<Metadata, Caller>();
  /** Of the connections that are open, by address and port. */
  private readonly peers = new Map<string, TlsPeer>();

  constructor(
    readonly access: Access,
    private readonly log: Logger,
  ) {}

  /** A TLS connection is there; returns how to forget it. */
  connected(address: string, port: number, peer: TlsPeer): () => void {
    const name = `${address} ${port}`;
    this.peers.set(name, peer);
    return () => {
      if (this.peers.get(name) === peer) this.peers.delete(name);
    };
  }

  /** Who made a call that was let in. */
  callerOf(metadata: Metadata): Caller | undefined {
    return this.callers.get(metadata);
  }

  readonly interceptor: ServerInterceptor = (method, call) =>
    new ServerInterceptingCall(call, {
      start: next =>
        next({
          onReceiveMetadata: (metadata, enter) => {
            const { remoteAddress = '', remotePort = 0 } = call.getConnectionInfo();
            const peer = this.peers.get(`${remoteAddress} ${remotePort}`);
            const credentials: Credentials = {
              address: remoteAddress,
              authorization: textsOf(metadata, 'authorization'),
              forwarded: textsOf(metadata, 'x-forwarded-client-cert'),
              ...(peer === undefined ? {} : { tls: peer }),
            };
            this.access.admit(callOf(method.path), credentials).then(
              caller => {
                if (caller !== undefined) this.callers.set(metadata, caller);
                enter(metadata);
              },
              (error: unknown) => {
                const { code, details, known } = statusOf(error);
                if (!known) this.log.error({ err: error, path: method.path }, 'a caller could not be checked');
                call.sendStatus({ code, details });
              },
            );
          },
        }),
    });
}

const textsOf = (metadata: Metadata, name: string): string[] => metadata.get(name).map(value => value.toString());
