// What is written down: entries for the store, and the audit.

import { randomBytes } from 'node:crypto';
import type { Clock } from '../clock.js';
import type { Logger } from '../log.js';
import type { Audit, Ledger } from './ledger.js';
import type { Peers } from './peers.js';
import type { PutRollback } from '../store/store.js';
import type { RollbackEntry, StoredAck } from './store-entries.js';
import { namesOf, type VerdictRecord } from './verdicts.js';

export interface ArchiveParts {
  readonly clock: Clock;
  readonly log: Logger;
  readonly ledger: Ledger;
  /** Settles when the entries are as durable as they will be. */
  readonly put: (entries: readonly RollbackEntry[]) => Promise<PutRollback>;
  readonly peers: () => Peers;
  /** Told of verdicts that changed here, when they are on their way to the store. */
  readonly changed?: (records: Iterable<VerdictRecord>) => void;
}

export class Archive {
  private audits = 0;
  /** Sets the records of this process apart from those of others. */
  private readonly process = randomBytes(4).toString('hex');
  private acks = 0;
  /** Records that changed in this turn of the event loop. */
  private readonly changed = new Set<VerdictRecord>();

  constructor(private readonly parts: ArchiveParts) {}

  /** Without waiting; a failure belongs in the log. */
  keep(...entries: readonly RollbackEntry[]): void {
    this.parts.put(entries).catch((error: unknown) => {
      this.parts.log.error({ err: error }, 'the store refused what rollback told it');
    });
  }

  /**
   * At the end of this turn, and once however often it changes: first the filters are told. All replicas see what
   * changes a verdict; the one that drives it writes it down.
   */
  keepVerdict(record: VerdictRecord): void {
    if (!this.parts.peers().owns(record.id)) return;
    if (this.changed.size === 0) setImmediate(() => this.keepChanged());
    this.changed.add(record);
  }

  private keepChanged(): void {
    this.keep(...[...this.changed].map(entryOf));
    this.parts.changed?.(this.changed);
    this.changed.clear();
  }

  /** Settles when a verdict is stored. False: another one on the same transaction was first. */
  async claim(record: VerdictRecord): Promise<boolean> {
    return (await this.parts.put([entryOf(record)])).stands[0]!;
  }

  /** Settles when an acknowledgement is stored. False: there was one before. */
  async acknowledge(value: StoredAck): Promise<boolean> {
    this.acks += 1;
    const id = `${value.signal} ${this.parts.peers().id}${this.acks}`;
    const { stands } = await this.parts.put([{ type: 'ack', id, value, claims: [`ack ${value.signal}`] }]);
    const { actor, reason, signal: subject } = value;
    if (stands[0]!) this.parts.log.info({ audit: { action: 'ack', actor, reason, subject } }, 'audit');
    return stands[0]!;
  }

  /** Settles when they are stored; rejects when they cannot be. */
  async store(...entries: readonly RollbackEntry[]): Promise<void> {
    await this.parts.put(entries);
  }

  /** Notes what all replicas note by themselves. */
  note(value: Audit): void {
    this.parts.ledger.audit(value);
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

/** With its claims each time: they are remembered as long as the latest of it. */
export const entryOf = (value: VerdictRecord): RollbackEntry => ({
  type: 'verdict',
  id: value.id,
  value,
  claims: [...namesOf(value)],
});
