// Batches on their way to the exports: one frame each, many frames in a chunk that changes hands between threads. Pure.
//
//     0        4       6         14       22      26
//     | length | head | received | offset | rows  | head: JSON ... | batch: as it came ...
//
// `length` counts the whole frame, `head` the JSON; little-endian. Times are us, as doubles.

import { decodeBatch } from '../ingest/decode-report.js';
import type { EventColumns } from '../ingest/columns.js';
import type { Item } from './queue.js';

const HEADER_BYTES = 26;

/** Who the rows are from. */
export interface Origin {
  readonly cuid: string;
  readonly service: string;
  readonly cluster: string;
  readonly network: string;
  readonly node: string;
  readonly slot: string;
  readonly workload: string;
  /** Of its filter. */
  readonly version: string;
}

export interface BatchFrame extends Item {
  readonly head: Buffer;
  readonly batch: Buffer;
  readonly receivedUs: number;
  /** The sender's clock minus the collector's, us. */
  readonly clockOffsetUs: number;
}

/** A batch that was read again, for sinks that write rows. */
export interface Rows {
  readonly origin: Origin;
  /** 16 hex digits of the producer, and the number of the batch: with the row, a name that no other row has. */
  readonly batchId: string;
  readonly columns: EventColumns;
  readonly receivedUs: number;
  readonly clockOffsetUs: number;
}

export const frameBytes = (head: Uint8Array, batch: Uint8Array): number => HEADER_BYTES + head.length + batch.length;

/** Writes one frame at `at`; the caller has made room for `frameBytes`. */
export function writeFrame(
  chunk: Buffer,
  at: number,
  frame: Pick<BatchFrame, 'head' | 'batch' | 'receivedUs' | 'clockOffsetUs' | 'records'>,
): number {
  const { head, batch, receivedUs, clockOffsetUs, records } = frame;
  const length = frameBytes(head, batch);
  chunk.writeUInt32LE(length, at);
  chunk.writeUInt16LE(head.length, at + 4);
  chunk.writeDoubleLE(receivedUs, at + 6);
  chunk.writeDoubleLE(clockOffsetUs, at + 14);
  chunk.writeUInt32LE(records, at + 22);
  chunk.set(head, at + HEADER_BYTES);
  chunk.set(batch, at + HEADER_BYTES + head.length);
  return at + length;
}

/** Frames as views into the chunk. */
export function* readChunk(chunk: Buffer): Generator<BatchFrame> {
  for (let at = 0; at < chunk.length;) {
    const length = chunk.readUInt32LE(at);
    const headEnd = at + HEADER_BYTES + chunk.readUInt16LE(at + 4);
    yield {
      bytes: length,
      records: chunk.readUInt32LE(at + 22),
      head: chunk.subarray(at + HEADER_BYTES, headEnd),
      batch: chunk.subarray(headEnd, at + length),
      receivedUs: chunk.readDoubleLE(at + 6),
      clockOffsetUs: chunk.readDoubleLE(at + 14),
    };
    at += length;
  }
}

/** @returns undefined when the batch has no rows */
export function rowsOf({ head, batch, receivedUs, clockOffsetUs }: BatchFrame): Rows | undefined {
  const { events, producer, seq } = decodeBatch(batch, 'batch');
  if (events === undefined) return undefined;
  const origin = JSON.parse(head.toString('utf8')) as Origin;
  const batchId = `${producer.toString(16).padStart(16, '0')}-${seq}`;
  return { origin, batchId, columns: events, receivedUs, clockOffsetUs };
}
