// What the calls of the API read from.

import type { Permit } from '../access/permit.js';
import type { Clock } from '../clock.js';
import type { Counts } from '../registry/counts.js';
import type { Rollback } from '../rollback/controller.js';
import type { Registry } from '../registry/registry.js';
import type { TransactionsPort } from '../ingest/transactions-port.js';
import type { ReadGate } from './read-gate.js';

export interface ReadParts {
  readonly clock: Clock;
  readonly registry: Registry;
  readonly counts: Counts;
  readonly transactions: TransactionsPort;
  readonly rollback: Rollback;
  /** What this call may see and change. */
  readonly permit: Permit;
  readonly countingSinceUs: () => number;
  /** For how long (ms) what other replicas recorded has not been heard; 0 = answers are up to date. */
  readonly staleMs: () => number;
  readonly gate: ReadGate;
}
