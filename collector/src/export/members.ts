// A gzip file that a crash cannot spoil: one member after another, each made durable before the next begins. Pure.
//
// Readers of gzip take members one after another as if they were one. Each of ours says in its header (RFC 1952, extra
// field `MP`) how long it is, so that after a crash the good ones are found without unpacking: what does not fit, or is
// not whole, is the torn tail.
//
//     0     3       4       8     9    10      12   14    16       20
//     | ID  | flags | mtime | xfl | os | xlen  | MP | len | length | deflated ... | crc32 | size |

import { crc32, deflateRawSync, inflateRawSync } from 'node:zlib';

const MAGIC = Buffer.from([0x1f, 0x8b, 8]);
const FLAG_EXTRA = 4;
const EXTRA_BYTES = 8;
const EXTRA_ID = 'MP';
export const HEADER_BYTES = 20;
const TRAILER_BYTES = 8;

/** A member's content, at most: what is longer is damage. */
export const CONTENT_BYTES_MAX = 64 * 1024 * 1024;

/** Fast: a level more costs more CPU than it saves disk. */
const LEVEL = 1;

export function memberOf(content: Buffer): Buffer {
  const deflated = deflateRawSync(content, { level: LEVEL });
  const member = Buffer.alloc(HEADER_BYTES + deflated.length + TRAILER_BYTES);
  MAGIC.copy(member);
  member[3] = FLAG_EXTRA;
  member[9] = 255; // unknown system
  member.writeUInt16LE(EXTRA_BYTES, 10);
  member.write(EXTRA_ID, 12, 'latin1');
  member.writeUInt16LE(4, 14);
  member.writeUInt32LE(member.length, 16);
  deflated.copy(member, HEADER_BYTES);
  member.writeUInt32LE(crc32(content), member.length - 8);
  member.writeUInt32LE(content.length, member.length - 4);
  return member;
}

/** Length of the member whose header this is; undefined when it is none of ours. */
export function lengthOf(header: Buffer): number | undefined {
  const ours =
    header.length >= HEADER_BYTES &&
    header.subarray(0, 3).equals(MAGIC) &&
    header[3] === FLAG_EXTRA &&
    header.readUInt16LE(10) === EXTRA_BYTES &&
    header.toString('latin1', 12, 14) === EXTRA_ID;
  if (!ours) return undefined;
  const length = header.readUInt32LE(16);
  return length < HEADER_BYTES + TRAILER_BYTES ? undefined : length;
}

/** Whether a member can be unpacked to what was put in. */
export function isWhole(member: Buffer): boolean {
  if (lengthOf(member) !== member.length) return false;
  const size = member.readUInt32LE(member.length - 4);
  if (size > CONTENT_BYTES_MAX) return false;
  try {
    const content = inflateRawSync(member.subarray(HEADER_BYTES, -TRAILER_BYTES), { maxOutputLength: size || 1 });
    return content.length === size && crc32(content) === member.readUInt32LE(member.length - 8);
  } catch {
    return false;
  }
}
