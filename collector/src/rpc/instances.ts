// Registry.ListInstances and Registry.GetInstance

import { InvalidArgument, NotFound, shown } from '../errors.js';
import type { ExpectedInstance } from '../registry/expected.js';
import type { Life } from '../registry/life.js';
import type { Registry } from '../registry/registry.js';
import { MADE, type Pieces } from '../slices.js';
import { expectedInstance, instance } from './encode.js';
import { matches, newestFirst, page, pageSize } from './pages.js';
import type { ReadParts } from './parts.js';

export interface ListInstancesRequest {
  readonly service?: string;
  readonly namespace?: string;
  readonly states?: readonly string[];
  readonly pageSize?: number;
  readonly pageToken?: string;
}

const STATES = ['LIVE', 'SILENT', 'GONE', 'EXPECTED'].map(state => `INSTANCE_STATE_${state}`);

export function* listInstances({ registry, clock, permit }: ReadParts, request: ListInstancesRequest): Pieces<object> {
  const { service = '', namespace = '', pageToken = '', states = [] } = request;
  const size = pageSize(request.pageSize);
  for (const state of states) {
    if (!STATES.includes(state)) throw new InvalidArgument('states', state, `one of ${STATES.join(', ')}`);
  }
  const wanted = (state: () => string, of: string): boolean =>
    matches(of, service, namespace) && permit.reads.covers(of) && (states.length === 0 || states.includes(state()));
  const keyOf = (one: Life | ExpectedInstance): string | undefined => {
    if ('cuidAliases' in one) {
      if (!wanted(() => registry.stateOf(one), one.service)) return undefined;
      return `${newestFirst(one.firstSeenUs)} ${one.cuid}`;
    }
    if (!wanted(() => 'INSTANCE_STATE_EXPECTED', one.service)) return undefined;
    return `${newestFirst(one.firstUs)} ${one.cuid} ${one.cluster} ${one.service}`;
  };
  const { items, nextPageToken } = yield* page(everyone(registry), keyOf, size, pageToken);
  const instances: object[] = [];
  for (const one of items) {
    if (instances.length % MADE === 0) yield;
    instances.push('cuidAliases' in one ? instance(one, registry, clock.monotonicMs()) : expectedInstance(one));
  }
  return { instances, nextPageToken };
}

function* everyone(registry: Registry): Iterable<Life | ExpectedInstance> {
  yield* registry.all();
  yield* registry.expected.all();
}

export function getInstance({ registry, clock, permit }: ReadParts, request: { readonly cuid?: string }): object {
  const { cuid = '' } = request;
  if (cuid === '') throw new InvalidArgument('cuid', cuid, 'a CUID or alias, in lower case');
  const life = registry.find(cuid);
  const expected = life === undefined ? registry.expected.find(cuid) : undefined;
  if (expected !== undefined && permit.reads.covers(expected.service)) return expectedInstance(expected);
  if (life === undefined || !permit.reads.covers(life.service)) {
    const since = new Date(registry.retainedSinceUs() / 1000).toISOString();
    throw new NotFound(`no life with CUID ${shown(cuid)} is known; lives are remembered since ${since}`);
  }
  return instance(life, registry, clock.monotonicMs(), true);
}
