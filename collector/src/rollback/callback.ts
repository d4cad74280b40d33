// What an application is told by its own sidecar: a CloudEvent in one JSON object.

import { stepName } from './sample.js';
import type { Delivery } from './watchers.js';

/** Bytes of a callback's body, at most: names are bounded, so this is never reached. */
export const BODY_BYTES_MAX = 4096;

export function callbackBody({ record, step }: Delivery): Buffer {
  const body = {
    specversion: '1.0',
    type: 'dev.meshpulse.rollback.step',
    source: `/meshpulse/rollback/${record.id}`,
    id: step.signalId,
    time: new Date(record.decidedUs / 1000).toISOString(),
    datacontenttype: 'application/json',
    data: {
      transaction: record.key,
      kind: record.kind,
      reason: record.operatorReason || `${stepName(record)} failed`,
      service: step.service,
      operation: step.operation,
      event: step.eventId,
      cuid: step.cuid,
      unknown: step.unknown,
      delivery: step.deliveries,
    },
  };
  return Buffer.from(JSON.stringify(body)).subarray(0, BODY_BYTES_MAX);
}
