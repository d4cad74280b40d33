// Who calls, and what of the mesh they may see, tell of and change.

import { namespaceOf } from '../rpc/pages.js';
import type { Role } from './roles.js';
import type { Workload } from './spiffe.js';

interface Part {
  /** `*` = all. */
  readonly namespaces: readonly string[];
  /** Of these namespaces, only these services; absent = all. */
  readonly services?: readonly string[];
}

/** Services that someone was granted: those of some namespaces, or some of them. */
export class Grant {
  private constructor(private readonly parts: readonly Part[]) {}

  static readonly ALL = new Grant([{ namespaces: ['*'] }]);
  static readonly NONE = new Grant([]);

  /** All that the parts hold together. */
  static of(parts: readonly Part[]): Grant {
    return new Grant(
      parts.map(({ namespaces, services }) => (services === undefined ? { namespaces } : { namespaces, services })),
    );
  }

  static union(grants: readonly Grant[]): Grant {
    return new Grant(grants.flatMap(({ parts }) => parts));
  }

  /** The whole mesh, and what it calls outside of it. */
  get all(): boolean {
    return this.parts.some(({ namespaces, services }) => namespaces.includes('*') && services === undefined);
  }

  /** Whether a service `name.namespace` lies in it. What has no namespace (outside the mesh) only in all of them. */
  covers(service: string): boolean {
    const namespace = namespaceOf(service);
    return this.parts.some(
      ({ namespaces, services }) =>
        (services === undefined || services.includes(service)) &&
        (namespaces.includes('*') || (namespace !== '' && namespaces.includes(namespace))),
    );
  }

  /** Whether a namespace lies in it whole. */
  hasNamespace(namespace: string): boolean {
    return this.parts.some(
      ({ namespaces, services }) =>
        services === undefined && (namespaces.includes('*') || namespaces.includes(namespace)),
    );
  }

  equals(other: Grant): boolean {
    return JSON.stringify(this.parts) === JSON.stringify(other.parts);
  }

  toString(): string {
    if (this.all) return 'all namespaces';
    const names = this.parts.flatMap(({ namespaces, services }) => services ?? namespaces);
    return [...new Set(names)].join(', ') || 'nothing';
  }
}

export interface Caller {
  /** For the audit: `spiffe://…` of a workload, else the name of a person or account. */
  readonly name: string;
  /** Each role with what it is for: who reads one namespace and runs another must not run both. */
  readonly roles: ReadonlyMap<Role, Grant>;
  /** The node of an agent. */
  readonly node?: string;
  readonly workload?: Workload;
}

/** What a caller may do in one of the roles. */
export function grantOf(caller: Caller, ...roles: readonly Role[]): Grant {
  const grants = roles.flatMap(role => caller.roles.get(role) ?? []);
  return grants.length === 1 ? grants[0]! : Grant.union(grants);
}

/** Whether somebody may still do what they might, and nothing else. */
export function sameRights(a: Caller, b: Caller): boolean {
  if (a.name !== b.name || a.node !== b.node || a.roles.size !== b.roles.size) return false;
  return [...a.roles].every(([role, grant]) => b.roles.get(role)?.equals(grant) === true);
}
