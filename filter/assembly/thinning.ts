// Which transactions keep their rows under `report.events: sample` or by the collector's wish, and how much
// such a row stands for.
//
// Both follow from a hash of the transaction's key, so that every proxy chooses alike. A weight is a
// whole number of events; 1 / ratio is often none. So it is rounded up for a share of the keys and down
// for the others, such that the sum over any group of transactions comes out right: for 0.4, half the
// rows stand for two events and half for three. Rounding each alike would be wrong by a fifth.
//
// A collector under load may wish for fewer rows, for a while. Its share and the configured one choose by the
// same hash, so the smaller one holds, and what it keeps the larger one keeps too. No wish leaves out a failure,
// nor the end of what the collector was told to have begun: these stand for what they would without it.
import { nowMs } from './clock';
import { Config, EVENTS_ALL, EVENTS_FAILURES } from './config';
import { roots } from './roots';
import * as shares from './shares';

const MIX: u64 = 0x9e3779b97f4a7c15;
const MIX_AGAIN: u64 = 0xff51afd7ed558ccd;

/** `key`: both halves of the transaction's key, mixed; `ratio` 0..1. The same choice everywhere for one transaction. */
function sampled(key: u64, ratio: f64): bool {
  return share(key * MIX) < ratio;
}

/** The upper half of a hash as a share, 0 to just below 1. */
function share(mixed: u64): f64 {
  return ((mixed >> 32) as f64) / 4294967296.0;
}

/** Events that a sampled row stands for, 1..2^32-1; 1 / ratio on average. */
function weightOf(key: u64, ratio: f64): u32 {
  const exact = 1 / ratio;
  if (!(exact < 4294967295.0)) return 0xffffffff;
  const whole = Math.floor(exact);
  // Mixed once more: of sampled keys, the first hash is small.
  const mixed = key * MIX;
  return (whole as u32) + (share((mixed ^ (mixed >> 32)) * MIX_AGAIN) < exact - whole ? 1 : 0);
}

/** Some settings here leave out rows. */
let configured: bool = false;

/** After settings have come or gone. */
export function lookForThinning(): void {
  configured = false;
  for (let i = 0; i < roots.length; i++) if (!roots[i].dead && roots[i].config.events != EVENTS_ALL) configured = true;
}

/** The share of transactions whose rows the collector wishes now; 1 = no wish. */
function wished(): f64 {
  return nowMs() < shares.ratioUntilMs ? (shares.ratio as f64) : 1;
}

/** Under these settings every row is sent, at this moment. */
export function complete(config: Config): bool {
  return config.events == EVENTS_ALL && wished() >= 1;
}

/** Rows of this VM may be left out: what it sends is counted exactly besides. */
export function thins(): bool {
  return configured || wished() < 1;
}

/**
 * How many events the row of a transaction stands for; 0 = it is left out.
 *
 * @param failed    its outcome
 * @param expected  the collector waits for it: no wish leaves it out
 */
export function weigh(key: u64, config: Config, failed: bool, expected: bool): u32 {
  if (config.events == EVENTS_FAILURES) return failed ? 1 : 0;
  const base = config.events == EVENTS_ALL ? 1 : config.ratio;
  const wish = wished();
  const ratio = failed || expected || base < wish ? base : wish;
  return sampled(key, ratio) ? weightOf(key, ratio) : 0;
}
