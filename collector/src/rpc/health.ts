// grpc.health.v1, as small as it can be: names that we do not serve leave nothing behind here, and are
// not repeated in answers.

import { status as Code, type handleServerStreamingCall, type handleUnaryCall, type Server } from '@grpc/grpc-js';
import { service as definition } from 'grpc-health-check';
import { Exhausted, statusOf } from '../errors.js';

type Serving = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';

interface Request {
  readonly service?: string;
}

interface Answer {
  readonly status: Serving;
}

interface Watch {
  readonly name: string;
  tell(answer: Answer): void;
}

/** Watchers at once, at most; each connection of a load balancer is one. */
const WATCHERS_MAX = 10_000;
const RETRY_MS = 10_000;

export class Health {
  private serving: Serving = 'NOT_SERVING';
  private readonly names: ReadonlySet<string>;
  private readonly watches = new Set<Watch>();

  /** @param names services, '' for the whole; all serve or none does */
  constructor(names: readonly string[]) {
    this.names = new Set(names);
  }

  set(serving: boolean): void {
    this.serving = serving ? 'SERVING' : 'NOT_SERVING';
    for (const watch of this.watches) watch.tell(this.of(watch.name));
  }

  addTo(server: Server): void {
    const check: handleUnaryCall<Request, Answer> = ({ request }, done) => {
      const name = request.service ?? '';
      if (this.names.has(name)) done(null, this.of(name));
      else done({ code: Code.NOT_FOUND, details: 'no service of this name is served here; ask for list' });
    };
    const list: handleUnaryCall<Request, object> = (_call, done) => {
      done(null, { statuses: Object.fromEntries([...this.names].map(name => [name, this.of(name)])) });
    };
    const watch: handleServerStreamingCall<Request, Answer> = call => {
      if (this.watches.size >= WATCHERS_MAX) {
        const { code, details } = statusOf(new Exhausted(`${WATCHERS_MAX} watchers are all that is allowed`, RETRY_MS));
        call.emit('error', { code, details });
        return;
      }
      const name = this.names.has(call.request.service ?? '') ? (call.request.service ?? '') : UNKNOWN;
      const one: Watch = { name, tell: answer => void call.write(answer) };
      if (name !== UNKNOWN) this.watches.add(one);
      const stop = (): void => void this.watches.delete(one);
      call.on('cancelled', stop);
      call.on('error', stop);
      call.on('close', stop);
      one.tell(this.of(name));
    };
    server.addService(definition, { check, list, watch });
  }

  private of(name: string): Answer {
    return { status: this.names.has(name) ? this.serving : 'SERVICE_UNKNOWN' };
  }
}

/** No service has this name. */
const UNKNOWN = '?';
