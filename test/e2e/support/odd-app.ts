// An application that does what a request tells it to do, and keeps count.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocketServer } from 'ws';
import type { Address } from '../../../demo/src/mesh/address.js';

/** Told in the header x-do as JSON. */
export interface Deed {
  /** Default 200. A list: one per attempt, by x-request-id; the last one stays. */
  status?: number | number[];
  /** Before response headers, ms. A list: one per attempt. */
  delayMs?: number | number[];
  body?: string;
  headers?: Record<string, string>;
  /** Resets its connection before the headers, or in the body; or sends half a body and no more. */
  fail?: 'before-headers' | 'in-body' | 'hang-in-body';
}

/** Half of a body that never ends. */
const PROMISED_BYTES = 1000;

export class OddApp {
  /** Requests that arrived, by path. */
  readonly seen = new Map<string, number>();
  /** Bodies received, by path. */
  readonly bodyBytes = new Map<string, number>();
  private readonly attempts = new Map<string, number>();
  private readonly sockets = new Set<Duplex>();

  private constructor(private readonly server: Server) {
    server.on('connection', socket => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
    });
    server.on('request', (request, response) => {
      // What a client or a proxy breaks off ends here.
      this.serve(request, response).catch(() => response.destroy());
    });
    const webSockets = new WebSocketServer({ server });
    webSockets.on('connection', (socket, request) => {
      this.count(request);
      socket.on('message', message => socket.send(message));
      socket.on('error', () => socket.terminate());
    });
  }

  static async start(address: Address): Promise<OddApp> {
    const server = createServer({ keepAliveTimeout: 600_000, requestTimeout: 0 });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(address.port, address.host, resolve);
    });
    return new OddApp(server);
  }

  get total(): number {
    return [...this.seen.values()].reduce((sum, n) => sum + n, 0);
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise(done => this.server.close(done));
  }

  private count(request: IncomingMessage): void {
    const path = request.url ?? '/';
    this.seen.set(path, (this.seen.get(path) ?? 0) + 1);
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.count(request);
    const deed = JSON.parse(String(request.headers['x-do'] ?? '{}')) as Deed;
    const id = String(request.headers['x-request-id']);
    const attempt = this.attempts.get(id) ?? 0;
    this.attempts.set(id, attempt + 1);
    const path = request.url ?? '/';
    for await (const chunk of request as AsyncIterable<Buffer>) {
      this.bodyBytes.set(path, (this.bodyBytes.get(path) ?? 0) + chunk.length);
    }
    const delay = ofAttempt(deed.delayMs, attempt, 0);
    if (delay > 0) await sleep(delay);
    this.answer(response, deed, ofAttempt(deed.status, attempt, 200));
  }

  private answer(response: ServerResponse, deed: Deed, status: number): void {
    const { socket } = response;
    if (deed.fail === 'before-headers') {
      socket?.resetAndDestroy();
      return;
    }
    if (deed.fail) {
      response.writeHead(status, { ...deed.headers, 'content-length': PROMISED_BYTES });
      response.write('x'.repeat(PROMISED_BYTES / 2), () => {
        if (deed.fail === 'in-body') socket?.resetAndDestroy();
      });
      return;
    }
    response.writeHead(status, deed.headers);
    response.end(deed.body);
  }
}

function ofAttempt(value: number | number[] | undefined, attempt: number, fallback: number): number {
  if (typeof value === 'number') return value;
  return value?.[Math.min(attempt, value.length - 1)] ?? fallback;
}
