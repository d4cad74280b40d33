// What one call may see and change: what handlers are given, so that none has to know how someone was let in.

import type { Metadata } from '@grpc/grpc-js';
import type { Access } from './access.js';
import { Grant, grantOf, type Caller } from './caller.js';
import type { Gate } from './gate.js';

export interface Permit {
  /** What it may read. */
  readonly reads: Grant;
  /** Whose signals it may follow, and acknowledge. */
  readonly signals: Grant;
  readonly acks: Grant;
  /** Of what it may change early rollback. */
  readonly changes: Grant;
  /** Who asks: known, or, where nobody is asked who they are, as they say. */
  actor(said: string | undefined): string | undefined;
  /** Notes that something was out of reach; returns the error to throw. */
  deny(why: string): Error;
}

/** Where nobody is asked who they are. */
export const PERMIT_ALL: Permit = {
  reads: Grant.ALL,
  signals: Grant.ALL,
  acks: Grant.ALL,
  changes: Grant.ALL,
  actor: said => said,
  deny: why => new Error(`denied to somebody who may do everything: ${why}`),
};

export function permitOf(access: Access, caller: Caller, call: string): Permit {
  return {
    reads: grantOf(caller, 'viewer', 'operator'),
    signals: grantOf(caller, 'step', 'viewer', 'operator'),
    acks: grantOf(caller, 'step', 'operator'),
    changes: grantOf(caller, 'operator'),
    actor: () => caller.name,
    deny: why => access.deny(caller, call, why),
  };
}

/** @throws Error when a call came past the gate: our own mistake, so nothing is answered */
export function permitAt(gate: Gate | undefined, metadata: Metadata, call: string): Permit {
  if (gate === undefined) return PERMIT_ALL;
  const caller = gate.callerOf(metadata);
  if (caller === undefined) throw new Error(`${call} came past the gate`);
  return permitOf(gate.access, caller, call);
}
