// Messages as proto3 JSON: lowerCamelCase names, enums by name, 64-bit values as text, times in RFC 3339.
// Fields without presence are always there, at their default if need be; unset optional ones are left out.

import { message } from '../rpc/protos.js';
import { shortName } from '../rpc/serialized.js';
import { MADE, type Pieces } from '../slices.js';

interface Field {
  readonly name: string;
  readonly label: string;
  readonly type: string;
  readonly typeName: string;
}

interface Descriptor {
  readonly field: readonly Field[];
  readonly oneofDecl: readonly { readonly name: string }[];
}

type Plain = Readonly<Record<string, unknown>>;

const DEFAULTS: Readonly<Record<string, unknown>> = {
  TYPE_STRING: '',
  TYPE_BOOL: false,
  TYPE_UINT64: '0',
  TYPE_FIXED64: '0',
  TYPE_UINT32: 0,
  TYPE_FIXED32: 0,
  TYPE_DOUBLE: 0,
};

const SIXTY_FOUR = new Set(['TYPE_UINT64', 'TYPE_FIXED64', 'TYPE_INT64']);

/** `value` as JSON-ready plain data; `type` is the message's name in meshpulse.v1. */
export function toJson(type: string, value: Plain): Plain {
  const descriptor = descriptorOf(type);
  const json: Record<string, unknown> = {};
  for (const field of descriptor.field) {
    const found = fieldValue(descriptor, field, value[field.name]);
    if (found !== undefined) json[field.name] = found;
  }
  return json;
}

/** The same as text, in pieces where a list is long, at whatever depth. */
export function* toText(type: string, value: Plain): Pieces<string> {
  const descriptor = descriptorOf(type);
  const members: string[] = [];
  for (const field of descriptor.field) {
    const present = value[field.name];
    if (isLong(field, present)) {
      members.push(`${JSON.stringify(field.name)}:[${yield* itemTexts(shortName(field.typeName), present)}]`);
      continue;
    }
    const found = fieldValue(descriptor, field, present);
    if (found !== undefined) members.push(`${JSON.stringify(field.name)}:${JSON.stringify(found)}`);
  }
  return `{${members.join(',')}}`;
}

function* itemTexts(type: string, items: readonly Plain[]): Pieces<string> {
  const texts: string[] = [];
  for (const item of items) {
    if (texts.length % MADE === 0) yield;
    texts.push(yield* toText(type, item));
  }
  return texts.join(',');
}

function isLong({ label, type }: Field, value: unknown): value is readonly Plain[] {
  return label === 'LABEL_REPEATED' && type === 'TYPE_MESSAGE' && Array.isArray(value) && value.length > MADE;
}

/** Undefined for what is left out. */
function fieldValue(descriptor: Descriptor, field: Field, present: unknown): unknown {
  if (field.label === 'LABEL_REPEATED') return ((present ?? []) as unknown[]).map(item => one(field, item));
  if (present !== undefined && present !== null) return one(field, present);
  return hasPresence(descriptor, field) ? undefined : defaultOf(field);
}

const descriptors = new Map<string, Descriptor>();

function descriptorOf(type: string): Descriptor {
  let descriptor = descriptors.get(type);
  if (descriptor === undefined) {
    descriptor = message(type).type as Descriptor;
    descriptors.set(type, descriptor);
  }
  return descriptor;
}

/** Messages, and scalars marked `optional`: these carry a one-member oneof of their own. */
function hasPresence(descriptor: Descriptor, field: Field): boolean {
  return field.type === 'TYPE_MESSAGE' || descriptor.oneofDecl.some(oneof => oneof.name === `_${field.name}`);
}

function defaultOf(field: Field): unknown {
  if (field.type !== 'TYPE_ENUM') return DEFAULTS[field.type];
  const { value } = message(shortName(field.typeName)).type as { value: readonly { name: string; number: number }[] };
  return value.find(({ number }) => number === 0)?.name;
}

function one(field: Field, value: unknown): unknown {
  if (SIXTY_FOUR.has(field.type)) return String(value);
  if (field.type !== 'TYPE_MESSAGE') return value;
  const name = shortName(field.typeName);
  if (name === 'google.protobuf.Timestamp') return rfc3339(value as Span);
  if (name === 'google.protobuf.Duration') return duration(value as Span);
  return toJson(name, value as Plain);
}

interface Span {
  readonly seconds?: string | number;
  readonly nanos?: number;
}

/** With as many digits of a second as are needed: 0, 3, 6 or 9. */
function rfc3339({ seconds = 0, nanos = 0 }: Span): string {
  const whole = new Date(Number(seconds) * 1000).toISOString().slice(0, 19);
  return `${whole}${fraction(nanos)}Z`;
}

function duration({ seconds = 0, nanos = 0 }: Span): string {
  const sign = Number(seconds) < 0 || nanos < 0 ? '-' : '';
  return `${sign}${Math.abs(Number(seconds))}${fraction(Math.abs(nanos))}s`;
}

function fraction(nanos: number): string {
  if (nanos === 0) return '';
  const digits = String(nanos).padStart(9, '0');
  return `.${digits.replace(/(?:000){1,2}$/, '')}`;
}
