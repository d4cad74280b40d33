// What ingest has seen since it started: plain sums, read by the metrics.

import type { Life } from '../registry/life.js';
import type { Loss } from './producers.js';

/** Services with a sum of their own; lives come with checked names, but any number of them. */
const SERVICES_MAX = 10_000;
const OTHER = 'other';

export class IngestTotals {
  messages = 0;
  bytes = 0;
  batches = 0;
  replays = 0;
  /** Messages refused, by the name of the gRPC code. */
  readonly refused = new Map<string, number>();
  readonly lossByService = new Map<string, { reports: number; events: number }>();
  readonly uncleanByService = new Map<string, number>();
  readonly configErrorsByService = new Map<string, number>();

  lost(service: string, loss: Loss): void {
    const key = room(this.lossByService, service);
    const sum = this.lossByService.get(key) ?? { reports: 0, events: 0 };
    this.lossByService.set(key, { reports: sum.reports + loss.reports, events: sum.events + loss.events });
  }

  ended(life: Life): void {
    if (life.clean) return;
    const key = room(this.uncleanByService, life.service);
    this.uncleanByService.set(key, (this.uncleanByService.get(key) ?? 0) + 1);
  }

  configErrors(service: string, errors: number): void {
    const key = room(this.configErrorsByService, service);
    this.configErrorsByService.set(key, (this.configErrorsByService.get(key) ?? 0) + errors);
  }

  refuse(code: string): void {
    this.refused.set(code, (this.refused.get(code) ?? 0) + 1);
  }
}

const room = (map: ReadonlyMap<string, unknown>, key: string): string =>
  map.has(key) || map.size < SERVICES_MAX ? key : OTHER;
