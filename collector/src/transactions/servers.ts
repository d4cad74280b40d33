// Which services report, and which proxies serve requests: a call from one that does, but outside of
// any of its requests' transactions, was made without the trace headers.

import { endUnixUs, NEVER_EVIDENCE, ROW_FLAG } from '../ingest/columns.js';
import type { RowBatch } from '../ingest/transactions-port.js';

/** Names and proxies remembered; the longest unheard go first. */
const SERVICES_MAX = 10_000;
const PROXIES_MAX = 100_000;

/** A proxy that served a request this long before a call counts as one that serves. */
const SERVED_US = 60_000_000;

export class Servers {
  private readonly services = new Map<string, true>();
  /** When a proxy last ended a request, us by the collector's clock. */
  private readonly served = new Map<string, number>();
  /** Lives whose filter thins its rows, by CUID. */
  private readonly thinning = new Map<string, true>();

  /** Takes note of who reports, whether it served requests, and whether it tells of all of them. */
  note({ instance: { cuid, proxyId, service, clockOffsetUs }, columns, thinned = false }: RowBatch): void {
    put(this.services, service, true, SERVICES_MAX);
    if (thinned) put(this.thinning, cuid, true, PROXIES_MAX);
    else this.thinning.delete(cuid);
    let last = this.served.get(proxyId) ?? Number.NEGATIVE_INFINITY;
    const before = last;
    for (let row = 0; row < columns.rows; row++) {
      if ((columns.flags[row]! & (ROW_FLAG.CALL | NEVER_EVIDENCE)) !== 0) continue;
      last = Math.max(last, endUnixUs(columns, row) - clockOffsetUs);
    }
    if (last > before) put(this.served, proxyId, last, PROXIES_MAX);
  }

  /** Whether a life's latest rows were thinned. */
  thins(cuid: string): boolean {
    return this.thinning.has(cuid);
  }

  /** Whether the latest rows of any life were thinned. */
  get thinAtAll(): boolean {
    return this.thinning.size > 0;
  }

  isService(name: string): boolean {
    return this.services.has(name);
  }

  /** Whether a proxy served requests at about `atUs` or since. */
  serves(proxyId: string, atUs: number): boolean {
    return (this.served.get(proxyId) ?? Number.NEGATIVE_INFINITY) >= atUs - SERVED_US;
  }
}

function put<T>(map: Map<string, T>, key: string, value: T, max: number): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > max) map.delete(map.keys().next().value!);
}
