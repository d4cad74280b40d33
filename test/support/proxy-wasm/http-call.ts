/** The far side of http_call, scripted by the test. */
import type { Pair } from './pairs.js';

export interface HttpReply {
  readonly headers: readonly Pair[];
  readonly body?: Uint8Array;
  readonly trailers?: readonly Pair[];
}

export class HttpServerCall {
  private answered = false;

  constructor(
    readonly cluster: string,
    readonly headers: readonly Pair[],
    readonly body: Buffer,
    readonly trailers: readonly Pair[],
    /** Milliseconds, 0 = none. */
    readonly timeoutMs: number,
    private readonly finish: (reply: HttpReply | undefined) => void,
  ) {}

  header(name: string): string | undefined {
    return this.headers.find(pair => pair[0] === name)?.[1];
  }

  reply(reply: HttpReply): void {
    this.end(reply);
  }

  /** The connection broke: the guest's callback sees no headers at all. */
  fail(): void {
    this.end(undefined);
  }

  private end(reply: HttpReply | undefined): void {
    if (this.answered) return;
    this.answered = true;
    this.finish(reply);
  }
}

/** Called inside the guest's host call; the answer reaches the guest when the process settles. */
export type HttpRemote = (call: HttpServerCall) => void;
