// What the filter says of a pluginConfig: asked of the module itself, so that the sentence is the same here and in a
// proxy's log. It gets a proxy that has a configuration, a clock and a log, and nothing else.

const NOT_FOUND = 1;
const OK = 0;
const PLUGIN_CONFIGURATION = 7;
const ROOT_CONTEXT = 1;
const LOG_PREFIX = 'meshpulse: ';

interface Exports {
  readonly memory: WebAssembly.Memory;
  readonly proxy_on_memory_allocate: (size: number) => number;
  readonly proxy_on_context_create: (context: number, parent: number) => void;
  readonly proxy_on_vm_start: (context: number, size: number) => number;
  readonly proxy_on_configure: (context: number, size: number) => number;
  readonly _initialize: () => void;
}

/**
 * @param text pluginConfig as JSON
 * @returns a sentence for each fault; none when there is none
 */
export function filterFaults(module: WebAssembly.Module, text: string): string[] {
  const bytes = Buffer.from(text);
  const faults: string[] = [];
  const view = (): DataView => new DataView(exports.memory.buffer);
  const hand = (data: Buffer, pointerAt: number, sizeAt: number): number => {
    const at = exports.proxy_on_memory_allocate(data.length);
    if (at === 0) return NOT_FOUND;
    data.copy(Buffer.from(exports.memory.buffer), at);
    view().setUint32(pointerAt, at, true);
    view().setUint32(sizeAt, data.length, true);
    return OK;
  };
  const calls: Record<string, (...args: number[]) => number> = {
    proxy_log: (_level = 0, at = 0, size = 0) => {
      const line = Buffer.from(exports.memory.buffer, at, size).toString();
      faults.push(line.startsWith(LOG_PREFIX) ? line.slice(LOG_PREFIX.length) : line);
      return OK;
    },
    proxy_get_buffer_bytes: (type = 0, start = 0, size = 0, pointerAt = 0, sizeAt = 0) =>
      type === PLUGIN_CONFIGURATION ? hand(bytes.subarray(start, start + size), pointerAt, sizeAt) : NOT_FOUND,
    proxy_set_tick_period_milliseconds: () => OK,
    proxy_set_shared_data: () => OK,
    random_get: () => OK,
  };
  const clock = (_id: number, _precision: bigint, at: number): number => {
    view().setBigUint64(at, BigInt(Date.now()) * 1_000_000n, true);
    return OK;
  };
  const imports: Record<string, Record<string, unknown>> = {};
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    (imports[from] ??= {})[name] = name === 'clock_time_get' ? clock : (calls[name] ?? (() => NOT_FOUND));
  }
  const exports = new WebAssembly.Instance(module, imports as WebAssembly.Imports).exports as unknown as Exports;
  exports._initialize();
  exports.proxy_on_context_create(ROOT_CONTEXT, 0);
  exports.proxy_on_vm_start(ROOT_CONTEXT, 0);
  exports.proxy_on_configure(ROOT_CONTEXT, bytes.length);
  return faults;
}
