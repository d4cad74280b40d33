// The access file: who has which token, and which roles people, accounts, groups and workloads have. YAML, taken
// whole or refused whole, with the line at fault. Pure. Messages never repeat what stands in `token`: it may be one.

import { createHash, timingSafeEqual } from 'node:crypto';
import { isMap, isScalar, isSeq, LineCounter, parseDocument, type Node, type Pair } from 'yaml';
import { near } from '../near.js';
import { ROLES, type Role } from './roles.js';
import { IdentityError, parseSpiffe } from './spiffe.js';

/** Bounds of the file. */
export const FILE_BYTES_MAX = 4 * 1024 * 1024;
const ENTRIES_MAX = 10_000;
const LIST_MAX = 1000;
const NAME_CHARS_MAX = 256;

/** A fault in the file. The message begins with `line N: ` and names field and remedy. */
export class AccessFileError extends Error {
  override readonly name = 'AccessFileError';
}

/** What someone may do. */
export interface Entry {
  readonly name: string;
  readonly roles: readonly Role[];
  /** `*` = all. */
  readonly namespaces: readonly string[];
  readonly services?: readonly string[];
  readonly node?: string;
}

/** Someone with a token, of which the file holds SHA-256 only. */
export interface Person extends Entry {
  readonly hash: Buffer;
  /** ms since 1970; undefined = until it is taken out. */
  readonly expiresMs?: number;
}

export interface AccessFile {
  readonly people: readonly Person[];
  /** By name, as TokenReview tells them. */
  readonly users: ReadonlyMap<string, Entry>;
  readonly groups: ReadonlyMap<string, Entry>;
  /** By SPIFFE id. */
  readonly workloads: ReadonlyMap<string, Entry>;
}

export const NO_ACCESS: AccessFile = { people: [], users: new Map(), groups: new Map(), workloads: new Map() };

/**
 * The person with this token. Every entry is compared, each in constant time: how long it takes does not tell how
 * near a guess came.
 */
export function personOf({ people }: AccessFile, token: string, nowMs: number): Person | undefined {
  const hash = createHash('sha256').update(token).digest();
  let found: Person | undefined;
  for (const person of people) if (timingSafeEqual(person.hash, hash)) found = person;
  return found?.expiresMs !== undefined && found.expiresMs <= nowMs ? undefined : found;
}

/** @throws AccessFileError */
export function parseAccessFile(text: string): AccessFile {
  if (Buffer.byteLength(text) > FILE_BYTES_MAX) {
    throw new AccessFileError(`line 1: the file has more than ${FILE_BYTES_MAX} bytes; split people into groups`);
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const fault = document.errors[0];
  if (fault !== undefined) {
    const why = /^[\w ]*/.exec(fault.message)![0].trim(); // what follows shows the text, in which a token may be
    throw new AccessFileError(`line ${lines.linePos(fault.pos[0]).line}: this is not YAML: ${why}`);
  }
  return new Reader(lines).file(document.contents);
}

type At = Node | null | undefined;
type Fields = ReadonlyMap<string, Node>;
type Section = 'people' | 'users' | 'groups' | 'workloads';

const COMMON = ['roles', 'namespaces', 'services', 'node'];
const FIELDS: Readonly<Record<Section, readonly string[]>> = {
  people: ['name', 'token', 'expires', ...COMMON],
  users: ['name', ...COMMON],
  groups: ['name', ...COMMON],
  workloads: ['id', ...COMMON],
};

class Reader {
  constructor(private readonly lines: LineCounter) {}

  file(contents: At): AccessFile {
    if (contents === null || contents === undefined) return NO_ACCESS;
    const fields = this.map(contents, 'the file', Object.keys(FIELDS));
    const people = this.list(fields.get('people'), 'people', ENTRIES_MAX).map((node, at) => this.person(node, at));
    this.refuseTwice(people);
    return {
      people: people.map(([, person]) => person),
      users: this.named(fields.get('users'), 'users'),
      groups: this.named(fields.get('groups'), 'groups'),
      workloads: this.named(fields.get('workloads'), 'workloads'),
    };
  }

  private refuseTwice(people: readonly (readonly [Node, Person])[]): void {
    const seen = new Map<string, string>();
    for (const [node, { name, hash }] of people) {
      const other = seen.get(hash.toString('hex'));
      if (other !== undefined)
        throw this.fault(node, `token of ${name} is that of ${other}; give each a token of their own`);
      seen.set(hash.toString('hex'), name);
    }
  }

  private person(node: Node, at: number): readonly [Node, Person] {
    const where = `people[${at}]`;
    const fields = this.map(node, where, FIELDS.people);
    const token = fields.get('token');
    const hash =
      isScalar(token) && typeof token.value === 'string' ? /^sha256:([0-9a-f]{64})$/.exec(token.value) : null;
    if (hash === null) {
      const remedy = 'must be sha256: and 64 hex digits, as of `printf %s "$TOKEN" | sha256sum`';
      throw this.fault(token ?? node, `${where}.token ${token === undefined ? 'is missing, ' : ''}${remedy}`);
    }
    const expires = fields.get('expires');
    const entry = this.entry(node, fields, where, this.text(node, fields, 'name', where));
    return [
      node,
      {
        ...entry,
        hash: Buffer.from(hash[1]!, 'hex'),
        ...(expires === undefined ? {} : { expiresMs: this.time(expires, `${where}.expires`) }),
      },
    ];
  }

  private named(node: At, section: Exclude<Section, 'people'>): Map<string, Entry> {
    const entries = new Map<string, Entry>();
    this.list(node, section, ENTRIES_MAX).forEach((item, at) => {
      const where = `${section}[${at}]`;
      const fields = this.map(item, where, FIELDS[section]);
      const field = section === 'workloads' ? 'id' : 'name';
      const name = this.text(item, fields, field, where);
      if (section === 'workloads') this.spiffe(fields.get('id')!, `${where}.id`, name);
      if (entries.has(name))
        throw this.fault(item, `${where}.${field} ${JSON.stringify(name)} is there twice; keep one`);
      entries.set(name, this.entry(item, fields, where, name));
    });
    return entries;
  }

  private spiffe(node: Node, where: string, id: string): void {
    try {
      parseSpiffe(id);
    } catch (error) {
      if (!(error instanceof IdentityError)) throw error;
      throw this.fault(node, `${where} ${error.message}`);
    }
  }

  private entry(node: Node, fields: Fields, where: string, name: string): Entry {
    const roles = this.texts(fields.get('roles'), `${where}.roles`).map(({ text, node: at }) => {
      const role = ROLES.find(one => one === text);
      if (role !== undefined) return role;
      throw this.fault(at, `${where}.roles has ${JSON.stringify(text.slice(0, 40))}, may have ${ROLES.join(', ')}`);
    });
    if (roles.length === 0) throw this.fault(node, `${where}.roles is missing, must have one of ${ROLES.join(', ')}`);
    const namespaces = this.texts(fields.get('namespaces'), `${where}.namespaces`).map(({ text, node: at }) => {
      if (text === '*' || /^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/.test(text)) return text;
      throw this.fault(
        at,
        `${where}.namespaces has ${JSON.stringify(text.slice(0, 40))}, must be names of namespaces, or '*'`,
      );
    });
    const needsNamespaces = where.startsWith('workloads')
      ? roles.some(role => role === 'viewer' || role === 'operator')
      : roles.some(role => role !== 'agent');
    if (needsNamespaces && namespaces.length === 0) {
      throw this.fault(
        node,
        `${where}.namespaces is missing: name those that ${roles.join(', ')} is for, or '*' for all`,
      );
    }
    const services = fields.get('services');
    const nodeName = fields.get('node');
    return {
      name,
      roles,
      namespaces,
      ...(services === undefined
        ? {}
        : { services: this.texts(services, `${where}.services`).map(({ text }) => text) }),
      ...(nodeName === undefined ? {} : { node: this.text(node, fields, 'node', where) }),
    };
  }

  private map(node: At, name: string, allowed: readonly string[]): Map<string, Node> {
    if (!isMap(node)) throw this.fault(node, `${name} must be a map of ${allowed.join(', ')}`);
    const fields = new Map<string, Node>();
    for (const { key, value } of node.items as Pair<Node, Node | null>[]) {
      const field = isScalar(key) ? String(key.value) : '';
      if (!allowed.includes(field)) {
        const close = near(field, allowed)[0];
        const hint = close === undefined ? `it may have ${allowed.join(', ')}` : `did you mean ${close}?`;
        throw this.fault(key, `${name} has no field ${JSON.stringify(field.slice(0, 40))}; ${hint}`);
      }
      if (value !== null && !(isScalar(value) && value.value === null)) fields.set(field, value);
    }
    return fields;
  }

  private list(node: At, name: string, max: number): Node[] {
    if (node === undefined || node === null) return [];
    if (!isSeq(node)) throw this.fault(node, `${name} must be a list`);
    if (node.items.length > max) throw this.fault(node, `${name} has ${node.items.length} entries, may have ${max}`);
    return node.items as Node[];
  }

  private texts(node: At, name: string): { text: string; node: Node }[] {
    return this.list(node, name, LIST_MAX).map(item => {
      if (isScalar(item) && typeof item.value === 'string' && item.value !== '')
        return { text: item.value, node: item };
      throw this.fault(item, `${name} must be a list of names`);
    });
  }

  private text(at: Node, fields: Fields, field: string, where: string): string {
    const node = fields.get(field);
    if (isScalar(node) && typeof node.value === 'string' && node.value !== '' && node.value.length <= NAME_CHARS_MAX) {
      return node.value;
    }
    const seen = node === undefined ? 'is missing, ' : '';
    throw this.fault(node ?? at, `${where}.${field} ${seen}must be a text of 1 to ${NAME_CHARS_MAX} characters`);
  }

  private time(node: Node, name: string): number {
    const text = isScalar(node) ? String(node.value) : '';
    const ms = /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d)?Z)?$/.test(text) ? Date.parse(text) : Number.NaN;
    if (Number.isNaN(ms))
      throw this.fault(node, `${name} must be a time like 2027-01-31T12:00:00Z or a day like 2027-01-31`);
    return ms;
  }

  private fault(node: At, message: string): AccessFileError {
    const start = node?.range?.[0];
    return new AccessFileError(`line ${start === undefined ? 1 : this.lines.linePos(start).line}: ${message}`);
  }
}
