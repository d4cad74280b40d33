// Registry.WatchStatus: the state of each instance now, then each change.
//
// A watcher holds the set of instances that changed since it was last told, not the changes: a slow
// reader is told the latest state once it reads again. One that falls too far behind is ended. What many
// watchers are told at about the same time is made once.

import type { ServerWritableStream } from '@grpc/grpc-js';
import { Exhausted, InvalidArgument } from '../errors.js';
import type { Life } from '../registry/life.js';
import type { Registry } from '../registry/registry.js';
import { instance } from './encode.js';
import { Outbox } from './outbox.js';
import { matches } from './pages.js';
import type { ReadParts } from './parts.js';
import { prepared } from './serialized.js';

export interface WatchStatusRequest {
  readonly service?: string;
  readonly namespace?: string;
  readonly minIntervalMs?: number;
}

const INTERVAL_MS = { min: 100, max: 60_000, default: 1000 };

/** Watchers at once, at most: each is told of each change. */
const WATCHERS_MAX = 2000;
const RETRY_MS = 10_000;

/** Instances that changed while nothing was read; past them the watcher is ended. */
const BEHIND_MAX = 10_000;

/** The state of an instance is told as it was at most this long ago, ms, ages included. */
const SHARED_MS = 100;

export function watchStatus(parts: ReadParts, call: ServerWritableStream<WatchStatusRequest, object>): void {
  const { service = '', namespace = '', minIntervalMs = 0 } = call.request;
  const intervalMs = minIntervalMs === 0 ? INTERVAL_MS.default : minIntervalMs;
  if (intervalMs < INTERVAL_MS.min || intervalMs > INTERVAL_MS.max) {
    throw new InvalidArgument('min_interval_ms', minIntervalMs, `${INTERVAL_MS.min} to ${INTERVAL_MS.max}, or unset`);
  }
  const { registry, clock, permit } = parts;
  if (registry.listenerCount('changed') >= WATCHERS_MAX) {
    throw new Exhausted(`${WATCHERS_MAX} watchers are all that is allowed`, RETRY_MS);
  }
  const wanted = (life: Life): boolean =>
    matches(life.service, service, namespace) && permit.reads.covers(life.service);
  const changed = new Set<Life>();
  const everyone: Iterator<Life, unknown> = registry.all()[Symbol.iterator]();
  let synced = false;
  const flush = (): void => {
    if (outbox.endIfUnread()) return;
    while (!synced && !outbox.blocked) {
      const next = everyone.next();
      if (next.done !== true) {
        if (wanted(next.value)) outbox.send(updateOf(next.value, registry, clock.monotonicMs()));
        continue;
      }
      synced = true;
      outbox.send({ synced: true });
    }
    for (const life of changed) {
      if (outbox.blocked) return;
      changed.delete(life);
      outbox.send(updateOf(life, registry, clock.monotonicMs()));
    }
  };
  const outbox = new Outbox(call as ServerWritableStream<never, object>, () => clock.monotonicMs(), flush);
  const onChange = (life: Life): void => {
    if (!wanted(life)) return;
    changed.add(life);
    if (outbox.blocked && changed.size > BEHIND_MAX) outbox.end(`${BEHIND_MAX} instances changed unread; watch again`);
  };
  const timer = setInterval(flush, intervalMs);
  outbox.onOver(() => {
    clearInterval(timer);
    registry.off('changed', onChange);
  });
  follow(registry);
  registry.on('changed', onChange);
  flush();
}

interface Told {
  readonly atMs: number;
  readonly bytes: Buffer;
}

const told = new WeakMap<Life, Told>();
const followed = new WeakSet<Registry>();

/** What was told of a life is stale once it changes. */
function follow(registry: Registry): void {
  if (followed.has(registry)) return;
  followed.add(registry);
  registry.on('changed', life => told.delete(life));
}

/** One update as bytes, made anew when the former ones are too old. */
function updateOf(life: Life, registry: Registry, nowMs: number): Buffer {
  const known = told.get(life);
  if (known !== undefined && nowMs - known.atMs < SHARED_MS) return known.bytes;
  const bytes = prepared('StatusUpdate', { instance: instance(life, registry, nowMs) });
  told.set(life, { atMs: nowMs, bytes });
  return bytes;
}
