// The log's records. Pure.
//
//     0        4        8    9
//     | length | crc32  |type| payload ... |      length counts type and payload; both little-endian
//
// A record that is cut short or altered does not match its checksum, and reading stops there: what
// lies behind it cannot be told apart from noise. Payloads are JSON, but batches go as they came.

import { crc32 } from 'node:zlib';

export const HEADER_BYTES = 8;

/** A record longer than this is corruption, not data: one message is far smaller. */
export const RECORD_BYTES_MAX = 64 * 1024 * 1024;

export const RECORD = {
  LIFE: 1,
  COUNT: 2,
  SINCE: 3,
  FLOW: 4,
  POSITION: 5,
  BATCH: 6,
  ANNOUNCE: 7,
  FINISH: 8,
  END: 9,
  TOTALS: 10,
  ROLLBACK: 11,
  PLACE: 12,
} as const;

export interface Frame {
  readonly type: number;
  /** A view into the file's bytes. */
  readonly payload: Buffer;
}

export function encodeFrame(type: number, payload: Buffer): Buffer {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + 1 + payload.length);
  payload.copy(frame, HEADER_BYTES + 1);
  return sealed(frame, type);
}

/** Writes what stands in front of the payload. */
function sealed(frame: Buffer, type: number): Buffer {
  frame.writeUInt32LE(frame.length - HEADER_BYTES, 0);
  frame[HEADER_BYTES] = type;
  frame.writeUInt32LE(crc32(frame.subarray(HEADER_BYTES)), 4);
  return frame;
}

export const encodeJson = (type: number, value: unknown): Buffer =>
  encodeFrame(type, Buffer.from(JSON.stringify(value)));

/**
 * Reads the records of one file, oldest first, until its end or the first bad one.
 *
 * @returns the offset behind the last good record: the file's length when all of it is good
 */
export function readFrames(bytes: Buffer, visit: (frame: Frame) => void): number {
  let at = 0;
  while (bytes.length - at > HEADER_BYTES) {
    const length = bytes.readUInt32LE(at);
    const start = at + HEADER_BYTES;
    if (length < 1 || length > RECORD_BYTES_MAX || length > bytes.length - start) break;
    const body = bytes.subarray(start, start + length);
    if (crc32(body) !== bytes.readUInt32LE(at + 4)) break;
    visit({ type: body[0]!, payload: body.subarray(1) });
    at = start + length;
  }
  return at;
}

export const parseJson = <T>(frame: Frame): T => JSON.parse(frame.payload.toString('utf8')) as T;

/** Who sent a batch, and when: the JSON in front of its bytes. */
export interface BatchHeader {
  readonly cuid: string;
  readonly proxyId: string;
  readonly receivedUs: number;
}

/** Copies the batch once: most of what a collector stores goes through here. */
export function encodeBatch(header: BatchHeader, batch: Buffer): Buffer {
  const json = Buffer.from(JSON.stringify(header));
  const start = HEADER_BYTES + 1;
  const frame = Buffer.allocUnsafe(start + 2 + json.length + batch.length);
  frame.writeUInt16LE(json.length, start);
  json.copy(frame, start + 2);
  batch.copy(frame, start + 2 + json.length);
  return sealed(frame, RECORD.BATCH);
}

export function parseBatch(frame: Frame): { header: BatchHeader; batch: Buffer } {
  const length = frame.payload.readUInt16LE(0);
  const header = JSON.parse(frame.payload.toString('utf8', 2, 2 + length)) as BatchHeader;
  return { header, batch: frame.payload.subarray(2 + length) };
}
