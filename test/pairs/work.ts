/**
 * One business request (or batch, or message) and everything that happens because of it: who calls whom, what
 * takes effect and is undone, and what filters refuse. Its faults and durations come from its own draws.
 */
import type { Pair } from '../support/proxy-wasm-host.js';
import { Draws } from './draws.js';
import type { Answer, Call, Instance, Mesh } from './mesh.js';
import type { Simulator } from './simulator.js';

/** How an operation behaves. Shares are of the transactions in which it is called. */
export interface Operation {
  /** Own duration, ms: at least, at most. */
  readonly ms: readonly [number, number];
  /** Fails each time it is called in this transaction. */
  readonly broken?: number;
  /** Fails as long as the same request asks; another one may have more luck. */
  readonly stuck?: number;
  /** Fails the first time, and the next time goes well. */
  readonly flaky?: number;
  /** Takes SLOW_FACTOR times as long. */
  readonly slow?: number;
  /** Runs behind its own duration; what it throws is answered with 500. */
  readonly run?: (request: Request) => Promise<void> | void;
}

export type Services = Readonly<Record<string, Readonly<Record<string, Operation>>>>;

export interface Runtime {
  readonly simulator: Simulator;
  readonly mesh: Mesh;
  readonly services: Services;
  /** Requests that reached each operation's application. */
  readonly handled: Map<string, number>;
}

/** A call answered with an error. */
export class CallFailed extends Error {
  constructor(readonly status: number) {
    super(`answered with ${String(status)}`);
  }
}

export interface Refusal {
  readonly operation: string;
  readonly by: 'outbound' | 'inbound';
  /** It was to undo something, or was called by what undoes. */
  readonly undoes: boolean;
  /** Called by a consumer of a message. */
  readonly consumes: boolean;
}

const SLOW_FACTOR = 8;
const FAILED = 503;

export class Work {
  readonly draws: Draws;
  readonly traceId: string;
  /** How each entry and each consumed message ended: a status. */
  readonly results = new Map<string, number>();
  readonly refusals: Refusal[] = [];
  /** Requests that reached an application, without those that undo. */
  forward = 0;
  /** Refunds asked for, and those that the provider was told of. */
  refundsIssued = 0;
  refundsDelivered = 0;
  private readonly effects = new Map<string, 'done' | 'undone'>();
  private active = 0;
  private whenOver: () => void = () => undefined;

  constructor(
    readonly runtime: Runtime,
    seed: number,
    readonly index: number,
    readonly scenario: string,
    /** Nothing fails for good. */
    readonly quiet: boolean,
  ) {
    this.draws = new Draws(seed, index);
    this.traceId = this.draws.hex('trace', 4);
  }

  /** What is left of it at every service: done and not undone. */
  get state(): string {
    return [...this.effects]
      .flatMap(([what, how]) => (how === 'done' ? [what] : []))
      .sort()
      .join(', ');
  }

  /** Undoing wins whatever comes first: a service remembers what it was told to undo. */
  effect(what: string, how: 'done' | 'undone'): void {
    if (this.effects.get(what) !== 'undone') this.effects.set(what, how);
  }

  /** Counts as part of the work until it is over, however it ends. */
  track<T>(part: Promise<T>): Promise<T> {
    this.active += 1;
    const over = (): void => {
      this.active -= 1;
      if (this.active === 0) this.whenOver();
    };
    part.then(over, over);
    return part;
  }

  onOver(action: () => void): void {
    this.whenOver = action;
  }

  sleep(ms: number): Promise<void> {
    return this.runtime.simulator.sleep(ms);
  }

  /**
   * A request of a client outside the mesh. `name` tells entries apart. What counts as its result is what the
   * application answers, also when the client has left.
   *
   * @returns the status that the client sees, 0 = it has left
   */
  async enter(name: string, service: string, operation: string, leavesMs?: number): Promise<number> {
    const call = this.callOf(name, service, operation, this.traceOf(name));
    const serve = async (instance: Instance): Promise<number> => {
      const status = await new Request(this, name, name, instance, call.trace, NOTHING).serve(service, operation);
      this.results.set(name, status);
      return status;
    };
    const entered = this.runtime.mesh.enter(call, instance => this.track(serve(instance)), leavesMs);
    const answer = await this.track(entered);
    this.note(answer, `${service} ${operation}`, NOTHING);
    return answer.status;
  }

  /** A message is taken from a queue by a service: requests without a cause, under the sender's ids. */
  consume(name: string, sent: Request, service: string, run: (request: Request) => Promise<void>): void {
    const instance = this.runtime.mesh.pick(service, this.draws.share(`${name} at`));
    const request = new Request(this, name, name, instance, sent.trace, { undoes: false, consumes: true });
    const done = run(request).then(
      () => this.results.set(name, 200),
      (error: unknown) => this.results.set(name, statusOf(error)),
    );
    void this.track(done);
  }

  callOf(path: string, service: string, operation: string, trace: readonly Pair[], timeoutMs?: number): Call {
    return { service, operation, trace, timeoutMs, share: this.draws.share(`${path} at`) };
  }

  note({ refused }: Answer, operation: string, purpose: Purpose): void {
    if (refused !== undefined) this.refusals.push({ operation, by: refused, ...purpose });
  }

  private traceOf(name: string): Pair[] {
    const id = this.draws.hex(`request ${name}`, 4);
    const uuid = [id.slice(0, 8), id.slice(8, 12), id.slice(12, 16), id.slice(16, 20), id.slice(20)].join('-');
    return [
      ['traceparent', `00-${this.traceId}-${this.draws.hex(`span ${name}`, 2)}-01`],
      ['x-request-id', uuid],
    ];
  }
}

interface Purpose {
  readonly undoes: boolean;
  readonly consumes: boolean;
}

const NOTHING: Purpose = { undoes: false, consumes: false };

export interface CallOptions {
  readonly timeoutMs?: number;
  /** A compensation. */
  readonly undoes?: boolean;
}

/** A request at one service, as its application sees it. */
export class Request {
  private readonly calls = new Map<string, number>();

  constructor(
    readonly work: Work,
    /** The entry or message that it belongs to: separate business requests under one trace id. */
    readonly entry: string,
    readonly path: string,
    readonly instance: Instance,
    readonly trace: readonly Pair[],
    private readonly purpose: Purpose,
    /** The how many-th attempt of its caller it is, from 1. */
    private readonly attempt = 1,
  ) {}

  /** It is a compensation, or was called by one. */
  get undoes(): boolean {
    return this.purpose.undoes;
  }

  /** What it does at this service, named for the whole of its business request. */
  effect(what: string, how: 'done' | 'undone' = 'done'): void {
    this.work.effect(`${this.entry}: ${what}`, how);
  }

  /** @throws CallFailed when it is answered with 400 or above */
  async call(service: string, operation: string, options: CallOptions = {}): Promise<void> {
    const { work, purpose } = this;
    const name = `${service} ${operation}`;
    const attempt = (this.calls.get(name) ?? 0) + 1;
    this.calls.set(name, attempt);
    const path = `${this.path} > ${name} ${String(attempt)}`;
    const why = { ...purpose, undoes: purpose.undoes || options.undoes === true };
    const call = work.callOf(path, service, operation, this.trace, options.timeoutMs);
    const serve = (instance: Instance): Promise<number> =>
      work.track(new Request(work, this.entry, path, instance, this.trace, why, attempt).serve(service, operation));
    const answer = await work.track(work.runtime.mesh.call(this.instance, call, serve));
    work.note(answer, name, why);
    if (answer.status >= 400 || answer.status === 0) throw new CallFailed(answer.status);
  }

  /** Calls again after failures of the callee, as client libraries do, with growing pauses. */
  async retry(times: number, call: () => Promise<void>): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await call();
      } catch (error) {
        if (attempt >= times || statusOf(error) < 500) throw error;
        await this.work.sleep(this.work.draws.between(`${this.path} pause ${String(attempt)}`, 4, 8) * attempt);
      }
    }
  }

  private fails(name: string, { broken = 0, stuck = 0, flaky = 0 }: Operation): boolean {
    const { draws, quiet } = this.work;
    if (!quiet && draws.chance(`${this.entry} ${name} broken`, broken)) return true;
    if (draws.chance(`${this.caller} ${name} stuck`, stuck)) return true;
    return this.attempt === 1 && draws.chance(`${this.entry} ${name} flaky`, flaky);
  }

  /** Path of the request that called. */
  private get caller(): string {
    return this.path.slice(0, Math.max(0, this.path.lastIndexOf(' > ')));
  }

  /** Plays the application behind the sidecar. @returns the status it answers */
  async serve(service: string, operation: string): Promise<number> {
    const { work } = this;
    const { services, handled } = work.runtime;
    const name = `${service} ${operation}`;
    const spec = services[service]?.[operation];
    if (spec === undefined) throw new RangeError(`nobody serves ${name}`);
    handled.set(name, (handled.get(name) ?? 0) + 1);
    if (!this.undoes) work.forward += 1;
    const slow = work.draws.chance(`${this.path} slow`, spec.slow ?? 0);
    await work.sleep(work.draws.between(`${this.path} ms`, ...spec.ms) * (slow ? SLOW_FACTOR : 1));
    if (this.fails(name, spec)) return FAILED;
    try {
      await spec.run?.(this);
      return 200;
    } catch (error) {
      statusOf(error);
      return 500;
    }
  }
}

/** The status of a failed call. @throws what is no failed call: a fault of the harness */
export const statusOf = (error: unknown): number => {
  if (error instanceof CallFailed) return error.status;
  throw error;
};
