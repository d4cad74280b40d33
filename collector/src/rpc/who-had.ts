// Registry.WhoHad

import { isIP } from 'node:net';
import type { Grant } from '../access/caller.js';
import { InvalidArgument } from '../errors.js';
import { addressInterval, microseconds, timestamp } from './encode.js';
import type { ReadParts } from './parts.js';

export interface WhoHadRequest {
  readonly ip?: string;
  readonly port?: number;
  readonly at?: { readonly seconds?: string | number; readonly nanos?: number } | null;
  readonly cluster?: string;
  readonly network?: string;
}

/** How far ahead of our clock a caller's `at` may be, us. */
const FUTURE_US_MAX = 60_000_000;

export function whoHad({ registry, clock, permit }: ReadParts, request: WhoHadRequest): object {
  const { ip = '', port = 0, cluster = '', network = '' } = request;
  if (isIP(ip) === 0) throw new InvalidArgument('ip', ip, 'IPv4 or IPv6 text');
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new InvalidArgument('port', port, '0 (any) to 65535');
  const nowUs = clock.nowUs();
  const atUs = microseconds(request.at) ?? nowUs;
  if (atUs < 0 || atUs > nowUs + FUTURE_US_MAX) {
    throw new InvalidArgument(
      'at',
      new Date(atUs / 1000),
      `a time up to now (${new Date(nowUs / 1000).toISOString()})`,
    );
  }
  const { holders, ambiguous, unknown, note } = registry.whoHad(ip, port, atUs, cluster, network);
  const retainedUs = registry.retainedSinceUs();
  const tooEarly = unknown && atUs < retainedUs;
  if (!permit.reads.all) {
    const seen = holders.filter(({ life }) => permit.reads.covers(life.service));
    // Whether somebody else had it is not told either: the answer is the same.
    if (seen.length === 0) return nobodyOf(permit.reads, retainedUs);
    if (seen.length < holders.length) {
      const notSeen = 'others may have had it, too, in namespaces that you were not granted';
      return {
        intervals: seen.map(addressInterval),
        ambiguous,
        unknown,
        retainedSince: timestamp(retainedUs),
        note: notSeen,
      };
    }
  }
  return {
    intervals: holders.map(addressInterval),
    ambiguous,
    unknown,
    retainedSince: timestamp(retainedUs),
    note: tooEarly ? `lives are only remembered since ${new Date(retainedUs / 1000).toISOString()}` : note,
  };
}

const nobodyOf = (granted: Grant, retainedUs: number): object => ({
  intervals: [],
  ambiguous: false,
  unknown: true,
  retainedSince: timestamp(retainedUs),
  note: `nobody in ${granted.toString()} is known to have had it; lives are remembered since ${new Date(retainedUs / 1000).toISOString()}`,
});
