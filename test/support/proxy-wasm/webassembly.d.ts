/** The part of the WebAssembly JavaScript API that the host uses; the project's `lib` has no browser types. */
declare namespace WebAssembly {
  class Module {
    constructor(bytes: Uint8Array);
    static imports(module: Module): { module: string; name: string; kind: string }[];
    private readonly brand: never;
  }
  class Memory {
    readonly buffer: ArrayBuffer;
    constructor(descriptor: { initial: number; maximum?: number });
  }
  class Instance {
    readonly exports: Readonly<Record<string, unknown>>;
    constructor(module: Module, imports: Imports);
  }
  class RuntimeError extends Error {}
  type Imports = Record<string, Record<string, (...args: number[]) => number | undefined>>;
}
