// Unary calls that read: each waits for its turn, and its answer is made in slices.

import { Metadata, type handleUnaryCall, type ServerUnaryCall } from '@grpc/grpc-js';
import { Exhausted, statusOf } from '../errors.js';
import type { Logger } from '../log.js';
import type { Pieces } from '../slices.js';
import { isPieces } from '../slices.js';
import type { ReadParts } from './parts.js';
import type { ReadGate } from './read-gate.js';
import { serialized } from './serialized.js';
import { sayStale } from './stale.js';

/** What a read call answers with, in pieces if that takes long. */
export type Answer<Q> = (parts: ReadParts, request: Q) => object | Pieces<object>;

/** What a call reads from, and what it may see of it. */
export type At = (call: { readonly metadata: Metadata; getPath(): string }) => ReadParts;

/** `type` is the answer's name in meshpulse.v1; the service must be one withPreparedAnswers. */
export function reading<Q>(
  turns: ReadGate,
  at: At,
  type: string,
  answer: Answer<Q>,
  log: Logger,
): handleUnaryCall<Q, object> {
  return (call: ServerUnaryCall<Q, object>, done) => {
    const bytes = (): Pieces<object> => made(type, answer(at(call), call.request));
    turns
      .run(bytes, () => call.cancelled)
      .then(
        value => {
          sayStale(call, at(call).staleMs());
          done(null, value);
        },
        (error: unknown) => done(refused(error, call.getPath(), log)),
      );
  };
}

function* made(type: string, answer: object | Pieces<object>): Pieces<object> {
  const value = isPieces(answer) ? yield* answer : answer;
  return yield* serialized(type, value as Readonly<Record<string, unknown>>);
}

/** The status of a call that could not be answered; past a limit it says when to come back. */
export function refused(
  error: unknown,
  path: string,
  log: Logger,
): { code: number; details: string; metadata: Metadata } {
  const { code, details, known } = statusOf(error);
  if (!known) log.error({ err: error, path }, 'a call failed');
  const metadata = new Metadata();
  if (error instanceof Exhausted) metadata.set('retry-after-ms', String(error.retryAfterMs));
  return { code, details, metadata };
}
