// A transaction as a message of the API.
//
// Clocks of proxies disagree, causes do not: what is shown never begins before its cause, and no
// duration is negative. Durations are each proxy's own.

import { attemptsOf, grpcStatusOf, httpStatusOf, labelsOf, outcomeOf, ROW_FLAG } from '../ingest/columns.js';
import { responseFlagNames } from '../registry/response-flags.js';
import { outcomeName, timestamp, type Seconds } from '../rpc/encode.js';
import { hexOfId, requestIdText } from './ids.js';
import { inOrderOfCause, type Step } from './link.js';
import { nameOfStep, type Naming } from './names.js';
import { ROW_STATE, type Row } from './rows.js';
import type { Transaction } from './transaction.js';

/** Events and request ids in one message. */
export const EVENTS_MAX = 512;
export const REQUEST_IDS_MAX = 8;

const KEY_SOURCES = [
  'UNSPECIFIED',
  'HEADER',
  'TRACEPARENT',
  'B3',
  'X_B3',
  'UBER',
  'SW8',
  'CLOUD_TRACE',
  'DATADOG',
  'REQUEST_ID',
];

/** Without its events. */
export function head(transaction: Transaction): object {
  const { endUs, durationUs } = transaction;
  const requests = transaction.ids.filter(({ index }) => index === 'request').slice(0, REQUEST_IDS_MAX);
  return {
    key: hexOfId(transaction.key),
    keySource: `KEY_SOURCE_${KEY_SOURCES[transaction.keySource] ?? KEY_SOURCES[0]!}`,
    keyText: transaction.keyText,
    requestIds: requests.map(({ id }) => requestIdText(id)),
    state: `TRANSACTION_STATE_${transaction.shownState}`,
    kind: transaction.kind,
    started: timestamp(transaction.beginUs),
    ...(endUs === undefined ? {} : { ended: timestamp(Math.max(endUs, transaction.beginUs)) }),
    ...(durationUs === undefined ? {} : { duration: timestamp(durationUs) }),
    entries: transaction.entries,
    events: [],
    eventsOmitted: transaction.omitted,
    unlinked: transaction.unlinked,
  };
}

/** With its events, in order of cause; `times` as `timesOf` gives them. */
export function whole(transaction: Transaction, roots: readonly Step[], naming: Naming): object {
  const times = timesOf(roots);
  const events: object[] = [];
  for (const { step } of inOrderOfCause(roots)) {
    if (step.events.length === 0) events.push(callOnly(step, times, naming));
    else step.events.forEach((event, at) => events.push(eventOf(step, event, at, times)));
  }
  const omitted = transaction.omitted + Math.max(0, events.length - EVENTS_MAX);
  return { ...head(transaction), events: events.slice(0, EVENTS_MAX), eventsOmitted: omitted };
}

/** When each row began, us by the collector's clock, and never before its cause. */
export function timesOf(roots: readonly Step[]): Map<Row, number> {
  const times = new Map<Row, number>();
  for (const { step } of inOrderOfCause(roots)) {
    let earliest = step.parentRow === undefined ? Number.NEGATIVE_INFINITY : times.get(step.parentRow)!;
    for (const row of step.call === undefined ? step.events : [step.call, ...step.events]) {
      const us = Math.max(earliest, row.startUs - row.offsetUs);
      times.set(row, us);
      if (row === step.call) earliest = us;
    }
  }
  return times;
}

function eventOf(step: Step, event: Row, at: number, times: ReadonlyMap<Row, number>): object {
  const last = at === step.events.length - 1;
  return {
    ...common(step),
    service: event.instance.service,
    operation: event.operation,
    cuid: event.instance.cuid,
    node: event.instance.node,
    ...span(event, times),
    ...result(event),
    labels: labelsOf(event.flags),
    ...(step.call !== undefined && last ? { call: callOf(step.call, times) } : {}),
    callOnly: false,
    entry: (event.flags & ROW_FLAG.ENTRY) !== 0,
  };
}

function callOnly(step: Step, times: ReadonlyMap<Row, number>, naming: Naming): object {
  const call = step.call!;
  const { service, operation } = nameOfStep(step, naming);
  return {
    ...common(step),
    service,
    operation,
    cuid: call.peerCuid,
    node: '',
    ...span(call, times),
    ...result(call),
    labels: labelsOf(call.flags),
    call: callOf(call, times),
    callOnly: true,
    entry: false,
  };
}

const common = (step: Step): object => ({ eventId: step.eventId, parentEventId: step.parent?.eventId ?? '' });

function callOf(call: Row, times: ReadonlyMap<Row, number>): object {
  const { started, duration } = span(call, times);
  return {
    callerService: call.instance.service,
    callerCuid: call.instance.cuid,
    started,
    ...(duration === undefined ? {} : { duration }),
    attempts: attemptsOf(call.flags),
    ...result(call),
    connectionWait: timestamp(call.waitUs),
  };
}

function span(row: Row, times: ReadonlyMap<Row, number>): { started: Seconds; duration?: Seconds; ended?: Seconds } {
  const startUs = times.get(row)!;
  const started = timestamp(startUs);
  if (row.state !== ROW_STATE.ENDED) return { started };
  const ended = timestamp(startUs + row.durationUs);
  // Streams have no duration: only their end is known.
  return (row.flags & ROW_FLAG.STREAM) !== 0
    ? { started, ended }
    : { started, duration: timestamp(row.durationUs), ended };
}

function result(row: Row): object {
  const grpcStatus = grpcStatusOf(row.status);
  return {
    responseCode: httpStatusOf(row.status),
    ...(grpcStatus === undefined ? {} : { grpcStatus }),
    responseFlags: responseFlagNames(row.responseFlags),
    details: row.details,
    outcome: outcomeName(outcomeOf(row.flags)),
  };
}
