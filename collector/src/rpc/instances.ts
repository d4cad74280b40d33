// Registry.ListInstances and Registry.GetInstance

import { InvalidArgument, NotFound } from '../errors.js';
import { instance } from './encode.js';
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
  const wanted = [...registry.all()].filter(
    life =>
      matches(life.service, service, namespace) && (states.length === 0 || states.includes(registry.stateOf(life))),
  );
  const { items, nextPageToken } = page(
    wanted,
    life => `${newestFirst(life.firstSeenUs)} ${life.cuid}`,
    size,
    pageToken,
  );
  return { instances: items.map(life => instance(life, registry, clock.monotonicMs())), nextPageToken };
}

export function getInstance({ registry, clock }: ReadParts, request: { readonly cuid?: string }): object {
  const { cuid = '' } = request;
  if (cuid === '') throw new InvalidArgument('cuid', cuid, 'a CUID or alias, in lower case');
  const life = registry.find(cuid);
  if (life === undefined) {
    const since = new Date(registry.retainedSinceUs() / 1000).toISOString();
    throw new NotFound(`no life with CUID ${JSON.stringify(cuid)} is known; lives are remembered since ${since}`);
  }
  return instance(life, registry, clock.monotonicMs(), true);
}
