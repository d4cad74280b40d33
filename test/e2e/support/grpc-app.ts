// A gRPC service without a .proto of its own: messages are bytes.
import {
  credentials,
  Client,
  Server,
  ServerCredentials,
  type ClientDuplexStream,
  type sendUnaryData,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceError,
} from '@grpc/grpc-js';
import { format, type Address } from '../../../demo/src/mesh/address.js';

const same = (bytes: Buffer): Buffer => bytes;
const bytesOnly = {
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
};
const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/test.Echo/${name}`,
  requestStream,
  responseStream,
  ...bytesOnly,
});
const ECHO = {
  Unary: method('Unary', false, false),
  Down: method('Down', false, true),
  Both: method('Both', true, true),
};
/** Time in which a cancellation arrives behind the end of the client's half. */
const CANCEL_MS = 200;

/** The request's first byte is the gRPC status to answer; the second, how many messages to send. */
const statusOf = (bytes: Buffer) => bytes[0] ?? 0;

export class GrpcApp {
  private constructor(private readonly server: Server) {}

  static async start(address: Address): Promise<GrpcApp> {
    const server = new Server();
    server.addService(ECHO, {
      Unary: (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) => {
        const code = statusOf(call.request);
        if (code === 0) done(null, call.request);
        else done({ code, details: 'as told' });
      },
      Down: (call: ServerWritableStream<Buffer, Buffer>) => {
        for (let i = 0; i < (call.request[1] ?? 0); i++) call.write(Buffer.alloc(40, i));
        const code = statusOf(call.request);
        if (code === 0) call.end();
        else call.emit('error', { code, details: 'as told' });
      },
      Both: (call: ServerDuplexStream<Buffer, Buffer>) => {
        call.on('data', (bytes: Buffer) => call.write(bytes));
        // A client that cancels may end its half first: the cancellation has to be here before the answer.
        call.on('end', () => setTimeout(() => call.end(), CANCEL_MS));
      },
    });
    await new Promise<void>((resolve, reject) => {
      const bound = (error: Error | null) => (error ? reject(error) : resolve());
      server.bindAsync(format(address), ServerCredentials.createInsecure(), bound);
    });
    return new GrpcApp(server);
  }

  stop(): void {
    this.server.forceShutdown();
  }
}

const DEADLINE_MS = 10_000;

/** Calls to `host` through a proxy. Each resolves with the gRPC status. */
export class GrpcCaller {
  private readonly client: Client;

  constructor(via: Address, host: string) {
    this.client = new Client(format(via), credentials.createInsecure(), { 'grpc.default_authority': host });
  }

  unary(status: number, bytes = 100): Promise<number> {
    const message = Buffer.alloc(bytes);
    message[0] = status;
    return new Promise(resolve => {
      const done = (error: ServiceError | null) => resolve(error?.code ?? 0);
      this.client.makeUnaryRequest(ECHO.Unary.path, same, same, message, this.deadline(), done);
    });
  }

  /** One request, `messages` answers. */
  down(status: number, messages: number): Promise<number> {
    const call = this.client.makeServerStreamRequest(
      ECHO.Down.path,
      same,
      same,
      Buffer.from([status, messages]),
      this.deadline(),
    );
    call.resume();
    return new Promise(resolve => {
      call.on('error', (error: ServiceError) => resolve(error.code));
      call.on('end', () => resolve(0));
    });
  }

  /** A stream that stays open until ended or cancelled; waits for the echo of its first two messages. */
  async both(): Promise<ClientDuplexStream<Buffer, Buffer>> {
    const call = this.client.makeBidiStreamRequest(ECHO.Both.path, same, same, this.deadline());
    // Cancelling is an error to the library; what it means is another's to judge.
    call.on('error', () => {});
    call.write(Buffer.alloc(30));
    call.write(Buffer.alloc(30));
    let echoes = 0;
    await new Promise<void>(resolve => call.on('data', () => void (++echoes === 2 && resolve())));
    return call;
  }

  close(): void {
    this.client.close();
  }

  private deadline(): { deadline: number } {
    return { deadline: Date.now() + DEADLINE_MS };
  }
}
