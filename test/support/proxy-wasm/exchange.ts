/**
 * One request through one proxy, scripted by the test: what the connection manager would do around the filter.
 *
 * The test plays client and upstream (`requestHeaders`, `responseHeaders`, `reset`, …); the exchange keeps
 * the stream info that properties show, makes local replies pass the filter's response callbacks, and calls
 * log, done and delete in the proxy's order.
 */
import { MapType, type Action } from './abi.js';
import type { LocalResponse } from './context.js';
import { HeaderMap } from './header-map.js';
import type { Pair } from './pairs.js';
import type { Plugin } from './process.js';
import { findProperty, type PropertyTree, type PropertyValue } from './properties.js';
import { StreamContext } from './stream-context.js';
import { defaultProperties, type StreamInfo } from './stream-info.js';
import type { Thread } from './thread.js';

export interface ExchangeOptions {
  /** Request headers as the client sent them, byte strings. */
  readonly headers: readonly Pair[];
  /** Properties that replace or extend the ones the exchange derives; leaf by leaf. */
  readonly properties?: PropertyTree;
  /** `request.protocol`. Default HTTP/1.1. */
  readonly protocol?: string;
}

/** Bits of Envoy's response flags that tests use. */
export const ResponseFlag = {
  NoHealthyUpstream: 0x2,
  UpstreamRequestTimeout: 0x4,
  UpstreamRemoteReset: 0x10,
  UpstreamConnectionFailure: 0x20,
  UpstreamConnectionTermination: 0x40,
  UpstreamOverflow: 0x80,
  NoRouteFound: 0x100,
  DownstreamConnectionTermination: 0x4000,
  UpstreamRetryLimitExceeded: 0x8000,
  StreamIdleTimeout: 0x10000,
  /** The client reset its HTTP/2 stream. */
  DownstreamRemoteReset: 0x10000000,
} as const;

const GRPC_UNAVAILABLE = 14;
const GRPC_CODE_MAX = 16;

export class Exchange {
  readonly request: HeaderMap;
  response: HeaderMap | undefined;
  requestTrailersMap: HeaderMap | undefined;
  responseTrailersMap: HeaderMap | undefined;
  readonly info: StreamInfo;
  readonly filterState = new Map<string, Buffer>();
  /** The reply that a filter or the proxy made itself. */
  localReply: LocalResponse | undefined;
  routeCacheCleared = 0;
  finished = false;
  readonly filter: StreamContext | 'bypass' | 'fail';
  /** Response headers went to the client: it is too late for a local reply. */
  private responseSent = false;
  private readonly attempts: StreamContext[] = [];
  private readonly derived: PropertyTree;

  constructor(
    readonly thread: Thread,
    plugin: Plugin,
    private readonly options: ExchangeOptions,
  ) {
    const { process } = thread;
    this.request = new HeaderMap('request', options.headers, process.inlineRequestHeaders);
    this.info = {
      startNs: process.clock.realtimeNs(),
      endNs: undefined,
      protocol: options.protocol ?? 'HTTP/1.1',
      connectionId: process.nextConnectionId++,
      responseCode: undefined,
      details: undefined,
      flags: 0,
      requestBytes: 0,
      responseBytes: 0,
    };
    this.derived = defaultProperties(this);
    const root = thread.forRequest(plugin);
    this.filter = typeof root === 'string' ? root : new StreamContext(root, this, false);
  }

  // What the client does.

  requestHeaders(end = true): Action {
    if (this.filter === 'fail') {
      this.failByFilter();
      return 'stop';
    }
    return this.filtered(filter => filter.headers(MapType.RequestHeaders, this.request, end));
  }

  requestBody(bytes: Uint8Array, end = true): Action {
    this.info.requestBytes += bytes.length;
    return this.filtered(filter => filter.data(0, Buffer.from(bytes), end));
  }

  requestTrailers(pairs: readonly Pair[]): Action {
    const map = (this.requestTrailersMap = new HeaderMap('other', pairs));
    return this.filtered(filter => filter.trailers(MapType.RequestTrailers, map));
  }

  /** The client went away, at whatever point this is called. */
  reset(): void {
    this.info.flags |= ResponseFlag.DownstreamConnectionTermination;
    this.info.details ??= 'downstream_remote_disconnect';
    this.finish();
  }

  // What the upstream does.

  /** Starts an attempt with a filter in the upstream chain; `inject` stands for the tracer that runs before it. */
  attempt(plugin: Plugin, inject: (request: HeaderMap) => void = () => undefined): Attempt {
    inject(this.request);
    const root = this.thread.forRequest(plugin);
    const context = typeof root === 'string' ? undefined : new StreamContext(root, this, true);
    if (context !== undefined) this.attempts.push(context);
    const action = context?.headers(MapType.RequestHeaders, this.request, true) ?? 'continue';
    return { action, context };
  }

  responseHeaders(pairs: readonly Pair[], end = true): Action {
    this.info.details ??= 'via_upstream';
    for (const attempt of this.attempts)
      attempt.headers(MapType.ResponseHeaders, new HeaderMap('response', pairs), end);
    return this.encodeHeaders(new HeaderMap('response', pairs), end);
  }

  responseBody(bytes: Uint8Array, end = true): Action {
    this.info.responseBytes += bytes.length;
    return this.filtered(filter => filter.data(1, Buffer.from(bytes), end));
  }

  responseTrailers(pairs: readonly Pair[]): Action {
    const map = (this.responseTrailersMap = new HeaderMap('other', pairs));
    return this.filtered(filter => filter.trailers(MapType.ResponseTrailers, map));
  }

  // What the proxy does.

  /** A reply of the proxy itself, e.g. 413, no route, timeout. */
  proxyReply(code: number, details: string, flags = 0): void {
    this.info.flags |= flags;
    this.sendLocalReply({ code, details, body: Buffer.alloc(0), headers: [], grpcStatus: -1 });
  }

  /** End of the stream: log, then done and delete. Safe to call twice. */
  finish(): void {
    if (this.finished) return;
    this.finished = true;
    this.info.endNs = this.thread.process.clock.realtimeNs();
    for (const attempt of this.attempts) attempt.destroy();
    if (typeof this.filter === 'string') return;
    this.filter.log();
    this.filter.destroy();
  }

  sendLocalReply(response: LocalResponse): void {
    if (this.finished) return;
    if (this.responseSent) {
      this.reset();
      return;
    }
    const direct = this.response !== undefined;
    this.localReply = response;
    this.info.details = response.details;
    if (direct) {
      // The upstream's headers are under way through the filters: they are replaced, and no filter is asked again.
      this.response = new HeaderMap('response', this.localReplyPairs(response));
      return;
    }
    this.encodeHeaders(new HeaderMap('response', this.localReplyPairs(response)), response.body.length === 0);
    if (response.body.length > 0 && !this.isGrpc()) this.responseBody(response.body, true);
  }

  failByFilter(): void {
    const grpcStatus = GRPC_UNAVAILABLE;
    this.sendLocalReply({ code: 503, details: 'wasm_fail_stream', body: Buffer.alloc(0), headers: [], grpcStatus });
  }

  // What contexts ask.

  property(path: readonly string[], shared: PropertyTree): PropertyValue {
    for (const tree of [this.options.properties ?? {}, this.derived, shared]) {
      const value = findProperty(tree, path);
      if (value !== undefined) return value;
    }
    return undefined;
  }

  loggedMap(type: number): HeaderMap | undefined {
    if (type === MapType.RequestHeaders) return this.request;
    if (type === MapType.ResponseHeaders) return this.response;
    return type === MapType.ResponseTrailers ? this.responseTrailersMap : undefined;
  }

  addTrailers(type: number): HeaderMap {
    const map = new HeaderMap('other');
    if (type === MapType.RequestTrailers) this.requestTrailersMap = map;
    else this.responseTrailersMap = map;
    return map;
  }

  private encodeHeaders(map: HeaderMap, end: boolean): Action {
    this.response = map;
    const action = this.filtered(filter => filter.headers(MapType.ResponseHeaders, map, end));
    this.responseSent = action === 'continue';
    this.info.responseCode = Number(this.response.get(':status') ?? 0);
    return action;
  }

  private filtered(run: (filter: StreamContext) => Action): Action {
    if (typeof this.filter === 'string' || this.finished) return 'continue';
    return run(this.filter);
  }

  private isGrpc(): boolean {
    return /^application\/grpc(\+|$)/.test(this.request.get('content-type') ?? '');
  }

  private localReplyPairs(response: LocalResponse): Pair[] {
    const { code, headers, grpcStatus, body } = response;
    if (this.isGrpc()) {
      const status = grpcStatus >= 0 && grpcStatus <= GRPC_CODE_MAX ? grpcStatus : 2;
      const message: Pair[] = body.length > 0 ? [['grpc-message', body.toString('latin1')]] : [];
      const fixed: Pair[] = [[':status', '200'], ...headers];
      return [...fixed, ['content-type', 'application/grpc'], ['grpc-status', String(status)], ...message];
    }
    const length: Pair[] = body.length > 0 ? [['content-length', String(body.length)]] : [];
    const typed = body.length > 0 && !headers.some(pair => pair[0].toLowerCase() === 'content-type');
    return [
      [':status', String(code)],
      ...headers,
      ...length,
      ...(typed ? [['content-type', 'text/plain'] as const] : []),
    ];
  }
}

export interface Attempt {
  readonly action: Action;
  readonly context: StreamContext | undefined;
}
