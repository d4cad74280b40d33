// What replicas say to each other on the bus: what only matters now. Durable facts are in the log.
//
// Messages are JSON with short lists instead of objects where there are many of a kind. Other versions may say more,
// or other things: what is not understood is passed over and counted.

import type { InFlight, InFlightList, Progress, Status } from '../ingest/report.js';
import type { StepRecord } from '../rollback/signals.js';
import { BUS_BYTES_MAX } from '../store/shared.js';

/** Raised when the layout of a message changes; messages of other layouts are passed over. */
export const LAYOUT = 1;

/** What a replica heard of the lives connected to it. Ages in ms at the time of the message. */
export interface LifeNews {
  readonly cuid: string;
  /** It has a stream. */
  readonly connected: boolean;
  readonly callback: boolean;
  readonly ageMs: number;
  readonly offsetUs: number;
  readonly errorUs: number;
  readonly status?: Status;
  readonly statusAgeMs: number;
  readonly jobs: readonly (readonly [progress: Progress, ageMs: number])[];
}

/** As InFlightList; 64-bit ids as decimal text. */
export interface ListNews {
  readonly cuid: string;
  readonly lists: readonly (Omit<InFlightList, 'producer'> & { readonly producer: string })[];
}

export type Message =
  | {
      readonly type: 'state';
      readonly lives: readonly LifeNews[];
      readonly lists: readonly ListNews[];
      /** Verdicts, and how many proxies were told of them. */
      readonly told: readonly (readonly [id: string, proxies: number])[];
      /** Proxies here that take directives. */
      readonly proxies: number;
      /** Report streams open. */
      readonly streams: number;
      /** Highest version of a directive given. */
      readonly version: number;
      /** Since when it counts, us since 1970: events, and what rollback did. */
      readonly sinceUs: number;
      readonly ledgerSinceUs: number;
      /** This replica has just begun to listen, and wants to hear everything. */
      readonly fresh: boolean;
    }
  | { readonly type: 'began'; readonly items: readonly (readonly [cuid: string, items: readonly InFlight[]])[] }
  | {
      readonly type: 'ask';
      readonly keys: readonly string[];
      readonly requests: readonly string[];
      readonly services: readonly string[];
    }
  | {
      readonly type: 'signal';
      readonly verdict: string;
      readonly step: StepRecord;
      readonly sequence: number;
      /** CUID of the life whose sidecar makes the callback; '' = none does. */
      readonly target: string;
    }
  | { readonly type: 'bye' };

export type StateMessage = Extract<Message, { type: 'state' }>;

export const encodeMessage = (message: Message): Buffer => Buffer.from(JSON.stringify({ layout: LAYOUT, ...message }));

/**
 * A message as it goes onto the bus: in several, where one would be longer than that takes. Lists of running requests
 * are long when everything hangs, and then others must hear above all that this replica is there.
 */
export function* pieces(message: Message): Generator<Buffer> {
  const bytes = encodeMessage(message);
  const halves = bytes.length > BUS_BYTES_MAX ? halved(message) : [];
  if (halves.length === 0) yield bytes;
  for (const half of halves) yield* pieces(half);
}

/** The same in two messages; none when there is nothing to divide. */
function halved(message: Message): readonly Message[] {
  if (message.type === 'began') {
    const { items } = message;
    return items.length < 2 ? [] : [0, 1].map(half => ({ ...message, items: halfOf(items, half) }));
  }
  if (message.type !== 'state') return [];
  const { lives, lists } = message;
  const rest = { ...message, told: [] };
  // Lists are what is long.
  if (lives.length > 0 && lists.length > 0)
    return [
      { ...message, lists: [] },
      { ...rest, lives: [] },
    ];
  if (lives.length + lists.length < 2) return [];
  return [message, rest].map((one, half) => ({ ...one, lives: halfOf(lives, half), lists: halfOf(lists, half) }));
}

function halfOf<T>(items: readonly T[], half: number): readonly T[] {
  const middle = Math.ceil(items.length / 2);
  return half === 0 ? items.slice(0, middle) : items.slice(middle);
}

/** @returns undefined = not a message of this layout */
export function decodeMessage(bytes: Buffer): Message | undefined {
  try {
    const message = JSON.parse(bytes.toString('utf8')) as { layout?: unknown } & Message;
    return message.layout === LAYOUT && typeof message.type === 'string' ? message : undefined;
  } catch {
    // Whoever wrote that is no replica of this version; the caller counts it.
    return undefined;
  }
}

export const listNews = (cuid: string, lists: readonly InFlightList[]): ListNews => ({
  cuid,
  lists: lists.map(list => ({ ...list, producer: String(list.producer) })),
});

export const listsOf = ({ lists }: ListNews): InFlightList[] =>
  lists.map(list => ({ ...list, producer: BigInt(list.producer) }));
