// How long, and how many, of what early rollback remembers.

const DAY_US = 24 * 3600 * 1e6;

export interface Retention {
  /** Verdicts with their plans, signals and acknowledgements. */
  readonly signalsUs: number;
  readonly verdictsMax: number;
  /** Lines of the ledger that nothing was added to; then they go into `other`. */
  readonly ledgerUs: number;
  /** Of what was done; refusals as many again. */
  readonly auditUs: number;
  readonly auditMax: number;
}

/** Unless the settings say otherwise. */
export const RETENTION: Retention = {
  signalsUs: 90 * DAY_US,
  verdictsMax: 20_000,
  ledgerUs: 90 * DAY_US,
  auditUs: 90 * DAY_US,
  auditMax: 10_000,
};
