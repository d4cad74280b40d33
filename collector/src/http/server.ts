// The HTTP side: metrics, health, and the read API as JSON.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Access } from '../access/access.js';
import { permitOf } from '../access/permit.js';
import type { TlsFiles } from '../access/tls.js';
import type { Address } from '../config.js';
import { ConfigError, Exhausted, statusOf } from '../errors.js';
import type { Logger } from '../log.js';
import type { ReadParts } from '../rpc/parts.js';
import type { Pieces } from '../slices.js';
import { STALE_METADATA } from '../rpc/stale.js';
import { answerApi, callAt } from './api.js';

export interface HttpParts {
  readonly reads: ReadParts;
  readonly metrics: () => Promise<{ text: string; contentType: string }>;
  readonly ready: () => boolean;
  /** Who is let in; absent = everybody. */
  readonly access?: Access;
  /** Absent = in the clear. */
  readonly tls?: TlsFiles;
  readonly log: Logger;
  /** UNREAD_MS_MAX if absent. */
  readonly unreadMs?: number;
}

/** Connections at once, and how long one may take to send a request; nothing here needs more. */
const CONNECTIONS_MAX = 1000;
const REQUEST_TIMEOUT_MS = 10_000;
const URL_CHARS_MAX = 4096;

/** A connection on which nothing moves for this long, ms, is closed: an answer that is not read is kept in memory. */
const UNREAD_MS_MAX = 60_000;

/** What it takes to be told that a path is not there. */
const ANY_READ = 'Registry.ListServices';

interface Answer {
  readonly code: number;
  readonly contentType: string;
  readonly text: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export class HttpServer {
  private readonly server: Server;

  constructor(private readonly parts: HttpParts) {
    const handle = (request: IncomingMessage, response: ServerResponse): void => void this.handle(request, response);
    const { tls } = parts;
    if (tls === undefined) this.server = createServer(handle);
    else {
      const server = createSecureServer(tls.context, handle);
      tls.onChange(context => server.setSecureContext(context));
      this.server = server;
    }
    this.server.maxConnections = CONNECTIONS_MAX;
    this.server.requestTimeout = REQUEST_TIMEOUT_MS;
    this.server.headersTimeout = REQUEST_TIMEOUT_MS;
    this.server.timeout = parts.unreadMs ?? UNREAD_MS_MAX;
  }

  /** @returns the port listened on @throws ConfigError when the address cannot be had */
  listen({ host, port }: Address): Promise<number> {
    return new Promise((resolve, reject) => {
      this.server.once('error', error =>
        reject(
          new ConfigError(
            `--http ${host}:${port} cannot be listened on (${error.message}); choose another with --http HOST:PORT`,
          ),
        ),
      );
      this.server.listen(port, host, () => resolve((this.server.address() as AddressInfo).port));
    });
  }

  stop(): Promise<void> {
    const done = new Promise<void>(resolve => this.server.close(() => resolve()));
    this.server.closeAllConnections();
    return done;
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { code, contentType, text, headers } = await this.answer(request, () => response.destroyed).catch(
      (error: unknown) => this.refuse(error),
    );
    response.writeHead(code, {
      ...headers,
      ...staleHeader(this.parts.reads.staleMs()),
      'content-type': contentType,
      'content-length': Buffer.byteLength(text),
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
      ...(code === 401 ? { 'www-authenticate': 'Bearer' } : {}),
    });
    response.end(request.method === 'HEAD' ? undefined : text);
  }

  private async answer(request: IncomingMessage, over: () => boolean): Promise<Answer> {
    if (request.method !== 'GET' && request.method !== 'HEAD') return json(405, { error: 'only GET is answered here' });
    const target = request.url ?? '/';
    if (target.length > URL_CHARS_MAX)
      return json(414, { error: `the URL is longer than ${URL_CHARS_MAX} characters` });
    const [path = '/', search = ''] = target.split('?', 2);
    if (path === '/healthz') return plain(200, 'ok\n');
    if (path === '/readyz') return this.parts.ready() ? plain(200, this.readyText()) : plain(503, 'not ready\n');
    if (path === '/metrics') return { code: 200, ...(await this.parts.metrics()) };
    if (path.startsWith('/api/v1/')) {
      const below = path.slice('/api/v1'.length);
      const reads = await this.readsFor(request, callAt(below) ?? ANY_READ);
      const work = (): Pieces<string> => answerApi(reads, below, new URLSearchParams(search));
      return jsonText(200, await reads.gate.run(work, over));
    }
    return json(404, { error: `there is nothing at ${path}` });
  }

  /** @throws Unauthenticated, PermissionDenied, Unavailable */
  private async readsFor(request: IncomingMessage, call: string): Promise<ReadParts> {
    const { access, reads } = this.parts;
    if (access === undefined) return reads;
    const caller = await access.admit(call, {
      address: request.socket.remoteAddress ?? '',
      authorization: textsOf(request.headersDistinct['authorization']),
      forwarded: textsOf(request.headersDistinct['x-forwarded-client-cert']),
    });
    if (caller === undefined) throw new Error(`${call} is open, which nothing below /api/v1 is`);
    return { ...reads, permit: permitOf(access, caller, call) };
  }

  /** A replica without its store goes on taking reports and answering, so it is ready; only not up to date. */
  private readyText(): string {
    const staleMs = this.parts.reads.staleMs();
    return staleMs === 0 ? 'ok\n' : `ok, degraded: the store has not been heard for ${(staleMs / 1000).toFixed(1)} s\n`;
  }

  private refuse(error: unknown): Answer {
    const { http, details, known } = statusOf(error);
    if (!known) this.parts.log.error({ err: error }, 'an HTTP request failed');
    const retry = error instanceof Exhausted ? { 'retry-after': String(Math.ceil(error.retryAfterMs / 1000)) } : {};
    return { ...json(http, { error: details }), headers: retry };
  }
}

const textsOf = (values: readonly string[] | undefined): readonly string[] => values ?? [];
/** As the metadata of gRPC answers. */
const staleHeader = (staleMs: number): Record<string, string> =>
  staleMs === 0 ? {} : { [STALE_METADATA]: String(Math.round(staleMs)) };

const plain = (code: number, text: string): Answer => ({ code, contentType: 'text/plain; charset=utf-8', text });

const json = (code: number, value: object): Answer => jsonText(code, JSON.stringify(value));

const jsonText = (code: number, text: string): Answer => ({
  code,
  contentType: 'application/json; charset=utf-8',
  text: `${text}\n`,
});
