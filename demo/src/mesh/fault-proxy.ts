// A TCP proxy that misbehaves on demand: what a network, a dying peer or a stranger does to a connection.
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Address } from './address.js';

export type Fault =
  /** Bytes pass. */
  | { kind: 'none' }
  /** Bytes pass `ms` later, in order, both ways. */
  | { kind: 'delay'; ms: number }
  /** Connections are taken; nothing passes and nothing ends. */
  | { kind: 'blackhole' }
  /** New connections are reset at once. */
  | { kind: 'refuse' }
  /** A connection is reset after `bytes` from the client. */
  | { kind: 'cut'; bytes: number }
  /** The client gets bytes that mean nothing, in place of the server's. */
  | { kind: 'garbage' };

/** Bytes that may wait in a delayed direction before the source is paused. */
const HELD_BYTES_MAX = 1 << 20;
const GARBAGE = Buffer.from(Array.from({ length: 512 }, (_, i) => (i * 151 + 89) & 0xff));

export class FaultProxy {
  private fault: Fault = { kind: 'none' };
  private readonly sockets = new Set<Socket>();
  /** Connections taken so far. */
  connections = 0;

  private constructor(
    private readonly server: Server,
    readonly address: Address,
    private readonly target: Address,
  ) {
    server.on('connection', client => this.accept(client));
  }

  static async start(target: Address, host = '127.0.0.1', port = 0): Promise<FaultProxy> {
    const server = createServer({ allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    });
    const bound = server.address();
    if (bound === null || typeof bound === 'string') throw new Error('fault proxy: no address');
    return new FaultProxy(server, { host, port: bound.port }, target);
  }

  /** From now on; `cutNow` also resets the connections there are. */
  set(fault: Fault, cutNow = false): void {
    this.fault = fault;
    if (cutNow) this.cut();
  }

  /** Resets every connection. */
  cut(): void {
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  async stop(): Promise<void> {
    this.cut();
    await new Promise(done => this.server.close(done));
  }

  private accept(client: Socket): void {
    this.connections++;
    this.track(client);
    if (this.fault.kind === 'refuse') {
      client.resetAndDestroy();
      return;
    }
    const server = this.track(connect({ ...this.target, allowHalfOpen: true }));
    let fromClient = 0;
    this.pipe(client, server, chunk => {
      fromClient += chunk.length;
      if (this.fault.kind === 'cut' && fromClient >= this.fault.bytes) return undefined;
      return chunk;
    });
    this.pipe(server, client, chunk => (this.fault.kind === 'garbage' ? GARBAGE : chunk));
  }

  /** Copies one direction; `change` says what goes on, undefined to reset the connection. */
  private pipe(from: Socket, to: Socket, change: (chunk: Buffer) => Buffer | undefined): void {
    let held = 0;
    const later = (action: () => void) => {
      if (this.fault.kind === 'delay') setTimeout(action, this.fault.ms);
      else action();
    };
    from.on('data', (chunk: Buffer) => {
      if (this.fault.kind === 'blackhole') return;
      const bytes = change(chunk);
      if (!bytes) {
        from.resetAndDestroy();
        to.resetAndDestroy();
        return;
      }
      held += bytes.length;
      if (held > HELD_BYTES_MAX) from.pause();
      later(() => {
        held -= bytes.length;
        if (!to.destroyed) to.write(bytes);
        if (held <= HELD_BYTES_MAX) from.resume();
      });
    });
    from.on('end', () => {
      if (this.fault.kind !== 'blackhole') later(() => to.end());
    });
    from.on('close', () => {
      if (this.fault.kind !== 'blackhole') later(() => to.destroy());
    });
  }

  private track(socket: Socket): Socket {
    this.sockets.add(socket);
    socket.setNoDelay(true);
    // A reset is what this proxy is for; `close` follows.
    socket.on('error', () => {});
    socket.on('close', () => this.sockets.delete(socket));
    return socket;
  }
}
