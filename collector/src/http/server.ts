// The HTTP side: metrics, health, and the read API as JSON.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Address } from '../config.js';
import { ConfigError, Exhausted, statusOf } from '../errors.js';
import type { Logger } from '../log.js';
import type { ReadParts } from '../rpc/parts.js';
import type { Pieces } from '../slices.js';
import { answerApi } from './api.js';

export interface HttpParts {
  readonly reads: ReadParts;
  readonly metrics: () => Promise<{ text: string; contentType: string }>;
  readonly ready: () => boolean;
  readonly log: Logger;
}

/** Connections at once, and how long one may take to send a request; nothing here needs more. */
const CONNECTIONS_MAX = 1000;
const REQUEST_TIMEOUT_MS = 10_000;
const URL_CHARS_MAX = 4096;

interface Answer {
  readonly code: number;
  readonly contentType: string;
  readonly text: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export class HttpServer {
  private readonly server: Server;

  constructor(private readonly parts: HttpParts) {
    this.server = createServer((request, response) => void this.handle(request, response));
    this.server.maxConnections = CONNECTIONS_MAX;
    this.server.requestTimeout = REQUEST_TIMEOUT_MS;
    this.server.headersTimeout = REQUEST_TIMEOUT_MS;
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
      'content-type': contentType,
      'content-length': Buffer.byteLength(text),
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
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
    if (path === '/readyz') return this.parts.ready() ? plain(200, 'ok\n') : plain(503, 'not ready\n');
    if (path === '/metrics') return { code: 200, ...(await this.parts.metrics()) };
    if (path.startsWith('/api/v1/')) {
      const { reads } = this.parts;
      const work = (): Pieces<string> => answerApi(reads, path.slice('/api/v1'.length), new URLSearchParams(search));
      return jsonText(200, await reads.gate.run(work, over));
    }
    return json(404, { error: `there is nothing at ${path}` });
  }

  private refuse(error: unknown): Answer {
    const { http, details, known } = statusOf(error);
    if (!known) this.parts.log.error({ err: error }, 'an HTTP request failed');
    const retry = error instanceof Exhausted ? { 'retry-after': String(Math.ceil(error.retryAfterMs / 1000)) } : {};
    return { ...json(http, { error: details }), headers: retry };
  }
}

const plain = (code: number, text: string): Answer => ({ code, contentType: 'text/plain; charset=utf-8', text });

const json = (code: number, value: object): Answer => jsonText(code, JSON.stringify(value));

const jsonText = (code: number, text: string): Answer => ({
  code,
  contentType: 'application/json; charset=utf-8',
  text: `${text}\n`,
});
