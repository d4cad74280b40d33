// Rollback.Watch: signals of one service, all that are open, then each as it comes.

import type { ServerWritableStream } from '@grpc/grpc-js';
import type { ReadParts } from './parts.js';
import { Exhausted, InvalidArgument } from '../errors.js';
import type { Rollback } from '../rollback/controller.js';
import { signalMessage } from '../rollback/messages.js';
import { Outbox, sharedBytes } from './outbox.js';
import { addressedTo } from '../rollback/signals.js';
import { WATCHERS_MAX, type Delivery } from '../rollback/watchers.js';

export interface WatchSignalsRequest {
  readonly service?: string;
  readonly resumeToken?: string;
  readonly cuid?: string;
}

/** Signals that a slow reader is kept; past them it is cut off, and resumes. */
const BACKLOG_MAX = 1000;

const RETRY_MS = 1000;

export function watchSignals(
  { rollback, permit }: ReadParts,
  call: ServerWritableStream<WatchSignalsRequest, object>,
): void {
  const { service = '', resumeToken = '', cuid = '' } = call.request;
  if (service === '' || service.length > 256)
    throw new InvalidArgument('service', service.slice(0, 40), 'a service name');
  if (!permit.signals.covers(service)) {
    throw permit.deny(
      `service is ${JSON.stringify(service)}, you may follow the signals of ${permit.signals.toString()}`,
    );
  }
  if (!/^\d{0,16}$/.test(resumeToken)) {
    throw new InvalidArgument('resume_token', resumeToken.slice(0, 40), 'a resume_token of a signal, or unset');
  }
  const { watchers, parts } = rollback;
  if (watchers.size >= WATCHERS_MAX) throw new Exhausted(`${WATCHERS_MAX} watchers are all that is allowed`, RETRY_MS);
  const outbox = new Outbox(call as ServerWritableStream<never, object>, () => parts.clock.monotonicMs());
  const deliver = (delivery: Delivery): void => {
    if (outbox.endIfUnread()) return;
    outbox.send(sharedBytes('Signal', delivery, () => signalMessage(delivery)));
    if (outbox.waiting > BACKLOG_MAX) outbox.end('signals are not being read; watch again with the last resume_token');
  };
  outbox.onOver(watchers.add({ service, cuid, deliver }));
  const nowUs = parts.clock.nowUs();
  for (const delivery of openSignals(rollback, service)) {
    const { step, sequence } = delivery;
    if (sequence > Number(resumeToken) && addressedTo(step, cuid, nowUs)) deliver(delivery);
  }
}

/** In the order in which they were told last. */
function openSignals({ plans, watchers }: Rollback, service: string): Delivery[] {
  const open: Delivery[] = [];
  for (const record of plans.all) {
    for (const step of record.steps) {
      if (step.service !== service || step.state !== 'signalled') continue;
      open.push({ record, step, sequence: watchers.sequenceOf(step) || record.decidedUs });
    }
  }
  return open.sort((a, b) => a.sequence - b.sequence);
}
