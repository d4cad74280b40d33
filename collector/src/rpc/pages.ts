// Lists in pages: how many, from where, and what of a namespace. Pure.

import { InvalidArgument } from '../errors.js';
import { LOOKED_AT, type Pieces } from '../slices.js';

const PAGE_SIZE_DEFAULT = 100;
const PAGE_SIZE_MAX = 1000;
const TOKEN_MAX = 1024;

/** What a caller asks for, as `page_size`: 1 to 1000; unset or 0 = 100. */
export function pageSize(value: number | undefined): number {
  if (value === undefined || value === 0) return PAGE_SIZE_DEFAULT;
  if (!Number.isInteger(value) || value < 1 || value > PAGE_SIZE_MAX) {
    throw new InvalidArgument('page_size', value, `1 to ${PAGE_SIZE_MAX}, or unset for ${PAGE_SIZE_DEFAULT}`);
  }
  return value;
}

export interface Page<T> {
  readonly items: readonly T[];
  /** Empty when there is nothing more. */
  readonly nextPageToken: string;
}

/**
 * One page of `all`, sorted by `keyOf`, smallest first, from behind the token; what has no key is left
 * out. A token is the key of the last item of the page before, so items that come or go in between shift
 * nothing.
 */
export function* page<T>(
  all: Iterable<T>,
  keyOf: (item: T) => string | undefined,
  size: number,
  token: string,
): Pieces<Page<T>> {
  const after = token === '' ? undefined : parseToken(token);
  const smallest = new Smallest<T>(size + 1);
  let looked = 0;
  for (const item of all) {
    if (++looked % LOOKED_AT === 0) yield;
    const key = keyOf(item);
    if (key !== undefined && (after === undefined || key > after)) smallest.add(key, item);
  }
  const rest = smallest.sorted();
  const taken = rest.slice(0, size);
  const more = rest.length > size;
  return {
    items: taken.map(({ item }) => item),
    nextPageToken: more ? Buffer.from(JSON.stringify(taken.at(-1)!.key)).toString('base64url') : '',
  };
}

interface Keyed<T> {
  readonly key: string;
  readonly item: T;
}

/** The `size` smallest of what is added, one a key, without sorting or holding the rest. */
class Smallest<T> {
  private found: Keyed<T>[] = [];
  /** Nothing above this is among them. */
  private bound: string | undefined;

  constructor(private readonly size: number) {}

  add(key: string, item: T): void {
    if (this.bound !== undefined && key >= this.bound) return;
    if (this.found.push({ key, item }) < 2 * this.size) return;
    this.found = this.sorted();
    if (this.found.length === this.size) this.bound = this.found.at(-1)!.key;
  }

  sorted(): Keyed<T>[] {
    const sorted = this.found.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
    return sorted.filter(({ key }, at) => key !== sorted[at - 1]?.key).slice(0, this.size);
  }
}

function parseToken(token: string): string {
  const bad = (): InvalidArgument => new InvalidArgument('page_token', token, 'a next_page_token of this list');
  if (token.length > TOKEN_MAX) throw bad();
  try {
    const key: unknown = JSON.parse(Buffer.from(token, 'base64url').toString('utf8'));
    if (typeof key === 'string') return key;
  } catch {
    // Not one of ours: said below like any other text that is not.
  }
  throw bad();
}

/** Whether a service is the one asked for, in the namespace asked for; '' = any. */
export function matches(service: string, wanted: string, namespace: string): boolean {
  if (wanted !== '' && service !== wanted) return false;
  return namespace === '' || namespaceOf(service) === namespace;
}

/** Of `name.namespace`; '' for a bare name. */
export function namespaceOf(service: string): string {
  const dot = service.indexOf('.');
  return dot < 0 ? '' : service.slice(dot + 1);
}

/** A time as text that sorts newest first. */
export const newestFirst = (us: number): string => String(1e17 - us).padStart(18, '0');
