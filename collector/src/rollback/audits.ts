// Who did what, and who was refused. Refusals have a room of their own: a stranger who asks for ever must not push
// out what people did.

import { RETENTION, type Retention } from './retention.js';

/** Characters of one field, at most: some of it is what strangers say. */
const FIELD_CHARS_MAX = 512;

export interface Audit {
  /** Of this record alone, whichever collector wrote it; absent in what older versions stored. */
  readonly id?: string;
  readonly atUs: number;
  readonly action: 'trigger' | 'ack' | 'override' | 'kill' | 'lift' | 'policy' | 'refused';
  /** Who: an identity, or, where none is asked for, as they say. */
  readonly actor: string;
  /** Why. */
  readonly reason: string;
  /** Of what: a transaction, a signal, a scope, a call. */
  readonly subject: string;
  readonly result: string;
}

export class Audits {
  /** By id, oldest first. */
  private readonly acts = new Map<string, Audit>();
  private readonly refusals = new Map<string, Audit>();

  /** @param retention holds for what was done, and again for what was refused; the oldest go first */
  constructor(private readonly retention: Pick<Retention, 'auditUs' | 'auditMax'> = RETENTION) {}

  /** The same record again changes nothing. */
  add(record: Audit): void {
    const into = record.action === 'refused' ? this.refusals : this.acts;
    const { actor, reason, subject, result } = record;
    const id = record.id ?? `${record.atUs} ${record.action} ${subject}`;
    into.set(id, { ...record, id, actor: cut(actor), reason: cut(reason), subject: cut(subject), result: cut(result) });
    if (into.size > this.retention.auditMax) into.delete(into.keys().next().value!);
  }

  expire(nowUs: number): void {
    for (const records of [this.acts, this.refusals]) {
      for (const [id, { atUs }] of records) {
        if (atUs >= nowUs - this.retention.auditUs) break;
        records.delete(id);
      }
    }
  }

  /** Newest first. */
  all(): Audit[] {
    return [...this.acts.values(), ...this.refusals.values()].sort(
      (a, b) => b.atUs - a.atUs || (a.id! < b.id! ? 1 : -1),
    );
  }
}

const cut = (text: string): string => (text.length <= FIELD_CHARS_MAX ? text : `${text.slice(0, FIELD_CHARS_MAX)}…`);
