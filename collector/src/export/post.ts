// One POST to a sink that may be slow, dead or hostile.
//
// Redirects are not followed, answers are not unpacked, and of an answer no more is read than it takes to know that it is
// too long. A whole try ends within its deadline, whatever the sink does.

import { Agent as HttpAgent, request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { AddressRefused, type Resolver } from './resolver.js';

/** A try ends after this long, ms; and a connection must stand after so long. */
export const DEADLINE_MS = 15_000;
export const CONNECT_MS = 3000;

/** Bytes of an answer that are read. */
export const ANSWER_BYTES_MAX = 64 * 1024;

/** Bytes of an answer's headers. */
const HEADER_BYTES_MAX = 16 * 1024;

/** Statuses that may be another one next time. */
const RETRIED = new Set([408, 425, 429, 500, 502, 503, 504]);

export type Outcome =
  | { readonly kind: 'delivered'; readonly answer: Buffer }
  /** Trying again can help, not sooner than after `wishMs`. */
  | { readonly kind: 'retry'; readonly why: string; readonly wishMs: number }
  /** The sink, or our own rules, do not want it. */
  | { readonly kind: 'refused'; readonly why: string };

export interface Posting {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export class Poster {
  private readonly http: HttpAgent;
  private readonly https: HttpsAgent;

  constructor(
    private readonly resolver: Resolver,
    socketsMax: number,
    private readonly deadlineMs = DEADLINE_MS,
  ) {
    const options = { keepAlive: true, maxSockets: socketsMax, lookup: resolver.lookup };
    this.http = new HttpAgent(options);
    this.https = new HttpsAgent(options);
  }

  /** Never rejects. */
  async post({ url, headers, body }: Posting): Promise<Outcome> {
    try {
      this.resolver.check(url.hostname);
      return await this.once(url, headers, body);
    } catch (error) {
      const why = (error as Error).message || String((error as NodeJS.ErrnoException).code);
      return error instanceof AddressRefused ? { kind: 'refused', why } : { kind: 'retry', why, wishMs: 0 };
    }
  }

  close(): void {
    this.http.destroy();
    this.https.destroy();
  }

  private once(url: URL, headers: Readonly<Record<string, string>>, body: Buffer): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const secure = url.protocol === 'https:';
      const request = (secure ? httpsRequest : httpRequest)(url, {
        method: 'POST',
        agent: secure ? this.https : this.http,
        maxHeaderSize: HEADER_BYTES_MAX,
        headers: { ...headers, 'content-length': String(body.length), 'accept-encoding': 'identity' },
      });
      const deadline = setTimeout(
        () => request.destroy(new Error(`no answer within ${this.deadlineMs} ms`)),
        this.deadlineMs,
      );
      const connect = setTimeout(() => endUnconnected(request), CONNECT_MS);
      // What has a status has been answered: that the rest is too long, breaks off or never comes changes nothing.
      let answered: () => void = () => undefined;
      request.on('error', error => {
        answered();
        reject(error);
      });
      request.on('response', response => {
        clearTimeout(connect);
        const pieces: Buffer[] = [];
        let bytes = 0;
        answered = () => resolve(outcomeOf(response, Buffer.concat(pieces)));
        response.on('data', (piece: Buffer) => {
          bytes += piece.length;
          if (bytes <= ANSWER_BYTES_MAX) return void pieces.push(piece);
          answered();
          request.destroy();
        });
        response.on('end', answered);
        response.on('error', answered);
      });
      request.on('close', () => {
        clearTimeout(deadline);
        clearTimeout(connect);
        answered();
        reject(new Error('the connection was closed without an answer'));
      });
      request.end(body);
    });
  }
}

function endUnconnected(request: ClientRequest): void {
  if (request.socket?.connecting !== false) request.destroy(new Error(`no connection within ${CONNECT_MS} ms`));
}

function outcomeOf(response: IncomingMessage, answer: Buffer): Outcome {
  const status = response.statusCode ?? 0;
  if (status >= 200 && status < 300) return { kind: 'delivered', answer };
  if (RETRIED.has(status))
    return { kind: 'retry', why: `answered ${status}`, wishMs: wish(response.headers['retry-after']) };
  if (status >= 300 && status < 400) return { kind: 'refused', why: `answered ${status}; redirects are not followed` };
  return { kind: 'refused', why: `answered ${status}` };
}

/** `Retry-After` in seconds or as a date, ms; 0 = none. */
function wish(value: string | undefined): number {
  if (value === undefined) return 0;
  const ms = /^\d{1,9}$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : 0;
}
