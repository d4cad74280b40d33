// `meshpulse rollback audit`: who changed what, and who was refused.

import type { Command } from 'commander';
import { didYouMean } from '../../../collector/src/near.js';
import { EXIT, wrongUse } from '../errors.js';
import type { Io } from '../io.js';
import type { Done } from '../main.js';
import { json, thatAsks, wholeNumber, type Asking, type ReadOptions } from '../read-command.js';
import { orUnknown, table, type Row } from '../table.js';
import { rfc3339 } from '../times.js';
import type { AuditRecord } from './messages.js';
import { sinceOf } from './shown.js';

const ACTIONS = ['trigger', 'ack', 'override', 'kill', 'lift', 'policy', 'refused'];
const LIMIT = 50;
const LIMIT_MAX = 100_000;

export function addAudit(rollback: Command, io: Io, done: Done): void {
  const command = rollback
    .command('audit')
    .description('who changed what and who was refused, newest first')
    .option('--action <actions>', `only these, comma-separated: ${ACTIONS.join(', ')}`)
    .option('--actor <name>', 'only by this one')
    .option('--since <time>', 'since then: 24h, or 2026-01-31T12:00:00Z')
    .option('--limit <n>', 'show this many at most', wholeNumber(1, LIMIT_MAX), LIMIT);
  thatAsks<AuditOptions>(command, io, done, audit);
}

export const auditTable = (records: readonly AuditRecord[]): string =>
  table(
    ['AT', 'ACTION', 'BY', 'SUBJECT', 'WHY', 'RESULT'],
    records.map((one): Row => [
      rfc3339(one.at),
      one.action,
      orUnknown(one.actor),
      orUnknown(one.subject),
      orUnknown(one.reason),
      one.result,
    ]),
  );

interface AuditOptions extends ReadOptions {
  readonly action?: string;
  readonly actor?: string;
  readonly since?: string;
  readonly limit: number;
}

async function audit({ client, io, options }: Asking<AuditOptions>): Promise<number> {
  const actions = options.action?.split(',') ?? [];
  const unknown = actions.find(action => !ACTIONS.includes(action));
  if (unknown !== undefined) {
    throw wrongUse(`--action is "${unknown}", must be one of ${ACTIONS.join(', ')}${didYouMean(unknown, ACTIONS)}`);
  }
  const request = { actions, actor: options.actor ?? '', ...sinceOf(options, io) };
  const { items, more } = await client.list<AuditRecord>('Rollback', 'ListAudit', 'records', request, options.limit);
  if (options.output === 'json') io.out(json({ records: items }));
  else if (items.length === 0) io.note('nothing was changed, and nobody refused\n');
  else io.out(auditTable(items));
  if (more) io.note(`there are more than these ${items.length}; --limit N shows N\n`);
  return EXIT.OK;
}
