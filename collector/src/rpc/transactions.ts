// Transactions.Get, List, Explain and Watch, and Registry.GetFlow: checked here, answered by transactions/.

import type { ServerWritableStream } from '@grpc/grpc-js';
import {
  hideExplanation,
  hideFlows,
  hideHead,
  hideTransaction,
  serviceOfKind,
  type ExplanationMessage,
  type FlowMessage,
  type HeadMessage,
  type TransactionMessage,
} from '../access/hide.js';
import { InvalidArgument } from '../errors.js';
import type { Registry } from '../registry/registry.js';
import { LOOKED_AT, type Pieces } from '../slices.js';
import type { Filter } from '../transactions/list.js';
import { microseconds, timestamp } from './encode.js';
import { Outbox, sharedBytes } from './outbox.js';
import { pageSize } from './pages.js';
import type { ReadParts } from './parts.js';

type Time = { readonly seconds?: string | number; readonly nanos?: number } | null;

export interface ListTransactionsRequest {
  readonly states?: readonly string[];
  readonly service?: string;
  readonly namespace?: string;
  readonly olderThan?: Time;
  readonly since?: Time;
  readonly pageSize?: number;
  readonly pageToken?: string;
}

export interface GetFlowRequest {
  readonly kind?: string;
  readonly windowSeconds?: number;
}

const STATES = ['RUNNING', 'SUCCEEDED', 'FAILED', 'DOOMED', 'DECLINED', 'CANCELLED'].map(
  name => `TRANSACTION_STATE_${name}`,
);

/** Longest id taken: a plain transaction id may be any header value of this length. */
const ID_CHARS_MAX = 256;

/** Updates that a slow watcher is kept; past them the oldest are passed over. */
const WATCH_BACKLOG_MAX = 1000;

/** @throws NotFound, the same whether it is not there or not the caller's to see */
export function getTransaction({ transactions, permit }: ReadParts, request: { readonly id?: string }): object {
  const id = checkId(request.id);
  const transaction = transactions.get(id);
  if (permit.reads.all) return transaction;
  return hideTransaction(transaction as TransactionMessage, permit.reads) ?? thrown(transactions.unknown(id));
}

export function explain({ transactions, permit }: ReadParts, request: { readonly id?: string }): object {
  const id = checkId(request.id);
  if (permit.reads.all) return transactions.explain(id);
  const story = transactions.explain(id, false) as ExplanationMessage;
  return hideExplanation(story, permit.reads) ?? thrown(transactions.unknown(id));
}

function thrown(error: Error): never {
  throw error;
}

/** What of a list may be seen; undefined = all of it. */
const sightOf = ({ permit: { reads }, registry }: ReadParts): Pick<Filter, 'sees'> =>
  reads.all ? {} : { sees: (service, cuid = '') => reads.covers(registry.find(cuid)?.service ?? service) };

export function* listTransactions(parts: ReadParts, request: ListTransactionsRequest): Pieces<object> {
  const { transactions, registry, permit } = parts;
  checkStates(request.states);
  const olderThanUs = microseconds(request.olderThan);
  if (olderThanUs !== undefined && olderThanUs < 0) {
    throw new InvalidArgument('older_than', `${olderThanUs / 1e6}s`, '0s or more');
  }
  const found = yield* transactions.listPieces({
    ...request,
    ...sightOf(parts),
    pageSize: pageSize(request.pageSize),
  });
  const heads = (found as { transactions: HeadMessage[] }).transactions.map(one => hideHead(one, permit.reads));
  const answer = { ...found, transactions: heads };
  const listedAfterMs = yield* inFlightMsMax(registry);
  return listedAfterMs === 0 ? answer : { ...answer, runningKnownAfter: timestamp(listedAfterMs * 1000) };
}

/** The age from which every live instance lists a request that runs; 0 when none says. */
function* inFlightMsMax(registry: Registry): Pieces<number> {
  let ms = 0;
  let looked = 0;
  for (const life of registry.activeLives) {
    if (++looked % LOOKED_AT === 0) yield;
    if (registry.stateOf(life) === 'INSTANCE_STATE_LIVE') ms = Math.max(ms, life.reportInFlightMs);
  }
  return ms;
}

export function* getFlow({ transactions, permit }: ReadParts, request: GetFlowRequest): Pieces<object> {
  const { reads } = permit;
  const answer = yield* transactions.flow.flowPieces(request);
  if (reads.all) return answer;
  const { kind = '' } = request;
  const { flows } = answer as { flows: FlowMessage[] };
  return { flows: kind === '' || reads.covers(serviceOfKind(kind)) ? hideFlows(flows, reads) : [] };
}

export function watchTransactions(parts: ReadParts, call: ServerWritableStream<ListTransactionsRequest, object>): void {
  const { transactions, permit, clock } = parts;
  checkStates(call.request.states);
  const outbox = new Outbox(call as ServerWritableStream<never, object>, () => clock.monotonicMs());
  const filter = { ...call.request, ...sightOf(parts) };
  outbox.onOver(
    transactions.watch(filter, whole => {
      if (outbox.endIfUnread()) return;
      // Most watchers see the same of it, and get the same bytes.
      outbox.send(sharedBytes('Transaction', hideHead(whole as HeadMessage, permit.reads)));
      if (outbox.waiting > WATCH_BACKLOG_MAX) outbox.passOver();
    }),
  );
}

function checkId(id = ''): string {
  if (id === '' || id.length > ID_CHARS_MAX) {
    throw new InvalidArgument('id', id, 'a transaction key, an x-request-id or an event id');
  }
  return id;
}

function checkStates(states: readonly string[] = []): void {
  for (const state of states) {
    if (!STATES.includes(state)) throw new InvalidArgument('states', state, `one of ${STATES.join(', ')}`);
  }
}
