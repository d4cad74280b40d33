// The application behind the proxy: answers every request with the same bytes, as cheaply as a socket
// allows, so that the proxy and not its neighbours sets the pace.
import { createServer, type Server, type Socket } from 'node:net';
import type { Address } from '../../demo/src/mesh/address.js';
import { REQUEST_BODY_BYTES } from './messages.js';

const HEAD_END = Buffer.from('\r\n\r\n');

export class Upstream {
  /** Head of the last request, kept for comparisons only. */
  lastHead = Buffer.alloc(0);
  keepHeads = false;

  private constructor(
    private readonly server: Server,
    private readonly sockets: Set<Socket>,
  ) {}

  static async start(address: Address, response: Buffer): Promise<Upstream> {
    const sockets = new Set<Socket>();
    const server = createServer({ noDelay: true });
    const upstream = new Upstream(server, sockets);
    server.on('connection', socket => {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
      // A proxy that is stopped resets its connections; that is no news.
      socket.on('error', () => socket.destroy());
      upstream.serve(socket, response);
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(address.port, address.host, resolve);
    });
    return upstream;
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise(done => this.server.close(done));
  }

  private serve(socket: Socket, response: Buffer): void {
    let pending: Buffer | undefined;
    socket.on('data', chunk => {
      let bytes = pending ? Buffer.concat([pending, chunk]) : chunk;
      for (;;) {
        const head = bytes.indexOf(HEAD_END);
        const size = head + HEAD_END.length + REQUEST_BODY_BYTES;
        if (head < 0 || bytes.length < size) break;
        if (this.keepHeads) this.lastHead = Buffer.from(bytes.subarray(0, head));
        socket.write(response);
        bytes = bytes.subarray(size);
      }
      pending = bytes.length > 0 ? Buffer.from(bytes) : undefined;
    });
  }
}
