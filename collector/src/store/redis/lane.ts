// One shard of the log, as one replica sees it: what it appends there, and what it reads.
//
// There is one command under way at a time. What is put meanwhile waits, and goes as one blob: the busier
// the shard, the fewer commands a record costs. A reply brings what others appended before, and this
// replica's blob in between; all of it is applied in that order, which is the same for everyone.
//
//     put -> waiting -> blob (numbered) -> append -> reply: others' blobs, own, ... -> applied, settled
//                          ^                                                             |
//                          +---- again, same number, until the log has it       recent <-+
//
// A failover may take back the end of the log. Then the numbers in the log no longer follow: the blobs of
// the last half minute are appended again. What comes a second time to a reader has a number that it knows.
// And a new primary whose clock is behind may give ids that lie before what was read: a reader sees by the
// numbers that it lacks something, and looks back for it.

import { pauseMs, persistently } from './connect.js';
import { Outbox, type Blob, type Pending } from './outbox.js';
import { comparePlaces, placeBefore, START } from './place.js';
import { Recent, type Sent } from './recent.js';
import type { Entry, ReadReply } from './scripts.js';
import type { ShardLog } from './shard-log.js';
import { Signal, sleep, turn } from './signal.js';
import type { ShardPlace } from './snapshots.js';
import { LogSizes } from './trim.js';

/** What the lanes of one store share. */
export interface LaneOwner {
  readonly replicaId: string;
  /** Whether what so many copies have confirmed (Infinity = none was asked) outlives a restart. */
  durable(copies: number): boolean;
  /** While set, nothing may be applied. */
  readonly gate: Promise<void> | undefined;
  /** A blob of another replica, in its place. Must not throw. */
  apply(blob: Buffer): void;
  /** Records of so many bytes no longer wait. */
  done(bytes: number): void;
  fault(error: unknown): void;
  /** The log was cut off behind this reader: it can no longer follow. */
  behind(shard: number, place: string, trimmed: string): void;
}

/** Without any word, the log is read this often, ms. */
export const POLL_MS = 250;

/** Who lacks something looks back this far before its place, ms: clocks of nodes do not differ by more. */
const MARGIN_MS = 30_000;

/** At the start: how long one page of the log may take, with all tries, ms. */
const PAGE_MS = 10_000;

/** The longest pause after faults, ms: the end of a failover should not be waited out. */
const RETRY_MS_MAX = 300;

/** Replicas whose numbers are remembered, at most; those unheard for longest go first. */
export const REPLICAS_MAX = 1024;

/** Replicas named in a read after a fault, whose blobs need not be sent again: those heard last. */
const KNOWN_MAX = 32;

export class Lane {
  /** Replica -> number of its last blob that is applied; those heard last come last. */
  readonly applied = new Map<string, number>();
  readonly sizes = new LogSizes();
  readonly recent = new Recent();
  place = START;
  /** The furthest place that was ever read. */
  reached = START;
  /** Where the log was last seen to begin. */
  private cutAt = START;
  /** When the log was last read to its end, by the monotonic clock, ms. */
  freshMs = performance.now();
  counters = { blobs: 0, records: 0, fromOthers: 0, again: 0, lost: 0 };

  private readonly outbox = new Outbox();
  private blob: Blob | undefined;
  private again: Sent[] = [];
  /** After a fault: it is not known whether all that is in the log was read. */
  private doubtful = false;
  /** Reading again what lies before the furthest place; what is new there is applied, as found. */
  private lookingBack = false;
  private more = false;
  private stopping = false;
  private running: Promise<void> | undefined;
  private readonly signal = new Signal();

  constructor(
    readonly shard: number,
    private readonly log: ShardLog,
    private readonly owner: LaneOwner,
  ) {}

  put(record: Pending): void {
    this.outbox.put(record);
    this.signal.notify();
  }

  /** There may be something new to read. */
  notify(): void {
    this.signal.notify();
  }

  start(): void {
    this.running ??= this.run();
  }

  /** Nothing waits, and nothing is under way. */
  get idle(): boolean {
    return this.outbox.empty && this.blob === undefined;
  }

  /** Ends after the command under way; what still waits fails. */
  async stop(error: Error): Promise<void> {
    this.stopping = true;
    this.signal.notify();
    await this.running;
    const left = [...(this.blob?.records ?? []), ...this.outbox.drain()];
    this.blob = undefined;
    for (const record of left) record.fail(error);
  }

  /**
   * For the start: the next entries of the log, which the caller applies.
   *
   * @param until the last place that is of interest; absent: as far as the log goes now
   */
  async page(until?: string): Promise<Pick<ReadReply, 'entries' | 'more' | 'newest'>> {
    const reply = await persistently(() => this.log.read(this.place), performance.now() + PAGE_MS);
    const entries =
      until === undefined ? reply.entries : reply.entries.filter(({ id }) => comparePlaces(id, until) <= 0);
    for (const { id, replica, number, blob } of entries) {
      this.pass(id);
      this.note(replica, number);
      this.sizes.add(id, blob.length);
    }
    const more = reply.more && entries.length === reply.entries.length;
    if (!more) this.freshMs = performance.now();
    return { entries, more, newest: reply.newest };
  }

  /** For the start: a snapshot amounts to everything up to this place, and to these blobs. */
  resume(place: string, replicas: ShardPlace['replicas']): void {
    if (comparePlaces(place, this.place) > 0) this.pass(place);
    for (const [replica, number] of replicas) {
      if (number > (this.applied.get(replica) ?? 0)) this.note(replica, number);
    }
  }

  /** Reads once, from where it stands. */
  private async read(): Promise<void> {
    const known = this.lookingBack ? [...this.applied].slice(-KNOWN_MAX) : [];
    const asked = this.doubtful;
    const reply = await this.log.read(this.place, known, asked);
    if (this.owner.gate !== undefined) await this.owner.gate;
    this.checkCut(reply.trimmed);
    // The log is shorter than what was read of it: what comes next may have any place behind its end.
    if (comparePlaces(reply.newest, this.place) < 0) {
      this.place = reply.newest;
      this.doubtful = true;
    }
    if (!this.takeEntries(reply.entries, this.owner.durable(0))) return;
    this.checkOwn(reply.last);
    this.more = reply.more;
    if (!reply.more) this.caughtUp(asked ? reply.numbers : undefined);
  }

  private async run(): Promise<void> {
    let faults = 0;
    while (!this.stopping) {
      try {
        if (this.doubtful || this.lookingBack || !this.hasWork()) await this.read();
        else await this.append();
        faults = 0;
        if (this.hasWork() || this.doubtful || this.lookingBack || this.more) await turn();
        else await this.signal.wait(POLL_MS);
      } catch (error) {
        this.owner.fault(error);
        this.doubtful = true;
        await sleep(pauseMs(++faults, RETRY_MS_MAX));
      }
    }
  }

  private hasWork(): boolean {
    if (this.again.length > 0) return true;
    return this.blob === undefined ? !this.outbox.empty : !this.blob.appended;
  }

  private async append(): Promise<void> {
    // What arrives in this turn of the event loop goes along.
    await turn();
    const again = this.again[0];
    const sent = again ?? (this.blob ??= this.outbox.next());
    const placeBeforeCall = this.place;
    const { reply, copies } = await this.log.append(sent, placeBeforeCall);
    if (this.owner.gate !== undefined) await this.owner.gate;
    this.checkCut(reply.trimmed);
    if (!reply.appended) return this.onGap(reply.last, sent);
    if (again !== undefined) {
      this.again.shift();
      this.counters.again += 1;
    } else if (this.blob !== undefined) this.blob.appended = true;
    if (!this.takeEntries(reply.entries, this.owner.durable(copies))) return;
    this.more = reply.more;
    if (reply.more) return;
    this.freshMs = performance.now();
    // In the log, and not behind this place: an answer was lost, or ids go back.
    if (again === undefined && this.blob?.appended === true) this.lookBack();
    else if (reply.id !== '' && comparePlaces(reply.id, placeBeforeCall) <= 0) this.doubtful = true;
  }

  /** Applies what is new, in order. False: something is missing before it, and is looked for first. */
  private takeEntries(entries: readonly Entry[], durable: boolean): boolean {
    const { replicaId } = this.owner;
    for (const { id, replica, number, blob } of entries) {
      const last = this.applied.get(replica) ?? 0;
      if (number > last + 1 && replica !== replicaId && !this.lookingBack) {
        this.lookBack();
        return false;
      }
      this.pass(id);
      if (number <= last) continue;
      this.note(replica, number);
      if (replica === replicaId) this.settle(number, id, durable);
      else {
        this.sizes.add(id, blob.length);
        this.counters.fromOthers += 1;
        this.owner.apply(blob);
      }
    }
    return true;
  }

  private pass(id: string): void {
    this.place = id;
    if (comparePlaces(id, this.reached) > 0) this.reached = id;
  }

  private note(replica: string, number: number): void {
    this.applied.delete(replica);
    this.applied.set(replica, number);
    if (this.applied.size > REPLICAS_MAX) this.applied.delete(this.applied.keys().next().value!);
  }

  /** Our own blob has its place. */
  private settle(number: number, id: string, durable: boolean): void {
    const { blob } = this;
    if (blob?.number !== number) return;
    this.blob = undefined;
    this.sizes.add(id, blob.bytes.length);
    this.recent.add(blob, performance.now());
    this.counters.blobs += 1;
    this.counters.records += blob.records.length;
    this.owner.done(blob.bytes.length);
    for (const record of blob.records) record.place();
    for (const record of blob.records) record.settle(durable);
  }

  /** The log lacks blobs of ours before this one. */
  private onGap(last: number, { number }: Sent): void {
    this.again = this.recent.after(last, performance.now()).filter(sent => sent.number < number);
    const next = this.again[0] ?? this.blob;
    if (next === undefined || next.number === last + 1) return;
    if (last >= 0) this.counters.lost += next.number - last - 1;
    next.force = true;
  }

  /** A read told how far our blobs are in the log: what is missing goes there again. */
  private checkOwn(last: number): void {
    const { blob } = this;
    if (blob?.appended === true && last < blob.number) blob.appended = false;
    const settled = this.applied.get(this.owner.replicaId) ?? 0;
    if (last < settled && this.again.length === 0 && this.recent.after(last, performance.now()).length > 0) {
      this.onGap(last, { number: settled + 1, bytes: Buffer.alloc(0) });
    }
  }

  /** @param numbers how far the log goes, by replica: asked for when there was doubt */
  private caughtUp(numbers?: ReadonlyMap<string, number>): void {
    this.freshMs = performance.now();
    const lookedBack = this.lookingBack;
    this.lookingBack = false;
    if (lookedBack && this.blob?.appended === true) this.seekOwn(this.blob);
    if (numbers === undefined) return;
    this.doubtful = false;
    const lacks = [...numbers].some(([replica, number]) => number > (this.applied.get(replica) ?? 0));
    if (lacks && !lookedBack) this.lookBack();
  }

  /** The log has our blob, but not in the last half minute: it is in all of the log, or was cut off. */
  private seekOwn(blob: Blob): void {
    if (blob.sought) return this.settle(blob.number, this.reached, this.owner.durable(0));
    blob.sought = true;
    this.place = START;
    this.lookingBack = true;
  }

  private lookBack(): void {
    this.place = placeBefore(this.place, MARGIN_MS);
    this.lookingBack = true;
  }

  private checkCut(trimmed: string): void {
    // The keeper cuts the log off; for the others, too, it is shorter then.
    if (trimmed !== this.cutAt) this.sizes.trimmed(trimmed);
    this.cutAt = trimmed;
    if (this.reached !== START && comparePlaces(trimmed, this.reached) > 0) {
      this.owner.behind(this.shard, this.reached, trimmed);
    }
  }
}
