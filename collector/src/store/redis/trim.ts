// How long a shard's log is, and where it may be cut off. Pure.

import { comparePlaces, placeMs } from './place.js';

/** A mark is made every so many bytes. */
const MARK_BYTES = 256 * 1024;

/** Marks kept, at most; past that every other one goes. */
const MARKS_MAX = 4096;

interface Mark {
  readonly id: string;
  /** Bytes of all blobs up to and with this one. */
  readonly total: number;
}

export interface TrimBounds {
  /** Everything before is covered by snapshots. */
  readonly covered: string;
  /** Blobs older than this (ms since 1970, by the log's clock) are not needed any more. */
  readonly oldestMs: number;
  readonly bytesMax: number;
}

/** What a reader noted of the blobs it saw, so that a place can be found by bytes. */
export class LogSizes {
  private marks: Mark[] = [];
  private cut = 0;
  total = 0;

  /** Bytes that the log holds, as far as this reader has seen. */
  get bytes(): number {
    return this.total - this.cut;
  }

  add(id: string, bytes: number): void {
    this.total += bytes;
    if (this.total - (this.marks.at(-1)?.total ?? 0) < MARK_BYTES) return;
    this.marks.push({ id, total: this.total });
    if (this.marks.length > MARKS_MAX) this.marks = this.marks.filter((_, i) => i % 2 === 1);
  }

  /** The first id to keep; undefined = nothing can go. */
  trimPoint({ covered, oldestMs, bytesMax }: TrimBounds): string | undefined {
    const goes = this.marks.filter(
      ({ id, total }) => comparePlaces(id, covered) <= 0 && (placeMs(id) < oldestMs || this.total - total >= bytesMax),
    );
    return goes.at(-1)?.id;
  }

  /** The log now begins at this id. */
  trimmed(id: string): void {
    const before = this.marks.filter(mark => comparePlaces(mark.id, id) <= 0);
    this.cut = before.at(-1)?.total ?? this.cut;
    this.marks = this.marks.filter(mark => comparePlaces(mark.id, id) > 0);
  }
}
