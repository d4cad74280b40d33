// The two commands of one shard's log: append a blob, and read on.

import type { Sent } from './recent.js';
import { appendReply, readReply, type AppendReply, type Known, type ReadReply, type Scripted } from './scripts.js';

/** How long a copy may take to confirm a blob, ms; below the end of a command. */
const WAIT_MS = 500;

type Pipeline = Pick<Scripted, 'mpAppendBuffer'> & ReturnType<Scripted['pipeline']>;

export class ShardLog {
  /**
   * @param log     key of the stream
   * @param seen    key of the last numbers
   * @param waitFor copies that have to confirm an append; 0 = none is asked
   */
  constructor(
    private readonly client: Scripted,
    private readonly replicaId: string,
    private readonly log: string,
    private readonly seen: string,
    private readonly waitFor: number,
  ) {}

  /**
   * Appends a blob, if it is not there, and reads on behind a place.
   *
   * @returns the reply, and how many copies have confirmed it: Infinity when none was asked
   */
  async append({ number, bytes, force }: Sent, place: string): Promise<{ reply: AppendReply; copies: number }> {
    const flag = force === true ? '1' : '0';
    const args = [this.log, this.seen, this.replicaId, number, bytes, place, flag, ...this.flat([])];
    if (this.waitFor === 0) return { reply: appendReply(await this.client.mpAppendBuffer(...args)), copies: Infinity };
    // On one connection, as WAIT speaks of what its own connection wrote.
    const pipeline = this.client.pipeline() as unknown as Pipeline;
    void pipeline.mpAppendBuffer(...args);
    pipeline.wait(this.waitFor, WAIT_MS);
    const [appended, waited] = (await pipeline.exec()) ?? [];
    if (appended === undefined || appended[0] !== null) throw appended?.[0] ?? new Error('Connection is closed.');
    return { reply: appendReply(appended[1] as unknown[]), copies: Number(waited?.[1] ?? 0) };
  }

  /**
   * @param known   blobs that need not come with their bytes
   * @param numbers whether to bring the last number of each replica as well
   */
  async read(place: string, known: Known = [], numbers = false): Promise<ReadReply> {
    const args = [this.log, this.seen, this.replicaId, place, numbers ? '1' : '0', ...this.flat(known)];
    return readReply(await this.client.mpReadBuffer(...args));
  }

  /** Our own blobs never come with their bytes. */
  private flat(known: Known): (string | number)[] {
    const others = known.filter(([replica]) => replica !== this.replicaId).flat();
    return [...others, this.replicaId, Number.MAX_SAFE_INTEGER];
  }
}
