// What a report may say of whom: a workload speaks for its own lives only.

import { shown } from '../errors.js';
import type { Hello } from '../ingest/report.js';
import type { Life } from '../registry/life.js';
import type { Registry } from '../registry/registry.js';
import { grantOf, type Caller } from './caller.js';

/** Whose life is whose, among workloads of one namespace: the first that spoke for it. Gone with the life. */
export class Owners {
  private readonly names = new WeakMap<Life, string>();

  of(life: Life): string | undefined {
    return this.names.get(life);
  }

  claim(life: Life, name: string): void {
    if (!this.names.has(life)) this.names.set(life, name);
  }
}

/** Why a caller may not send this hello; undefined = it may. */
export function refusalOfHello(caller: Caller, hello: Hello, registry: Registry, owners: Owners): string | undefined {
  const isAgent = caller.roles.has('agent');
  if (isAgent && caller.node !== undefined && hello.node === caller.node) {
    return claimed(hello, registry, life => life.node === caller.node);
  }
  if (!caller.roles.has('reporter')) {
    return caller.node === undefined
      ? `${caller.name} is an agent of no known node; name it as \`node\` in the access file`
      : `hello.node is ${shown(hello.node)}, ${caller.name} is the agent of ${shown(caller.node)}`;
  }
  const grant = grantOf(caller, 'reporter');
  if (!grant.covers(hello.service)) {
    return `hello.service is ${shown(hello.service)}, ${caller.name} may report ${grant.toString()} only`;
  }
  return claimed(hello, registry, life => {
    const owner = owners.of(life);
    return grant.covers(life.service) && (owner === undefined || owner === caller.name);
  });
}

/** What a hello takes that is somebody else's: a CUID, an alias, or the proxy, whose life before would end. */
function claimed(
  { cuid, cuidAliases, proxyId }: Hello,
  registry: Registry,
  isOwn: (life: Life) => boolean,
): string | undefined {
  for (const id of [cuid, ...cuidAliases]) {
    const life = registry.find(id);
    if (life !== undefined && !isOwn(life)) return `CUID ${id} is that of another workload`;
  }
  const before = registry.ofProxy(proxyId);
  if (before === undefined || before.endedUs !== undefined || isOwn(before)) return undefined;
  return `proxy_id ${shown(proxyId)} is that of another workload`;
}
