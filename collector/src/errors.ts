// What can go wrong, whose fault it is, and what a caller is told. Causes stay in the log.

import { status as Code } from '@grpc/grpc-js';
import { WireError } from './ingest/wire.js';

/** A mistake in what the operator wrote: one line that names field, value, range and remedy. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** What a caller sent is repeated in messages up to this length: they travel in headers. */
const SHOWN_CHARS_MAX = 80;

/** A value as messages show it. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'unset';
  return text.length <= SHOWN_CHARS_MAX ? text : `${text.slice(0, SHOWN_CHARS_MAX)}… (${text.length} characters)`;
}

/** Details of a status travel in a header, of which all of a connection may have 16 KiB; %XX takes three. */
const DETAILS_CHARS_MAX = 1024;

/**
 * Text as a status may carry it. Half of a surrogate pair (a name cut in the middle of a character, or
 * bytes that were no UTF-8) makes the gRPC library throw where nobody catches, which ends the process.
 */
export function wellFormed(text: string): string {
  const short = text.length <= DETAILS_CHARS_MAX ? text : `${text.slice(0, DETAILS_CHARS_MAX)}…`;
  return short.replace(/\p{Surrogate}/gu, '\ufffd');
}

/** A caller's mistake. Trying again does not help. */
export class InvalidArgument extends Error {
  override readonly name = 'InvalidArgument';

  /** `field` as in the proto file, the `value` seen, and the range `allowed`. */
  constructor(field: string, value: unknown, allowed: string) {
    super(`${field} is ${shown(value)}, must be ${allowed}`);
  }
}

/** What was asked for is not there. The message says how far back it could have been. */
export class NotFound extends Error {
  override readonly name = 'NotFound';
}

/** Nobody is known to be behind the call. Another credential helps, not another try. */
export class Unauthenticated extends Error {
  override readonly name = 'Unauthenticated';
}

/** Who calls is known, and may not. */
export class PermissionDenied extends Error {
  override readonly name = 'PermissionDenied';
}

/** Past a limit. Trying again after `retryAfterMs` can help. */
export class Exhausted extends Error {
  override readonly name = 'Exhausted';

  constructor(
    message: string,
    readonly retryAfterMs: number,
  ) {
    super(message);
  }
}

/** Leaving, or not ready yet. Trying again helps. */
export class Unavailable extends Error {
  override readonly name = 'Unavailable';
}

/** A stream that the collector ends, for a reason that is nobody's mistake. */
export class StreamEnded extends Error {
  override readonly name = 'StreamEnded';

  constructor(
    readonly code: Code,
    message: string,
  ) {
    super(message);
  }
}

/** What a gRPC caller gets for an error. `known` is false for our own bugs, which belong in the log. */
export interface StatusOf {
  readonly code: Code;
  readonly details: string;
  readonly http: number;
  readonly known: boolean;
}

export function statusOf(error: unknown): StatusOf {
  const known = (code: Code, http: number): StatusOf => ({
    code,
    http,
    details: wellFormed((error as Error).message),
    known: true,
  });
  if (error instanceof InvalidArgument || error instanceof WireError) return known(Code.INVALID_ARGUMENT, 400);
  if (error instanceof NotFound) return known(Code.NOT_FOUND, 404);
  if (error instanceof Unauthenticated) return known(Code.UNAUTHENTICATED, 401);
  if (error instanceof PermissionDenied) return known(Code.PERMISSION_DENIED, 403);
  if (error instanceof Exhausted) return known(Code.RESOURCE_EXHAUSTED, 429);
  if (error instanceof StreamEnded) return known(error.code, 503);
  if (error instanceof Unavailable) return known(Code.UNAVAILABLE, 503);
  return {
    code: Code.INTERNAL,
    http: 500,
    details: 'internal error; the log of the collector has the cause',
    known: false,
  };
}
