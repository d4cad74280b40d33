// Requests that end in every way a client can end them.
import { randomUUID } from 'node:crypto';
import { connect as connectHttp2, constants, type ClientHttp2Session } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { format, type Address } from '../../../demo/src/mesh/address.js';
import type { Deed } from './odd-app.js';
import { parseHead } from './raw-http.js';

/** When the client goes away: before its headers or its body are whole, while it waits, or in the response. */
export type Phase = 'in-headers' | 'in-body' | 'waiting' | 'in-response';

export interface OddRequest {
  host: string;
  path: string;
  method?: string;
  headers?: Record<string, string>;
  body?: string;
  deed?: Deed;
  /** Reset in this phase; otherwise the answer is awaited. */
  reset?: Phase;
  /** How long it waits in that phase, ms; default: until all it has sent has surely arrived. */
  travelMs?: number;
}

/** Status of the answer; 0 if there was none. `whole`: all of it came. */
export interface OddResult {
  status: number;
  whole: boolean;
}

export interface OddClient {
  send(request: OddRequest): Promise<OddResult>;
  close(): void;
}

/** Time for bytes to travel through two proxies of a busy machine before the client goes away. */
const TRAVEL_MS = 400;
const GIVE_UP_MS = 20_000;
const BODY_PROMISED = 1000;

function fieldsOf(request: OddRequest): Record<string, string> {
  return {
    'x-request-id': randomUUID(),
    ...(request.deed ? { 'x-do': JSON.stringify(request.deed) } : {}),
    ...request.headers,
  };
}

/** HTTP/1.1, one connection per request. */
export class Http1OddClient implements OddClient {
  constructor(private readonly to: Address) {}

  async send(request: OddRequest): Promise<OddResult> {
    const socket = connect({ ...this.to, noDelay: true });
    const answer = answerOf(socket);
    const { reset, body = '' } = request;
    const promised = reset === 'in-body' ? BODY_PROMISED : body.length;
    const head = [
      `${request.method ?? 'GET'} ${request.path} HTTP/1.1`,
      `host: ${request.host}`,
      ...Object.entries(fieldsOf(request)).map(([name, value]) => `${name}: ${value}`),
      ...(promised > 0 ? [`content-length: ${promised}`] : []),
    ].join('\r\n');
    socket.write(reset === 'in-headers' ? head : `${head}\r\n\r\n${reset === 'in-body' ? 'x' : body}`);
    if (!reset) return answer;
    if (reset === 'in-response') await firstBytes(socket);
    await sleep(request.travelMs ?? TRAVEL_MS);
    socket.resetAndDestroy();
    return answer;
  }

  close(): void {}
}

function firstBytes(socket: Socket): Promise<void> {
  return new Promise(resolve => {
    socket.once('data', () => resolve());
    socket.once('close', () => resolve());
  });
}

/** The status, and whether the promised body came, once the answer or the connection ends. */
function answerOf(socket: Socket): Promise<OddResult> {
  return new Promise(resolve => {
    let text = '';
    const timer = setTimeout(() => socket.destroy(), GIVE_UP_MS);
    const result = (): OddResult => {
      const end = text.indexOf('\r\n\r\n');
      if (end < 0) return { status: 0, whole: false };
      const head = parseHead(text);
      const field = (name: string) => head.fields.find(([n]) => n === name)?.[1];
      const body = text.slice(head.bytes);
      const length = field('content-length');
      const whole = length === undefined ? body.endsWith('0\r\n\r\n') : body.length === Number(length);
      const status = Number(head.line.split(' ')[1]);
      return { status, whole: whole || status === 204 || status === 304 };
    };
    socket.on('data', chunk => {
      text += chunk.toString('latin1');
      if (result().whole) socket.destroy();
    });
    // Resets are the purpose; `close` follows.
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(result());
    });
  });
}

/** HTTP/2 without TLS, one connection for all requests. */
export class Http2OddClient implements OddClient {
  private readonly session: ClientHttp2Session;

  constructor(to: Address) {
    this.session = connectHttp2(`http://${format(to)}`);
    // Streams end by themselves when the session does.
    this.session.on('error', () => {});
  }

  async send(request: OddRequest): Promise<OddResult> {
    const { reset, body = '' } = request;
    // HTTP/2 has no half-sent header block that a stream could reset: the body is the earliest phase.
    const headers = {
      ':method': request.method ?? 'GET',
      ':path': request.path,
      ':authority': request.host,
      ...fieldsOf(request),
    };
    const stream = this.session.request(headers, { endStream: reset !== 'in-body' && body === '' });
    const result: OddResult = { status: 0, whole: false };
    const ended = new Promise<OddResult>(resolve => {
      const timer = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), GIVE_UP_MS);
      stream.on('response', answer => (result.status = answer[':status'] ?? 0));
      stream.on('end', () => (result.whole = stream.rstCode === constants.NGHTTP2_NO_ERROR && result.status !== 0));
      stream.on('error', () => {});
      stream.on('close', () => {
        clearTimeout(timer);
        resolve({ ...result, whole: result.whole && stream.rstCode === constants.NGHTTP2_NO_ERROR });
      });
    });
    const response = new Promise(resolve => stream.once('response', resolve).once('close', resolve));
    stream.resume();
    if (reset === 'in-body') stream.write('x');
    else if (body !== '') stream.end(body);
    if (!reset) return ended;
    if (reset === 'in-response') await response;
    await sleep(request.travelMs ?? TRAVEL_MS);
    stream.close(constants.NGHTTP2_CANCEL);
    return ended;
  }

  close(): void {
    this.session.close();
  }
}
