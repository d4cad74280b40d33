// Bodies: only to tell a gRPC stream from a unary call. Content is not looked at.
import * as host from './host';
import * as status from './status';
import { B_EVENT, B_STREAM, F_GRPC, F_STREAM, find, Stream } from './streams';

export function body(context: u32, size: u32, response: bool): void {
  if (size == 0) return;
  const at = find(context);
  if (at == 0) return;
  const s = changetype<Stream>(at);
  if ((s.flags & (F_GRPC | F_STREAM)) != F_GRPC) return;
  let skip = response ? s.responseSkip : s.requestSkip;
  let messages = response ? s.responseMessages : s.requestMessages;
  let offset: u32 = 0;
  // Walks frame headers: 1 byte flags, 4 bytes length.
  while (offset < size) {
    if (skip >= size - offset) {
      skip -= size - offset;
      break;
    }
    offset += skip;
    skip = 0;
    messages++;
    if (messages > 1) break;
    const m = host.mark();
    if (size - offset < 5 || host.getBody(response, offset, 5) != host.OK || host.dataSize < 5) {
      // A header split between two buffers: what follows cannot be told apart, so take it as one message.
      host.release(m);
      skip = 0x7fffffff;
      break;
    }
    skip = bswap<u32>(load<u32>(host.dataPtr, 1)) + 5;
    host.release(m);
  }
  if (response) {
    s.responseSkip = skip;
    s.responseMessages = messages;
  } else {
    s.requestSkip = skip;
    s.requestMessages = messages;
  }
  if (messages > 1) {
    s.flags |= F_STREAM;
    if ((s.bits & B_EVENT) != 0 && (s.bits & B_STREAM) == 0) {
      s.bits |= B_STREAM;
      status.count(0, 0, 1);
    }
  }
}
