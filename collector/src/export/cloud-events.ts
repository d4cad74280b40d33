// What became of verdicts and signals, as CloudEvents 1.0. Pure.
//
// A record of a verdict changes many times. Of each change a receiver wants to hear once, and at least once; so every
// event has an id that follows from what it tells, and not from who tells it or how often. A collector that takes over
// from another, or starts again, tells some of it again under the same ids.

import { toJson } from '../http/json.js';
import { planMessage, stepMessage, verdictMessage } from '../rollback/messages.js';
import type { StepRecord } from '../rollback/signals.js';
import type { VerdictRecord } from '../rollback/verdicts.js';
import { rfc3339 } from './words.js';

export interface CloudEvent {
  readonly id: string;
  /** When it happened, us since 1970. */
  readonly atUs: number;
  readonly body: string;
}

/** Each with the form of its id, and what its `data` is. */
export const EVENT_TYPES = {
  'dev.meshpulse.verdict.decided': {
    id: 'VERDICT.decided',
    help: 'A transaction is doomed. The `Verdict`.',
  },
  'dev.meshpulse.signal.sent': {
    id: 'SIGNAL.sent',
    help: 'An application was told to undo a step, for the first time. `{verdict, step}`: `Verdict`, `PlanStep`.',
  },
  'dev.meshpulse.signal.acknowledged': { id: 'SIGNAL.acknowledged', help: 'The step is undone. `{verdict, step}`.' },
  'dev.meshpulse.signal.expired': {
    id: 'SIGNAL.expired',
    help: 'Nobody acknowledged the step in time. `{verdict, step}`.',
  },
  'dev.meshpulse.plan.finished': {
    id: 'VERDICT.finished.STEPS',
    help: 'All steps are undone; once more when one came late. The `Plan`.',
  },
  'dev.meshpulse.verdict.ended': {
    id: 'VERDICT.ended',
    help: 'Filters were told to forget the verdict. The `Verdict`, with its `endReason`.',
  },
  'dev.meshpulse.verdict.wrong': { id: 'VERDICT.wrong', help: 'The transaction succeeded after all. The `Verdict`.' },
} as const;

type EventType = keyof typeof EVENT_TYPES;

/** Verdicts of which it is remembered what was told, at most. */
const REMEMBERED_MAX = 20_000;

/** Tells what is new in a record since it was last seen. */
export class Changes {
  private readonly told = new Map<string, Set<string>>();

  /** @param nowUs the time of what has none of its own */
  of(record: VerdictRecord, nowUs: number): CloudEvent[] {
    const told = this.told.get(record.id) ?? new Set<string>();
    this.told.delete(record.id);
    this.told.set(record.id, told);
    if (this.told.size > REMEMBERED_MAX) this.told.delete(this.told.keys().next().value!);
    const events: CloudEvent[] = [];
    for (const { id, type, atUs, data } of changesOf(record, nowUs)) {
      if (told.has(id)) continue;
      told.add(id);
      events.push({ id, atUs, body: bodyOf(record, id, type, atUs, data()) });
    }
    return events;
  }
}

interface Change {
  readonly id: string;
  readonly type: EventType;
  readonly atUs: number;
  readonly data: () => object;
}

/** Everything that a record says has happened, in the order of its happening. */
function* changesOf(record: VerdictRecord, nowUs: number): Generator<Change> {
  const verdict = (): object => toJson('Verdict', verdictMessage(record) as Readonly<Record<string, unknown>>);
  const { id } = record;
  yield { id: `${id}.decided`, type: 'dev.meshpulse.verdict.decided', atUs: record.decidedUs, data: verdict };
  for (const step of record.steps) yield* stepChanges(record, step, verdict, nowUs);
  if (record.endedUs !== undefined) {
    yield { id: `${id}.ended`, type: 'dev.meshpulse.verdict.ended', atUs: record.endedUs, data: verdict };
  }
  if (record.succeeded === true) {
    yield { id: `${id}.wrong`, type: 'dev.meshpulse.verdict.wrong', atUs: record.endedUs ?? nowUs, data: verdict };
  }
  if (record.steps.length > 0 && record.steps.every(step => step.state === 'done')) {
    // A step that comes late opens the plan again: it is finished once more with it.
    const name = `${id}.finished.${record.steps.length}`;
    const atUs = Math.max(...record.steps.map(step => step.acknowledgedUs ?? 0));
    const data = (): object => toJson('Plan', planMessage(record) as Readonly<Record<string, unknown>>);
    yield { id: name, type: 'dev.meshpulse.plan.finished', atUs, data };
  }
}

function* stepChanges(
  record: VerdictRecord,
  step: StepRecord,
  verdict: () => object,
  nowUs: number,
): Generator<Change> {
  const data = (): object => {
    const message = stepMessage(step, record.steps.indexOf(step) + 1) as Readonly<Record<string, unknown>>;
    return { verdict: verdict(), step: toJson('PlanStep', message) };
  };
  const { signalId: id } = step;
  if (step.signalledUs !== undefined) {
    yield { id: `${id}.sent`, type: 'dev.meshpulse.signal.sent', atUs: step.signalledUs, data };
  }
  if (step.state === 'done') {
    const atUs = step.acknowledgedUs ?? nowUs;
    yield { id: `${id}.acknowledged`, type: 'dev.meshpulse.signal.acknowledged', atUs, data };
  }
  if (step.state === 'expired') yield { id: `${id}.expired`, type: 'dev.meshpulse.signal.expired', atUs: nowUs, data };
}

/** In structured mode: the whole event is the body, so that the signature covers it. */
function bodyOf(record: VerdictRecord, id: string, type: EventType, atUs: number, data: object): string {
  return JSON.stringify({
    specversion: '1.0',
    id,
    source: `/meshpulse/rollback/${record.id}`,
    type,
    subject: record.key,
    time: rfc3339(atUs),
    datacontenttype: 'application/json',
    data,
  });
}
