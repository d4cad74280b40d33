// The gate of the gRPC server: every call of every service passes here first, also of services that are added
// later, of health and of reflection. Handlers ask it afterwards who it was.
//
// A stream can outlast what let it in. So those that are open are looked at again when the access file changes,
// and, if they came by a token, now and then: who may not any more, or may something else, is sent away.

import {
  ServerInterceptingCall,
  status as Code,
  type Metadata,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
} from '@grpc/grpc-js';
import { StreamEnded, statusOf, Unavailable } from '../errors.js';
import type { Logger } from '../log.js';
import { othersFirst } from '../slices.js';
import type { Access, Credentials } from './access.js';
import { sameRights, type Caller } from './caller.js';
import { callOf } from './roles.js';
import type { TlsPeer } from './tls.js';

/** How often streams that came by a token are looked at again, ms. */
export const REVIEW_MS = 60_000;

/** Streams that are looked at again in one go. */
const REVIEWED_AT_ONCE = 100;

/** A stream that was let in. */
interface Open {
  readonly name: string;
  readonly credentials: Credentials;
  readonly caller: Caller;
}

export class Gate {
  private readonly callers = new WeakMap<Metadata, Caller>();
  /** Of the connections that are open, by address and port. */
  private readonly peers = new Map<string, TlsPeer>();
  private readonly open = new Map<ServerInterceptingCallInterface, Open>();
  private reviewedMs = 0;

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

  /** To be called about four times a second. Settles when streams have been looked at again, if they were. */
  async tick(nowMs: number): Promise<void> {
    const changed = this.access.tick(nowMs);
    const due = nowMs - this.reviewedMs >= REVIEW_MS;
    if (!changed && !due) return;
    this.reviewedMs = nowMs;
    await this.review(changed ? () => true : ({ credentials }) => credentials.authorization.length > 0);
  }

  readonly interceptor: ServerInterceptor = (method, call) => {
    let over = false;
    return new ServerInterceptingCall(call, {
      start: next =>
        next({
          onReceiveMetadata: (metadata, enter) => {
            const name = callOf(method.path);
            const credentials = this.credentialsOf(call, metadata);
            this.access.admit(name, credentials).then(
              caller => {
                if (caller !== undefined) this.callers.set(metadata, caller);
                // It may have ended while the cluster was asked: nothing would take it out again.
                const streams = !over && (method.requestStream || method.responseStream);
                if (caller !== undefined && streams) this.open.set(call, { name, credentials, caller });
                enter(metadata);
              },
              (error: unknown) => this.sendAway(call, name, error),
            );
          },
          // However a call ends, the library says so here.
          onCancel: () => {
            over = true;
            this.open.delete(call);
          },
        }),
    });
  };

  private credentialsOf(call: ServerInterceptingCallInterface, metadata: Metadata): Credentials {
    const { remoteAddress = '', remotePort = 0 } = call.getConnectionInfo();
    const peer = this.peers.get(`${remoteAddress} ${remotePort}`);
    return {
      address: remoteAddress,
      authorization: textsOf(metadata, 'authorization'),
      forwarded: textsOf(metadata, 'x-forwarded-client-cert'),
      ...(peer === undefined ? {} : { tls: peer }),
    };
  }

  private async review(wanted: (open: Open) => boolean): Promise<void> {
    let looked = 0;
    for (const [call, open] of [...this.open]) {
      if (!wanted(open)) continue;
      if (++looked % REVIEWED_AT_ONCE === 0) await othersFirst();
      await this.reviewOne(call, open);
    }
  }

  private async reviewOne(call: ServerInterceptingCallInterface, { name, credentials, caller }: Open): Promise<void> {
    try {
      const now = await this.access.admit(name, credentials);
      if (now !== undefined && sameRights(now, caller)) return;
      throw new StreamEnded(Code.ABORTED, 'what you may see or do has changed; call again');
    } catch (error) {
      // That it cannot be said now is no reason to send anybody away.
      if (!(error instanceof Unavailable) && this.open.has(call)) this.sendAway(call, name, error);
    }
  }

  private sendAway(call: ServerInterceptingCallInterface, name: string, error: unknown): void {
    const { code, details, known } = statusOf(error);
    if (!known) this.log.error({ err: error, call: name }, 'a caller could not be checked');
    this.open.delete(call);
    call.sendStatus({ code, details });
  }
}

const textsOf = (metadata: Metadata, name: string): string[] => metadata.get(name).map(value => value.toString());
