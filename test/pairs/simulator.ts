/**
 * Virtual time for a whole mesh: one queue of what happens when, and the proxies' own timers beside it.
 *
 * Applications are plain async functions that sleep here. After each moment all promises run dry before time
 * goes on, so a run is the same each time, however busy the machine is.
 */
import { FakeClock } from '../support/proxy-wasm-host.js';

interface Event {
  readonly dueUs: number;
  readonly order: number;
  readonly run: () => void;
}

/** How often the proxies' timers are looked at, us: a tick comes late by at most this much. */
const TIMERS_US = 5000;

const before = (a: Event, b: Event): boolean => a.dueUs < b.dueUs || (a.dueUs === b.dueUs && a.order < b.order);

export class Simulator {
  /** For proxies. Its timers run here; nobody else turns it. */
  readonly clock = new FakeClock();
  private readonly heap: Event[] = [];
  private order = 0;
  private us = 0;
  private timersUs = 0;

  /** Milliseconds since the beginning. */
  get nowMs(): number {
    return this.us / 1000;
  }

  /** Runs `action` that much later, after what was asked for before at the same moment. */
  after(ms: number, action: () => void): void {
    const event = { dueUs: this.us + Math.round(ms * 1000), order: this.order++, run: action };
    let at = this.heap.push(event) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (!before(event, this.heap[above]!)) break;
      this.heap[at] = this.heap[above]!;
      at = above;
    }
    this.heap[at] = event;
  }

  sleep(ms: number): Promise<void> {
    return new Promise(resolve => this.after(ms, resolve));
  }

  /** Again and again, each `ms`. */
  every(ms: number, action: () => void): void {
    this.after(ms, () => {
      action();
      this.every(ms, action);
    });
  }

  /** Lets time pass until `over` holds. */
  async run(over: () => boolean): Promise<void> {
    while (!over()) {
      const next = this.heap[0];
      const dueUs = Math.min(next?.dueUs ?? Infinity, this.timersUs);
      this.turn(dueUs);
      while (this.heap[0] !== undefined && this.heap[0].dueUs <= this.us) this.pop().run();
      await new Promise(resolve => setImmediate(resolve));
    }
  }

  private turn(toUs: number): void {
    if (toUs > this.us) {
      this.clock.pass((toUs - this.us) / 1000);
      this.us = toUs;
    }
    if (this.us < this.timersUs) return;
    this.clock.advance(0);
    this.timersUs = this.us + TIMERS_US;
  }

  private pop(): Event {
    const first = this.heap[0]!;
    const last = this.heap.pop()!;
    if (this.heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= this.heap.length) break;
      if (below + 1 < this.heap.length && before(this.heap[below + 1]!, this.heap[below]!)) below++;
      if (!before(this.heap[below]!, last)) break;
      this.heap[at] = this.heap[below]!;
      at = below;
    }
    this.heap[at] = last;
    return first;
  }
}
