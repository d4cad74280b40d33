// What one watcher is still to be told. A reader that keeps up costs nothing; one that does not is kept
// so much and no more, and one that does not read at all is ended: it watches again.

import type { ServerWritableStream } from '@grpc/grpc-js';
import { Exhausted, statusOf } from '../errors.js';
import { prepared } from './serialized.js';

/** How long a watcher may read nothing while something waits for it, ms. */
export const UNREAD_MS_MAX = 30_000;

/** How long one that was ended should wait, ms. */
const RETRY_MS = 1000;

export class Outbox {
  private readonly backlog: object[] = [];
  private blockedMs: number | undefined;
  private over = false;

  /**
   * @param onDrain called when there is room again and nothing waits
   * @param nowMs   a clock that is never set back
   */
  constructor(
    private readonly call: ServerWritableStream<never, object>,
    private readonly nowMs: () => number,
    private readonly onDrain: () => void = () => undefined,
  ) {
    call.on('drain', () => this.drained());
    this.onOver(() => (this.over = true));
  }

  /** Whether what is sent now would have to wait. */
  get blocked(): boolean {
    return this.blockedMs !== undefined || this.over;
  }

  get waiting(): number {
    return this.backlog.length;
  }

  /** Sends, or keeps for later. Messages may be bytes that others are sent as well. */
  send(message: object): void {
    if (this.over) return;
    if (this.blockedMs === undefined) this.write(message);
    else this.backlog.push(message);
  }

  /** Gives up the oldest of what waits. */
  passOver(): void {
    this.backlog.shift();
  }

  /** Ends the watch if nothing was read for too long. Returns whether it is over. */
  endIfUnread(): boolean {
    if (!this.over && this.blockedMs !== undefined && this.nowMs() - this.blockedMs > UNREAD_MS_MAX) {
      this.end(`nothing was read for ${UNREAD_MS_MAX / 1000} s; watch again`);
    }
    return this.over;
  }

  /** Ends the watch: its reader has fallen too far behind. */
  end(why: string): void {
    if (this.over) return;
    this.over = true;
    this.backlog.length = 0;
    const { code, details } = statusOf(new Exhausted(why, RETRY_MS));
    this.call.emit('error', { code, details });
  }

  /** Calls back once the watch is over, whoever ended it. */
  onOver(stop: () => void): void {
    for (const event of ['cancelled', 'error', 'close']) this.call.on(event, stop);
  }

  private write(message: object): void {
    if (!this.call.write(message)) this.blockedMs = this.nowMs();
  }

  private drained(): void {
    this.blockedMs = undefined;
    while (this.blockedMs === undefined && this.backlog.length > 0) this.write(this.backlog.shift()!);
    if (this.blockedMs === undefined) this.onDrain();
  }
}

const shared = new WeakMap<object, Buffer>();

/** The bytes of a message that several watchers are told: made once. It must not change afterwards. */
export function sharedBytes(type: string, value: object, make: () => object = () => value): Buffer {
  let bytes = shared.get(value);
  if (bytes === undefined) shared.set(value, (bytes = prepared(type, make())));
  return bytes;
}
