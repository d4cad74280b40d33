// Rollback.List, GetPlan, GetLedger, GetPolicy and ListAudit, as far as the caller was granted.

import { hideLine, hidePolicy, hideRecord, seesLine } from '../access/hide-rollback.js';
import { InvalidArgument, NotFound } from '../errors.js';
import type { Audit } from '../rollback/audits.js';
import { auditMessage } from '../rollback/messages.js';
import { getLedger, getPlan, getPolicy, listVerdicts, type ListRequest } from '../rollback/operator-reads.js';
import type { Pieces } from '../slices.js';
import { microseconds } from './encode.js';
import { newestFirst, page, pageSize } from './pages.js';
import type { ReadParts } from './parts.js';

export const verdicts = ({ rollback, permit }: ReadParts, request: ListRequest): Pieces<object> =>
  listVerdicts(rollback, request, record => hideRecord(record, permit.reads));

/** @throws NotFound, the same whether it is not there or not the caller's to see */
export function plan({ rollback, permit }: ReadParts, request: { readonly id?: string }): object {
  try {
    return getPlan(rollback, request, record => hideRecord(record, permit.reads));
  } catch (error) {
    if (permit.reads.all || !(error instanceof NotFound)) throw error;
    throw rollback.parts.transactions.unknown(request.id!);
  }
}

export const ledger = ({ rollback, permit }: ReadParts, request: Parameters<typeof getLedger>[1]): object =>
  getLedger(rollback, request, {
    all: permit.reads.all,
    sees: line => seesLine(line, permit.reads),
    shown: line => hideLine(line, permit.reads),
    audit: permit.changes.all,
  });

export const policy = ({ rollback, permit }: ReadParts): object =>
  hidePolicy(getPolicy(rollback) as Parameters<typeof hidePolicy>[0], permit.reads);

export interface ListAuditRequest {
  readonly actions?: readonly string[];
  readonly actor?: string;
  readonly since?: { readonly seconds?: string | number; readonly nanos?: number } | null;
  readonly pageSize?: number;
  readonly pageToken?: string;
}

const ACTIONS = ['trigger', 'ack', 'override', 'kill', 'lift', 'policy', 'refused'];

/** An operator of some namespaces is shown what they did themselves: of the rest nobody knows whose business it is. */
export function* listAudit({ rollback, permit }: ReadParts, request: ListAuditRequest): Pieces<object> {
  const { actions = [], actor = '', pageToken = '' } = request;
  const unknown = actions.find(action => !ACTIONS.includes(action));
  if (unknown !== undefined) throw new InvalidArgument('actions', unknown, `one of ${ACTIONS.join(', ')}`);
  const sinceUs = microseconds(request.since) ?? 0;
  const self = permit.actor(undefined);
  const wanted = rollback.ledger.audits
    .all()
    .filter(
      one =>
        one.atUs >= sinceUs &&
        (actor === '' || one.actor === actor) &&
        (actions.length === 0 || actions.includes(one.action)) &&
        (permit.changes.all || one.actor === self),
    );
  const keyOf = (one: Audit): string => `${newestFirst(one.atUs)} ${one.id!}`;
  const { items, nextPageToken } = yield* page(wanted, keyOf, pageSize(request.pageSize), pageToken);
  return { records: items.map(auditMessage), nextPageToken };
}
