// meshpulse.v1.ReportRequest: bytes -> Report. Pure; throws nothing but WireError.

import { decodeColumns } from './decode-columns.js';
import { decodeHello } from './decode-hello.js';
import {
  BATCHES_MAX,
  BEGAN_MAX,
  DIRECTIVE_ACKS_MAX,
  EXACT_COUNTS_MAX,
  IN_FLIGHT_MAX,
  JOB_BYTES_MAX,
  NAME_BYTES_MAX,
  PROGRESS_MAX,
  ROWS_PER_REPORT_MAX,
  SIGNAL_RESULTS_MAX,
  STATE_BYTES_MAX,
  type Batch,
  type DirectiveAck,
  type ExactCount,
  type InFlight,
  type InFlightList,
  type Progress,
  type Report,
  type SignalResult,
  type Status,
} from './report.js';
import { Reader } from './wire.js';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const NO_ID = '0000000000000000';

/** @throws WireError naming the field, when the bytes are not a ReportRequest within its bounds */
export function decodeReport(bytes: Buffer): Report {
  const reader = new Reader(bytes, 0, bytes.length, '');
  const batches: Batch[] = [];
  const inFlight: InFlightList[] = [];
  const progress: Progress[] = [];
  const began: InFlight[] = [];
  const directiveAcks: DirectiveAck[] = [];
  const signalResults: SignalResult[] = [];
  const lists = { batches, inFlight, progress, began, directiveAcks, signalResults };
  const report: Mutable<Report> = { ...lists, heartbeat: false, sentUnixUs: 0 };
  let inFlightItems = 0;
  let rows = 0;
  while (reader.next()) {
    switch (reader.field) {
      case 1:
        report.hello = decodeHello(reader.message('hello'));
        break;
      case 2:
        if (batches.length >= BATCHES_MAX) throw reader.error('batches', `has more than ${BATCHES_MAX} entries`);
        batches.push(decodeBatch(reader.view('batches'), `batches[${batches.length}]`));
        rows += batches.at(-1)!.events?.rows ?? 0;
        if (rows > ROWS_PER_REPORT_MAX)
          throw reader.error('batches', `has more than ${ROWS_PER_REPORT_MAX} rows in all`);
        break;
      case 3:
        report.status = decodeStatus(reader.message('status'));
        break;
      case 4: {
        const list = decodeInFlightList(reader.message(`in_flight[${inFlight.length}]`), IN_FLIGHT_MAX - inFlightItems);
        // An empty list still takes a place, so that a message of nothing but empty lists has an end.
        inFlightItems += Math.max(1, list.items.length);
        if (inFlightItems > IN_FLIGHT_MAX) throw reader.error('in_flight', `has more than ${IN_FLIGHT_MAX} entries`);
        inFlight.push(list);
        break;
      }
      case 5:
        if (progress.length >= PROGRESS_MAX) throw reader.error('progress', `has more than ${PROGRESS_MAX} entries`);
        progress.push(decodeProgress(reader.message(`progress[${progress.length}]`)));
        break;
      case 6:
        reader.view('heartbeat');
        report.heartbeat = true;
        break;
      case 7:
        report.goodbye = decodeGoodbye(reader.message('goodbye'));
        break;
      case 8:
        report.sentUnixUs = reader.fixed64('sent_unix_us');
        break;
      case 9:
        checkRoom(reader, 'began', began, BEGAN_MAX);
        began.push(decodeInFlight(reader.message(`began[${began.length}]`)));
        break;
      case 10:
        checkRoom(reader, 'directive_acks', directiveAcks, DIRECTIVE_ACKS_MAX);
        directiveAcks.push(decodeDirectiveAck(reader.message(`directive_acks[${directiveAcks.length}]`)));
        break;
      case 11:
        checkRoom(reader, 'signal_results', signalResults, SIGNAL_RESULTS_MAX);
        signalResults.push(decodeSignalResult(reader.message(`signal_results[${signalResults.length}]`)));
        break;
      default:
        reader.skip();
    }
  }
  return report;
}

/**
 * Reads one encoded Batch. `path` names it in errors.
 *
 * @throws WireError as decodeReport
 */
export function decodeBatch(bytes: Buffer, path: string): Batch {
  const reader = new Reader(bytes, 0, bytes.length, path);
  const counts: ExactCount[] = [];
  const batch: Mutable<Batch> = { producer: 0n, seq: 0, firstEvent: 0, droppedEvents: 0, counts, bytes };
  while (reader.next()) {
    if (reader.field === 1) batch.producer = reader.id64('producer');
    else if (reader.field === 2) batch.seq = reader.uint64('seq');
    else if (reader.field === 3) batch.firstEvent = reader.uint64('first_event');
    else if (reader.field === 4) batch.droppedEvents = reader.uint64('dropped_events');
    else if (reader.field === 5) batch.events = decodeColumns(reader.message('events'));
    else if (reader.field === 6) {
      if (counts.length >= EXACT_COUNTS_MAX) throw reader.error('counts', `has more than ${EXACT_COUNTS_MAX} entries`);
      counts.push(decodeExactCount(reader.message(`counts[${counts.length}]`)));
    } else reader.skip();
  }
  if (batch.seq < 1) throw reader.error('seq', 'is 0, must be 1 or more');
  return batch;
}

function decodeExactCount(reader: Reader): ExactCount {
  const count: Mutable<ExactCount> = {
    operation: '',
    status: 0,
    responseFlags: 0,
    flags: 0,
    count: 0,
    durationUsSum: 0,
  };
  while (reader.next()) {
    if (reader.field === 1) count.operation = reader.text('operation', NAME_BYTES_MAX);
    else if (reader.field === 2) count.status = reader.uint32('status');
    else if (reader.field === 3) count.responseFlags = reader.uint32('response_flags');
    else if (reader.field === 4) count.flags = reader.uint32('flags');
    else if (reader.field === 5) count.count = reader.uint64('count');
    else if (reader.field === 6) count.durationUsSum = reader.uint64('duration_us_sum');
    else reader.skip();
  }
  return count;
}

function decodeStatus(reader: Reader): Status {
  const status: Mutable<Status> = { queueSource: 0, ageMs: 0, windowMs: 0, requests: 0, failures: 0 };
  while (reader.next()) {
    if (reader.field === 1) status.inFlight = reader.uint32('in_flight');
    else if (reader.field === 2) status.queue = reader.uint32('queue');
    else if (reader.field === 3) status.queueSource = reader.uint32('queue_source');
    else if (reader.field === 4) status.waitMs = reader.uint32('wait_ms');
    else if (reader.field === 5) status.cpuRatio = ratio(reader, 'cpu_ratio');
    else if (reader.field === 6) status.memoryRatio = ratio(reader, 'memory_ratio');
    else if (reader.field === 7) status.ageMs = reader.uint32('age_ms');
    else if (reader.field === 8) status.callsInFlight = reader.uint32('calls_in_flight');
    else if (reader.field === 9) status.streamsOpen = reader.uint32('streams_open');
    else if (reader.field === 10) status.windowMs = reader.uint32('window_ms');
    else if (reader.field === 11) status.requests = reader.uint32('requests');
    else if (reader.field === 12) status.failures = reader.uint32('failures');
    else if (reader.field === 13) status.durationUsP50 = reader.uint32('duration_us_p50');
    else reader.skip();
  }
  return status;
}

/** A share. Above 1 (a burst past the limit) counts as all of it. */
function ratio(reader: Reader, name: string): number {
  const value = reader.double(name);
  if (!(value >= 0)) throw reader.error(name, `is ${value}, must be 0 to 1`);
  return Math.min(value, 1);
}

function decodeProgress(reader: Reader): Progress {
  const progress: Mutable<Progress> = { job: '', state: '', event: '', ageMs: 0 };
  while (reader.next()) {
    if (reader.field === 1) progress.job = reader.text('job', JOB_BYTES_MAX);
    else if (reader.field === 2) progress.done = reader.uint64('done');
    else if (reader.field === 3) progress.of = reader.uint64('of');
    else if (reader.field === 4) progress.queue = reader.uint64('queue');
    else if (reader.field === 5) progress.state = reader.text('state', STATE_BYTES_MAX);
    else if (reader.field === 6) progress.event = reader.text('event', NO_ID.length);
    else if (reader.field === 7) progress.ageMs = reader.uint32('age_ms');
    else reader.skip();
  }
  return progress;
}

function decodeGoodbye(reader: Reader): { reason: string } {
  let reason = '';
  while (reader.next()) {
    if (reader.field === 1) reason = reader.text('reason', NAME_BYTES_MAX);
    else reader.skip();
  }
  return { reason };
}

function checkRoom(reader: Reader, name: string, list: readonly unknown[], max: number): void {
  if (list.length >= max) throw reader.error(name, `has more than ${max} entries`);
}

function decodeDirectiveAck(reader: Reader): DirectiveAck {
  let version = 0;
  let heldUs = 0;
  while (reader.next()) {
    if (reader.field === 1) version = reader.uint64('version');
    else if (reader.field === 2) heldUs = reader.uint32('held_us');
    else reader.skip();
  }
  return { version: String(version), heldUs };
}

/** Longest id of a signal, bytes. */
const SIGNAL_ID_BYTES_MAX = 64;

function decodeSignalResult(reader: Reader): SignalResult {
  let id = '';
  let status = 0;
  while (reader.next()) {
    if (reader.field === 1) id = reader.text('id', SIGNAL_ID_BYTES_MAX);
    else if (reader.field === 2) status = reader.uint32('status');
    else reader.skip();
  }
  return { id, status };
}

function decodeInFlightList(reader: Reader, itemsMax: number): InFlightList {
  const items: InFlight[] = [];
  let producer = 0n;
  let omitted = 0;
  while (reader.next()) {
    if (reader.field === 1) producer = reader.id64('producer');
    else if (reader.field === 2) {
      if (items.length >= itemsMax) throw reader.error('items', `has more than ${IN_FLIGHT_MAX} entries in all`);
      items.push(decodeInFlight(reader.message(`items[${items.length}]`)));
    } else if (reader.field === 3) omitted = reader.uint32('omitted');
    else reader.skip();
  }
  return { producer, items, omitted };
}

function decodeInFlight(reader: Reader): InFlight {
  const item: Mutable<InFlight> = {
    eventId: NO_ID,
    keyHi: NO_ID,
    keyLo: NO_ID,
    requestHi: NO_ID,
    requestLo: NO_ID,
    operation: '',
    flags: 0,
    ageMs: 0,
    peerService: '',
    peerCuid: '',
  };
  while (reader.next()) {
    if (reader.field === 1) item.eventId = reader.hex64('event_id');
    else if (reader.field === 2) item.keyHi = reader.hex64('key_hi');
    else if (reader.field === 3) item.keyLo = reader.hex64('key_lo');
    else if (reader.field === 4) item.requestHi = reader.hex64('request_hi');
    else if (reader.field === 5) item.requestLo = reader.hex64('request_lo');
    else if (reader.field === 6) item.operation = reader.text('operation', NAME_BYTES_MAX);
    else if (reader.field === 7) item.flags = reader.uint32('flags');
    else if (reader.field === 8) item.ageMs = reader.uint32('age_ms');
    else if (reader.field === 9) item.peerService = reader.text('peer_service', NAME_BYTES_MAX);
    else if (reader.field === 10) item.peerCuid = reader.text('peer_cuid', NAME_BYTES_MAX);
    else reader.skip();
  }
  return item;
}
