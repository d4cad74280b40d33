// Overrides and kills: what people said, until when. One of each a scope.

import { InvalidArgument } from '../errors.js';
import { isScope, SCOPE_GRAMMAR, type Controls, type Kill, type Override } from './modes.js';

/** Of each sort. */
const ENTRIES_MAX = 256;

/** An override lasts this long, ms. */
export const OVERRIDE_MS = { min: 1000, max: 24 * 3_600_000 };

const REASON_BYTES_MAX = 256;
const ACTOR_BYTES_MAX = 128;

export class ControlsBook implements Controls {
  private readonly overrideByScope = new Map<string, Override>();
  private readonly killByScope = new Map<string, Kill>();

  get overrides(): readonly Override[] {
    return [...this.overrideByScope.values()];
  }

  get kills(): readonly Kill[] {
    return [...this.killByScope.values()];
  }

  override(scope: string, value: Override | undefined): void {
    set(this.overrideByScope, scope, value);
  }

  kill(scope: string, value: Kill | undefined): void {
    set(this.killByScope, scope, value);
  }

  /** Forgets overrides that are over; returns their scopes. */
  expire(nowUs: number): string[] {
    const over = this.overrides.filter(({ untilUs }) => untilUs <= nowUs).map(({ scope }) => scope);
    for (const scope of over) this.overrideByScope.delete(scope);
    return over;
  }
}

function set<T>(map: Map<string, T>, scope: string, value: T | undefined): void {
  if (value === undefined) map.delete(scope);
  else if (map.has(scope) || map.size < ENTRIES_MAX) map.set(scope, value);
  else throw new InvalidArgument('scope', scope, `one of the ${ENTRIES_MAX} that are set, or lift one first`);
}

/** @throws InvalidArgument */
export function checkScope(scope: string): string {
  if (!isScope(scope)) throw new InvalidArgument('scope', scope, SCOPE_GRAMMAR);
  return scope;
}

/** @throws InvalidArgument */
export function checkReason(reason = ''): string {
  const bytes = Buffer.byteLength(reason);
  if (bytes < 1 || bytes > REASON_BYTES_MAX) {
    throw new InvalidArgument('reason', reason.slice(0, 40), `a text of 1 to ${REASON_BYTES_MAX} bytes`);
  }
  return reason;
}

/** @throws InvalidArgument */
export function checkActor(actor = ''): string {
  if (Buffer.byteLength(actor) > ACTOR_BYTES_MAX) {
    throw new InvalidArgument('actor', actor.slice(0, 40), `a text of at most ${ACTOR_BYTES_MAX} bytes`);
  }
  return actor;
}

export function checkTtl(ms: number | undefined): number {
  if (ms === undefined || !(ms >= OVERRIDE_MS.min && ms <= OVERRIDE_MS.max)) {
    throw new InvalidArgument('ttl', ms === undefined ? undefined : `${ms / 1000}s`, '1s to 24h');
  }
  return ms;
}
