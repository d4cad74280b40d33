// How many messages one address may send. Pure but for the table it keeps.

/** Addresses remembered; one not heard for long has a full bucket anyway and can be forgotten. */
const PEERS_MAX = 100_000;

/** A burst of twice the rate is let through. */
const BURST = 2;

interface Bucket {
  tokens: number;
  atMs: number;
}

/** Token buckets by address. */
export class PeerLimiter {
  /** Least recently heard first. */
  private readonly buckets = new Map<string, Bucket>();

  constructor(private readonly perSecond: number) {}

  /** Takes one message; returns 0 when it is allowed, else after how many ms the next would be. */
  take(peer: string, nowMs: number): number {
    const capacity = this.perSecond * BURST;
    const bucket = this.buckets.get(peer) ?? { tokens: capacity, atMs: nowMs };
    bucket.tokens = Math.min(capacity, bucket.tokens + ((nowMs - bucket.atMs) * this.perSecond) / 1000);
    bucket.atMs = nowMs;
    this.buckets.delete(peer);
    this.buckets.set(peer, bucket);
    if (this.buckets.size > PEERS_MAX) this.buckets.delete(this.buckets.keys().next().value!);
    if (bucket.tokens < 1) return Math.ceil(((1 - bucket.tokens) * 1000) / this.perSecond);
    bucket.tokens -= 1;
    return 0;
  }
}

/** `10.0.0.7` of `10.0.0.7:41234`, `::1` of `[::1]:41234`: connections of one host share their limit. */
export const hostOf = (peer: string): string => peer.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
