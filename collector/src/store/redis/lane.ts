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

import { comparePlaces, placeBefore, placeMs, START } from './place.js';
import { pauseMs } from './connect.js';
import { Recent, type Sent } from './recent.js';
import {
  appendReply,
  readReply,
  type AppendReply,
  type Entry,
  type Known,
  type ReadReply,
  type Scripted,
} from './scripts.js';
import type { ShardPlace } from './snapshots.js';
import { Signal, sleep, turn } from './signal.js';
import { LogSizes } from './trim.js';

/** A record on its way into the log. */
export interface Pending {
  readonly frame: Buffer;
  /** It has its place: everything before it in the log has been applied. Must not throw. */
  place(): void;
  settle(durable: boolean): void;
  fail(error: Error): void;
}

/** What the lanes of one store share. */
export interface LaneOwner {
  readonly client: Scripted;
  readonly replicaId: string;
  /** Copies that have to answer before a record counts as durable; 0 = none is asked. */
  readonly waitFor: number;
  /** This Redis keeps what it is told on disk. */
  readonly persists: boolean;
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

/** A blob takes no more records from this size on; one record may be longer. */
export const BLOB_BYTES_MAX = 256 * 1024;

/** Without any word, the log is read this often, ms. */
export const POLL_MS = 250;

/** After a fault the log is read again from this long before the last place, ms. */
export const MARGIN_MS = 30_000;

/** The longest pause after faults, ms: the end of a failover should not be waited out. */
const RETRY_MS_MAX = 300;

/** How long a copy may take to confirm a blob, ms; below the end of a command. */
const WAIT_MS = 500;

/** Replicas whose numbers are remembered, at most; those unheard for longest go first. */
export const REPLICAS_MAX = 1024;

/** Replicas named in a read after a fault, whose blobs need not be sent again: those heard last. */
const KNOWN_MAX = 32;

interface Blob extends Sent {
  readonly records: readonly Pending[];
  /** It is in the log, further on than this replica has read. */
  appended: boolean;
  /** It is looked for in the whole log. */
  sought: boolean;
}

export class Lane {
  /** Replica -> number of its last blob that is applied; those heard last come last. */
  readonly applied = new Map<string, number>();
  readonly sizes = new LogSizes();
  readonly recent = new Recent();
  place = START;
  /** The furthest place that was ever read. */
  reached = START;
  /** When the log was last read to its end, by the monotonic clock, ms. */
  freshMs = performance.now();
  waitingBytes = 0;
  counters = { blobs: 0, records: 0, fromOthers: 0, again: 0, lost: 0 };

  private waiting: Pending[] = [];
  private blob: Blob | undefined;
  private again: Sent[] = [];
  private lastNumber = 0;
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
    private readonly log: string,
    private readonly seen: string,
    private readonly owner: LaneOwner,
  ) {}

  put(record: Pending): void {
    this.waiting.push(record);
    this.waitingBytes += record.frame.length;
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
    return this.waiting.length === 0 && this.blob === undefined;
  }

  /** Ends after the command under way; what still waits fails. */
  async stop(error: Error): Promise<void> {
    this.stopping = true;
    this.signal.notify();
    await this.running;
    const left = [...(this.blob?.records ?? []), ...this.waiting];
    this.waiting = [];
    this.blob = undefined;
    for (const record of left) record.fail(error);
  }

  /** For the start: the next entries of the log, which the caller applies. */
  async page(): Promise<Pick<ReadReply, 'entries' | 'more'>> {
    const { client, replicaId } = this.owner;
    const { entries, more } = readReply(await client.mpReadBuffer(this.log, this.seen, replicaId, this.place, '0'));
    for (const { id, replica, number, blob } of entries) {
      this.pass(id);
      this.note(replica, number);
      this.sizes.add(id, blob.length);
    }
    if (!more) this.freshMs = performance.now();
    return { entries, more };
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
    const { client, replicaId } = this.owner;
    const known = this.lookingBack ? [...this.applied].slice(-KNOWN_MAX) : [];
    const asked = this.doubtful;
    const reply = readReply(
      await client.mpReadBuffer(
        this.log,
        this.seen,
        replicaId,
        this.place,
        asked ? '1' : '0',
        ...flat(replicaId, known),
      ),
    );
    if (this.owner.gate !== undefined) await this.owner.gate;
    this.checkCut(reply.trimmed);
    // The log is shorter than what was read of it: what comes next may have any place behind its end.
    if (comparePlaces(reply.newest, this.place) < 0) {
      this.place = reply.newest;
      this.doubtful = true;
    }
    if (!this.takeEntries(reply.entries, false)) return;
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
    return this.blob === undefined ? this.waiting.length > 0 : !this.blob.appended;
  }

  private async append(): Promise<void> {
    // What arrives in this turn of the event loop goes along.
    await turn();
    const again = this.again[0];
    const sent = again ?? (this.blob ??= this.nextBlob());
    const placeBeforeCall = this.place;
    const { reply, confirmed } = await this.send(sent);
    if (this.owner.gate !== undefined) await this.owner.gate;
    this.checkCut(reply.trimmed);
    if (!reply.appended) return this.onGap(reply.last, sent);
    if (again !== undefined) {
      this.again.shift();
      this.counters.again += 1;
    } else if (this.blob !== undefined) this.blob.appended = true;
    if (!this.takeEntries(reply.entries, confirmed)) return;
    this.more = reply.more;
    if (reply.more) return;
    this.freshMs = performance.now();
    // In the log, and not behind this place: an answer was lost, or ids go back.
    if (again === undefined && this.blob?.appended === true) this.lookBack();
    else if (reply.id !== '' && comparePlaces(reply.id, placeBeforeCall) <= 0) this.doubtful = true;
  }

  private async send(sent: Sent): Promise<{ reply: AppendReply; confirmed: boolean }> {
    const { client, replicaId, waitFor, persists } = this.owner;
    const { number, bytes, force } = sent;
    const known = flat(replicaId, []);
    const args = [this.log, this.seen, replicaId, number, bytes, this.place, force === true ? '1' : '0', ...known];
    if (waitFor === 0) return { reply: appendReply(await client.mpAppendBuffer(...args)), confirmed: persists };
    // On one connection, as WAIT speaks of what its own connection wrote.
    const pipeline = client.pipeline() as unknown as Pick<Scripted, 'mpAppendBuffer'> &
      ReturnType<Scripted['pipeline']>;
    void pipeline.mpAppendBuffer(...args);
    pipeline.wait(waitFor, WAIT_MS);
    const [appended, waited] = (await pipeline.exec()) ?? [];
    if (appended === undefined || appended[0] !== null) throw appended?.[0] ?? new Error('Connection is closed.');
    return { reply: appendReply(appended[1] as unknown[]), confirmed: Number(waited?.[1] ?? 0) >= waitFor };
  }

  private nextBlob(): Blob {
    let bytes = 0;
    let count = 0;
    while (
      count < this.waiting.length &&
      (count === 0 || bytes + this.waiting[count]!.frame.length <= BLOB_BYTES_MAX)
    ) {
      bytes += this.waiting[count]!.frame.length;
      count += 1;
    }
    const records = this.waiting.splice(0, count);
    this.lastNumber += 1;
    const frames = records.map(({ frame }) => frame);
    return {
      number: this.lastNumber,
      bytes: frames.length === 1 ? frames[0]! : Buffer.concat(frames, bytes),
      records,
      appended: false,
      sought: false,
    };
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
    this.waitingBytes -= blob.bytes.length;
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
    if (blob.sought) return this.settle(blob.number, this.reached, false);
    blob.sought = true;
    this.place = START;
    this.lookingBack = true;
  }

  private lookBack(): void {
    this.place = placeBefore(this.place, MARGIN_MS);
    this.lookingBack = true;
  }

  private checkCut(trimmed: string): void {
    if (this.reached !== START && comparePlaces(trimmed, this.reached) > 0 && placeMs(trimmed) > 0) {
      this.owner.behind(this.shard, this.reached, trimmed);
    }
  }
}

/** Our own blobs never come with their bytes. */
const flat = (replicaId: string, known: Known): (string | number)[] => [
  ...known.filter(([replica]) => replica !== replicaId).flat(),
  replicaId,
  Number.MAX_SAFE_INTEGER,
];
