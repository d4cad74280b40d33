// Registry.WatchStatus: the state of each instance now, then each change.
//
// A watcher holds the set of instances that changed since it was last told, not the changes: a slow
// reader is told the latest state once it reads again, and costs no more memory meanwhile.

import type { ServerWritableStream } from '@grpc/grpc-js';
import { InvalidArgument } from '../errors.js';
import type { Life } from '../registry/life.js';
import { instance } from './encode.js';
import { matches } from './pages.js';
import type { ReadParts } from './parts.js';

export interface WatchStatusRequest {
  readonly service?: string;
  readonly namespace?: string;
  readonly minIntervalMs?: number;
}

const INTERVAL_MS = { min: 100, max: 60_000, default: 1000 };

export function watchStatus(parts: ReadParts, call: ServerWritableStream<WatchStatusRequest, object>): void {
  const { service = '', namespace = '', minIntervalMs = 0 } = call.request;
  const intervalMs = minIntervalMs === 0 ? INTERVAL_MS.default : minIntervalMs;
  if (intervalMs < INTERVAL_MS.min || intervalMs > INTERVAL_MS.max) {
    throw new InvalidArgument('min_interval_ms', minIntervalMs, `${INTERVAL_MS.min} to ${INTERVAL_MS.max}, or unset`);
  }
  const { registry, clock, permit } = parts;
  const wanted = (life: Life): boolean =>
    matches(life.service, service, namespace) && permit.reads.covers(life.service);
  const changed = new Set<Life>([...registry.all()].filter(wanted));
  let synced = false;
  let blocked = false;
  const flush = (): void => {
    for (const life of changed) {
      if (blocked) return;
      changed.delete(life);
      blocked = !call.write({ instance: instance(life, registry, clock.monotonicMs()) });
    }
    if (synced) return;
    synced = true;
    call.write({ synced: true });
  };
  const onChange = (life: Life): void => {
    if (wanted(life)) changed.add(life);
  };
  const timer = setInterval(flush, intervalMs);
  const stop = (): void => {
    clearInterval(timer);
    registry.off('changed', onChange);
  };
  registry.on('changed', onChange);
  call.on('drain', () => {
    blocked = false;
    flush();
  });
  call.on('cancelled', stop);
  call.on('error', stop);
  call.on('close', stop);
  flush();
}
