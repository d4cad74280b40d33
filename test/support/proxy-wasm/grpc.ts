/**
 * The far side of gRPC calls and streams, scripted by the test.
 *
 * As in Envoy: streams and calls belong to a root context; nothing that the remote does re-enters a running
 * callback; a cluster that does not exist makes the start fail at once *and* a close arrive later for a
 * token the guest never saw; a stream that the remote closed stays in the host's table until the guest
 * closes it too.
 */
import { Status } from './abi.js';
import { textOf } from './bytes.js';
import type { Pair } from './pairs.js';

/** What a test plays for one cluster. Handlers run inside the guest's host call; answers come later. */
export interface GrpcRemote {
  /** Called when a stream opens. Without it, streams are refused with UNIMPLEMENTED. */
  onStream?(stream: GrpcServerStream): void;
  /** Called for a unary call. Without it, calls are refused with UNIMPLEMENTED. */
  onCall?(call: GrpcServerCall): void;
}

export interface GrpcTarget {
  readonly cluster: string;
  readonly authority: string;
}

export interface GrpcMethod extends GrpcTarget {
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly metadata: readonly Pair[];
}

/** What the guest's side of a stream or call must offer to the remote. */
export interface GrpcClientSide {
  deliver(message: Buffer): void;
  close(status: number, text: string): void;
}

/** The remote's end of one stream. `send` and `close` reach the guest when the process settles. */
export class GrpcServerStream {
  readonly received: Buffer[] = [];
  /** The guest half-closed. */
  halfClosed = false;
  /** The guest reset the stream, or its root context ended. */
  reset = false;
  /** The remote closed. */
  closed = false;
  onMessage: (message: Buffer) => void = () => undefined;
  onHalfClose: () => void = () => undefined;
  onReset: () => void = () => undefined;

  constructor(
    readonly method: GrpcMethod,
    private readonly client: GrpcClientSide,
  ) {}

  /** Neither side ended it. */
  get open(): boolean {
    return !this.closed && !this.reset;
  }

  send(message: Uint8Array): void {
    if (this.open) this.client.deliver(Buffer.from(message));
  }

  /** @param status  gRPC status code; 0 = OK */
  close(status: number, text = ''): void {
    if (!this.open) return;
    this.closed = true;
    this.client.close(status, text);
  }
}

/** The remote's end of one unary call. */
export class GrpcServerCall {
  cancelled = false;
  private answered = false;

  constructor(
    readonly method: GrpcMethod,
    readonly request: Buffer,
    /** Milliseconds, 0 = none. */
    readonly timeoutMs: number,
    private readonly client: GrpcClientSide,
  ) {}

  get open(): boolean {
    return !this.answered && !this.cancelled;
  }

  reply(message: Uint8Array): void {
    if (!this.open) return;
    this.answered = true;
    this.client.deliver(Buffer.from(message));
  }

  /** @param status  gRPC status code, not 0 */
  fail(status: number, text = ''): void {
    if (!this.open) return;
    this.answered = true;
    this.client.close(status, text);
  }
}

/** Field 1 of GrpcService is EnvoyGrpc {cluster_name = 1, authority = 2}. */
const ENVOY_GRPC = 1;

interface Field {
  readonly number: number;
  readonly bytes: Buffer | undefined;
}

/** @returns the fields of one protobuf message, or `undefined` when the bytes are none. */
function fields(message: Buffer): Field[] | undefined {
  const found: Field[] = [];
  let at = 0;
  const varint = (): number | undefined => {
    let value = 0;
    for (let i = 0; i < 10; i++) {
      const byte = message[at++];
      if (byte === undefined) return undefined;
      value += (byte & 0x7f) * 2 ** (7 * i);
      if (byte < 0x80) return value;
    }
    return undefined;
  };
  const FIXED: Readonly<Record<number, number>> = { 1: 8, 5: 4 };
  while (at < message.length) {
    const tag = varint();
    if (tag === undefined || tag < 8) return undefined;
    const wire = tag & 7;
    const number = Math.floor(tag / 8);
    const size = wire === 2 ? varint() : wire === 0 ? 0 : FIXED[wire];
    if (size === undefined || (wire === 0 && varint() === undefined) || at + size > message.length) return undefined;
    found.push({ number, bytes: wire === 2 ? message.subarray(at, at + size) : undefined });
    at += size;
  }
  return found;
}

/**
 * Reads the `service` argument of a gRPC host call: a serialised GrpcService, else a cluster's name.
 *
 * @param clusterExists  only asked for a plain name; a serialised service skips the check
 */
export function grpcTarget(service: Buffer, clusterExists: (name: string) => boolean): GrpcTarget | Status {
  const top = fields(service);
  if (top === undefined) {
    const cluster = textOf(service);
    return clusterExists(cluster) ? { cluster, authority: cluster } : Status.ParseFailure;
  }
  const envoyGrpc = fields(top.find(field => field.number === ENVOY_GRPC)?.bytes ?? Buffer.alloc(0)) ?? [];
  const text = (number: number): string =>
    textOf(envoyGrpc.find(field => field.number === number)?.bytes ?? Buffer.alloc(0));
  const cluster = text(1);
  return cluster === '' ? Status.BadArgument : { cluster, authority: text(2) === '' ? cluster : text(2) };
}
