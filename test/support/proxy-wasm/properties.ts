/**
 * Properties (CEL attributes) from a tree of plain values, in the encodings a filter receives.
 *
 * string: its bytes. Integer `number` or `bigint`: i64. Other `number`, or `double(x)`: f64. boolean: one
 * byte. `Date`: i64 nanoseconds since 1970. `Uint8Array`: raw bytes (a serialised message). Plain object,
 * `Map` or array: the pairs format. A function is called for its value. `undefined`: not found.
 */
import { textOf } from './bytes.js';
import { HeaderMap } from './header-map.js';
import { encodePairs, type Pair } from './pairs.js';

export class Double {
  constructor(readonly value: number) {}
}
/** A number that crosses as f64 though it is whole, as numbers of a protobuf Struct do. */
export function double(value: number): Double {
  return new Double(value);
}

/** A protobuf message: fields by name, and its bytes when read as a whole. */
export class Message {
  constructor(
    readonly fields: PropertyTree,
    readonly bytes: Uint8Array = new Uint8Array(0),
  ) {}
}

export type PropertyValue =
  | string
  | number
  | bigint
  | boolean
  | Double
  | Date
  | Uint8Array
  | Message
  | HeaderMap
  | undefined
  | readonly PropertyValue[]
  | (() => PropertyValue)
  | PropertyTree;

export interface PropertyTree {
  readonly [name: string]: PropertyValue;
}

/** A protobuf Struct as the host shows it: every number is an f64. */
export function struct(value: unknown): PropertyValue {
  if (typeof value === 'number') return double(value);
  if (Array.isArray(value)) return value.map(struct);
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, struct(item)]));
  }
  return typeof value === 'string' || typeof value === 'boolean' ? value : undefined;
}

function resolve(value: PropertyValue): PropertyValue {
  return typeof value === 'function' ? resolve(value()) : value;
}

function child(parent: PropertyValue, name: string): PropertyValue {
  if (parent instanceof Message) return resolve(own(parent.fields, name));
  if (parent instanceof HeaderMap) {
    const values = parent.all(name);
    return values.length === 0 ? undefined : values.join(',');
  }
  if (Array.isArray(parent)) return /^\d+$/.test(name) ? resolve(parent[Number(name)] as PropertyValue) : undefined;
  if (isTree(parent)) return resolve(own(parent, name));
  return undefined;
}

function own(tree: PropertyTree, name: string): PropertyValue {
  return Object.hasOwn(tree, name) ? tree[name] : undefined;
}

function isTree(value: PropertyValue): value is PropertyTree {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}

/** @returns the value at `path`, `undefined` when there is none. */
export function findProperty(tree: PropertyTree, path: readonly string[]): PropertyValue {
  let value: PropertyValue = tree;
  for (const part of path) {
    value = child(value, part);
    if (value === undefined) return undefined;
  }
  return value;
}

function int64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, value));
  return bytes;
}

function float64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return bytes;
}

const NS_PER_MS = 1_000_000n;

/** The bytes a filter gets; `undefined` = not found. Strings are taken as byte strings. */
export function encodeProperty(value: PropertyValue): Buffer | undefined {
  const plain = resolve(value);
  switch (typeof plain) {
    case 'undefined':
      return undefined;
    case 'string':
      return Buffer.from(plain, 'latin1');
    case 'boolean':
      return Buffer.from([plain ? 1 : 0]);
    case 'bigint':
      return int64(plain);
    case 'number':
      return Number.isSafeInteger(plain) ? int64(BigInt(plain)) : float64(plain);
    default:
      return encodeObject(plain);
  }
}

function encodeObject(value: PropertyValue): Buffer {
  if (value instanceof Double) return float64(value.value);
  if (value instanceof Date) return int64(BigInt(value.getTime()) * NS_PER_MS);
  if (value instanceof Uint8Array) return Buffer.from(value);
  if (value instanceof Message) return Buffer.from(value.bytes);
  if (value instanceof HeaderMap) return encodePairs(value.pairs());
  if (Array.isArray(value)) {
    const items = value as readonly PropertyValue[];
    return encodePairs(items.map(item => [textOf(encodeProperty(item) ?? Buffer.alloc(0)), '']));
  }
  const pairs: Pair[] = [];
  for (const [name, item] of Object.entries(value as PropertyTree)) {
    const bytes = encodeProperty(item);
    if (bytes !== undefined) pairs.push([name, textOf(bytes)]);
  }
  return encodePairs(pairs);
}
