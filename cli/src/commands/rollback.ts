// `meshpulse rollback …`: doomed transactions, what follows from them, and who may limit it.

import type { Command } from 'commander';
import type { Io } from '../io.js';
import type { Done } from '../main.js';
import { addAudit } from '../rollback/audit.js';
import { addChanges } from '../rollback/changes.js';
import { addReads } from '../rollback/reads.js';

export function addRollback(program: Command, io: Io, done: Done): void {
  const rollback = program
    .command('rollback')
    .description('transactions that cannot succeed any more: verdicts, plans, savings, audit, policy and kill switch');
  addReads(rollback, io, done);
  addAudit(rollback, io, done);
  addChanges(rollback, io, done);
}
