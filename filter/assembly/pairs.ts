// A small header map in the proxy's layout (see core/headers.ts), for what the filter sends itself.
import { copy, Text } from './bytes';
import { scratch } from './host';

const PAIRS_MAX: u32 = 8;
const ROWS: usize = memory.data(128, 8); // name, size, value, size

/** One at a time: all share one table. Names and values must stay where they are until `write`. */
@final
export class Pairs {
  ptr: usize = 0;
  private count: u32 = 0;

  add(name: Text, value: usize, size: u32): void {
    if (this.count >= PAIRS_MAX) return;
    const at = ROWS + this.count++ * 16;
    store<u32>(at, name.ptr as u32);
    store<u32>(at, name.size, 4);
    store<u32>(at, value as u32, 8);
    store<u32>(at, size, 12);
  }

  /** Lays the map out at `ptr`, in the arena; its size, or 0 when there is no room. */
  write(): u32 {
    let size: u32 = 4;
    for (let i: u32 = 0; i < this.count; i++) size += 10 + load<u32>(ROWS + i * 16, 4) + load<u32>(ROWS + i * 16, 12);
    this.ptr = scratch(size);
    if (this.ptr == 0) return 0;
    store<u32>(this.ptr, this.count);
    let data = this.ptr + 4 + this.count * 8;
    for (let i: u32 = 0; i < this.count; i++) {
      const at = ROWS + i * 16;
      store<u32>(this.ptr + 4 + i * 8, load<u32>(at, 4));
      store<u32>(this.ptr + 8 + i * 8, load<u32>(at, 12));
      data = copy(data, load<u32>(at), load<u32>(at, 4));
      store<u8>(data++, 0);
      data = copy(data, load<u32>(at, 8), load<u32>(at, 12));
      store<u8>(data++, 0);
    }
    return size;
  }
}
