// What early rollback did to one transaction, as lines of its story. Pure.

import { time } from '../transactions/words.js';
import { stepName } from './sample.js';
import { planState, type StepRecord } from './signals.js';
import { isEnforced, type VerdictRecord } from './verdicts.js';

export interface StoryLine {
  readonly atUs: number;
  readonly depth: number;
  readonly eventId: string;
  readonly text: string;
  readonly evidence: readonly string[];
}

/** Operations named in one line. */
const NAMED_MAX = 4;

/** Decision, what filters were told, what came of it, and who has to undo what: in this order. */
export function storyOf(record: VerdictRecord, nowUs: number): StoryLine[] {
  const line = (atUs: number, depth: number, text: string, evidence: readonly string[] = []): StoryLine => ({
    atUs,
    depth,
    eventId: depth === 0 ? record.eventId : '',
    text,
    evidence,
  });
  const lines = [line(record.decidedUs, 0, decision(record), record.evidence)];
  lines.push(
    line(
      record.decidedUs,
      1,
      told(record),
      record.forward.map(edge => `forward=${edge.caller}>${stepName(edge)}`),
    ),
  );
  const effects = effect(record);
  if (effects !== '') lines.push(line(record.decidedUs, 1, effects));
  for (const step of record.steps)
    lines.push(line(step.signalledUs ?? record.decidedUs, 1, undo(step), stepEvidence(step)));
  if (record.steps.length > 0) lines.push(line(record.decidedUs, 1, `rollback: ${planWord(record)}`));
  if (record.endedUs !== undefined) lines.push(line(record.endedUs, 1, `filters forgot it: ${record.endReason}`));
  else lines.push(line(nowUs, 1, 'filters hold it still'));
  if (record.succeeded === true)
    lines.push(line(record.endedUs ?? nowUs, 1, 'the verdict was wrong: the transaction succeeded'));
  return lines;
}

function decision(record: VerdictRecord): string {
  const { reason, operatorReason, heldOut, mode } = record;
  const acted = heldOut ? 'held out to learn from' : mode === 'enforce' ? 'enforced' : 'observed only';
  if (reason === 'triggered') return `doomed by hand: ${operatorReason} (${acted})`;
  const why = reason === 'named' ? 'the policy names it' : 'its final failures are nearly always the end';
  return `doomed: ${stepName(record)} failed for good, ${why} (${acted})`;
}

function told({ forward, proxies }: VerdictRecord): string {
  if (forward.length === 0) return 'nothing is known that would follow, so nothing is refused';
  const names = [...new Set(forward.map(stepName))];
  const more = names.length > NAMED_MAX ? ` and ${names.length - NAMED_MAX} more` : '';
  return `${many(proxies, 'proxy', 'proxies')} told to refuse ${names.slice(0, NAMED_MAX).join(', ')}${more}`;
}

const many = (count: number, one: string, more = `${one}s`): string =>
  `${count} ${count === 1 ? `${one} was` : `${more} were`}`;

const times = (count: number): string => (count === 1 ? 'once' : `${count} times`);

function effect({ saved }: VerdictRecord): string {
  const parts = [
    ...(saved.refused > 0
      ? [`${many(saved.refused, 'request')} refused, about ${time(saved.workUs)} of work saved`]
      : []),
    ...(saved.wouldRefuse > 0 ? [`${saved.wouldRefuse} would have been refused (${time(saved.wouldWorkUs)})`] : []),
    ...(saved.withheld > 0 ? [`${saved.withheld} passed because the budget was used up`] : []),
    ...(saved.retriesSuppressed > 0 ? [`${many(saved.retriesSuppressed, 'call')} not tried again`] : []),
  ];
  return parts.join('; ');
}

function undo(step: StepRecord): string {
  const name = `${stepName(step)}${step.unknown ? ', which may have taken effect,' : ''}`;
  switch (step.state) {
    case 'done':
      return `${name} was undone${step.acknowledgedBy === '' ? '' : ` by ${step.acknowledgedBy}`}`;
    case 'signalled':
      return `${name} has to be undone: told ${times(step.deliveries)}, not acknowledged yet`;
    case 'expired':
      return `${name} was to be undone: told ${times(step.deliveries)}, never acknowledged`;
    default:
      return `${name} would have to be undone; nobody was told`;
  }
}

const stepEvidence = ({ signalId, eventId, cuid }: StepRecord): string[] => [
  `signal=${signalId}`,
  `event=${eventId}`,
  ...(cuid === '' ? [] : [`cuid=${cuid}`]),
];

function planWord(record: VerdictRecord): string {
  const state = planState(record);
  if (state === 'DECIDED') return isEnforced(record) ? 'not needed' : 'not acted on';
  return state.toLowerCase().replace('_', ' ');
}
