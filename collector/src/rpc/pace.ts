// Services of libraries that answer whatever comes in, at the pace at which their answers are read.

import type { Server, ServerDuplexStream, ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';

type Duplex = ServerDuplexStream<object, object>;

/**
 * The same server, for a library's addToServer: a stream on which answers pile up is not read from until
 * they are taken. Otherwise 4 MiB of questions of a dozen bytes would become gigabytes of answers.
 */
export function answeringAtTheirPace(server: Server): Pick<Server, 'addService'> & Server {
  const addService = (definition: ServiceDefinition, methods: UntypedServiceImplementation): void => {
    const paced = Object.entries(methods).map(([name, handler]) => [
      name,
      (call: Duplex, ...rest: unknown[]): void => {
        slowDown(call);
        (handler as (call: Duplex, ...rest: unknown[]) => void)(call, ...rest);
      },
    ]);
    server.addService(definition, Object.fromEntries(paced) as UntypedServiceImplementation);
  };
  return { addService } as Pick<Server, 'addService'> & Server;
}

function slowDown(call: Duplex): void {
  const write = call.write.bind(call) as (answer: object) => boolean;
  call.write = ((answer: object): boolean => {
    const more = write(answer);
    if (!more && !call.isPaused()) {
      call.pause();
      call.once('drain', () => call.resume());
    }
    return more;
  }) as Duplex['write'];
}
