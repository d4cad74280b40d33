// Instances and their jobs as rows of tables.

import type { Io } from './io.js';
import type { Instance, Status } from './messages.js';
import { stateCell, stateOf } from './states.js';
import { orUnknown, percent, table, UNKNOWN, type Row } from './table.js';
import { age, momentOf } from './times.js';

/** AGE is that of the life, READ that of its reading. */
const HEADERS = ['CUID', 'IP', 'NODE', 'IN_FLIGHT', 'QUEUE', 'WAIT', 'CPU', 'MEM', 'READ', 'AGE', 'STATE'];

export const instanceHeaders = (withService: boolean): string[] => (withService ? ['SERVICE', ...HEADERS] : HEADERS);

export function instanceRow(instance: Instance, withService: boolean, io: Io): Row {
  const { status } = instance;
  const bornMs = momentOf(instance.firstSeen);
  const state = stateOf(instance.state);
  return [
    ...(withService ? [instance.service] : []),
    orUnknown(instance.cuid),
    orUnknown(instance.ip),
    orUnknown(instance.node),
    orUnknown(status?.inFlight),
    queue(status),
    status?.waitMs === undefined ? UNKNOWN : `${status.waitMs}ms`,
    percent(status?.cpuRatio),
    percent(status?.memoryRatio),
    status === undefined ? UNKNOWN : age(instance.statusAgeMs),
    bornMs === undefined ? UNKNOWN : age(io.nowMs() - bornMs),
    stateCell(instance.unclean ? `${state} (unclean)` : state, io.colors),
  ];
}

/** `3(app)`: a number never stands without where it comes from. */
function queue(status: Status | undefined): string {
  if (status?.queue === undefined) return UNKNOWN;
  return `${status.queue}(${status.queueSource.replace('QUEUE_SOURCE_', '').toLowerCase()})`;
}

/** Jobs of all instances; '' when there are none. */
export function progressTable(instances: readonly Instance[]): string {
  const rows = instances.flatMap(({ cuid, progress }) =>
    progress.map((job): Row => [
      job.job,
      orUnknown(job.done),
      orUnknown(job.of),
      orUnknown(job.queue),
      orUnknown(job.state),
      age(job.ageMs),
      cuid,
    ]),
  );
  return rows.length === 0 ? '' : table(['JOB', 'DONE', 'OF', 'QUEUE', 'STATE', 'READ', 'CUID'], rows);
}
