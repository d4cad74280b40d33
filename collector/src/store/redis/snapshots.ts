// Snapshots in Redis: the frames of the snapshot on disk, with the place in each shard, in chunks of one hash.
//
// The pointer is written last, by a script that checks that the writer is still the keeper. It names the
// snapshot before as well: that one is there until the next is complete, so whoever began to read it can
// end, and the log is cut off behind that one only.

import { encodeJson, parseJson, readFrames, RECORD, type Frame } from '../frames.js';
import type { StoreLog } from '../store.js';
import type { Keys } from './keys.js';
import type { Scripted } from './scripts.js';

/** Bytes of one chunk. */
export const CHUNK_BYTES = 1024 * 1024;

/** A snapshot that is not completed is gone after this long, s. */
const DRAFT_S = 3600;

/** How often a writer prolongs its lease, ms. */
const RENEW_MS = 2000;

/** How often a reader begins again when a snapshot is replaced while it reads. */
const TRIES = 3;

/** One shard's part of a snapshot. */
export interface ShardPlace {
  readonly shard: number;
  readonly place: string;
  /** Number of the last blob of each replica that the snapshot amounts to. */
  readonly replicas: readonly (readonly [string, number])[];
}

interface Written {
  readonly number: number;
  readonly chunks: number;
  /** By shard. */
  readonly places: readonly string[];
}

export interface Pointer extends Written {
  /** When it was taken, ms since 1970, by its writer's clock. */
  readonly atMs: number;
  readonly before?: Written;
}

export const encodePlace = (place: ShardPlace): Buffer => encodeJson(RECORD.PLACE, place);

export class Snapshots {
  constructor(
    private readonly client: Scripted,
    private readonly keys: Keys,
    private readonly replicaId: string,
    private readonly log: StoreLog,
  ) {}

  /** What the pointer says; undefined = there is none, or none that can be read. */
  async pointer(): Promise<Pointer | undefined> {
    const text = await this.client.get(this.keys.pointer);
    if (text === null) return undefined;
    try {
      const pointer = JSON.parse(text) as Pointer;
      if (Number.isInteger(pointer.number) && Number.isInteger(pointer.chunks)) return pointer;
    } catch {
      // As good as one of another shape.
    }
    this.log.error({ key: this.keys.pointer }, 'the pointer to the snapshot cannot be read; going on without it');
    return undefined;
  }

  /** The newest snapshot that is whole: its frames, and where it stands in each shard. */
  async read(): Promise<{ frames: Frame[]; places: ShardPlace[] } | undefined> {
    for (let i = 0; i < TRIES; i++) {
      const pointer = await this.pointer();
      if (pointer === undefined) return undefined;
      for (const written of [pointer, ...(pointer.before === undefined ? [] : [pointer.before])]) {
        const frames = await this.readOne(written);
        if (frames !== undefined) return { frames, places: placesOf(frames) };
      }
    }
    return undefined;
  }

  /**
   * Writes a snapshot and points to it.
   *
   * @param keeper name of the lease that the writer must have
   * @param renew  prolongs the lease, which a large snapshot outlasts; false = another replica has it
   * @returns the new pointer; undefined = another replica is the keeper by now
   */
  async write(
    frames: readonly Buffer[],
    places: readonly string[],
    keeper: string,
    renew: () => Promise<boolean>,
  ): Promise<Pointer | undefined> {
    const before = await this.pointer();
    const number = (before?.number ?? 0) + 1;
    const key = this.keys.snapshot(number);
    // Of a writer that ended on the way.
    await this.client.unlink(key);
    let chunks = 0;
    let renewedMs = Number.NEGATIVE_INFINITY;
    for (const chunk of chunked(frames)) {
      if (performance.now() - renewedMs >= RENEW_MS) {
        if (!(await renew())) return undefined;
        renewedMs = performance.now();
      }
      await this.client.hset(key, String(chunks), chunk);
      if (chunks === 0) await this.client.expire(key, DRAFT_S);
      chunks += 1;
    }
    const pointer: Pointer = { number, chunks, places, atMs: Date.now(), ...(before ? { before: brief(before) } : {}) };
    const done = await this.client.mpPublishSnapshot(
      this.keys.lease(keeper),
      this.keys.pointer,
      key,
      this.keys.snapshot(before?.before?.number ?? 0),
      this.replicaId,
      JSON.stringify(pointer),
    );
    return done === 1 ? pointer : undefined;
  }

  private async readOne({ number, chunks }: Written): Promise<Frame[] | undefined> {
    const parts: Buffer[] = [];
    for (let i = 0; i < chunks; i++) {
      const part = await this.client.hgetBuffer(this.keys.snapshot(number), String(i));
      if (part === null) return undefined;
      parts.push(part);
    }
    const bytes = Buffer.concat(parts);
    const frames: Frame[] = [];
    const whole = readFrames(bytes, frame => frames.push(frame)) === bytes.length;
    return whole && frames.at(-1)?.type === RECORD.END ? frames : undefined;
  }
}

const brief = ({ number, chunks, places }: Written): Written => ({ number, chunks, places });

const placesOf = (frames: readonly Frame[]): ShardPlace[] =>
  frames.filter(({ type }) => type === RECORD.PLACE).map(frame => parseJson<ShardPlace>(frame));

/** All bytes in pieces of equal size; a frame may go over several. */
function* chunked(frames: readonly Buffer[]): Iterable<Buffer> {
  let parts: Buffer[] = [];
  let bytes = 0;
  for (let frame of frames) {
    while (bytes + frame.length >= CHUNK_BYTES) {
      const room = CHUNK_BYTES - bytes;
      yield Buffer.concat([...parts, frame.subarray(0, room)]);
      frame = frame.subarray(room);
      parts = [];
      bytes = 0;
    }
    parts.push(frame);
    bytes += frame.length;
  }
  if (bytes > 0) yield Buffer.concat(parts);
}
