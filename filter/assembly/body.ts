// Bodies: only to tell a gRPC stream from a unary call. Content is not looked at, but the five bytes
// in front of each gRPC message: a second message in one direction makes it a stream.
import * as host from './host';
import * as status from './status';
import { B_EVENT, B_STREAM, F_GRPC, F_STREAM, find, Frames, Stream } from './streams';

const FRAME_HEADER: u32 = 5; // flags u8, length u32 big-endian

export function body(context: u32, size: u32, response: bool): void {
  if (size == 0) return;
  const at = find(context);
  if (at == 0) return;
  const s = changetype<Stream>(at);
  if ((s.flags & (F_GRPC | F_STREAM)) != F_GRPC) return;
  const frames = changetype<Frames>(at + (response ? offsetof<Stream>('responseFrames') : offsetof<Stream>('requestFrames')));
  if (!walk(frames, size, response)) return;
  s.flags |= F_STREAM;
  if ((s.bits & (B_EVENT | B_STREAM)) == B_EVENT) {
    s.bits |= B_STREAM;
    status.count(0, 0, 1);
  }
}

/** Goes over the frames of one piece of body, wherever it was cut. True when a second message began. */
function walk(frames: Frames, size: u32, response: bool): bool {
  let offset: u32 = 0;
  while (offset < size) {
    const left = size - offset;
    if (frames.skip > 0) {
      const n = frames.skip < left ? frames.skip : left;
      frames.skip -= n;
      offset += n;
      continue;
    }
    if (frames.messages > 0) return true; // one message is over, and there is more
    const missing = FRAME_HEADER - frames.have;
    const n = missing < left ? missing : left;
    const m = host.mark();
    const fine = host.getBody(response, offset, n) == host.OK && host.dataSize >= n;
    for (let i: u32 = 0; fine && i < n; i++) frames.header = (frames.header << 8) | (load<u8>(host.dataPtr + i) as u64);
    host.release(m);
    if (!fine) return false;
    frames.have += n;
    offset += n;
    if (frames.have < FRAME_HEADER) return false;
    frames.skip = frames.header as u32; // its low 32 bits are the length
    frames.have = 0;
    frames.header = 0;
    frames.messages++;
  }
  return false;
}
