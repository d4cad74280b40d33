// `meshpulse observe`: requests in work, and those that were.

import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { EXIT, wrongUse } from '../errors.js';
import type { Io } from '../io.js';
import type { Done } from '../main.js';
import type { Transaction } from '../messages.js';
import { didYouMean } from '../../../collector/src/near.js';
import {
  asking,
  json,
  jsonLine,
  wholeNumber,
  withReadOptions,
  type Asking,
  type ReadOptions,
} from '../read-command.js';
import { stateCell, stateOf } from '../states.js';
import { line, orUnknown, table, widths, type Row } from '../table.js';
import { age, momentOf, parseMoment, parseSpan, rfc3339, seconds, span, spanOf } from '../times.js';

interface Options extends ReadOptions {
  readonly state?: string;
  readonly olderThan?: string;
  readonly service?: string;
  readonly namespace?: string;
  readonly allNamespaces?: boolean;
  readonly since?: string;
  readonly limit: number;
  readonly follow?: boolean;
}

const STATES = ['running', 'succeeded', 'failed', 'doomed', 'declined', 'cancelled'];
const LIMIT = 50;
const LIMIT_MAX = 100_000;

/** Which requests have become old is asked again this often, ms. */
const ASK_AGAIN_MS = 1000;

/** Transactions that `-f` remembers as shown; the oldest are forgotten. */
const SHOWN_MAX = 100_000;

const HEADERS = ['TRANSACTION', 'KIND', 'STATE', 'AGE', 'DURATION'];

export function addObserve(program: Command, io: Io, done: Done): void {
  const command = program
    .command('observe')
    .description('requests in work and those that were, newest first')
    .option('--state <states>', `only these, comma-separated: ${STATES.join(', ')}`)
    .option('--older-than <duration>', 'begun at least this long ago, like 5s; without --state: those that still run')
    .option('--service <service>', 'only those that this service took part in')
    .option('-n, --namespace <namespace>', 'only those that this namespace took part in')
    .option('-A, --all-namespaces', 'of all namespaces (the default)')
    .option('--since <time>', 'that still ran then or began later: 5m, or 2026-01-31T12:00:00Z')
    .option('--limit <n>', 'show this many at most', wholeNumber(1, LIMIT_MAX), LIMIT)
    .option('-f, --follow', 'then show each one that begins, changes its state or ends');
  withReadOptions(command).action(async (options: Options) => {
    done(await asking(io, options, observe));
  });
}

async function observe(at: Asking<Options>): Promise<number> {
  const { client, io, options } = at;
  const filter = filterOf(options);
  if (options.follow === true) return options.olderThan === undefined ? follow(at, filter) : followOld(at, filter);
  const found = await client.list<Transaction>(
    'Transactions',
    'List',
    'transactions',
    listRequest(at, filter),
    options.limit,
  );
  if (options.output === 'json') io.out(json({ ...found.last, transactions: found.items }));
  else if (found.items.length > 0)
    io.out(
      table(
        HEADERS,
        found.items.map(one => row(one, io)),
      ),
    );
  else io.note('no such request is known\n');
  noteUnlisted(at, filter, found.last);
  if (found.more) io.note(`there are more than these ${found.items.length}; --limit N shows N\n`);
  if (found.last['truncated'] === true) {
    io.note(
      `--since reaches further back than what is kept: this begins at ${rfc3339(found.last['coveredSince'] as string)}\n`,
    );
  }
  return EXIT.OK;
}

/** Requests that run are known from an age on: what was asked for can be younger. */
function noteUnlisted(
  { io, options }: Asking<Options>,
  filter: Filter,
  answer: Readonly<Record<string, unknown>>,
): void {
  const knownAfterMs = spanOf(answer['runningKnownAfter'] as string | undefined);
  if (knownAfterMs === undefined || options.olderThan === undefined) return;
  if (!filter.states.includes('TRANSACTION_STATE_RUNNING')) return;
  if (parseSpan(options.olderThan, '--older-than') >= knownAfterMs) return;
  io.note(`requests that have run for less than ${age(knownAfterMs)} may be missing: proxies list them from then on\n`);
}

interface Filter {
  readonly states: readonly string[];
  readonly service: string;
  readonly namespace: string;
}

function filterOf(options: Options): Filter {
  if (options.namespace !== undefined && options.allNamespaces === true) {
    throw wrongUse('-n and -A contradict each other; leave one out');
  }
  const words = options.state?.split(',') ?? (options.olderThan === undefined ? [] : ['running']);
  for (const word of words) {
    if (STATES.includes(word)) continue;
    throw wrongUse(`--state is "${word}", must be one of ${STATES.join(', ')}${didYouMean(word, STATES)}`);
  }
  const { service = '', namespace = '' } = options;
  return { states: words.map(word => `TRANSACTION_STATE_${word.toUpperCase()}`), service, namespace };
}

function listRequest({ io, options }: Asking<Options>, filter: Filter): object {
  const { olderThan, since } = options;
  return {
    ...filter,
    ...(olderThan === undefined ? {} : { olderThan: seconds(parseSpan(olderThan, '--older-than')) }),
    ...(since === undefined ? {} : { since: seconds(parseMoment(since, '--since', io.nowMs())) }),
  };
}

function row(transaction: Transaction, io: Io): Row {
  const startedMs = momentOf(transaction.started);
  const agoMs = startedMs === undefined ? undefined : Math.max(0, io.nowMs() - startedMs);
  const state = stateOf(transaction.state);
  const tookMs = spanOf(transaction.duration) ?? (state === 'running' ? agoMs : undefined);
  return [
    transaction.keyText === '' ? transaction.key : transaction.keyText,
    orUnknown(transaction.kind),
    stateCell(state, io.colors),
    agoMs === undefined ? '-' : age(agoMs),
    tookMs === undefined ? '-' : span(tookMs),
  ];
}

/** Prints transactions as they come: the first ones as a table, later ones in its columns. */
class Lines {
  private columns: number[] | undefined;

  constructor(
    private readonly io: Io,
    private readonly output: string,
  ) {}

  show(transactions: readonly Transaction[]): void {
    const { io } = this;
    if (this.output === 'json') {
      for (const transaction of transactions) io.out(jsonLine(transaction));
      return;
    }
    const rows = transactions.map(one => row(one, io));
    if (this.columns === undefined) {
      this.columns = widths(HEADERS, rows);
      io.out(table(HEADERS, rows));
    } else for (const one of rows) io.out(line(one, this.columns));
  }
}

/** What is there, oldest first, then each change. */
async function follow(at: Asking<Options>, filter: Filter): Promise<number> {
  const { client, io, options } = at;
  // The stream is opened first, so that nothing is missed between the list and the first change.
  const changes = client.follow<Transaction>('Transactions', 'Watch', filter);
  let next = changes.next();
  next.catch(() => undefined); // reported below, when it is waited for
  const request = listRequest(at, filter);
  const { items } = await client.list<Transaction>('Transactions', 'List', 'transactions', request, options.limit);
  const shown = new Map(items.map(one => [one.key, one.state]));
  const lines = new Lines(io, options.output);
  lines.show([...items].reverse());
  for (;;) {
    const change = await next;
    if (change.done === true) return EXIT.OK;
    const { value } = change;
    next = changes.next();
    next.catch(() => undefined);
    if (shown.get(value.key) === value.state) shown.delete(value.key);
    else lines.show([value]);
  }
}

/** Each transaction once, when it has become old enough. */
async function followOld(at: Asking<Options>, filter: Filter): Promise<number> {
  const { client, io, options } = at;
  const shown = new Set<string>();
  const lines = new Lines(io, options.output);
  for (;;) {
    const request = listRequest(at, filter);
    const { items } = await client.list<Transaction>('Transactions', 'List', 'transactions', request, options.limit);
    lines.show(items.filter(one => !shown.has(one.key)).reverse());
    for (const { key } of items) shown.add(key);
    for (const key of shown) {
      if (shown.size <= SHOWN_MAX) break;
      shown.delete(key);
    }
    await sleep(ASK_AGAIN_MS);
  }
}
