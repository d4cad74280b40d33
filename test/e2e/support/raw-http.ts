// HTTP/1.1 as bytes: a client that sends exactly what it is given and an upstream that keeps exactly what it
// got. Libraries join, reorder and re-case headers; here nothing does.
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Address } from '../../../demo/src/mesh/address.js';

export type Field = [name: string, value: string];

/** The head of one HTTP/1.1 message. Text is Latin-1: one character per byte. */
export interface Head {
  /** Request or status line. */
  line: string;
  fields: Field[];
  /** Bytes of the whole head, with the blank line. */
  bytes: number;
}

const HEAD_END = '\r\n\r\n';
const EXCHANGE_MS = 10_000;

export function parseHead(text: string): Head {
  const [line = '', ...rest] = text.slice(0, text.indexOf(HEAD_END)).split('\r\n');
  const fields = rest.map((field): Field => {
    const colon = field.indexOf(':');
    return [field.slice(0, colon), field.slice(colon + 1).replace(/^ /, '')];
  });
  return { line, fields, bytes: text.indexOf(HEAD_END) + HEAD_END.length };
}

export function valuesOf(head: Head, name: string): string[] {
  return head.fields.filter(([n]) => n.toLowerCase() === name).map(([, value]) => value);
}

/** Answers to one request; `fields` without content-length, which the upstream adds. */
export interface Answer {
  status?: number;
  fields?: Field[];
  body?: string;
}

/** An HTTP/1.1 server. */
export class RawUpstream {
  readonly heads: Head[] = [];
  /** Whole requests, byte by byte. */
  readonly texts: string[] = [];
  answer: (head: Head) => Answer = () => ({});
  private readonly sockets = new Set<Socket>();

  private constructor(private readonly server: Server) {
    server.on('connection', socket => this.serve(socket));
  }

  static async start(address: Address): Promise<RawUpstream> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(address.port, address.host, resolve);
    });
    return new RawUpstream(server);
  }

  get last(): Head {
    const head = this.heads.at(-1);
    if (!head) throw new Error('the upstream has seen no request');
    return head;
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise(done => this.server.close(done));
  }

  private serve(socket: Socket): void {
    let waiting = '';
    this.sockets.add(socket);
    socket.on('close', () => this.sockets.delete(socket));
    // A proxy may reset an idle connection; `close` follows.
    socket.on('error', () => {});
    socket.on('data', chunk => {
      waiting += chunk.toString('latin1');
      for (;;) {
        const message = takeMessage(waiting);
        if (!message) return;
        waiting = message.rest;
        this.heads.push(message.head);
        this.texts.push(message.text);
        socket.write(render(this.answer(message.head)), 'latin1');
      }
    });
  }
}

interface Message {
  head: Head;
  body: string;
  /** All of it as it came. */
  text: string;
  /** What is behind it. */
  rest: string;
}

/** The first whole message of `text`; undefined until all of it is there. */
function takeMessage(text: string): Message | undefined {
  if (!text.includes(HEAD_END)) return undefined;
  const head = parseHead(text);
  if (valuesOf(head, 'transfer-encoding').includes('chunked')) return takeChunks(text, head);
  const end = head.bytes + Number(valuesOf(head, 'content-length')[0] ?? 0);
  if (text.length < end) return undefined;
  return { head, body: text.slice(head.bytes, end), text: text.slice(0, end), rest: text.slice(end) };
}

/** Without trailers, which nobody here sends. */
function takeChunks(text: string, head: Head): Message | undefined {
  let body = '';
  for (let at = head.bytes; ;) {
    const lineEnd = text.indexOf('\r\n', at);
    const size = parseInt(text.slice(at, lineEnd), 16);
    const begin = lineEnd + 2;
    if (lineEnd < 0 || text.length < begin + size + 2) return undefined;
    body += text.slice(begin, begin + size);
    at = begin + size + 2;
    if (size === 0) return { head, body, text: text.slice(0, at), rest: text.slice(at) };
  }
}

function render({ status = 200, fields = [], body = '' }: Answer): string {
  return `HTTP/1.1 ${status} X\r\n${lines(fields)}content-length: ${body.length}\r\n\r\n${body}`;
}

export function lines(fields: Field[]): string {
  return fields.map(([name, value]) => `${name}: ${value}\r\n`).join('');
}

/** A GET with these fields behind `host`. */
export function get(host: string, path: string, fields: Field[]): string {
  return `GET ${path} HTTP/1.1\r\nhost: ${host}\r\n${lines(fields)}\r\n`;
}

/** A POST with these fields behind `host`. */
export function post(host: string, path: string, fields: Field[], body = ''): string {
  return `POST ${path} HTTP/1.1\r\nhost: ${host}\r\n${lines(fields)}content-length: ${body.length}\r\n\r\n${body}`;
}

export interface RawAnswer {
  status: number;
  head: Head;
  body: string;
  /** All of it as it came. */
  text: string;
}

/** One keep-alive connection; one request at a time. */
export class RawClient {
  private waiting = '';
  private taken: ((answer: RawAnswer) => void) | undefined;
  private failed: ((error: Error) => void) | undefined;

  constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.waiting += chunk.toString('latin1');
      const message = takeMessage(this.waiting);
      if (!message) return;
      this.waiting = message.rest;
      const { head, body, text } = message;
      this.taken?.({ status: Number(head.line.split(' ')[1]), head, body, text });
    });
    socket.on('error', error => this.failed?.(error));
    socket.on('close', () => this.failed?.(new Error('connection closed without a whole answer')));
  }

  static open(to: Address): RawClient {
    return new RawClient(connect(to.port, to.host));
  }

  /** Sends these bytes (Latin-1) and waits for one answer. */
  send(request: string): Promise<RawAnswer> {
    return new Promise<RawAnswer>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no answer in ${EXCHANGE_MS} ms`)), EXCHANGE_MS);
      this.taken = answer => {
        clearTimeout(timer);
        resolve(answer);
      };
      this.failed = error => {
        clearTimeout(timer);
        reject(error);
      };
      this.socket.write(request, 'latin1');
    });
  }

  close(): void {
    this.socket.destroy();
  }
}

/** One request on a connection of its own. */
export async function exchange(to: Address, request: string): Promise<RawAnswer> {
  const client = RawClient.open(to);
  try {
    return await client.send(request);
  } finally {
    client.close();
  }
}
