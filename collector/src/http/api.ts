// /api/v1/…: the read calls as JSON. The same functions answer as over gRPC.

import { InvalidArgument, NotFound } from '../errors.js';
import { getInstance, listInstances } from '../rpc/instances.js';
import { listServices } from '../rpc/list-services.js';
import type { ReadParts } from '../rpc/parts.js';
import { ledger, listAudit, plan, policy, verdicts } from '../rpc/rollback-reads.js';
import { timestamp, type Seconds } from '../rpc/encode.js';
import { explain, getFlow, getTransaction, listTransactions } from '../rpc/transactions.js';
import { whoHad } from '../rpc/who-had.js';
import { isPieces, type Pieces } from '../slices.js';
import { toText } from './json.js';

type Query = Readonly<Record<string, string>>;
type Answer = (parts: ReadParts, query: Query, id: string) => object | Pieces<object>;

interface Route {
  readonly path: RegExp;
  /** Whose rules hold, see access/roles.ts. */
  readonly call: string;
  readonly message: string;
  /** Names of the query's parameters, as in the proto's JSON. */
  readonly parameters: readonly string[];
  readonly answer: Answer;
}

const PAGE = ['pageSize', 'pageToken'];

const ROUTES: readonly Route[] = [
  {
    path: /^\/services$/,
    call: 'Registry.ListServices',
    message: 'ListServicesResponse',
    parameters: ['service', 'namespace', ...PAGE],
    answer: (parts, query) => listServices(parts, { ...query, pageSize: number('pageSize', query) }),
  },
  {
    path: /^\/instances$/,
    call: 'Registry.ListInstances',
    message: 'ListInstancesResponse',
    parameters: ['service', 'namespace', 'states', ...PAGE],
    answer: (parts, query) =>
      listInstances(parts, { ...query, states: names('INSTANCE_STATE_', query), pageSize: number('pageSize', query) }),
  },
  {
    path: /^\/instances\/([^/]+)$/,
    call: 'Registry.GetInstance',
    message: 'Instance',
    parameters: [],
    answer: (parts, _query, cuid) => getInstance(parts, { cuid }),
  },
  {
    path: /^\/who$/,
    call: 'Registry.WhoHad',
    message: 'WhoHadResponse',
    parameters: ['ip', 'at', 'port', 'cluster', 'network'],
    answer: (parts, query) => whoHad(parts, { ...query, port: number('port', query), at: time('at', query) ?? null }),
  },
  {
    path: /^\/flow$/,
    call: 'Registry.GetFlow',
    message: 'GetFlowResponse',
    parameters: ['kind', 'windowSeconds'],
    answer: (parts, query) => getFlow(parts, { ...query, windowSeconds: number('windowSeconds', query) }),
  },
  {
    path: /^\/transactions$/,
    call: 'Transactions.List',
    message: 'ListTransactionsResponse',
    parameters: ['states', 'service', 'namespace', 'olderThan', 'since', ...PAGE],
    answer: (parts, query) =>
      listTransactions(parts, {
        ...query,
        states: names('TRANSACTION_STATE_', query),
        olderThan: span('olderThan', query) ?? null,
        since: time('since', query) ?? null,
        pageSize: number('pageSize', query),
      }),
  },
  {
    path: /^\/transactions\/([^/]+)$/,
    call: 'Transactions.Get',
    message: 'Transaction',
    parameters: [],
    answer: (parts, _query, id) => getTransaction(parts, { id }),
  },
  {
    path: /^\/transactions\/([^/]+)\/explain$/,
    call: 'Transactions.Explain',
    message: 'Explanation',
    parameters: [],
    answer: (parts, _query, id) => explain(parts, { id }),
  },
  {
    path: /^\/rollback\/verdicts$/,
    call: 'Rollback.List',
    message: 'ListRollbacksResponse',
    parameters: ['states', 'service', 'since', ...PAGE],
    answer: (parts, query) =>
      verdicts(parts, {
        ...query,
        states: names('ROLLBACK_STATE_', query),
        since: time('since', query) ?? null,
        pageSize: number('pageSize', query),
      }),
  },
  {
    path: /^\/rollback\/plans\/([^/]+)$/,
    call: 'Rollback.GetPlan',
    message: 'Plan',
    parameters: [],
    answer: (parts, _query, id) => plan(parts, { id }),
  },
  {
    path: /^\/rollback\/ledger$/,
    call: 'Rollback.GetLedger',
    message: 'Ledger',
    parameters: ['since', 'pageSize'],
    answer: (parts, query) =>
      ledger(parts, { since: time('since', query) ?? null, pageSize: number('pageSize', query) }),
  },
  {
    path: /^\/rollback\/policy$/,
    call: 'Rollback.GetPolicy',
    message: 'PolicyView',
    parameters: [],
    answer: policy,
  },
  {
    path: /^\/audit$/,
    call: 'Rollback.ListAudit',
    message: 'ListAuditResponse',
    parameters: ['actions', 'actor', 'since', ...PAGE],
    answer: (parts, query) =>
      listAudit(parts, {
        ...query,
        actions: (query['actions'] ?? '').split(',').filter(action => action !== ''),
        since: time('since', query) ?? null,
        pageSize: number('pageSize', query),
      }),
  },
];

/** The call that a path below /api/v1 is; undefined = there is none. */
export const callAt = (path: string): string | undefined => ROUTES.find(route => route.path.test(path))?.call;

/** Every call that is answered as JSON, for the test of the rules. */
export const API_CALLS: readonly string[] = ROUTES.map(({ call }) => call);

/**
 * Answers a GET below /api/v1 with JSON text, in pieces.
 *
 * @param path  behind /api/v1, still percent-encoded
 * @throws InvalidArgument, NotFound as the call itself
 */
export function* answerApi(parts: ReadParts, path: string, search: URLSearchParams): Pieces<string> {
  for (const route of ROUTES) {
    const match = route.path.exec(path);
    if (match === null) continue;
    const answer = route.answer(parts, queryOf(search, route.parameters), decode(match[1] ?? ''));
    const value = isPieces(answer) ? yield* answer : answer;
    return yield* toText(route.message, value as Readonly<Record<string, unknown>>);
  }
  throw new NotFound(`there is nothing at /api/v1${path}`);
}

/** The parameters by their JSON names; those of the proto file (page_size) are taken as well. */
function queryOf(search: URLSearchParams, allowed: readonly string[]): Query {
  const query: Record<string, string> = {};
  for (const [name, value] of search) {
    const camel = name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
    if (!allowed.includes(camel)) throw new InvalidArgument('query', name, `one of ${allowed.join(', ') || 'none'}`);
    query[camel] = value;
  }
  return query;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new InvalidArgument('path', text, 'percent-encoded UTF-8');
  }
}

function number(name: string, query: Query): number {
  const text = query[name];
  if (text === undefined || text === '') return 0;
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgument(name, text, 'a whole number');
  return Number(text);
}

/** RFC 3339. */
function time(name: string, query: Query): Seconds | undefined {
  const text = query[name];
  if (text === undefined || text === '') return undefined;
  const ms = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(ms)) throw new InvalidArgument(name, text, 'a time in RFC 3339, like 2026-01-31T12:00:00Z');
  return timestamp(ms * 1000);
}

/** Seconds with an `s`, as in proto3 JSON. */
function span(name: string, query: Query): Seconds | undefined {
  const text = query[name];
  if (text === undefined || text === '') return undefined;
  if (!/^\d{1,9}(?:\.\d{1,9})?s$/.test(text)) throw new InvalidArgument(name, text, 'seconds, like 5s');
  return timestamp(Math.round(Number(text.slice(0, -1)) * 1e6));
}

/** `states=live,silent` or the full names. */
function names(prefix: string, query: Query): string[] {
  const words = (query['states'] ?? '').split(',').filter(word => word !== '');
  return words.map(word => (word.startsWith(prefix) ? word : prefix + word.toUpperCase()));
}
