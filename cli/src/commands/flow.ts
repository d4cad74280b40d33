// `meshpulse flow [KIND]`: the learned graph of each kind of request, as a tree.

import type { Command } from 'commander';
import { EXIT, problem } from '../errors.js';
import type { Io } from '../io.js';
import type { Done } from '../main.js';
import type { Flow } from '../messages.js';
import { didYouMean } from '../../../collector/src/near.js';
import { asking, json, withReadOptions, type Asking, type ReadOptions } from '../read-command.js';
import { age, momentOf, parseSpan } from '../times.js';
import { tree } from '../tree.js';

interface Options extends ReadOptions {
  readonly window?: string;
}

export function addFlow(program: Command, io: Io, done: Done): void {
  const command = program
    .command('flow')
    .description('which step calls which, in which order, how often and how long, learned from what ran')
    .argument('[kind...]', 'kind of request, like `gateway.shop POST /checkout/*`, or a part of it (default: all)')
    .option('--window <duration>', 'only what was seen within this time, like 1h');
  withReadOptions(command).action(async (kind: string[], options: Options) => {
    done(await asking(io, options, at => flow(at, kind.join(' '))));
  });
}

async function flow({ client, io, options }: Asking<Options>, kind: string): Promise<number> {
  const windowSeconds = options.window === undefined ? 0 : Math.ceil(parseSpan(options.window, '--window') / 1000);
  const { flows } = await client.ask<{ flows: Flow[] }>('Registry', 'GetFlow', { windowSeconds });
  const found = flows.filter(one => one.kind === kind);
  const shown = found.length > 0 ? found : flows.filter(one => one.kind.includes(kind));
  if (kind !== '' && shown.length === 0) {
    throw problem(
      `no kind of request "${kind}" has been learned${didYouMean(
        kind,
        flows.map(one => one.kind),
      )}`,
    );
  }
  if (options.output === 'json') io.out(json({ flows: shown }));
  else if (shown.length === 0) io.note('nothing has been learned yet\n');
  else io.out(shown.map(one => `${heading(one, io)}${tree(one)}`).join('\n'));
  return EXIT.OK;
}

function heading(flow: Flow, io: Io): string {
  const seenMs = momentOf(flow.lastSeen);
  const facts = [
    `${flow.transactions} transactions`,
    ...(seenMs === undefined ? [] : [`last ${age(io.nowMs() - seenMs)} ago`]),
    ...(flow.transactionsAbstained === '0'
      ? []
      : [`${flow.transactionsAbstained} more taught nothing: filters on their way thin their rows`]),
    ...(flow.transactions !== '0' && flow.singleEntryRatio < 1
      ? [`${Math.round(flow.singleEntryRatio * 100)}% with one entry`]
      : []),
  ];
  return `${io.colors.bold(flow.kind)}   ${facts.join(', ')}\n`;
}
