// Instances that must be there, because others speak with them, but that never reported.
//
// A caller's proxy marks what lies outside the mesh. What it does not mark is expected to report: a
// callee that answered with a CUID has a filter, and one whose service no life ever named has a proxy
// without a filter, or one that cannot reach the collector, or did not start at all. Such an entry goes
// when a life reports that is it, or when nobody has called it for a while.

import { isIP } from 'node:net';
import { canonicalIp } from './addresses.js';

/** Entries kept; the one that was not named for longest goes first. */
export const EXPECTED_MAX = 1000;

/** An entry that nobody named for this long is forgotten: like a life, it is gone. */
export const EXPECTED_MS = 5 * 60_000;

export interface ExpectedInstance {
  readonly cluster: string;
  readonly network: string;
  readonly service: string;
  /** '' when its answers carried none. */
  readonly cuid: string;
  /** Address by which it is called, when callers know no name; else ''. */
  readonly ip: string;
  /** 0 = not known. */
  readonly port: number;
  /** When a caller first named it, us since 1970; and last. */
  readonly firstUs: number;
  lastUs: number;
  /** Monotonic. */
  lastMs: number;
}

/** How a caller names its callee. `host`: `name:port` or `address:port`. */
export interface Callee {
  readonly cluster: string;
  readonly network: string;
  readonly service: string;
  readonly cuid: string;
  readonly host: string;
}

export class Expected {
  /** Longest unnamed first. */
  private readonly entries = new Map<string, ExpectedInstance>();
  /** Entries given up for want of room. */
  evicted = 0;

  note(callee: Callee, nowUs: number, nowMs: number): void {
    const key = keyOf(callee);
    const entry = this.entries.get(key) ?? entryOf(callee, nowUs, nowMs);
    entry.lastUs = nowUs;
    entry.lastMs = nowMs;
    this.entries.delete(key);
    this.entries.set(key, entry);
    if (this.entries.size <= EXPECTED_MAX) return;
    this.entries.delete(this.entries.keys().next().value!);
    this.evicted += 1;
  }

  /** A life reports: whatever was expected under one of its names, of its service, or at its address, is there. */
  reported(life: { cluster: string; service: string; names: readonly string[]; ip: string }): void {
    for (const [key, entry] of this.entries) {
      const named = entry.cuid !== '' && life.names.includes(entry.cuid);
      const sameCluster = entry.cluster === life.cluster;
      const meant = entry.cuid === '' && entry.service === life.service;
      const there = entry.ip !== '' && entry.ip === life.ip;
      if (named || (sameCluster && (meant || there))) this.entries.delete(key);
    }
  }

  /** Forgets what nobody names any more. */
  expire(nowMs: number): void {
    for (const [key, { lastMs }] of this.entries) {
      if (nowMs - lastMs <= EXPECTED_MS) return;
      this.entries.delete(key);
    }
  }

  find(cuid: string): ExpectedInstance | undefined {
    for (const entry of this.entries.values()) if (entry.cuid === cuid) return entry;
    return undefined;
  }

  all(): Iterable<ExpectedInstance> {
    return this.entries.values();
  }
}

/** By CUID where there is one: then each instance is one entry, else each service is. */
const keyOf = ({ cluster, service, cuid }: Callee): string => `${cluster}\0${cuid === '' ? service : cuid}`;

function entryOf({ cluster, network, service, cuid, host }: Callee, nowUs: number, nowMs: number): ExpectedInstance {
  const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|(.*?))(?::(\d{1,5}))?$/.exec(host) ?? [];
  const address = bracketed ?? plain ?? '';
  const ip = isIP(address) === 0 ? '' : canonicalIp(address);
  return { cluster, network, service, cuid, ip, port: Number(port ?? 0), firstUs: nowUs, lastUs: nowUs, lastMs: nowMs };
}
