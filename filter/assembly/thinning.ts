// Which transactions keep their rows under `report.events: sample`, and how much such a row stands for.
//
// Both follow from a hash of the transaction's key, so that every proxy chooses alike. A weight is a
// whole number of events; 1 / ratio is often none. So it is rounded up for a share of the keys and down
// for the others, such that the sum over any group of transactions comes out right: for 0.4, half the
// rows stand for two events and half for three. Rounding each alike would be wrong by a fifth.

const MIX: u64 = 0x9e3779b97f4a7c15;
const MIX_AGAIN: u64 = 0xff51afd7ed558ccd;

/** `key`: both halves of the transaction's key, mixed; `ratio` 0..1. The same choice everywhere for one transaction. */
export function sampled(key: u64, ratio: f64): bool {
  return share(key * MIX) < ratio;
}

/** The upper half of a hash as a share, 0 to just below 1. */
function share(mixed: u64): f64 {
  return ((mixed >> 32) as f64) / 4294967296.0;
}

/** Events that a sampled row stands for, 1..2^32-1; 1 / ratio on average. */
export function weightOf(key: u64, ratio: f64): u32 {
  const exact = 1 / ratio;
  if (!(exact < 4294967295.0)) return 0xffffffff;
  const whole = Math.floor(exact);
  // Mixed once more: of sampled keys, the first hash is small.
  const mixed = key * MIX;
  return (whole as u32) + (share((mixed ^ (mixed >> 32)) * MIX_AGAIN) < exact - whole ? 1 : 0);
}
