// What people ask of early rollback: verdicts, plans, sums, policy, and what another policy would do.

import { InvalidArgument, NotFound } from '../errors.js';
import { microseconds, timestamp } from '../rpc/encode.js';
import { newestFirst, page, pageSize } from '../rpc/pages.js';
import type { Pieces } from '../slices.js';
import type { Rollback } from './controller.js';
import {
  auditMessage,
  killMessage,
  lineMessage,
  overrideMessage,
  planMessage,
  savedMessage,
  stateName,
  verdictMessage,
} from './messages.js';
import { modeName } from './modes.js';
import { parsePolicy, PolicyError } from './policy-file.js';
import { LOWER_BOUND, unfitness, type Policy } from './policy.js';
import { Simulation } from './simulate.js';
import type { VerdictRecord } from './verdicts.js';
import { wilsonLower } from './wilson.js';

type Time = { readonly seconds?: string | number; readonly nanos?: number } | null;

/** Lines of one answer. */
const LINES_MAX = 1000;

/** Transactions that one simulation looks at, at most: the newest. */
const SIMULATED_MAX = 20_000;

/** A simulation lets others work after this long, ms. */
const SLICE_MS = 20;

const STATES = ['DECIDED', 'ROLLING_BACK', 'ROLLED_BACK', 'STUCK'].map(name => `ROLLBACK_STATE_${name}`);

export interface ListRequest {
  readonly states?: readonly string[];
  readonly service?: string;
  readonly since?: Time;
  readonly pageSize?: number;
  readonly pageToken?: string;
}

/** A record as it is shown; undefined = not at all. */
type Shown = (record: VerdictRecord) => VerdictRecord | undefined;

const whole: Shown = record => record;

export function* listVerdicts({ verdicts }: Rollback, request: ListRequest, shown: Shown = whole): Pieces<object> {
  const { states = [], service = '', pageToken = '' } = request;
  for (const state of states) {
    if (!STATES.includes(state)) throw new InvalidArgument('states', state, `one of ${STATES.join(', ')}`);
  }
  const sinceUs = microseconds(request.since) ?? 0;
  const wanted = (record: VerdictRecord | undefined): boolean =>
    record !== undefined &&
    record.decidedUs >= sinceUs &&
    (service === '' || record.service === service) &&
    (states.length === 0 || states.includes(stateName(record)));
  const keyOf = (record: VerdictRecord): string | undefined =>
    wanted(shown(record)) ? `${newestFirst(record.decidedUs)} ${record.id}` : undefined;
  const { items, nextPageToken } = yield* page(verdicts.all(), keyOf, pageSize(request.pageSize), pageToken);
  return { verdicts: items.flatMap(record => shown(record) ?? []).map(verdictMessage), nextPageToken };
}

/** @throws NotFound */
export function getPlan(rollback: Rollback, request: { readonly id?: string }, shown: Shown = whole): object {
  const id = checkId(request.id);
  const record = shown(findRecord(rollback, id));
  if (record === undefined) throw new NotFound(`there is no verdict on ${JSON.stringify(id)}`);
  return planMessage(record);
}

/** By verdict, or by any id of the transaction. @throws NotFound */
export function findRecord(rollback: Rollback, id: string): VerdictRecord {
  const byId =
    rollback.verdicts.get(id) ?? rollback.verdicts.of(id.toLowerCase(), id.toLowerCase().replaceAll('-', ''));
  if (byId !== undefined) return byId;
  const view = rollback.parts.transactions.viewOfId(id);
  const record = rollback.verdictOf(view);
  if (record === undefined) throw new NotFound(`there is no verdict on ${JSON.stringify(id)}`);
  return record;
}

/** What of the ledger is shown. */
export interface LedgerSight {
  readonly all: boolean;
  sees(line: Line): boolean;
  shown(line: Line): Line;
  readonly audit: boolean;
}

const WHOLE_LEDGER: LedgerSight = { all: true, sees: () => true, shown: line => line, audit: true };

export function getLedger(
  { ledger, verdicts }: Rollback,
  request: { readonly since?: Time; readonly pageSize?: number },
  sight = WHOLE_LEDGER,
): object {
  const sinceUs = microseconds(request.since) ?? 0;
  const all = ledger.all();
  const lines = (sinceUs === 0 ? all : linesSince([...verdicts.all()].filter(one => one.decidedUs >= sinceUs))).filter(
    line => sight.sees(line),
  );
  const sum = (of: (line: (typeof all)[number]) => number): string =>
    String(lines.reduce((total, line) => total + of(line), 0));
  return {
    since: timestamp(Math.max(sinceUs, ledger.since)),
    lines: lines.slice(0, LINES_MAX).map(line => lineMessage(sight.shown(line))),
    total: savedMessage(sinceUs === 0 && sight.all ? ledger.saved : totalOf(lines.map(line => line.saved))),
    verdicts: sum(line => line.verdicts),
    wrongVerdicts: sum(line => line.wrong),
    audit: (sight.audit ? ledger.auditRecords(pageSize(request.pageSize)) : [])
      .filter(one => one.atUs >= sinceUs)
      .map(auditMessage),
  };
}

type Line = ReturnType<Rollback['ledger']['all']>[number];

function linesSince(records: readonly VerdictRecord[]): Line[] {
  const lines = new Map<string, Line>();
  for (const { kind, service, operation, heldOut, succeeded, saved } of records) {
    const key = `${kind}\n${service}\n${operation}`;
    const line = lines.get(key) ?? { kind, service, operation, verdicts: 0, heldOut: 0, wrong: 0, saved: totalOf([]) };
    line.verdicts += 1;
    line.heldOut += heldOut ? 1 : 0;
    line.wrong += succeeded === true ? 1 : 0;
    lines.set(key, { ...line, saved: totalOf([line.saved, saved]) });
  }
  return [...lines.values()].sort((a, b) => b.saved.workUs - a.saved.workUs);
}

function totalOf(all: readonly VerdictRecord['saved'][]): VerdictRecord['saved'] {
  const sum = { refused: 0, wouldRefuse: 0, withheld: 0, retriesSuppressed: 0, workUs: 0, wouldWorkUs: 0 };
  for (const one of all) for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += one[name];
  return sum;
}

export function getPolicy(rollback: Rollback): object {
  const { policy, learner, clock } = rollback.parts;
  const nowUs = clock.nowUs();
  const learned = [...learner.all()].flatMap(stats =>
    stats.failedSteps().map(step => {
      const { failures, fatal } = stats.evidence(step, nowUs);
      const bound = wilsonLower(fatal, failures);
      const [service, ...operation] = step.split(' ');
      const withheld = unfitness(stats, { thinned: false }, nowUs) || (bound < LOWER_BOUND ? 'below the bound' : '');
      return {
        kind: stats.kind,
        service,
        operation: operation.join(' '),
        failures,
        fatal,
        lowerBound: bound,
        decides: withheld === '',
        withheld,
        singleEntryRatio: stats.singleRatio,
        forward: [...new Set(stats.forward(step).map(({ edge }) => edge.name))],
      };
    }),
  );
  return {
    mode: modeName(policy.policy.mode),
    text: policy.text,
    path: policy.path,
    loaded: timestamp(policy.loadedUs),
    refused: policy.refused,
    overrides: rollback.controls.overrides.map(overrideMessage),
    kills: rollback.controls.kills.map(killMessage),
    learned: learned.slice(0, LINES_MAX),
  };
}

/** @throws InvalidArgument when the policy is wrong: the message names the line */
export async function simulate(
  rollback: Rollback,
  request: { readonly policy?: string; readonly since?: Time },
): Promise<object> {
  const { transactions, policy, clock } = rollback.parts;
  const simulation = new Simulation(policyOf(request.policy, policy.policy));
  const sinceUs = microseconds(request.since) ?? 0;
  let [first, pauseMs] = [clock.nowUs(), performance.now()];
  for (const { view, endUs } of transactions.viewsSince(sinceUs, SIMULATED_MAX)) {
    first = Math.min(first, endUs);
    simulation.add(view, endUs);
    if (performance.now() - pauseMs < SLICE_MS) continue;
    await new Promise(resolve => setImmediate(resolve));
    pauseMs = performance.now();
  }
  const { steps, workUs, ...counts } = simulation.score;
  return {
    ...Object.fromEntries(Object.entries(counts).map(([name, count]) => [name, String(count)])),
    work: timestamp(workUs),
    steps: [...steps.values()].map(({ reason, right, wrong, ...step }) => ({
      ...step,
      reason: `VERDICT_REASON_${reason.toUpperCase()}`,
      right: String(right),
      wrong: String(wrong),
    })),
    since: timestamp(Math.max(first, sinceUs)),
  };
}

function policyOf(text: string | undefined, inForce: Policy): Policy {
  if (text === undefined || text === '') return inForce;
  try {
    return parsePolicy(text);
  } catch (error) {
    if (error instanceof PolicyError)
      throw new InvalidArgument('policy', error.message, 'a policy file without faults');
    throw error;
  }
}

/** Longest id taken: a plain transaction id may be any header value of this length. */
const ID_CHARS_MAX = 256;

/** @throws InvalidArgument */
export function checkId(id = ''): string {
  if (id === '' || id.length > ID_CHARS_MAX) {
    throw new InvalidArgument('id', id.slice(0, 40), 'a transaction key, an x-request-id, an event id or a verdict id');
  }
  return id;
}
