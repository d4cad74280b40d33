// What ingest tells the other replicas of the collector. `replicas/` meets it; without it there are none.

import type { Life } from '../registry/life.js';
import type { Report } from './report.js';

export interface ReplicasPort {
  /** A message came from a life, or its stream ended. */
  heard(life: Life): void;
  /** What a message says of requests that run. */
  told(life: Life, report: Pick<Report, 'inFlight' | 'began'>): void;
}
