// Time as an argument, so that tests can turn it.

/** The collector's clock. */
export interface Clock {
  /** Wall clock, us since 1970: for what is shown and stored. */
  nowUs(): number;
  /** Milliseconds since some start; never set back or forward: for leases, deadlines and rates. */
  monotonicMs(): number;
}

/** The wall clock may be set back by at most this much unseen: small corrections are waited out. */
const HELD_BACK_US = 1_000_000;

/** Distance between our reading and the machine's at which we follow the machine, ms. */
const DRIFT_MS = 2;

/**
 * The machine's clock with microseconds: an anchor at the wall clock plus the monotonic clock since.
 * Corrections of up to one second backwards are waited out (readings stay equal for that long), so
 * that intervals do not turn round; a longer step back is followed, because a frozen clock would
 * keep every lease alive.
 */
export function systemClock(): Clock {
  const monotonicUs = (): number => Math.round(performance.now() * 1000);
  let anchorUs = Date.now() * 1000 - monotonicUs();
  let lastUs = 0;
  return {
    nowUs(): number {
      let us = anchorUs + monotonicUs();
      const wallMs = Date.now();
      if (Math.abs(us / 1000 - wallMs) > DRIFT_MS) {
        us = wallMs * 1000;
        anchorUs = us - monotonicUs();
      }
      if (us < lastUs && lastUs - us <= HELD_BACK_US) return lastUs;
      lastUs = us;
      return us;
    },
    monotonicMs: () => performance.now(),
  };
}

/** A clock that stands still until it is turned. */
export class ManualClock implements Clock {
  private elapsedMs = 0;

  constructor(private us: number = 1_700_000_000_000_000) {}

  nowUs(): number {
    return this.us;
  }

  monotonicMs(): number {
    return this.elapsedMs;
  }

  /** Time passes. */
  advanceMs(ms: number): void {
    this.us += ms * 1000;
    this.elapsedMs += ms;
  }

  /** The wall clock is set by `ms`, forward or back, while no time passes. */
  setWallMs(ms: number): void {
    this.us += ms * 1000;
  }
}
