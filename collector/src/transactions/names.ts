// What a step is called: by its callee if that was heard, else by what its caller knows.

import { ROW_FLAG } from '../ingest/columns.js';
import { serviceOfHost } from '../registry/counts.js';
import type { Step } from './link.js';
import type { Row } from './rows.js';

/** What the collector knows of services. */
export interface Naming {
  /** Service of a life, by CUID. */
  resolveService(cuid: string): string | undefined;
  /** Whether some life of this service has reported. */
  isService(name: string): boolean;
}

export interface StepName {
  readonly service: string;
  readonly operation: string;
  /** The callee has no sidecar. */
  readonly external: boolean;
}

/** A callee that neither its CUID nor its host name names. */
const UNNAMED = 'unknown';

export const nameOfStep = ({ call, events }: Step, naming: Naming): StepName => nameOf(call, events[0], naming);

/** At least one of `call` and `event` is there. */
export function nameOf(call: Row | undefined, event: Row | undefined, naming: Naming): StepName {
  if (event !== undefined) return { service: event.instance.service, operation: event.operation, external: false };
  const { peerCuid, peerService, operation, flags } = call!;
  const known = peerCuid === '' ? undefined : naming.resolveService(peerCuid);
  const service = known ?? (serviceOfHost(peerService) || UNNAMED);
  const external = known === undefined && ((flags & ROW_FLAG.EXTERNAL) !== 0 || !naming.isService(service));
  return { service, operation, external };
}
