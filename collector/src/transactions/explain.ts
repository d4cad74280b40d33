// Transactions.Explain: the story of one transaction in order of cause, each line with what it rests on. Pure.

import { attemptsOf, outcomeOf, ROW_FLAG } from '../ingest/columns.js';
import type { StoryLine } from '../rollback/story.js';
import { timestamp } from '../rpc/encode.js';
import { inOrderOfCause, type Step } from './link.js';
import { timesOf } from './message.js';
import { nameOfStep, type Naming } from './names.js';
import { ROW_STATE, type Row } from './rows.js';
import { slowest, type Share } from './times.js';
import { OUTCOME, type Transaction } from './transaction.js';
import { facts, result, time } from './words.js';

/** Lines of one story: a few for each event. */
const LINES_MAX = 2048;

/** A share of the whole that is worth a line. */
const SLOW_SHARE = 0.2;

/** A wait for a connection that is worth a line: this long, and this share of the call. */
const WAIT_US = 1000;
const WAIT_SHARE = 0.1;

export interface Story {
  readonly lines: readonly object[];
  readonly summary: string;
}

/** What rollback decided and did is told in the same lines. */
type Line = StoryLine;

/** @param decisions what was decided on it, told behind what happened */
export function explain(
  transaction: Transaction,
  roots: readonly Step[],
  naming: Naming,
  decisions: readonly StoryLine[] = [],
): Story {
  const times = timesOf(roots);
  const lines: Line[] = [];
  for (const { step, depth } of inOrderOfCause(roots)) {
    lines.push(...tell(step, depth, times, naming));
    if (lines.length >= LINES_MAX) break;
  }
  lines.push(...decisions);
  lines.push(...ending(transaction, roots, times, naming));
  const beginUs = lines.reduce((least, line) => Math.min(least, line.atUs), transaction.beginUs);
  return {
    lines: lines.map(({ atUs, depth, eventId, text, evidence }) => ({
      at: timestamp(atUs),
      offset: timestamp(atUs - beginUs),
      depth,
      eventId,
      text,
      evidence,
    })),
    summary: summaryOf(transaction, roots, naming) + summaryOfDecisions(decisions),
  };
}

const summaryOfDecisions = ([first]: readonly StoryLine[]): string =>
  first === undefined ? '' : ` It was ${first.text}.`;

function tell(step: Step, depth: number, times: ReadonlyMap<Row, number>, naming: Naming): Line[] {
  const { call, events, eventId } = step;
  const line = (row: Row, deeper: number, text: string, evidence: string[]): Line => ({
    atUs: times.get(row)!,
    depth: depth + deeper,
    eventId,
    text,
    evidence,
  });
  if (call === undefined) return events.map(event => line(event, 0, arrival(step, event), factsOf(event)));
  const name = nameOfStep(step, naming);
  const lines = [line(call, 0, callText(step, call, naming), callFacts(step, call))];
  const attempts = attemptsOf(call.flags);
  if (attempts > 1)
    lines.push(line(call, 0, retryText(step, call), [`attempts=${attempts}`, `arrived=${events.length}`]));
  if (call.waitUs >= WAIT_US && call.waitUs >= WAIT_SHARE * call.durationUs) {
    const text = `the call waited ${time(call.waitUs)} for a connection to ${name.service}`;
    lines.push(line(call, 0, text, [`connection_wait_ms=${(call.waitUs / 1000).toFixed(3)}`]));
  }
  for (const event of events.length > 1 ? events : []) {
    lines.push(
      line(event, 1, `an attempt at ${event.instance.service} ${result(event)}${after(event)}`, factsOf(event)),
    );
  }
  // What was refused never left: nobody else could have heard of it.
  const refused = outcomeOf(call.flags) === OUTCOME.REFUSED;
  if (events.length === 0 && !refused) lines.push(line(call, 1, unheard(call, name), []));
  return lines;
}

function arrival(step: Step, event: Row): string {
  const { service } = event.instance;
  const end = `${result(event)}${after(event)}`;
  if (step.entry) return `${event.operation} came in at ${service}; it ${end}`;
  const who =
    event.peerCuid === '' ? 'who called was not reported' : `its caller ${event.peerCuid} did not report the call`;
  return `${service} worked on ${event.operation}, which ${end}; ${who}`;
}

function callText(step: Step, call: Row, naming: Naming): string {
  const { service, operation, external } = nameOfStep(step, naming);
  const labels = call.flags & ROW_FLAG.SHADOW ? ' (a copy, whose answer nobody waits for)' : '';
  const orphan = step.parent === undefined ? ', for no request that is known' : '';
  const where = external ? `${service} (outside the mesh)` : service;
  return `${call.instance.service} called ${where} ${operation}${labels}${orphan}; it ${result(call)}${after(call)}`;
}

const after = (row: Row): string =>
  row.state === ROW_STATE.ENDED && (row.flags & ROW_FLAG.STREAM) === 0 ? ` after ${time(row.durationUs)}` : '';

function retryText(step: Step, call: Row): string {
  const attempts = attemptsOf(call.flags);
  const arrived = Math.min(attempts, step.events.length);
  const outcome = outcomeOf(call.flags) === OUTCOME.FAILED ? 'none helped' : 'the last one counted';
  return `the proxy of ${call.instance.service} tried ${attempts} times, ${arrived} arrived; ${outcome}`;
}

function unheard(call: Row, { service, external }: { service: string; external: boolean }): string {
  if (external) return `${service} has no sidecar: only its caller's side is known`;
  if (call.state !== ROW_STATE.ENDED) return `${service} has not reported this request yet`;
  return `no instance of ${service} reported this request: it did not arrive, or the report is missing`;
}

const factsOf = (event: Row): string[] => [
  ...facts(event, ''),
  `cuid=${event.instance.cuid}`,
  ...(event.instance.node === '' ? [] : [`node=${event.instance.node}`]),
];

function callFacts({ events }: Step, call: Row): string[] {
  const event = events.at(-1);
  return [
    ...facts(call, ''),
    `attempts=${attemptsOf(call.flags)}`,
    `connection_wait_ms=${(call.waitUs / 1000).toFixed(3)}`,
    `caller_cuid=${call.instance.cuid}`,
    ...(event === undefined ? [] : [`callee_duration_ms=${(event.durationUs / 1000).toFixed(3)}`]),
    ...(event === undefined ? [] : [`cuid=${event.instance.cuid}`]),
    ...(event === undefined || event.instance.node === '' ? [] : [`node=${event.instance.node}`]),
  ];
}

/** Who was slow, what still runs, and how it ended. */
function ending(
  transaction: Transaction,
  roots: readonly Step[],
  times: ReadonlyMap<Row, number>,
  naming: Naming,
): Line[] {
  const lines: Line[] = [];
  const { durationUs, endUs } = transaction;
  const share = slowest(roots);
  const begins = [...times.values()];
  const endedUs = endUs ?? begins.reduce((latest, us) => Math.max(latest, us), transaction.beginUs);
  const line = (text: string, evidence: string[], eventId = ''): Line => ({
    atUs: Math.max(endedUs, transaction.beginUs),
    depth: 0,
    eventId,
    text,
    evidence,
  });
  if (share !== undefined && durationUs !== undefined && share.us >= SLOW_SHARE * durationUs && share.us > 0) {
    const of = `${time(share.us)} of ${time(durationUs)}`;
    lines.push(
      line(`most time: ${placeOf(share, naming)}, ${of}`, [`${share.where}_ms=${share.us / 1000}`], share.step.eventId),
    );
  }
  if (transaction.unlinked > 0) {
    const text = `${transaction.unlinked} requests have no known cause: trace headers were not forwarded, or reports are missing`;
    lines.push(line(text, [`unlinked=${transaction.unlinked}`]));
  }
  if (transaction.omitted > 0) lines.push(line(`${transaction.omitted} more requests were not kept`, []));
  lines.push(line(`state: ${transaction.shownState.toLowerCase()}`, [`entries=${transaction.entries}`]));
  return lines;
}

function placeOf({ step, where }: Share, naming: Naming): string {
  const { service, operation } = nameOfStep(step, naming);
  if (where === 'application') return `${service} itself, in ${operation}`;
  if (where === 'connection') return `waiting for a connection to ${service}`;
  return `on the way to ${service}, in network and proxies`;
}

function summaryOf(transaction: Transaction, roots: readonly Step[], naming: Naming): string {
  const subject = transaction.kind === '' ? 'This transaction, whose entry is not known,' : transaction.kind;
  const { durationUs, state } = transaction;
  const took = durationUs === undefined ? '' : ` after ${time(durationUs)}`;
  if (state === 'RUNNING') return `${subject} is still running${nowIn(roots, naming)}.`;
  if (state === 'SUCCEEDED') return `${subject} succeeded${took}${slowestText(roots, naming)}.`;
  if (state === 'UNSPECIFIED') return `${subject} was heard of, but how it ended was not reported.`;
  const culprit = culpritOf(roots);
  const verb = state === 'FAILED' ? 'failed' : `was ${state.toLowerCase()}`;
  return `${subject} ${verb}${took}${culprit === undefined ? '' : `: ${blame(culprit, naming)}`}.`;
}

function nowIn(roots: readonly Step[], naming: Naming): string {
  let deepest: { step: Step; depth: number } | undefined;
  for (const at of inOrderOfCause(roots)) {
    const runs = [at.step.call, ...at.step.events].some(row => row?.state === ROW_STATE.RUNNING);
    if (runs && (deepest === undefined || at.depth > deepest.depth)) deepest = at;
  }
  if (deepest === undefined) return '';
  const { call, events } = deepest.step;
  const row = events.find(event => event.state === ROW_STATE.RUNNING) ?? call!;
  const { service, operation } = nameOfStep(deepest.step, naming);
  return ` after ${time(row.durationUs)}, now at ${service} ${operation}`;
}

function slowestText(roots: readonly Step[], naming: Naming): string {
  const share = slowest(roots);
  return share === undefined || share.us === 0 ? '' : `; most of it ${placeOf(share, naming)} (${time(share.us)})`;
}

/** From the entry down along what went wrong last: the step below which nothing did. */
function culpritOf(roots: readonly Step[]): Step | undefined {
  let at = roots.filter(wentWrong).at(-1);
  for (let next = at; next !== undefined; next = next.children.filter(wentWrong).at(-1)) at = next;
  return at;
}

function wentWrong({ call, events }: Step): boolean {
  const outcome = outcomeOf((call ?? events.at(-1)!).flags);
  return outcome === OUTCOME.FAILED || outcome === OUTCOME.DECLINED || outcome === OUTCOME.CANCELLED;
}

function blame(step: Step, naming: Naming): string {
  const { service, operation } = nameOfStep(step, naming);
  const row = step.call ?? step.events.at(-1)!;
  const attempts = attemptsOf(row.flags);
  return `${service} ${operation} ${result(row)}${attempts > 1 ? `, ${attempts} attempts` : ''}`;
}
