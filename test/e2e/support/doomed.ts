// Transactions that a test declares doomed, and what refuses them.
import { randomBytes } from 'node:crypto';
import { until } from '../../../demo/src/mesh/child.js';
import { serviceHost } from '../../../demo/src/mesh/node.js';
import { directive, hashes, idWords, Kind } from '../../filter/directives.js';
import type { Directive, Row } from '../../filter/wire.js';
import type { Field } from './raw-http.js';
import type { Recorder } from './recorder.js';

export const STEP = 'stock.shop POST /reserve';
export const VERDICT = '7be1a5f0c3d29e84';
const ALL_PPM = 1_000_000;
const TOLD_MS = 20_000;

/** A business request: its key, and the header that every request of it carries. */
export interface Transaction {
  key: string;
  fields: Field[];
}

/** As a call within the mesh: a request without `event` is an entry, and those are never refused. */
export function transaction(): Transaction {
  const key = randomBytes(16).toString('hex');
  const event = randomBytes(8).toString('hex');
  return {
    key,
    fields: [
      ['traceparent', `00-${key}-${event}-01`],
      ['x-mp-progress', `event="${event}"`],
    ],
  };
}

/** What of a transaction is refused: `operation` at the callee, or `service` and `operation` at the caller. */
interface Forward {
  calls?: [service: string, operation: string][];
  events?: string[];
}

/** DOOM of one transaction. */
export function doom(key: string, { calls = [], events = [] }: Forward, parts: Partial<Directive> = {}): Directive {
  return directive(Kind.Doom, {
    keys: idWords(key),
    refuse: hashes(...calls.map(([service, operation]) => [serviceHost(service, 'shop'), operation] as const)),
    refuseIn: hashes(...events.map(operation => ['', operation] as const)),
    budgetPpm: ALL_PPM,
    id: VERDICT,
    step: STEP,
    ...parts,
  });
}

/** Waits for `count` rows of this transaction at a service. */
export function rowsOfKey(recorder: Recorder, service: string, key: string, count = 1): Promise<Row[]> {
  return until(`${count} rows of ${key} at ${service}`, TOLD_MS, () => {
    const rows = recorder.rows(service).filter(row => row.key === key);
    return rows.length >= count ? rows : undefined;
  });
}
