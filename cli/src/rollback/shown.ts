// Verdicts, plans and sums as rows of tables. Pure.

import type { Io } from '../io.js';
import { line, orUnknown, table, type Row } from '../table.js';
import { age, momentOf, parseMoment, seconds, span, spanOf } from '../times.js';
import { word, type Plan, type PlanStep, type Saved, type Verdict } from './messages.js';

export const VERDICT_HEADERS = ['VERDICT', 'TRANSACTION', 'STEP', 'REASON', 'MODE', 'REFUSED', 'SAVED', 'AGE', 'STATE'];

export const ago = (time: string | undefined, io: Io): string =>
  time === undefined ? '-' : age(io.nowMs() - momentOf(time)!);

export function verdictRow(verdict: Verdict, io: Io): Row {
  const { id, key, service, operation, operatorReason, reason, mode, heldOut, saved, decided, state, wrong } = verdict;
  const shown = word(mode) === 'observe' || heldOut ? `${saved?.wouldRefuse ?? '0'} would` : (saved?.refused ?? '0');
  return [
    id,
    key,
    service === '' ? operatorReason : `${service} ${operation}`,
    heldOut ? `${word(reason)} (held out)` : word(reason),
    word(mode),
    shown,
    work(saved),
    ago(decided, io),
    wrong ? `${word(state)}, wrong` : word(state),
  ];
}

export const work = (saved: Saved | undefined): string => span(spanOf(saved?.work) ?? 0);

const STEP_HEADERS = ['ORDER', 'UNDO', 'STATE', 'TOLD', 'BY', 'SIGNAL', 'EVENT', 'CUID'];

export function stepRow(step: PlanStep): Row {
  const { order, service, operation, unknown, state, deliveries, acknowledgedBy, signalId, eventId, cuid } = step;
  const name = `${service} ${operation}${unknown ? ' (may have taken effect)' : ''}`;
  return [
    String(order),
    name,
    word(state),
    String(deliveries),
    orUnknown(acknowledgedBy),
    signalId,
    eventId,
    orUnknown(cuid),
  ];
}

/** The verdict in a few lines, then the steps. */
export function planText({ verdict, state, steps, omitted }: Plan, io: Io): string {
  const head = verdict === undefined ? '' : verdictText(verdict, io);
  const status = line(['State:', word(state)], [11]);
  if (steps.length === 0) return `${head}${status}\nnothing has to be undone, as far as is known\n`;
  const more = omitted > 0 ? `and ${omitted} more steps\n` : '';
  return `${head}${status}\n${table(STEP_HEADERS, steps.map(stepRow))}${more}`;
}

export function verdictText(verdict: Verdict, io: Io): string {
  const { id, key, kind, service, operation, reason, mode, heldOut, forward, proxies, evidence, operatorReason } =
    verdict;
  const facts: [string, string][] = [
    ['Verdict', id],
    ['Transaction', key],
    ['Kind', orUnknown(kind)],
    [
      'Because',
      operatorReason || `${service} ${operation} failed for good (${word(reason)}${heldOut ? ', held out' : ''})`,
    ],
    ['Mode', word(mode)],
    ['Decided', `${ago(verdict.decided, io)} ago`],
    ['Refuses', forward.length === 0 ? 'nothing' : forward.join(', ')],
    ['Proxies', String(proxies)],
    ['Evidence', evidence.join(' ')],
  ];
  return facts.map(([name, value]) => line([`${name}:`, value], [11])).join('');
}

/** The `since` of a request, from the option of that name. */
export const sinceOf = ({ since }: { since?: string }, io: Io): object =>
  since === undefined ? {} : { since: seconds(parseMoment(since, '--since', io.nowMs())) };
