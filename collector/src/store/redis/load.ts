// From a snapshot and the log to the state that a replica starts with.

import type { Frame } from '../frames.js';
import { flowOf, replayBlob, restoreFrame, type Deciders } from '../replay.js';
import type { Recovery } from '../store.js';
import type { Lane } from './lane.js';
import { comparePlaces, START } from './place.js';
import type { ShardPlace } from './snapshots.js';
import type { Entry } from './scripts.js';

export interface Loaded {
  readonly frames: readonly Frame[];
  readonly places: readonly ShardPlace[];
}

/**
 * Gives back a snapshot, and then the log: of what the snapshot amounts to only the batches, and all that
 * comes after it. The shards are read side by side, in the order of time. Afterwards each lane stands where
 * its log ended when this began: what is appended meanwhile is read on from there.
 */
export async function loadAll(
  lanes: readonly Lane[],
  snapshot: Loaded | undefined,
  deciders: Deciders,
  recovery: Recovery,
  unreadable: (blob: Buffer, error?: unknown) => void,
): Promise<void> {
  const covered = new Map(snapshot?.places.map(place => [place.shard, new Covered(place)]));
  for (const frame of snapshot?.frames ?? []) restoreFrame(frame, deciders, recovery);
  const apply = ({ blob }: Entry, counted: boolean): void => replayBlob(blob, deciders, recovery, counted, unreadable);
  let flow: unknown = snapshot === undefined ? undefined : flowOf(snapshot.frames);
  // What the snapshot taught comes after the batches that it has counted, and before all others.
  const teach = (): void => {
    if (flow !== undefined) recovery.flow(flow);
    flow = undefined;
  };
  const waiting: Entry[] = [];
  for await (const { shard, entry } of inOrder(lanes)) {
    if (covered.get(shard)?.has(entry) === true) apply(entry, true);
    else if (flow === undefined) apply(entry, false);
    else waiting.push(entry);
    if (waiting.length >= WAITING_MAX) drain();
  }
  drain();
  for (const { shard, place, replicas } of snapshot?.places ?? []) lanes[shard]?.resume(place, replicas);

  function drain(): void {
    teach();
    for (const entry of waiting.splice(0)) apply(entry, false);
  }
}

/** Blobs after the snapshot that wait for the last one before it: its shards do not end at the same time. */
const WAITING_MAX = 1000;

/** Which blobs a snapshot amounts to. */
class Covered {
  private readonly numbers: ReadonlyMap<string, number>;

  constructor(private readonly shard: ShardPlace) {
    this.numbers = new Map(shard.replicas);
  }

  has({ id, replica, number }: Entry): boolean {
    const last = this.numbers.get(replica);
    return last === undefined ? comparePlaces(id, this.shard.place) <= 0 : number <= last;
  }
}

/** The entries of all logs, by time. Reads each to where it ends now. */
async function* inOrder(lanes: readonly Lane[]): AsyncGenerator<{ shard: number; entry: Entry }> {
  const heads = await Promise.all(lanes.map(lane => Head.open(lane)));
  for (;;) {
    let next: Head | undefined;
    for (const head of heads) {
      if (head.entry === undefined) continue;
      if (next?.entry === undefined || comparePlaces(head.entry.id, next.entry.id) < 0) next = head;
    }
    if (next?.entry === undefined) return;
    yield { shard: next.lane.shard, entry: next.entry };
    await next.advance();
  }
}

/** The next entry of one log. */
class Head {
  private entries: readonly Entry[] = [];
  private at = 0;
  private more = true;
  private until: string | undefined;

  private constructor(readonly lane: Lane) {}

  static async open(lane: Lane): Promise<Head> {
    lane.place = START;
    const head = new Head(lane);
    await head.fill();
    return head;
  }

  get entry(): Entry | undefined {
    return this.entries[this.at];
  }

  async advance(): Promise<void> {
    this.at += 1;
    if (this.at >= this.entries.length && this.more) await this.fill();
  }

  private async fill(): Promise<void> {
    const { entries, more, newest } = await this.lane.page(this.until);
    this.until ??= newest;
    this.entries = entries;
    this.more = more;
    this.at = 0;
  }
}
