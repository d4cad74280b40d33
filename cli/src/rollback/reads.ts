// `meshpulse rollback list|plan|ledger|policy|simulate|watch`: what is and what was. Nothing is changed.

import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { EXIT, wrongUse } from '../errors.js';
import type { Io } from '../io.js';
import type { Done } from '../main.js';
import { didYouMean } from '../../../collector/src/near.js';
import { json, jsonLine, thatAsks, wholeNumber, type Asking, type ReadOptions } from '../read-command.js';
import { line, orUnknown, table, widths, type Row } from '../table.js';
import { rfc3339, span, spanOf } from '../times.js';
import { word, type Ledger, type Plan, type PolicyView, type Score, type Signal, type Verdict } from './messages.js';
import { auditTable } from './audit.js';
import { ago, planText, sinceOf, verdictRow, VERDICT_HEADERS, work } from './shown.js';

interface ListOptions extends ReadOptions {
  readonly state?: string;
  readonly service?: string;
  readonly since?: string;
  readonly limit: number;
}

const STATES = ['decided', 'rolling-back', 'rolled-back', 'stuck'];
const LIMIT = 50;
const LIMIT_MAX = 100_000;

export function addReads(rollback: Command, io: Io, done: Done): void {
  const read = <T extends ReadOptions>(
    command: Command,
    work: (at: Asking<T>, ...words: string[]) => Promise<number>,
  ): void => thatAsks(command, io, done, work);
  read(
    rollback
      .command('list')
      .description('transactions found doomed, newest first')
      .option('--state <states>', `only these, comma-separated: ${STATES.join(', ')}`)
      .option('--service <service>', 'only those that this service failed')
      .option('--since <time>', 'decided since then: 5m, or 2026-01-31T12:00:00Z')
      .option('--limit <n>', 'show this many at most', wholeNumber(1, LIMIT_MAX), LIMIT),
    list,
  );
  read(
    rollback
      .command('plan')
      .description('what has to be undone for one transaction, in which order')
      .argument('<id>', 'of the verdict or the transaction'),
    plan,
  );
  read(
    rollback
      .command('watch')
      .description('signals of one service as they come, one object a line with -o json')
      .argument('<service>', 'name.namespace')
      .option('--cuid <cuid>', 'as this life: signals for others come after 2 s only')
      .option('--resume <token>', 'go on after this resume token'),
    watch,
  );
  read(
    rollback
      .command('ledger')
      .description('what was refused and saved, by failed step; and who changed what')
      .option('--since <time>', 'of verdicts since then'),
    ledger,
  );
  read(
    rollback
      .command('policy')
      .description('the policy in force, overrides, kills, and what was learned')
      .option('--check <file>', 'only check this policy file, without a collector'),
    policy,
  );
  read(
    rollback
      .command('simulate')
      .description('what a policy would have decided on the transactions that are kept')
      .option('--policy <file>', 'policy file (default: the one in force)')
      .option('--since <time>', 'on transactions that ended since then'),
    simulate,
  );
}

async function list({ client, io, options }: Asking<ListOptions>): Promise<number> {
  const states = options.state?.split(',') ?? [];
  for (const state of states) {
    if (STATES.includes(state)) continue;
    throw wrongUse(`--state is "${state}", must be one of ${STATES.join(', ')}${didYouMean(state, STATES)}`);
  }
  const request = {
    states: states.map(state => `ROLLBACK_STATE_${state.toUpperCase().replaceAll('-', '_')}`),
    service: options.service ?? '',
    ...sinceOf(options, io),
  };
  const { items, more } = await client.list<Verdict>('Rollback', 'List', 'verdicts', request, options.limit);
  if (options.output === 'json') io.out(json({ verdicts: items }));
  else if (items.length === 0) io.note('no transaction was found doomed\n');
  else
    io.out(
      table(
        VERDICT_HEADERS,
        items.map(one => verdictRow(one, io)),
      ),
    );
  if (more) io.note(`there are more than these ${items.length}; --limit N shows N\n`);
  return items.some(one => one.state === 'ROLLBACK_STATE_STUCK') ? EXIT.PROBLEM : EXIT.OK;
}

async function plan({ client, io, options }: Asking<ReadOptions>, id: string): Promise<number> {
  const answer = await client.ask<Plan>('Rollback', 'GetPlan', { id });
  io.out(options.output === 'json' ? json(answer) : planText(answer, io));
  return answer.state === 'ROLLBACK_STATE_STUCK' ? EXIT.PROBLEM : EXIT.OK;
}

async function watch(at: Asking<ReadOptions & { cuid?: string; resume?: string }>, service: string): Promise<number> {
  const { client, io, options } = at;
  const request = { service, cuid: options.cuid ?? '', resumeToken: options.resume ?? '' };
  const headers = ['SIGNAL', 'TRANSACTION', 'UNDO', 'EVENT', 'DELIVERY', 'BECAUSE', 'RESUME'];
  let columns: number[] | undefined;
  for await (const signal of client.follow<Signal>('Rollback', 'Watch', request)) {
    if (options.output === 'json') {
      io.out(jsonLine(signal));
      continue;
    }
    const { step } = signal;
    const name = `${step?.operation ?? ''}${step?.unknown === true ? ' (may have taken effect)' : ''}`;
    const row: Row = [
      signal.id,
      signal.key,
      name,
      step?.eventId ?? '',
      String(signal.delivery),
      signal.reason,
      signal.resumeToken,
    ];
    if (columns === undefined) {
      columns = widths(headers, [row]);
      io.out(line(headers, columns));
    }
    io.out(line(row, columns));
  }
  return EXIT.OK;
}

async function ledger({ client, io, options }: Asking<ReadOptions & { since?: string }>): Promise<number> {
  const answer = await client.ask<Ledger>('Rollback', 'GetLedger', sinceOf(options, io));
  if (options.output === 'json') {
    io.out(json(answer));
    return EXIT.OK;
  }
  const headers = [
    'FAILED STEP',
    'KIND',
    'VERDICTS',
    'HELD_OUT',
    'WRONG',
    'REFUSED',
    'WOULD',
    'WITHHELD',
    'RETRIES',
    'SAVED',
  ];
  const rows = answer.lines.map(({ kind, service, operation, verdicts, heldOut, wrongVerdicts, saved }): Row => [
    service === '' ? '(by hand)' : `${service} ${operation}`,
    orUnknown(kind),
    verdicts,
    heldOut,
    wrongVerdicts,
    saved?.refused ?? '0',
    saved?.wouldRefuse ?? '0',
    saved?.withheld ?? '0',
    saved?.retriesSuppressed ?? '0',
    work(saved),
  ]);
  if (rows.length === 0) io.note('no transaction was found doomed\n');
  else io.out(table(headers, rows));
  const { total } = answer;
  io.out(
    `\n${total?.refused ?? 0} requests refused, ${total?.retriesSuppressed ?? 0} retries not made, ${work(total)} of work saved since ${rfc3339(answer.since)}\n`,
  );
  if (answer.audit.length > 0) io.out(`\n${auditTable(answer.audit)}`);
  return EXIT.OK;
}

async function policy({ client, io, options }: Asking<ReadOptions & { check?: string }>): Promise<number> {
  if (options.check !== undefined) return check(options.check, io);
  const answer = await client.ask<PolicyView>('Rollback', 'GetPolicy', {});
  if (options.output === 'json') io.out(json(answer));
  else io.out(policyText(answer, io));
  if (answer.refused !== '')
    io.note(`${answer.path} was refused: ${answer.refused}; the policy before it stays in force\n`);
  return answer.refused === '' ? EXIT.OK : EXIT.PROBLEM;
}

async function check(path: string, io: Io): Promise<number> {
  const { parsePolicy, PolicyError } = await import('../../../collector/src/rollback/policy-file.js');
  try {
    parsePolicy(contentOf(path, '--check'));
    io.out(`${path} is a policy without faults\n`);
    return EXIT.OK;
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error;
    io.note(`${path}: ${error.message}\n`);
    return EXIT.PROBLEM;
  }
}

function policyText({ mode, path, loaded, overrides, kills, learned }: PolicyView, io: Io): string {
  const parts = [
    `Mode:     ${word(mode)}\nPolicy:   ${path === '' ? 'the defaults' : `${path}, loaded ${ago(loaded, io)} ago`}\n`,
  ];
  if (kills.length > 0) {
    parts.push(
      table(
        ['KILLED', 'SINCE', 'BY', 'WHY'],
        kills.map(one => [one.scope, rfc3339(one.since), orUnknown(one.actor), one.reason]),
      ),
    );
  }
  if (overrides.length > 0) {
    const rows = overrides.map((one): Row => [
      one.scope,
      word(one.mode),
      rfc3339(one.until),
      orUnknown(one.actor),
      one.reason,
    ]);
    parts.push(table(['OVERRIDE', 'MODE', 'UNTIL', 'BY', 'WHY'], rows));
  }
  if (learned.length > 0) {
    const rows = learned.map((one): Row => [
      `${one.service} ${one.operation}`,
      one.kind,
      `${one.fatal} of ${one.failures}`,
      one.lowerBound.toFixed(3),
      one.decides ? 'decides' : one.withheld,
      orUnknown(one.forward.join(', ')),
    ]);
    parts.push(table(['FAILED STEP', 'KIND', 'FATAL', 'BOUND', 'VERDICT', 'WOULD REFUSE'], rows));
  }
  return parts.join('\n');
}

async function simulate({
  client,
  io,
  options,
}: Asking<ReadOptions & { policy?: string; since?: string }>): Promise<number> {
  const text = options.policy === undefined ? '' : contentOf(options.policy, '--policy');
  const score = await client.ask<Score>('Rollback', 'Simulate', { policy: text, ...sinceOf(options, io) });
  if (options.output === 'json') io.out(json(score));
  else io.out(scoreText(score));
  return Number(score.wrong) > 0 ? EXIT.PROBLEM : EXIT.OK;
}

function scoreText(score: Score): string {
  const { transactions, failing, right, wrong, heldOut, missed, refused, steps } = score;
  const facts: [string, string][] = [
    ['Transactions', `${transactions}, ${failing} with a final failure`],
    ['Right verdicts', right],
    ['Wrong verdicts', `${wrong} (they went on to succeed)`],
    ['Held out', heldOut],
    ['Failed without', `${missed} (no verdict)`],
    ['Would refuse', `${refused} requests, ${span(spanOf(score.work) ?? 0)} of work`],
  ];
  const head = facts.map(([name, value]) => line([`${name}:`, value], [15])).join('');
  if (steps.length === 0) return head;
  const rows = steps.map((one): Row => [
    `${one.service} ${one.operation}`,
    one.kind,
    word(one.reason),
    one.right,
    one.wrong,
    orUnknown(one.forward.join(', ')),
  ]);
  return `${head}\n${table(['FAILED STEP', 'KIND', 'REASON', 'RIGHT', 'WRONG', 'WOULD REFUSE'], rows)}`;
}

function contentOf(path: string, option: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw wrongUse(`${option} ${path} cannot be read: ${(error as Error).message}`);
  }
}
