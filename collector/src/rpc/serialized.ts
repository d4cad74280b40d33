// Answers as bytes before they are handed to the gRPC library, which would make them in one go.
//
// A message whose list is long is serialised item by item: on the wire a repeated field is its items one
// after the other. What many watchers are told is serialised once, and the bytes are shared.

import type { ServiceDefinition } from '@grpc/grpc-js';
import { POLICY_BYTES_MAX } from '../rollback/policy-file.js';
import { MADE, type Pieces } from '../slices.js';
import { message } from './protos.js';

type Plain = Readonly<Record<string, unknown>>;

interface Descriptor {
  readonly field: readonly {
    readonly name: string;
    readonly number: number;
    readonly label: string;
    readonly type: string;
    readonly typeName: string;
  }[];
}

/** Wire type of messages and text: a length, then as many bytes. */
const LENGTH_DELIMITED = 2;

/** Questions are short, but for a policy to simulate. A million numbers take 40 ms to decode. */
const REQUEST_BYTES_MAX = 256 * 1024;
const SIMULATE_BYTES_MAX = POLICY_BYTES_MAX + REQUEST_BYTES_MAX;

/** The same service, but its answers may be bytes already, and its requests have a bound of their own. */
export function withPreparedAnswers(definition: ServiceDefinition): ServiceDefinition {
  return Object.fromEntries(
    Object.entries(definition).map(([name, method]) => {
      const responseSerialize = (answer: object): Buffer =>
        Buffer.isBuffer(answer) ? answer : method.responseSerialize(answer);
      const requestDeserialize = (bytes: Buffer): object => {
        const max = name === 'Simulate' ? SIMULATE_BYTES_MAX : REQUEST_BYTES_MAX;
        if (bytes.length <= max) return method.requestDeserialize(bytes) as object;
        throw new RangeError(`the request has ${bytes.length} bytes, at most ${max} are allowed`);
      };
      return [name, { ...method, responseSerialize, requestDeserialize }];
    }),
  );
}

/** One message as bytes; `type` is its name in meshpulse.v1. */
export const prepared = (type: string, value: object): Buffer => message(type).serialize(value);

/** The same bytes in pieces, for messages with long lists, at whatever depth these are. */
export function* serialized(type: string, value: Plain): Pieces<Buffer> {
  const { field } = message(type).type as Descriptor;
  const long = field.filter(one => isLong(one, value[one.name]));
  if (long.length === 0) return prepared(type, value);
  const rest: Record<string, unknown> = { ...value };
  const parts: Buffer[] = [];
  for (const { name, number, typeName } of long) {
    rest[name] = [];
    const tag = varint(number * 8 + LENGTH_DELIMITED);
    for (const [at, item] of (value[name] as Plain[]).entries()) {
      const bytes = yield* serialized(shortName(typeName), item);
      parts.push(tag, varint(bytes.length), bytes);
      if (at % MADE === 0) yield;
    }
  }
  return Buffer.concat([...parts, prepared(type, rest)]);
}

function isLong({ label, type }: Descriptor['field'][number], value: unknown): boolean {
  return label === 'LABEL_REPEATED' && type === 'TYPE_MESSAGE' && Array.isArray(value) && value.length > MADE;
}

export const shortName = (typeName: string): string => typeName.replace(/^\.?(?:meshpulse\.v1\.)?/, '');

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) | 128);
  }
}
