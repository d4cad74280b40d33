// An application as people write them: an HTTP server that calls others through its sidecar and hands on
// the trace headers it was given, nothing more.
import { Agent, createServer, request, type IncomingHttpHeaders, type IncomingMessage, type Server } from 'node:http';
import type { Address } from './address.js';

/** Headers that an application hands on so that its calls belong to the request it works on. */
export const TRACE_HEADERS = [
  'x-request-id',
  'traceparent',
  'tracestate',
  'b3',
  'x-b3-traceid',
  'x-b3-spanid',
  'x-b3-parentspanid',
  'x-b3-sampled',
  'x-b3-flags',
  'x-ot-span-context',
];

/** Bytes of a request or response body that are kept; more is an error of the caller's. */
const BODY_BYTES_MAX = 1 << 20;
const CALL_TIMEOUT_MS = 60_000;
const SOCKETS_MAX = 256;

export interface AppRequest {
  method: string;
  /** Path without query. */
  path: string;
  headers: IncomingHttpHeaders;
  /** Name and value as they came, in order. */
  rawHeaders: [string, string][];
  body: string;
  /** Calls another service through the sidecar, with the trace headers of this request. */
  call(host: string, method: string, path: string, options?: CallOptions): Promise<Reply>;
}

export interface CallOptions {
  headers?: Record<string, string>;
  body?: string;
}

export interface Reply {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

export interface AppResponse {
  status: number;
  headers?: Record<string, string>;
  body?: string;
}

export type Handler = (request: AppRequest) => Promise<AppResponse> | AppResponse;

/** One running instance of an application. */
export class App {
  private readonly agent = new Agent({ keepAlive: true, maxSockets: SOCKETS_MAX });
  private readonly server: Server;

  private constructor(
    private readonly outbound: Address | undefined,
    handler: Handler,
  ) {
    this.server = createServer({ keepAliveTimeout: 600_000 }, (incoming, response) => {
      this.serve(incoming, handler).then(
        reply => {
          response.writeHead(reply.status, { 'content-type': 'application/json', ...reply.headers });
          response.end(reply.body ?? '{}');
        },
        (error: unknown) => {
          response.writeHead(500, { 'content-type': 'application/json' });
          response.end(JSON.stringify({ error: String(error) }));
        },
      );
    });
  }

  /** Listens on `address`; calls leave through `outbound`, the sidecar's listener. */
  static async start(address: Address, outbound: Address | undefined, handler: Handler): Promise<App> {
    const app = new App(outbound, handler);
    await new Promise<void>((resolve, reject) => {
      app.server.once('error', reject);
      app.server.listen(address.port, address.host, resolve);
    });
    return app;
  }

  /** A call that no request caused: a job's own. */
  call(host: string, method: string, path: string, options: CallOptions = {}): Promise<Reply> {
    if (!this.outbound) throw new Error('this application has no sidecar to call through');
    return callThrough(this.outbound, this.agent, host, method, path, options);
  }

  async stop(): Promise<void> {
    this.agent.destroy();
    this.server.closeAllConnections();
    await new Promise(done => this.server.close(done));
  }

  private async serve(incoming: IncomingMessage, handler: Handler): Promise<AppResponse> {
    const body = await readBody(incoming);
    const trace = pick(incoming.headers, TRACE_HEADERS);
    return handler({
      method: incoming.method ?? 'GET',
      path: (incoming.url ?? '/').split('?')[0] ?? '/',
      headers: incoming.headers,
      rawHeaders: pairs(incoming.rawHeaders),
      body,
      call: (host, method, path, options = {}) =>
        this.call(host, method, path, { ...options, headers: { ...trace, ...options.headers } }),
    });
  }
}

/** One HTTP/1.1 request to `via`, for the service named `host`. Rejects only if no answer comes. */
export function callThrough(
  via: Address,
  agent: Agent | undefined,
  host: string,
  method: string,
  path: string,
  options: CallOptions = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const headers = { host, ...options.headers };
    const call = request({ ...via, agent, method, path, headers, timeout: CALL_TIMEOUT_MS }, answer => {
      readBody(answer).then(body => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body }), reject);
    });
    call.on('timeout', () => call.destroy(new Error(`${method} ${host}${path}: no answer in ${CALL_TIMEOUT_MS} ms`)));
    call.on('error', reject);
    call.end(options.body);
  });
}

async function readBody(message: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of message as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > BODY_BYTES_MAX) throw new Error(`body over ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function pairs(raw: string[]): [string, string][] {
  const result: [string, string][] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) result.push([raw[i] ?? '', raw[i + 1] ?? '']);
  return result;
}

function pick(headers: IncomingHttpHeaders, names: string[]): Record<string, string> {
  const result: Record<string, string> = {};
  for (const name of names) {
    const value = headers[name];
    if (typeof value === 'string') result[name] = value;
  }
  return result;
}
