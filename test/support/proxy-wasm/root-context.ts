/** The context of one plugin in one VM: configuration, ticks, queues, callouts. */
import { BufferType, CalloutType, MapType, Status } from './abi.js';
import { Context } from './context.js';
import type { Timer } from './fake-clock.js';
import { HeaderMap } from './header-map.js';
import { HttpServerCall, type HttpReply } from './http-call.js';
import type { Pair } from './pairs.js';
import type { Plugin } from './process.js';
import { encodeProperty, findProperty } from './properties.js';
import { RootGrpc } from './root-grpc.js';
import type { Vm } from './vm.js';

export interface HttpCallRequest {
  readonly cluster: string;
  readonly headers: readonly Pair[];
  readonly body: Buffer;
  readonly trailers: readonly Pair[];
  readonly timeoutMs: number;
}

const RESET_STATUS = { code: Status.BrokenConnection as number, text: 'reset' };
const GATEWAY_TIMEOUT: HttpReply = { headers: [[':status', '504']], body: Buffer.from('upstream request timeout') };

export class RootContext extends Context {
  readonly root = this;
  readonly grpc: RootGrpc;
  /** Answer of get_status. */
  status = { code: 0, text: '' };
  /** The root context was removed. */
  ended = false;
  /** proxy_on_done answered "not yet"; proxy_done is awaited. */
  pendingDone = false;
  tickPeriodMs = 0;
  ticks = 0;
  /** Streams that hold the plugin; one more for the thread's own hold. */
  private holds = 1;
  private whenReleased: () => void = () => undefined;
  private timer: Timer | undefined;
  private configuring = false;
  private created = false;
  private callData: Buffer | undefined;
  private httpReply: { headers: HeaderMap; trailers: HeaderMap; body: Buffer } | undefined;
  private readonly httpCalls = new Set<number>();

  constructor(
    vm: Vm,
    readonly plugin: Plugin,
  ) {
    super(vm, vm.allocContextId());
    this.grpc = new RootGrpc(this);
  }

  /** on_context_create and on_vm_start; the latter once per root context, not once per VM. */
  start(): boolean {
    this.create();
    const started = this.vm.upcall(this, 'proxy_on_vm_start', [this.id, 0], result => result !== 0);
    return this.vm.has('proxy_on_vm_start') ? started === true : true;
  }

  configure(): boolean {
    this.create();
    this.configuring = true;
    const size = Buffer.byteLength(this.plugin.configuration);
    const accepted = this.vm.upcall(this, 'proxy_on_configure', [this.id, size], result => result !== 0);
    this.configuring = false;
    return this.vm.has('proxy_on_configure') ? accepted === true : true;
  }

  /** Removes the context: on_done, and on_delete at once or after proxy_done. */
  end(): void {
    if (this.ended) return;
    const done = this.vm.upcall(this, 'proxy_on_done', [this.id], result => result !== 0) ?? true;
    if (done) this.remove();
    else this.pendingDone = true;
  }

  hold(): void {
    this.holds++;
  }

  /** Gives one hold back; the last one runs the action that any of them brought along. */
  release(last?: () => void): void {
    if (last !== undefined) this.whenReleased = last;
    if (--this.holds === 0) this.whenReleased();
  }

  /** Neither ended nor waiting for proxy_done. */
  get live(): boolean {
    return !this.ended && !this.pendingDone;
  }

  finishDone(): Status {
    if (!this.pendingDone) return Status.NotFound;
    this.pendingDone = false;
    this.vm.defer(() => this.remove());
    return Status.Ok;
  }

  /** Without any callback: the canary, and a VM that trapped. */
  discard(): void {
    this.ended = true;
    if (this.timer !== undefined) this.timer.cancelled = true;
    this.grpc.resetAll();
    this.httpCalls.clear();
    this.vm.contexts.delete(this.id);
  }

  setTickPeriod(ms: number): void {
    if (this.timer !== undefined) this.timer.cancelled = true;
    this.timer = undefined;
    this.tickPeriodMs = ms;
    if (ms > 0) this.arm();
  }

  queueReady(token: number): void {
    if (!this.ended) this.vm.upcall(this, 'proxy_on_queue_ready', [this.id, token], () => undefined);
  }

  httpCall(request: HttpCallRequest): { token: number } | Status {
    const remote = this.vm.process.httpClusters.get(request.cluster);
    if (remote === undefined) return Status.BadArgument;
    const has = (name: string): boolean => request.headers.some(pair => pair[0] === name);
    if (!has(':path') || !has(':method') || !has(':authority')) return Status.BadArgument;
    const token = this.vm.nextToken(CalloutType.HttpCall);
    this.httpCalls.add(token);
    const { cluster, headers, body, trailers, timeoutMs } = request;
    const finish = (reply: HttpReply | undefined): void => this.vm.thread.post(() => this.httpDone(token, reply));
    const call = new HttpServerCall(cluster, headers, body, trailers, timeoutMs, finish);
    if (timeoutMs > 0) this.vm.process.clock.schedule(timeoutMs, () => call.reply(GATEWAY_TIMEOUT));
    remote(call);
    return { token };
  }

  property(path: readonly string[]): Buffer | undefined {
    return encodeProperty(findProperty(this.plugin.properties, path));
  }

  override buffer(type: number): Buffer | undefined {
    switch (type) {
      case BufferType.PluginConfiguration:
        return this.configuring ? Buffer.from(this.plugin.configuration) : undefined;
      case BufferType.VmConfiguration:
        return Buffer.alloc(0);
      case BufferType.GrpcReceiveBuffer:
        return this.grpc.receiveBuffer;
      case BufferType.HttpCallResponseBody:
        return this.httpReply?.body;
      case BufferType.CallData:
        return this.callData;
      default:
        return undefined;
    }
  }

  override readableMap(type: number): HeaderMap | undefined {
    if (type === MapType.HttpCallResponseHeaders) return this.httpReply?.headers;
    if (type === MapType.HttpCallResponseTrailers) return this.httpReply?.trailers;
    return undefined;
  }

  private create(): void {
    if (this.created) return;
    this.created = true;
    this.vm.upcall(this, 'proxy_on_context_create', [this.id, 0], () => undefined);
  }

  private remove(): void {
    this.vm.upcall(this, 'proxy_on_delete', [this.id], () => undefined);
    this.discard();
  }

  private arm(): void {
    this.timer = this.vm.process.clock.schedule(this.tickPeriodMs, () => {
      this.timer = undefined;
      if (this.ended) return;
      this.ticks++;
      this.vm.upcall(this, 'proxy_on_tick', [this.id], () => undefined);
      if (this.timer === undefined && this.tickPeriodMs > 0 && !this.vm.failed) this.arm();
    });
  }

  private httpDone(token: number, reply: HttpReply | undefined): void {
    if (this.ended || !this.httpCalls.delete(token)) return;
    const empty = new HeaderMap('other');
    const headers = reply === undefined ? empty : new HeaderMap('response', reply.headers);
    const trailers = new HeaderMap('other', reply?.trailers ?? []);
    const body = Buffer.from(reply?.body ?? []);
    if (reply === undefined) this.status = RESET_STATUS;
    else this.httpReply = { headers, trailers, body };
    const args = [this.id, token, headers.size, body.length, trailers.size];
    this.vm.upcall(this, 'proxy_on_http_call_response', args, () => undefined);
    this.httpReply = undefined;
  }
}
