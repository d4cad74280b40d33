/** The gRPC calls and streams of one root context: the proxy's side. */
import { CalloutType, Status } from './abi.js';
import { GrpcServerCall, GrpcServerStream, grpcTarget, type GrpcClientSide, type GrpcMethod } from './grpc.js';
import type { Pair } from './pairs.js';
import type { RootContext } from './root-context.js';

interface Method {
  readonly service: Buffer;
  readonly path: string;
  readonly metadata: readonly Pair[];
}

interface OpenStream {
  readonly server: GrpcServerStream;
  localClosed: boolean;
  remoteClosed: boolean;
}

const GRPC_UNAVAILABLE = 14;
const GRPC_INTERNAL = 13;
const GRPC_UNIMPLEMENTED = 12;
const GRPC_DEADLINE_EXCEEDED = 4;
const TYPE_MASK = 3;

export class RootGrpc {
  private readonly streams = new Map<number, OpenStream>();
  private readonly calls = new Map<number, GrpcServerCall>();
  receiveBuffer: Buffer | undefined;

  constructor(private readonly root: RootContext) {}

  /** Entries in the host's tables: a stream that the guest never closed stays here. */
  get handles(): number {
    return this.streams.size + this.calls.size;
  }

  stream(method: Method): { token: number } | Status {
    const target = grpcTarget(method.service, name => this.process.grpcClusters.has(name));
    if (typeof target === 'number') return target;
    const token = this.root.vm.nextToken(CalloutType.GrpcStream);
    const remote = this.process.grpcClusters.get(target.cluster);
    if (remote === undefined) return this.failToStart(token);
    const server = new GrpcServerStream(this.describe(method, target), this.side(token));
    this.streams.set(token, { server, localClosed: false, remoteClosed: false });
    this.process.grpcStreamsOpened++;
    if (target.authority.includes('|')) server.close(GRPC_INTERNAL, 'invalid_authority');
    else if (remote.onStream === undefined) server.close(GRPC_UNIMPLEMENTED, 'no streams here');
    else remote.onStream(server);
    return { token };
  }

  call(method: Method, request: Buffer, timeoutMs: number): { token: number } | Status {
    const target = grpcTarget(method.service, name => this.process.grpcClusters.has(name));
    if (typeof target === 'number') return target;
    const token = this.root.vm.nextToken(CalloutType.GrpcCall);
    const remote = this.process.grpcClusters.get(target.cluster);
    if (remote === undefined) return this.failToStart(token);
    const call = new GrpcServerCall(this.describe(method, target), request, timeoutMs, this.side(token));
    this.calls.set(token, call);
    if (timeoutMs > 0) this.process.clock.schedule(timeoutMs, () => call.fail(GRPC_DEADLINE_EXCEEDED, 'timeout'));
    if (target.authority.includes('|')) call.fail(GRPC_INTERNAL, 'invalid_authority');
    else if (remote.onCall === undefined) call.fail(GRPC_UNIMPLEMENTED, 'no calls here');
    else remote.onCall(call);
    return { token };
  }

  send(token: number, message: Buffer, end: boolean): Status {
    if ((token & TYPE_MASK) !== CalloutType.GrpcStream) return Status.BadArgument;
    const entry = this.streams.get(token);
    if (entry === undefined) return Status.NotFound;
    if (!entry.server.open) return Status.Ok; // dropped in silence
    entry.server.received.push(message);
    entry.server.onMessage(message);
    if (end) this.halfClose(entry.server);
    return Status.Ok;
  }

  /** Half-closes a stream, cancels a call. */
  close(token: number): Status {
    if ((token & TYPE_MASK) === CalloutType.GrpcCall) return this.dropCall(token);
    if ((token & TYPE_MASK) !== CalloutType.GrpcStream) return Status.BadArgument;
    const entry = this.streams.get(token);
    if (entry === undefined) return Status.NotFound;
    this.halfClose(entry.server);
    if (entry.remoteClosed) this.streams.delete(token);
    else entry.localClosed = true;
    return Status.Ok;
  }

  cancel(token: number): Status {
    if ((token & TYPE_MASK) === CalloutType.GrpcCall) return this.dropCall(token);
    if ((token & TYPE_MASK) !== CalloutType.GrpcStream) return Status.BadArgument;
    const entry = this.streams.get(token);
    if (entry === undefined) return Status.NotFound;
    this.streams.delete(token);
    reset(entry.server);
    return Status.Ok;
  }

  /** The root context ends: streams are reset, calls cancelled. */
  resetAll(): void {
    for (const entry of this.streams.values()) reset(entry.server);
    for (const call of this.calls.values()) call.cancelled = true;
    this.streams.clear();
    this.calls.clear();
  }

  private get process(): RootContext['vm']['process'] {
    return this.root.vm.process;
  }

  private describe(method: Method, target: { cluster: string; authority: string }): GrpcMethod {
    return { path: method.path, metadata: method.metadata, ...target };
  }

  private failToStart(token: number): Status {
    this.root.vm.defer(() => this.onClose(token, GRPC_UNAVAILABLE, 'Cluster not available'));
    return Status.InternalFailure;
  }

  private side(token: number): GrpcClientSide {
    const known = (): boolean => this.streams.has(token) || this.calls.has(token);
    const later = (action: () => void): void =>
      this.root.vm.thread.post(() => {
        if (known() && !this.root.ended) action();
      });
    return {
      deliver: message => later(() => this.onReceive(token, message)),
      close: (status, text) =>
        later(() => {
          const entry = this.streams.get(token);
          if (entry !== undefined) entry.remoteClosed = true;
          this.onClose(token, status, text);
        }),
    };
  }

  private onReceive(token: number, message: Buffer): void {
    this.receiveBuffer = message;
    this.root.vm.upcall(this.root, 'proxy_on_grpc_receive', [this.root.id, token, message.length], () => undefined);
    this.receiveBuffer = undefined;
    this.calls.delete(token);
  }

  private onClose(token: number, status: number, text: string): void {
    this.root.status = { code: status, text };
    this.root.vm.upcall(this.root, 'proxy_on_grpc_close', [this.root.id, token, status], () => undefined);
    this.root.status = { code: status, text: '' };
    this.calls.delete(token);
    if (this.streams.get(token)?.localClosed === true) this.streams.delete(token);
  }

  private dropCall(token: number): Status {
    const call = this.calls.get(token);
    if (call === undefined) return Status.NotFound;
    call.cancelled = true;
    this.calls.delete(token);
    return Status.Ok;
  }

  private halfClose(server: GrpcServerStream): void {
    if (!server.open || server.halfClosed) return;
    server.halfClosed = true;
    server.onHalfClose();
  }
}

function reset(server: GrpcServerStream): void {
  if (!server.open) return;
  server.reset = true;
  server.onReset();
}
