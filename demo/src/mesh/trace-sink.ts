// Takes the spans of the mesh's proxies (OTLP or Zipkin over HTTP), counts requests and drops them.
import { createServer, type Server } from 'node:http';
import type { Address } from './address.js';

export class TraceSink {
  /** Requests taken; each carries a batch of spans. */
  batches = 0;

  private constructor(
    private readonly server: Server,
    readonly address: Address,
  ) {}

  static async start(host = '127.0.0.1'): Promise<TraceSink> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, host, resolve);
    });
    const bound = server.address();
    if (bound === null || typeof bound === 'string') throw new Error('trace sink: no address');
    const sink = new TraceSink(server, { host, port: bound.port });
    server.on('request', (incoming, response) => {
      sink.batches++;
      incoming.resume();
      // OTLP exporters take anything but 200 for a failure; Zipkin's take any 2xx.
      incoming.on('end', () => response.writeHead(200, { 'content-type': 'application/json' }).end('{}'));
    });
    return sink;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise(done => this.server.close(done));
  }
}
