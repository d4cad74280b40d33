// Who had an address at a moment. Pure, over the lives that ever had it.
//
// What is certain of a life: it had its address from its start until it was last heard, and until its
// goodbye if it said one. Between the last word of a life that ended without goodbye and the moment
// someone else is known to have the address (or the life counts as gone), it may have had it or not:
//
//     A: from ======== last heard - - - - - .                 t here: A, perhaps
//     B:                                    from =======      t here: B
//
// So the answer is 0 to n lives, and a word on how sure it is. It never picks one.

import { isIPv6 } from 'node:net';
import { GONE_MS, type AddressSpan, type Life, type LifeState } from './life.js';

/** One life at one address. */
export interface Holding {
  readonly life: Life;
  readonly span: AddressSpan;
}

export interface Holder extends Holding {
  /** The port asked for, when the life is known to listen on it; else 0, every port. */
  readonly port: number;
  /** It is certain only until then. */
  readonly lastHeardUs?: number;
}

export interface WhoHadAnswer {
  readonly holders: readonly Holder[];
  readonly ambiguous: boolean;
  readonly unknown: boolean;
  /** One sentence; empty when there is nothing to add. */
  readonly note: string;
}

/**
 * Who of `holdings` (all of one ip) had it at `atUs`, on `port` (0 = any).
 *
 * @param stateOf state of a life now
 * @param iso     how to write a time for people
 */
export function whoHad(
  holdings: readonly Holding[],
  atUs: number,
  port: number,
  stateOf: (life: Life) => LifeState,
  iso: (us: number) => string,
): WhoHadAnswer {
  const candidates = holdings.flatMap(holding => holderAt(holding, holdings, atUs, port, stateOf));
  const onPort = candidates.filter(holder => holder.port !== 0);
  const holders = onPort.length > 0 ? onPort : candidates;
  if (holders.length === 0) return { holders, ambiguous: false, unknown: true, note: whyUnknown(holdings, atUs, iso) };
  const unsure = holders.find(holder => holder.lastHeardUs !== undefined && holder.lastHeardUs < atUs);
  const ambiguous = holders.length > 1 || unsure?.span.toUs !== undefined;
  return { holders, ambiguous, unknown: false, note: whyAmbiguous(holders, unsure, iso) };
}

function holderAt(
  { life, span }: Holding,
  all: readonly Holding[],
  atUs: number,
  port: number,
  stateOf: (life: Life) => LifeState,
): Holder[] {
  if (atUs < span.fromUs) return [];
  const exact = port !== 0 && span.ports.includes(port) ? port : 0;
  const movedAway = span !== life.addresses.at(-1);
  const ended = life.endedUs !== undefined;
  if (!ended && !movedAway) {
    const heard = stateOf(life) === 'INSTANCE_STATE_LIVE' || atUs <= life.lastSeenUs;
    return [{ life, span, port: exact, ...(heard ? {} : { lastHeardUs: life.lastSeenUs }) }];
  }
  if (movedAway || life.clean) return atUs < span.toUs! ? [{ life, span, port: exact }] : [];
  const untilUs = uncertainUntil({ life, span }, all);
  const lastHeardUs = Math.min(life.lastSeenUs, untilUs);
  return atUs < untilUs ? [{ life, span: { ...span, toUs: untilUs }, port: exact, lastHeardUs }] : [];
}

/** Until when a life that ended without goodbye may have had its address. */
function uncertainUntil({ life, span }: Holding, all: readonly Holding[]): number {
  const gone = life.lastSeenUs + GONE_MS * 1000;
  const next = all.filter(
    other => other.span !== span && sameNetwork(other.life, life) && other.span.fromUs > span.fromUs,
  );
  const nextFrom = Math.min(
    ...next.filter(other => other.span.fromUs >= life.lastSeenUs).map(other => other.span.fromUs),
  );
  return Math.min(gone, nextFrom);
}

/** Addresses are only comparable within one cluster and network. */
export const sameNetwork = (a: Life, b: Life): boolean => a.cluster === b.cluster && a.network === b.network;

function whyUnknown(holdings: readonly Holding[], atUs: number, iso: (us: number) => string): string {
  const before = holdings.filter(({ span }) => span.fromUs <= atUs).sort((a, b) => b.span.fromUs - a.span.fromUs)[0];
  if (before === undefined) return 'no life is known to have had this address by then';
  const { life } = before;
  const how = life.clean ? `said goodbye at ${iso(before.span.toUs!)}` : `was last heard at ${iso(life.lastSeenUs)}`;
  return `the last life known to have had it, ${life.cuid}, ${how}`;
}

function whyAmbiguous(holders: readonly Holder[], unsure: Holder | undefined, iso: (us: number) => string): string {
  const notes: string[] = [];
  if (holders.length > 1) {
    const networks = new Set(holders.map(({ life }) => `${life.cluster} ${life.network}`));
    notes.push(
      networks.size > 1
        ? `${holders.length} lives had it, in different clusters or networks: name one to narrow`
        : `${holders.length} lives can have had it at that moment`,
    );
  }
  if (unsure !== undefined) {
    const end = unsure.span.toUs === undefined ? 'it is silent since then' : 'it ended without goodbye';
    notes.push(
      `${unsure.life.cuid} was last heard at ${iso(unsure.lastHeardUs!)}; ${end}, so it may have had it or not`,
    );
  }
  return notes.join('; ');
}

/** One text for one address: IPv6 in its shortest form, IPv4 inside IPv6 as IPv4. */
export function canonicalIp(ip: string): string {
  if (!isIPv6(ip)) return ip;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(ip);
  if (mapped?.[1] !== undefined) return mapped[1];
  const zone = ip.indexOf('%');
  const bare = zone < 0 ? ip : ip.slice(0, zone);
  return new URL(`http://[${bare}]`).hostname.slice(1, -1);
}
