// The Lua scripts: each is one atomic step on one node. They are read from lua/ and sent by their digest;
// a node that does not know one (a restart, a failover) is given its text by the client library.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Cluster, Redis } from 'ioredis';
import { LUA } from '../../paths.js';
import { START } from './place.js';

export type Client = Redis | Cluster;

/** One blob in a log. `blob` is empty where the reader has it already. */
export interface Entry {
  readonly id: string;
  readonly replica: string;
  readonly number: number;
  readonly blob: Buffer;
}

export interface ReadReply {
  /** Number of the caller's last blob in the log; -1 = none. */
  readonly last: number;
  /** Entries before this id were cut off; START = none. */
  readonly trimmed: string;
  /** The last id that the log has given; START = it is empty and new. */
  readonly newest: string;
  readonly more: boolean;
  readonly entries: readonly Entry[];
  /** Replica -> its last number in the log; empty unless asked for. */
  readonly numbers: ReadonlyMap<string, number>;
}

export interface AppendReply extends Omit<ReadReply, 'newest' | 'numbers'> {
  readonly appended: boolean;
  /** '' when the blob was there already. */
  readonly id: string;
}

/** A replica, and the number up to which its blobs are known. */
export type Known = readonly (readonly [replica: string, number: number])[];

interface Commands {
  mpAppendBuffer(...args: (string | number | Buffer)[]): Promise<unknown[]>;
  mpReadBuffer(...args: (string | number)[]): Promise<unknown[]>;
  mpTrim(log: string, seen: string, firstKept: string, ...replicas: string[]): Promise<number>;
  mpLease(lease: string, replica: string, ttlMs: number): Promise<number>;
  mpRelease(lease: string, replica: string): Promise<number>;
  mpPublishSnapshot(...args: [string, string, string, string, string, string]): Promise<number>;
}

export type Scripted<C extends Client = Client> = C & Commands;

/** Name of the command -> file, which ends in the number of its keys. */
const FILES = {
  mpAppend: 'append-2',
  mpRead: 'read-2',
  mpTrim: 'trim-2',
  mpLease: 'lease-1',
  mpRelease: 'release-1',
  mpPublishSnapshot: 'publishSnapshot-4',
} as const;

/** Gives a client our scripts as commands. */
export function withScripts<C extends Client>(client: C): Scripted<C> {
  for (const [name, file] of Object.entries(FILES)) {
    client.defineCommand(name, { numberOfKeys: Number(file.split('-')[1]), lua: scriptText(file) });
  }
  return client as Scripted<C>;
}

/** A script as it is sent: without its comments, and with what it includes. */
export function scriptText(file: string): string {
  const text = readFileSync(join(LUA, `${file}.lua`), 'utf8');
  return text
    .replace(/^-- @include (\w+)$/gm, (_, part: string) => scriptText(part))
    .replace(/^--.*\n/gm, '')
    .trim();
}

export function appendReply(reply: readonly unknown[]): AppendReply {
  const [appended, last, trimmed, id, more, entries] = reply;
  return {
    appended: appended === 1,
    last: Number(last),
    trimmed: text(trimmed) || START,
    id: text(id),
    more: text(more) === '1',
    entries: entriesOf(entries),
  };
}

export function readReply(reply: readonly unknown[]): ReadReply {
  const [last, trimmed, newest, more, entries, numbers] = reply;
  return {
    last: Number(last),
    trimmed: text(trimmed) || START,
    newest: text(newest),
    more: text(more) === '1',
    entries: entriesOf(entries),
    numbers: numbersOf(numbers),
  };
}

const text = (value: unknown): string => (Buffer.isBuffer(value) ? value.toString('latin1') : '');

function numbersOf(flat: unknown): Map<string, number> {
  const numbers = new Map<string, number>();
  if (!Array.isArray(flat)) return numbers;
  for (let i = 0; i + 1 < flat.length; i += 2) {
    const name = text(flat[i]);
    if (name !== 'trimmed') numbers.set(name, Number(text(flat[i + 1])));
  }
  return numbers;
}

function entriesOf(flat: unknown): Entry[] {
  const entries: Entry[] = [];
  if (!Array.isArray(flat)) return entries;
  for (let i = 0; i + 3 < flat.length; i += 4) {
    const [id, replica, number, blob] = flat.slice(i, i + 4) as [Buffer, Buffer, Buffer, Buffer];
    entries.push({ id: text(id), replica: text(replica), number: Number(text(number)), blob });
  }
  return entries;
}
