// `meshpulse rollback trigger|ack|override|kill`: what changes something needs a reason, and can be tried.

import { userInfo } from 'node:os';
import { Option, type Command } from 'commander';
import { EXIT, wrongUse } from '../errors.js';
import type { Io } from '../io.js';
import type { Done } from '../main.js';
import { json, thatAsks, type Asking, type ReadOptions } from '../read-command.js';
import { line } from '../table.js';
import { parseSpan, rfc3339, seconds } from '../times.js';
import { word, type Kill, type Override, type Plan, type PlanStep, type Verdict } from './messages.js';
import { planText } from './shown.js';

interface ChangeOptions extends ReadOptions {
  readonly reason: string;
  readonly dryRun?: boolean;
}

const MODES = ['off', 'observe', 'enforce'];
const SCOPES = 'mesh, namespace/NS, service/NAME or kind/KIND';

export function addChanges(rollback: Command, io: Io, done: Done): void {
  const change = <T extends ReadOptions>(
    command: Command,
    work: (at: Asking<T>, ...words: string[]) => Promise<number>,
  ): void => thatAsks(command, io, done, work);
  const withReason = (command: Command): Command =>
    command
      .requiredOption('--reason <text>', 'why, for the audit')
      .option('--dry-run', 'show what would happen, and do nothing');
  change(
    withReason(
      rollback
        .command('trigger')
        .description('declare a transaction doomed by hand')
        .argument('<id>', 'transaction key (trace id), x-request-id or event id'),
    ),
    trigger,
  );
  change(
    withReason(
      rollback
        .command('ack')
        .description('a step is undone; applications say so themselves, by Rollback.Ack or by answering the callback')
        .argument('<signal>', 'signal id')
        .option('--step <event>', 'its event id, which must match')
        .option('--by <name>', 'who undid it'),
    ),
    ack,
  );
  change(
    withReason(
      rollback
        .command('override')
        .description('limit the mode of a scope for a while; never above that of the policy')
        .argument('<scope>', SCOPES)
        .addOption(new Option('--mode <mode>', 'mode at most').choices(MODES))
        .option('--ttl <duration>', 'for how long, 1s to 24h')
        .option('--lift', 'end the override instead'),
    ),
    override,
  );
  change(
    withReason(
      rollback
        .command('kill')
        .description('off until lifted; every filter passes everything at once')
        .argument('[scope]', SCOPES, 'mesh')
        .option('--lift', 'end the kill instead'),
    ),
    kill,
  );
}

async function trigger({ client, io, options }: Asking<ChangeOptions>, id: string): Promise<number> {
  const request = { id, ...whyOf(options) };
  const answer = await client.ask<{ verdict?: Verdict; plan?: Plan; dryRun: boolean }>('Rollback', 'Trigger', request);
  if (options.output === 'json') io.out(json(answer));
  else if (answer.plan !== undefined) io.out(planText(answer.plan, io));
  if (answer.dryRun) io.note('nothing was done\n');
  return EXIT.OK;
}

async function ack(
  { client, io, options }: Asking<ChangeOptions & { step?: string; by?: string }>,
  signal: string,
): Promise<number> {
  const { step: event = '', by = actor(), reason, dryRun = false } = options;
  const request = { signal, step: event, by, reason, dryRun };
  const answer = await client.ask<{ step?: PlanStep; first: boolean }>('Rollback', 'Ack', request);
  if (options.output === 'json') io.out(json(answer));
  else {
    const { step } = answer;
    const when = answer.first ? 'now' : `before, by ${step?.acknowledgedBy ?? ''} at ${rfc3339(step?.acknowledged)}`;
    io.out(`${step?.service ?? ''} ${step?.operation ?? ''} of event ${step?.eventId ?? ''}: acknowledged ${when}\n`);
  }
  if (dryRun) io.note('nothing was done\n');
  return EXIT.OK;
}

type OverrideOptions = ChangeOptions & { readonly mode?: string; readonly ttl?: string; readonly lift?: boolean };

async function override({ client, io, options }: Asking<OverrideOptions>, scope: string): Promise<number> {
  const { mode, ttl, lift = false } = options;
  if (lift === (mode !== undefined || ttl !== undefined)) {
    throw wrongUse(lift ? '--lift goes without --mode and --ttl' : 'give --mode and --ttl, or --lift');
  }
  if (!lift && (mode === undefined || ttl === undefined)) throw wrongUse('--mode and --ttl go together');
  const what = lift ? {} : { mode: `ROLLBACK_MODE_${mode!.toUpperCase()}`, ttl: seconds(parseSpan(ttl!, '--ttl')) };
  const request = { scope, ...what, ...whyOf(options) };
  const answer = await client.ask<{ override?: Override; dryRun: boolean }>('Rollback', 'Override', request);
  if (options.output === 'json') io.out(json(answer));
  else if (lift) io.out(`${scope}: the override is lifted\n`);
  else io.out(`${scope}: at most ${word(answer.override!.mode)} until ${rfc3339(answer.override!.until)}\n`);
  if (answer.dryRun) io.note('nothing was done\n');
  return EXIT.OK;
}

async function kill(
  { client, io, options }: Asking<ChangeOptions & { lift?: boolean }>,
  scope: string,
): Promise<number> {
  const { lift = false } = options;
  const request = { scope, lift, ...whyOf(options) };
  const answer = await client.ask<{ kill?: Kill; dryRun: boolean; proxies: number }>('Rollback', 'Kill', request);
  if (options.output === 'json') io.out(json(answer));
  else if (lift) io.out(`${scope}: the kill is lifted\n`);
  else {
    const told = answer.proxies > 0 ? `; ${answer.proxies} proxies told to forget everything` : '';
    io.out(line([`${scope}: off until lifted${told}`], []));
  }
  if (answer.dryRun) io.note('nothing was done\n');
  return EXIT.OK;
}

const whyOf = ({ reason, dryRun = false }: ChangeOptions): object => ({ reason, dryRun, actor: actor() });

/** Who asks, as the system names them; without a name (no entry for the user id) nobody. */
function actor(): string {
  try {
    return userInfo().username;
  } catch {
    return '';
  }
}
