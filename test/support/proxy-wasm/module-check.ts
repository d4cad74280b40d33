/**
 * Reads what a wasm module imports and exports, with types, and says what Envoy would refuse.
 *
 * Node's `WebAssembly.Module.imports` gives names without types, and JavaScript links a function of any
 * arity; Envoy does not. So the type, import, function, memory and export sections are read here.
 */
import { ABI_MARKERS, CALLBACKS, ENV_IMPORTS, WASI_IMPORTS, WASI_MODULES } from './abi.js';

export interface ModuleShape {
  /** `module.name` -> signature, functions only. */
  readonly imports: ReadonlyMap<string, string>;
  /** Imports that are no functions. */
  readonly otherImports: readonly string[];
  /** Exported functions -> signature. */
  readonly functions: ReadonlyMap<string, string>;
  /** Names of all exports. */
  readonly exports: readonly string[];
  /** Pages of 64 KiB, of the module's own memory. */
  readonly memoryPages: { readonly min: number; readonly max: number | undefined } | undefined;
  readonly hasStartSection: boolean;
  readonly byteLength: number;
}

const SECTION = { type: 1, import: 2, function: 3, memory: 5, export: 7, start: 8 } as const;
const KIND = { function: 0, table: 1, memory: 2, global: 3 } as const;
const VALUE_TYPES: Readonly<Record<number, string>> = { 0x7f: 'i', 0x7e: 'I', 0x7d: 'f', 0x7c: 'F' };
const HEADER_BYTES = 8;

class Reader {
  constructor(
    private readonly bytes: Uint8Array,
    public at: number,
    readonly end: number,
  ) {}

  byte(): number {
    const value = this.bytes[this.at++];
    if (value === undefined || this.at > this.end) throw new RangeError('truncated wasm module');
    return value;
  }

  u32(): number {
    let result = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte();
      result += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return result;
    }
    throw new RangeError('LEB128 too long');
  }

  name(): string {
    const length = this.u32();
    const start = this.at;
    this.at += length;
    return Buffer.from(this.bytes.subarray(start, this.at)).toString('utf8');
  }

  valueTypes(): string {
    return Array.from({ length: this.u32() }, () => VALUE_TYPES[this.byte()] ?? '?').join('');
  }

  limits(): { min: number; max: number | undefined } {
    const bounded = (this.byte() & 1) === 1;
    const min = this.u32();
    return { min, max: bounded ? this.u32() : undefined };
  }

  sub(length: number): Reader {
    const reader = new Reader(this.bytes, this.at, this.at + length);
    this.at += length;
    return reader;
  }
}

function sections(bytes: Uint8Array): Map<number, Reader> {
  const found = new Map<number, Reader>();
  const reader = new Reader(bytes, HEADER_BYTES, bytes.length);
  while (reader.at < bytes.length) {
    const id = reader.byte();
    found.set(id, reader.sub(reader.u32()));
  }
  return found;
}

function list<T>(reader: Reader | undefined, item: (reader: Reader) => T): T[] {
  return reader === undefined ? [] : Array.from({ length: reader.u32() }, () => item(reader));
}

function readType(reader: Reader): string {
  reader.byte(); // 0x60: a function type
  const parameters = reader.valueTypes();
  return `${parameters}:${reader.valueTypes()}`;
}

interface Import {
  readonly name: string;
  readonly kind: number;
  readonly type: number;
}

function readImport(reader: Reader): Import {
  const name = `${reader.name()}.${reader.name()}`;
  const kind = reader.byte();
  let type = -1;
  if (kind === KIND.function) type = reader.u32();
  else if (kind === KIND.memory) reader.limits();
  else if (kind === KIND.table) {
    reader.byte();
    reader.limits();
  } else {
    reader.byte();
    reader.byte();
  }
  return { name, kind, type };
}

export function readModule(bytes: Uint8Array): ModuleShape {
  const section = sections(bytes);
  const types = list(section.get(SECTION.type), readType);
  const imports = list(section.get(SECTION.import), readImport);
  const functionImports = imports.filter(entry => entry.kind === KIND.function);
  const own = list(section.get(SECTION.function), reader => reader.u32());
  const typeOf = [...functionImports.map(entry => entry.type), ...own];
  const exported = list(section.get(SECTION.export), reader => {
    const name = reader.name();
    return { name, kind: reader.byte(), index: reader.u32() };
  });
  return {
    imports: new Map(functionImports.map(entry => [entry.name, types[entry.type] ?? '?'])),
    otherImports: imports.filter(entry => entry.kind !== KIND.function).map(entry => entry.name),
    functions: new Map(
      exported.filter(e => e.kind === KIND.function).map(e => [e.name, types[typeOf[e.index] ?? -1] ?? '?']),
    ),
    exports: exported.map(entry => entry.name),
    memoryPages: list(section.get(SECTION.memory), reader => reader.limits())[0],
    hasStartSection: section.has(SECTION.start),
    byteLength: bytes.length,
  };
}

function expectedImport(name: string): string | undefined {
  const dot = name.indexOf('.');
  const module = name.slice(0, dot);
  const field = name.slice(dot + 1);
  if (module === 'env') return Object.hasOwn(ENV_IMPORTS, field) ? ENV_IMPORTS[field] : undefined;
  if (WASI_MODULES.includes(module)) return Object.hasOwn(WASI_IMPORTS, field) ? WASI_IMPORTS[field] : undefined;
  return undefined;
}

/** @returns one sentence for each reason why Envoy would not load the module, or would load it and suffer. */
export function moduleProblems(shape: ModuleShape): string[] {
  const problems: string[] = [];
  for (const [name, signature] of shape.imports) {
    const expected = expectedImport(name);
    if (expected === undefined) problems.push(`import ${name} does not exist in the host`);
    else if (expected !== signature) problems.push(`import ${name} has type ${signature}, the host's is ${expected}`);
  }
  for (const name of shape.otherImports) problems.push(`import ${name} is no function`);
  for (const [name, expected] of Object.entries(CALLBACKS)) {
    const signature = shape.functions.get(name);
    if (signature !== undefined && signature !== expected) {
      problems.push(`export ${name} has type ${signature}, the host calls ${expected}`);
    }
  }
  const markers = ABI_MARKERS.filter(name => shape.functions.has(name));
  if (markers.length !== 1) problems.push(`exports ${String(markers.length)} ABI markers, must be one`);
  if (!shape.exports.includes('memory')) problems.push('memory is not exported');
  if (!shape.functions.has('malloc') && !shape.functions.has('proxy_on_memory_allocate')) {
    problems.push('exports neither malloc nor proxy_on_memory_allocate');
  }
  if (!shape.functions.has('_initialize') && !shape.functions.has('_start')) {
    problems.push('exports neither _initialize nor _start');
  }
  if (shape.hasStartSection) problems.push('has a start section, which runs before any context exists');
  return problems;
}

/** Imports that are not on `allowed` (`module.name`). */
export function importsOutside(shape: ModuleShape, allowed: readonly string[]): string[] {
  return [...shape.imports.keys(), ...shape.otherImports].filter(name => !allowed.includes(name));
}
