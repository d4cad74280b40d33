// Calls made byte by byte: what no client library would send.

import {
  connect,
  constants,
  type ClientHttp2Session,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2';

export interface RawAnswer {
  /** gRPC status; `cut` when the stream ended without one, `open` when it did not end in time. */
  readonly status: string;
  readonly details: string;
  readonly messages: number;
}

/** A message as gRPC puts it on the wire. `length`: the one that is claimed. */
export function frame(bytes: Buffer, { compressed = false, length = bytes.length } = {}): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(compressed ? 1 : 0, 0);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, bytes]);
}

export class RawClient {
  readonly session: ClientHttp2Session;

  constructor(address: string) {
    this.session = connect(`http://${address}`, { maxSessionMemory: 1000 });
    this.session.on('error', () => undefined);
  }

  /** Sends `body` as it is and ends; waits for the status for at most `waitMs`. */
  call(path: string, body: Buffer, extra: OutgoingHttpHeaders = {}, waitMs = 2000): Promise<RawAnswer> {
    return new Promise(resolve => {
      const stream = this.session.request({
        ':method': 'POST',
        ':path': path,
        'content-type': 'application/grpc',
        te: 'trailers',
        ...extra,
      });
      let answer: RawAnswer = { status: 'cut', details: '', messages: 0 };
      const timer = setTimeout(() => {
        answer = { ...answer, status: 'open' };
        stream.close(constants.NGHTTP2_CANCEL);
      }, waitMs);
      const note = (headers: IncomingHttpHeaders): void => {
        const { 'grpc-status': status, 'grpc-message': details } = headers;
        if (typeof status !== 'string') return;
        answer = { ...answer, status, details: typeof details === 'string' ? decodeURIComponent(details) : '' };
      };
      stream.on('response', note);
      stream.on('trailers', note);
      stream.on('data', () => (answer = { ...answer, messages: answer.messages + 1 }));
      stream.on('error', () => undefined);
      stream.on('close', () => {
        clearTimeout(timer);
        resolve(answer);
      });
      stream.end(body);
    });
  }

  close(): void {
    this.session.destroy();
  }
}
