// Promised times on machines that do other things: what is promised holds beside the time for which the machine
// itself stood still, and not a moment longer.
import { strict as assert } from 'node:assert';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { until } from '../../../demo/src/mesh/child.js';

const RESOLUTION_MS = 10;
/** An answer that is too late is waited for so long, to say how late it was. */
const PATIENCE_MS = 15_000;

export class Stalls {
  private readonly delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });

  static watch(): Stalls {
    const stalls = new Stalls();
    stalls.delays.enable();
    return stalls;
  }

  /** The longest standstill of this process since, ms. */
  get ms(): number {
    return this.delays.max / 1e6;
  }
}

/** Waits for the answer, which must come within `ms` from now. */
export async function inTime<T>(what: string, ms: number, probe: () => T | undefined): Promise<T> {
  const stalls = Stalls.watch();
  const began = Date.now();
  const answer = await until(what, ms + PATIENCE_MS, probe);
  const took = Date.now() - began;
  assert.ok(
    took <= ms + stalls.ms,
    `${what}: after ${took} ms, promised ${ms}; the machine stood still for ${stalls.ms}`,
  );
  return answer;
}
