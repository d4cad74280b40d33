// Verdicts as filters are told them: who gets which list. Pure.

import { nameHash } from './hash.js';
import { MODE } from './modes.js';
import type { VerdictRecord } from './verdicts.js';

/** Bounds of one directive and of one message; see meshpulse.v1.Directive. */
export const NAMES_MAX = 64;
export const IDS_MAX = 8;
export const PER_MESSAGE_MAX = 64;
export const STEP_BYTES_MAX = 256;

/** Budgets are shares in millionths. */
export const PPM = 1_000_000;

/** meshpulse.v1.Directive as grpc-js takes it. */
export interface Directive {
  readonly version: string;
  readonly ttlMs: number;
  readonly kind: string;
  readonly keys?: readonly string[];
  readonly requests?: readonly string[];
  readonly mode?: number;
  readonly refuse?: readonly string[];
  readonly refuseIn?: readonly string[];
  readonly destinations?: readonly string[];
  readonly spare?: readonly string[];
  readonly budgetPpm?: number;
  readonly budgetMin?: number;
  readonly id?: string;
  readonly step?: string;
  readonly body?: Buffer;
}

type Ids = Pick<VerdictRecord, 'keys' | 'requests'>;

/**
 * What the proxies of one service are told to refuse; undefined when nothing. Those that take entry requests are
 * told in any case: they see a second entry first, and must know then that it ends the verdict.
 */
export function doomFor(record: VerdictRecord, service: string, version: string, ttlMs: number): Directive | undefined {
  const refuse = hashes(
    record.forward.filter(edge => edge.caller === service).map(edge => [edge.destination, edge.operation]),
  );
  const inbound = record.forward.filter(edge => edge.service === service && edge.onlyForward);
  const refuseIn = hashes(inbound.map(edge => ['', edge.operation]));
  if (refuse.length === 0 && refuseIn.length === 0 && service !== entryOf(record)) return undefined;
  const step = record.service === '' ? '' : `${record.service} ${record.operation}`;
  return {
    version,
    ttlMs,
    kind: 'DIRECTIVE_KIND_DOOM',
    ...idsOf(record),
    mode: MODE[record.heldOut ? 'observe' : record.mode],
    refuse,
    refuseIn,
    budgetPpm: record.budgetPpm,
    budgetMin: record.budgetMin,
    id: record.id,
    step: Buffer.from(step).subarray(0, STEP_BYTES_MAX).toString(),
  };
}

/** Services whose proxies are told: that of the entry, then callers, then callees. */
export function servicesOf(record: VerdictRecord): string[] {
  const callees = record.forward.filter(edge => edge.onlyForward).map(edge => edge.service);
  return [...new Set([entryOf(record), ...record.forward.map(edge => edge.caller), ...callees])];
}

const entryOf = ({ kind }: VerdictRecord): string => kind.split(' ')[0]!;

export const endOf = (record: VerdictRecord, version: string): Directive => ({
  version,
  ttlMs: 1000,
  kind: 'DIRECTIVE_KIND_END',
  ...idsOf(record),
});

export const clear = (version: string): Directive => ({ version, ttlMs: 1000, kind: 'DIRECTIVE_KIND_CLEAR' });

/** How long an answer to a FLUSH is of use, ms. */
const FLUSH_TTL_MS = 2000;

export const flushOf = (ids: Ids, version: string): Directive => ({
  version,
  ttlMs: FLUSH_TTL_MS,
  kind: 'DIRECTIVE_KIND_FLUSH',
  ...idsOf(ids),
});

export function downOf(
  destinations: readonly string[],
  spare: readonly [string, string][],
  version: string,
  ttlMs: number,
): Directive {
  const named = hashes(destinations.map(destination => [destination, '']));
  return { version, ttlMs, kind: 'DIRECTIVE_KIND_DOWN', destinations: named, spare: hashes(spare), mode: MODE.enforce };
}

export const upOf = (destinations: readonly string[], version: string): Directive => ({
  version,
  ttlMs: 1000,
  kind: 'DIRECTIVE_KIND_UP',
  destinations: hashes(destinations.map(destination => [destination, ''])),
});

const idsOf = ({ keys, requests }: Ids): { keys: string[]; requests: string[] } => ({
  keys: keys.slice(0, IDS_MAX).flatMap(halves),
  requests: requests.slice(0, IDS_MAX).flatMap(halves),
});

const halves = (hex: string): string[] => [BigInt(`0x${hex.slice(0, 16)}`), BigInt(`0x${hex.slice(16)}`)].map(String);

/** Ascending, without repeats, at most NAMES_MAX. */
function hashes(names: readonly (readonly [string, string])[]): string[] {
  const values = [...new Set(names.map(([destination, operation]) => nameHash(destination, operation)))];
  return values
    .slice(0, NAMES_MAX)
    .sort((a, b) => (a < b ? -1 : 1))
    .map(String);
}
