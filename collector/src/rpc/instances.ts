// Registry.ListInstances and Registry.GetInstance

import { InvalidArgument, NotFound, shown } from '../errors.js';
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

export function listInstances({ registry, clock }: ReadParts, request: ListInstancesRequest): object {
  const { service = '', namespace = '', pageToken = '', states = [] } = request;
  const size = pageSize(request.pageSize);
  for (const state of states) {
    if (!STATES.includes(state)) throw new InvalidArgument('states', state, `one of ${STATES.join(', ')}`);
  }
  const wanted = (state: string, of: string): boolean =>
    matches(of, service, namespace) && (states.length === 0 || states.includes(state));
  const listed: Listed[] = [];
  for (const life of registry.all()) {
    if (!wanted(registry.stateOf(life), life.service)) continue;
    const encode = (): object => instance(life, registry, clock.monotonicMs());
    listed.push({ key: `${newestFirst(life.firstSeenUs)} ${life.cuid}`, encode });
  }
  for (const one of registry.expected.all()) {
    if (!wanted('INSTANCE_STATE_EXPECTED', one.service)) continue;
    const key = `${newestFirst(one.firstUs)} ${one.cuid} ${one.cluster} ${one.service}`;
    listed.push({ key, encode: () => expectedInstance(one) });
  }
  const { items, nextPageToken } = page(listed, one => one.key, size, pageToken);
  return { instances: items.map(one => one.encode()), nextPageToken };
}

/** A life or an expected instance. */
interface Listed {
  /** In the order of which they are listed. */
  readonly key: string;
  readonly encode: () => object;
}

export function getInstance({ registry, clock }: ReadParts, request: { readonly cuid?: string }): object {
  const { cuid = '' } = request;
  if (cuid === '') throw new InvalidArgument('cuid', cuid, 'a CUID or alias, in lower case');
  const life = registry.find(cuid);
  const expected = life === undefined ? registry.expected.find(cuid) : undefined;
  if (expected !== undefined) return expectedInstance(expected);
  if (life === undefined) {
    const since = new Date(registry.retainedSinceUs() / 1000).toISOString();
    throw new NotFound(`no life with CUID ${shown(cuid)} is known; lives are remembered since ${since}`);
  }
  return instance(life, registry, clock.monotonicMs(), true);
}
