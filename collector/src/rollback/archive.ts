// What is written down: entries for the store, and the audit.

import { randomBytes } from 'node:crypto';
import type { Clock } from '../clock.js';
import type { Logger } from '../log.js';
import type { Audit, Ledger } from './ledger.js';
import type { RollbackEntry } from './store-entries.js';
import type { VerdictRecord } from './verdicts.js';

export interface ArchiveParts {
  readonly clock: Clock;
  readonly log: Logger;
  readonly ledger: Ledger;
  /** Settles when the entries are as durable as they will be. */
  readonly put: (entries: readonly RollbackEntry[]) => Promise<unknown>;
  /** Told of verdicts that changed here, when they are on their way to the store. */
  readonly changed?: (records: Iterable<VerdictRecord>) => void;
}

export class Archive {
  private audits = 0;
  /** Sets the records of this process apart from those of others. */
  private readonly process = randomBytes(4).toString('hex');
  /** Records that changed in this turn of the event loop. */
  private readonly changed = new Set<VerdictRecord>();

  constructor(private readonly parts: ArchiveParts) {}

  /** Without waiting; a failure belongs in the log. */
  keep(...entries: readonly RollbackEntry[]): void {
    this.parts.put(entries).catch((error: unknown) => {
      this.parts.log.error({ err: error }, 'the store refused what rollback told it');
    });
  }

  /** At the end of this turn, and once however often it changes: first the filters are told. */
  keepVerdict(record: VerdictRecord): void {
    if (this.changed.size === 0) setImmediate(() => this.keepChanged());
    this.changed.add(record);
  }

  private keepChanged(): void {
    this.keep(...[...this.changed].map(record => ({ type: 'verdict' as const, id: record.id, value: record })));
    this.parts.changed?.(this.changed);
    this.changed.clear();
  }

  /** Settles when they are stored; rejects when they cannot be. */
  async store(...entries: readonly RollbackEntry[]): Promise<void> {
    await this.parts.put(entries);
  }

  /** Notes who did what, why, and how it went. */
  audit(action: Audit['action'], actor: string, reason: string, subject: string, result: string): void {
    const { clock, ledger, log } = this.parts;
    const atUs = clock.nowUs();
    this.audits += 1;
    const id = `${atUs} ${this.process} ${this.audits}`;
    const value = { id, atUs, action, actor, reason, subject, result };
    ledger.audit(value);
    log[action === 'refused' ? 'warn' : 'info']({ audit: { action, actor, reason, subject, result } }, 'audit');
    this.keep({ type: 'audit', id, value });
  }
}
