// What ingest tells early rollback. `rollback/` meets it; without it nothing is decided.

import type { Life } from '../registry/life.js';
import type { Origin } from './apply.js';
import type { EventColumns } from './columns.js';
import type { Hello, Report } from './report.js';

/** As meshpulse.v1.Directive, ready to be encoded. */
export interface Directive {
  readonly version: string;
  readonly ttlMs: number;
  readonly kind: string;
}

export interface RollbackPort {
  /** A proxy said who it is. */
  hello(life: Life, hello: Hello): void;
  /** Its stream is over. */
  left(life: Life): void;
  /** Rows that were stored; transactions have taken them. */
  rows(life: Life, columns: EventColumns, origin: Origin): void;
  /** What a message says beside its rows. */
  report(life: Life, report: Report): void;
  /** What waits for a proxy without a stream. */
  take(life: Life): readonly Directive[];
}
