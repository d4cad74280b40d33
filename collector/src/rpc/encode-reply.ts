// Most replies say no more than what is stored. They are written by hand: generated code turns the texts of
// their 64-bit numbers into objects on the way, for every report that comes.

import type { Reply } from '../ingest/ingest.js';

/** Bytes of an Ack at most: a tag and nine bytes, a tag and ten, a tag and one; and those before it. */
const ACK_BYTES = 9 + 11 + 2;
const ACK_HEAD_BYTES = 2;
const TIMES_BYTES = 2 * 9;

/** Field numbers and wire types of ReportReply and Ack. */
const ACKS = 0x0a;
const RECEIVED = 0x21;
const ECHO = 0x29;
const PRODUCER = 0x09;
const SEQ = 0x10;
const DURABLE = 0x18;

/** @param others for replies with more in them */
export function encodeReply(reply: Reply, others: (reply: Reply) => Buffer): Buffer {
  const { acks, directives, hints, receivedUnixUs, echoSentUnixUs } = reply;
  if (hints !== undefined || directives !== undefined) return others(reply);
  const bytes = Buffer.allocUnsafe(acks.length * (ACK_HEAD_BYTES + ACK_BYTES) + TIMES_BYTES);
  let at = 0;
  for (const { producer, seq, durable } of acks) {
    const head = at;
    at = fixed64(bytes, at + ACK_HEAD_BYTES, PRODUCER, producer);
    bytes[at++] = SEQ;
    at = varint(bytes, at, Number(seq));
    bytes[at++] = DURABLE;
    bytes[at++] = durable ? 1 : 0;
    bytes[head] = ACKS;
    bytes[head + 1] = at - head - ACK_HEAD_BYTES; // ACK_BYTES at most: one byte
  }
  at = fixed64(bytes, at, RECEIVED, receivedUnixUs);
  at = fixed64(bytes, at, ECHO, echoSentUnixUs);
  return bytes.subarray(0, at);
}

/** @param decimal 0 to 2^64-1 */
function fixed64(bytes: Buffer, at: number, tag: number, decimal: string): number {
  bytes[at] = tag;
  return bytes.writeBigUInt64LE(BigInt(decimal), at + 1);
}

/** @param value 0 to 2^53-1 */
function varint(bytes: Buffer, at: number, value: number): number {
  for (; value > 0x7f; value = Math.floor(value / 128)) bytes[at++] = (value % 128) | 0x80;
  bytes[at++] = value;
  return at;
}
