// `meshpulse why ID`: one request's story.

import type { Command } from 'commander';
import { EXIT } from '../errors.js';
import type { Io } from '../io.js';
import type { Done } from '../main.js';
import type { Explanation, Transaction } from '../messages.js';
import { asking, json, withReadOptions, type Asking, type ReadOptions } from '../read-command.js';
import { stateCell, stateOf } from '../states.js';
import { line, table } from '../table.js';
import { age, momentOf, rfc3339, span, spanOf } from '../times.js';

interface Options extends ReadOptions {
  readonly evidence?: boolean;
}

export function addWhy(program: Command, io: Io, done: Done): void {
  const command = program
    .command('why')
    .description('what happened to one request, step by step and retry by retry')
    .argument('<id>', 'transaction key (trace id), x-request-id, event id, or plain transaction id')
    .option('-e, --evidence', 'show what each line rests on');
  withReadOptions(command).action(async (id: string, options: Options) => {
    done(await asking(io, options, at => why(at, id)));
  });
}

async function why({ client, io, options }: Asking<Options>, id: string): Promise<number> {
  const answer = await client.ask<Explanation>('Transactions', 'Explain', { id });
  if (options.output === 'json') {
    io.out(json(answer));
    return EXIT.OK;
  }
  io.out(`${io.colors.bold(answer.summary)}\n\n${head(answer.transaction, io)}\n`);
  const rows = answer.lines.flatMap(({ offset, depth, text, evidence }) => [
    [`+${span(spanOf(offset) ?? 0)}`, '  '.repeat(depth) + text],
    ...(options.evidence === true && evidence.length > 0
      ? [['', { text: `${'  '.repeat(depth + 1)}${evidence.join(' ')}`, paint: io.colors.dim }]]
      : []),
  ]);
  io.out(table(['OFFSET', 'WHAT HAPPENED'], rows));
  return EXIT.OK;
}

/** Facts about the whole, one a line. */
function head(transaction: Transaction, io: Io): string {
  const { key, keyText, kind, started, duration, requestIds, entries, eventsOmitted, unlinked } = transaction;
  const startedMs = momentOf(started);
  const facts: [string, string][] = [
    ['Transaction', keyText === '' ? key : `${keyText} (${key})`],
    ['Kind', kind === '' ? 'not known: no entry event was heard' : kind],
    ['Started', startedMs === undefined ? '-' : `${rfc3339(started)} (${age(io.nowMs() - startedMs)} ago)`],
    ['Duration', duration === undefined ? '-' : span(spanOf(duration)!)],
    ['Request ids', requestIds.join(', ') || '-'],
    ...(entries > 1 ? [['Entries', `${entries}: several requests share this id`] as [string, string]] : []),
    ...(unlinked > 0 ? [['Unlinked', `${unlinked} requests whose cause is not known`] as [string, string]] : []),
    ...(eventsOmitted > 0 ? [['Not kept', `${eventsOmitted} more events`] as [string, string]] : []),
  ];
  const width = Math.max(...facts.map(([name]) => name.length)) + 1;
  const state = line(['State:', stateCell(stateOf(transaction.state), io.colors)], [width]);
  return facts.map(([name, value]) => line([`${name}:`, value], [width])).join('') + state;
}
