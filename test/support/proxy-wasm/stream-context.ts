/** The filter instance of one request (or of one upstream attempt) in one VM. */
import { BufferType, MapType, Status, type Action } from './abi.js';
import { Context, type LocalResponse } from './context.js';
import type { Exchange } from './exchange.js';
import type { HeaderMap } from './header-map.js';
import { encodeProperty } from './properties.js';
import type { RootContext } from './root-context.js';

const HTTP_STREAM_TYPES_MAX = 1;
const EMPTY = Buffer.alloc(0);

export class StreamContext extends Context {
  private created = false;
  private destroyed = false;
  private inLog = false;
  private failureReplySent = false;
  private endOfStream = false;
  private readonly maps = new Map<number, HeaderMap>();
  private body: { readonly type: number; bytes: Buffer } | undefined;
  /** The guest asked to go on after a pause: request, response. */
  readonly continued = [false, false];

  constructor(
    readonly root: RootContext,
    readonly exchange: Exchange,
    /** In the router's upstream chain: no access-log callback, no route cache. */
    readonly upstream: boolean,
  ) {
    super(root.vm, root.vm.allocContextId());
    root.hold();
  }

  override get logging(): boolean {
    return this.inLog;
  }

  headers(type: 0 | 2, map: HeaderMap, end: boolean): Action {
    if (type === MapType.RequestHeaders) this.create();
    if (!this.created) return 'continue';
    const callback = type === MapType.RequestHeaders ? 'proxy_on_request_headers' : 'proxy_on_response_headers';
    return this.withMap(type, map, end, () => this.run(callback, [this.id, map.size, end ? 1 : 0]));
  }

  data(type: 0 | 1, bytes: Buffer, end: boolean): Action {
    if (!this.created) return 'continue';
    this.body = { type, bytes };
    this.endOfStream = end;
    const callback = type === BufferType.HttpRequestBody ? 'proxy_on_request_body' : 'proxy_on_response_body';
    const action = this.run(callback, [this.id, bytes.length, end ? 1 : 0]);
    if (action === 'continue') this.body = undefined;
    return action;
  }

  trailers(type: 1 | 3, map: HeaderMap): Action {
    if (!this.created) return 'continue';
    const callback = type === MapType.RequestTrailers ? 'proxy_on_request_trailers' : 'proxy_on_response_trailers';
    return this.withMap(type, map, true, () => this.run(callback, [this.id, map.size]));
  }

  /** The body as the guest left it, after `data` paused or went on. */
  get bodyBytes(): Buffer {
    return this.body?.bytes ?? EMPTY;
  }

  log(): void {
    this.create();
    this.inLog = true;
    this.vm.upcall(this, 'proxy_on_log', [this.id], () => undefined);
    this.inLog = false;
  }

  destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    if (this.created) {
      this.vm.upcall(this, 'proxy_on_done', [this.id], () => undefined);
      this.vm.upcall(this, 'proxy_on_delete', [this.id], () => undefined);
    }
    this.vm.contexts.delete(this.id);
    this.root.release();
  }

  override mutableMap(type: number): HeaderMap | undefined {
    const addsTrailers = type === MapType.RequestTrailers || type === MapType.ResponseTrailers;
    if (addsTrailers && !this.maps.has(type) && this.body !== undefined && this.endOfStream) {
      this.maps.set(type, this.exchange.addTrailers(type));
    }
    return this.maps.get(type);
  }

  override readableMap(type: number): HeaderMap | undefined {
    if (type > MapType.ResponseTrailers) return this.root.readableMap(type);
    return this.inLog ? this.exchange.loggedMap(type) : this.maps.get(type);
  }

  override headersModified(type: number): void {
    if (type === MapType.RequestHeaders && !this.upstream) this.exchange.routeCacheCleared++;
  }

  override buffer(type: number): Buffer | undefined {
    if (type === BufferType.HttpRequestBody || type === BufferType.HttpResponseBody) {
      return this.body?.type === type ? this.body.bytes : EMPTY;
    }
    return type === BufferType.PluginConfiguration ? undefined : this.root.buffer(type);
  }

  override setBuffer(type: number, start: number, length: number, bytes: Buffer): Status {
    if (this.body?.type !== type) return Status.NotFound;
    const present = this.body.bytes;
    if (start >= present.length && start !== 0) this.body.bytes = Buffer.concat([present, bytes]);
    else if (start !== 0) return Status.BadArgument;
    else if (length === 0) this.body.bytes = Buffer.concat([bytes, present]);
    else if (length >= present.length) this.body.bytes = bytes;
    else return Status.BadArgument;
    return Status.Ok;
  }

  property(path: readonly string[]): Buffer | undefined {
    const [first = ''] = path;
    const state = path.length === 1 ? this.exchange.filterState.get(`wasm.${first}`) : undefined;
    return state ?? encodeProperty(this.exchange.property(path, this.root.plugin.properties));
  }

  override setProperty(path: string, value: Buffer): Status {
    this.exchange.filterState.set(`wasm.${path}`, value);
    return Status.Ok;
  }

  override sendLocalResponse(response: LocalResponse): void {
    this.vm.defer(() => this.exchange.sendLocalReply(response));
  }

  override continueStream(type: number): Status {
    if (type > HTTP_STREAM_TYPES_MAX) return Status.Ok;
    this.vm.defer(() => {
      this.continued[type] = true;
    });
    return Status.Ok;
  }

  override closeStream(_type: number): Status {
    this.vm.defer(() => this.exchange.reset());
    return Status.Ok;
  }

  private create(): void {
    if (this.created) return;
    this.created = true;
    this.vm.upcall(this, 'proxy_on_context_create', [this.id, this.root.id], () => undefined);
  }

  private withMap(type: number, map: HeaderMap, end: boolean, run: () => Action): Action {
    this.maps.set(type, map);
    this.endOfStream = end;
    const action = run();
    // After "continue" the map is out of reach; after a pause it stays.
    if (action === 'continue') this.maps.delete(type);
    return action;
  }

  private run(callback: string, args: number[]): Action {
    if (this.failureReplySent) return 'continue';
    if (this.vm.failed) return this.failStream();
    if (!this.vm.has(callback)) return 'continue';
    const stopped = this.vm.upcall(this, callback, args, result => result !== 0 || this.vm.stopNextIteration);
    if (this.vm.failed) return this.failStream();
    return stopped === true ? 'stop' : 'continue';
  }

  private failStream(): Action {
    this.failureReplySent = true;
    this.exchange.failByFilter();
    return 'stop';
  }
}
