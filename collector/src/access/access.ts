// Who is let in: an identity from what a request brings, then whether its roles are enough, then what it may see.
//
// An identity comes from one place only, the first that is there: a token, the element that the own sidecar added to
// x-forwarded-client-cert, the client certificate. What is there and wrong is refused; the next is not tried.

import { readFileSync } from 'node:fs';
import type { Clock } from '../clock.js';
import type { AccessSettings } from './settings.js';
import { ConfigError, PermissionDenied, Unauthenticated } from '../errors.js';
import type { Logger } from '../log.js';
import { AccessFileError, NO_ACCESS, parseAccessFile, personOf, type AccessFile, type Entry } from './access-file.js';
import { Grant, type Caller } from './caller.js';
import { isFrom } from './peers.js';
import { Refusals, type Refused, type Tell } from './refusals.js';
import { allows, isOpen, neededFor, ROLES, type Role } from './roles.js';
import { IdentityError, type Workload } from './spiffe.js';
import type { TlsPeer } from './tls.js';
import type { TokenSource } from './token-review.js';
import { WatchedFiles } from './watched-file.js';
import { workloadOfXfcc } from './xfcc.js';

/** Characters of a token, at most. */
const TOKEN_CHARS_MAX = 16 * 1024;

/** What a request brings along. */
export interface Credentials {
  /** Address without port that it came from. */
  readonly address: string;
  readonly authorization: readonly string[];
  readonly forwarded: readonly string[];
  readonly tls?: TlsPeer;
}

export interface AccessParts {
  readonly settings: AccessSettings;
  readonly clock: Clock;
  readonly log: Logger;
  readonly tokens?: TokenSource;
  /** Writes an audit record about someone refused. */
  readonly tell: Tell;
}

const WORKLOAD_ROLES: readonly Role[] = ['reporter', 'step'];

const HOW = 'bring a client certificate of the mesh, or a token as `authorization: Bearer TOKEN`';

export class Access {
  readonly refusals: Refusals;
  private readonly file: WatchedFiles<AccessFile> | undefined;

  /** @throws ConfigError when the access file is wrong */
  constructor(private readonly parts: AccessParts) {
    const { settings, log, tell } = parts;
    this.refusals = new Refusals(tell);
    const path = settings.tokenFile;
    if (path !== undefined) this.file = new WatchedFiles('access file', [path], () => readFile(path), log);
  }

  /** 1 while the access file as it is now is wrong. */
  get fileRefused(): boolean {
    return this.file !== undefined && this.file.refused !== '';
  }

  /** True when another access file is in force. */
  tick(nowMs: number): boolean {
    this.refusals.tick(nowMs);
    return this.file?.look(nowMs) ?? false;
  }

  /**
   * Lets a call in, or not; undefined = it is open to anybody.
   *
   * @throws Unauthenticated, PermissionDenied (both audited), Unavailable when it cannot be said now
   */
  async admit(call: string, credentials: Credentials): Promise<Caller | undefined> {
    if (isOpen(call)) return undefined;
    let caller: Caller;
    try {
      caller = await this.identify(credentials);
    } catch (error) {
      if (error instanceof Unauthenticated) {
        this.note({ who: credentials.address, call, why: error.message, cause: 'unauthenticated' });
      }
      throw error;
    }
    if (allows(call, caller.roles)) return caller;
    const has = caller.roles.size === 0 ? 'no role' : `the role ${[...caller.roles.keys()].join(' and ')}`;
    throw this.deny(caller, call, `${caller.name} has ${has}, ${call} takes ${neededFor(call)}`, 'role');
  }

  /** Notes a refusal, and returns the error to throw. */
  deny(caller: Caller, call: string, why: string, cause: Refused['cause'] = 'scope'): PermissionDenied {
    this.note({ who: caller.name, call, why, cause });
    return new PermissionDenied(why);
  }

  note(refused: Refused): void {
    this.refusals.note(refused);
  }

  private async identify({ address, authorization, forwarded, tls }: Credentials): Promise<Caller> {
    try {
      if (authorization.length > 0) return await this.byToken(authorization);
      const fromSidecar = isFrom(address, this.parts.settings.trustXfcc);
      if (forwarded.length > 0 && fromSidecar) return this.byWorkload(workloadOfXfcc(forwarded));
      if (tls?.fault !== undefined) throw new Unauthenticated(tls.fault);
      if (tls?.workload !== undefined) return this.byWorkload(tls.workload);
      if (forwarded.length > 0) {
        throw new Unauthenticated(
          `x-forwarded-client-cert is not taken from ${address}: it is no address of --trust-xfcc; ${HOW}`,
        );
      }
      throw new Unauthenticated(`nothing says who you are; ${HOW}`);
    } catch (error) {
      throw error instanceof IdentityError ? new Unauthenticated(error.message) : error;
    }
  }

  private async byToken(values: readonly string[]): Promise<Caller> {
    const token = values.length === 1 ? /^bearer +([\x21-\x7e]+) *$/i.exec(values[0]!)?.[1] : undefined;
    if (token === undefined || token.length > TOKEN_CHARS_MAX) {
      throw new Unauthenticated('authorization must be there once, as `Bearer TOKEN`');
    }
    const known = this.file?.value ?? NO_ACCESS;
    const person = personOf(known, token, this.parts.clock.nowUs() / 1000);
    if (person !== undefined) return callerOf(person.name, [person]);
    const reviewed = await this.parts.tokens?.review(token);
    if (reviewed === undefined) {
      throw new Unauthenticated('the token is not known, or has expired; ask whoever runs the collector for another');
    }
    // Read again: the file may have changed while the cluster was asked.
    const { users, groups } = this.file?.value ?? NO_ACCESS;
    const entries = [users.get(reviewed.user), ...reviewed.groups.map(group => groups.get(group))];
    const caller = callerOf(
      reviewed.user,
      entries.filter(entry => entry !== undefined),
    );
    return reviewed.node === undefined ? caller : { ...caller, node: reviewed.node };
  }

  private byWorkload(workload: Workload): Caller {
    const { trustDomains } = this.parts.settings;
    if (trustDomains.length > 0 && !trustDomains.includes(workload.trustDomain)) {
      throw new Unauthenticated(
        `${workload.id} is of the trust domain ${workload.trustDomain}, which is none of --trust-domain`,
      );
    }
    const entry = this.file?.value.workloads.get(workload.id) ?? {
      name: workload.id,
      roles: WORKLOAD_ROLES,
      namespaces: [],
    };
    const { namespace } = workload;
    return { ...callerOf(workload.id, [entry], namespace), workload };
  }
}

/**
 * All that the entries give together.
 *
 * @param home namespace of a workload: what it tells of and undoes lies there, whatever else it may see
 */
function callerOf(name: string, entries: readonly Entry[], home?: string): Caller {
  const roles = new Map<Role, Grant>();
  for (const role of ROLES) {
    const giving = entries.filter(entry => entry.roles.includes(role));
    if (giving.length === 0) continue;
    const atHome = home !== undefined && (role === 'reporter' || role === 'step');
    roles.set(role, Grant.of(giving.map(entry => (atHome ? { ...entry, namespaces: [home] } : entry))));
  }
  const node = entries.find(entry => entry.node !== undefined)?.node;
  return { name, roles, ...(node === undefined ? {} : { node }) };
}

function readFile(path: string): AccessFile {
  try {
    return parseAccessFile(readFileSync(path, 'utf8'));
  } catch (error) {
    if (error instanceof AccessFileError || (error as NodeJS.ErrnoException).code !== undefined) {
      throw new ConfigError(`--token-file ${path}: ${(error as Error).message}`);
    }
    throw error;
  }
}
