/** The guest's linear memory. Every access is checked; a failed one is a status for the guest, not an error here. */

export class GuestMemory {
  private bytes = Buffer.alloc(0);

  constructor(private readonly memory: WebAssembly.Memory) {}

  get byteLength(): number {
    return this.memory.buffer.byteLength;
  }

  /** A view that is valid until the guest runs again; `undefined` outside memory. */
  view(at: number, length: number): Buffer | undefined {
    const bytes = this.fresh();
    const start = at >>> 0;
    const end = start + (length >>> 0);
    return end <= bytes.length ? bytes.subarray(start, end) : undefined;
  }

  /** A copy that outlives the call. */
  copy(at: number, length: number): Buffer | undefined {
    const view = this.view(at, length);
    return view === undefined ? undefined : Buffer.from(view);
  }

  text(at: number, length: number): string | undefined {
    return this.view(at, length)?.toString('latin1');
  }

  setU32(at: number, value: number): boolean {
    const view = this.view(at, 4);
    view?.writeUInt32LE(value >>> 0);
    return view !== undefined;
  }

  setU64(at: number, value: bigint): boolean {
    const view = this.view(at, 8);
    view?.writeBigUInt64LE(BigInt.asUintN(64, value));
    return view !== undefined;
  }

  set(at: number, value: Uint8Array): boolean {
    const view = this.view(at, value.length);
    view?.set(value);
    return view !== undefined;
  }

  /** Growing memory detaches the old buffer. */
  private fresh(): Buffer {
    if (this.bytes.buffer !== this.memory.buffer) this.bytes = Buffer.from(this.memory.buffer);
    return this.bytes;
  }
}
