// meshpulse.v1.Hello: bytes -> Hello. Pure; throws nothing but WireError.

import { isIP } from 'node:net';
import {
  ALIASES_MAX,
  CONFIG_ERRORS_MAX,
  CONFIG_ERROR_BYTES_MAX,
  COUNTERS_MAX,
  INTERVAL_MS_MAX,
  INTERVAL_MS_MIN,
  NAME_BYTES_MAX,
  PORTS_MAX,
  PRODUCERS_MAX,
  type Counter,
  type Hello,
  type ProducerState,
} from './report.js';
import type { Reader } from './wire.js';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const UUID_LENGTH = 36;

/** IPv6 text with a zone can be longer than the 45 characters of the address. */
const IP_BYTES_MAX = 64;

/** Reads one Hello to its end and checks it. */
export function decodeHello(reader: Reader): Hello {
  const cuidAliases: string[] = [];
  const producers: ProducerState[] = [];
  const ports: number[] = [];
  const configErrors: string[] = [];
  const counters: Counter[] = [];
  const hello: Mutable<Hello> = { ...EMPTY, cuidAliases, producers, ports, configErrors, counters };
  while (reader.next()) {
    const text = TEXTS[reader.field];
    const interval = INTERVALS[reader.field];
    if (text !== undefined) hello[text.name] = reader.text(text.wireName, NAME_BYTES_MAX);
    else if (interval !== undefined) hello[interval.name] = intervalMs(reader, interval.wireName);
    else if (reader.field === 4) hello.cuid = uuid(reader, 'cuid');
    else if (reader.field === 5) hello.scope = reader.uint32('scope');
    else if (reader.field === 6) add(reader, 'cuid_aliases', cuidAliases, ALIASES_MAX, name => uuid(reader, name));
    else if (reader.field === 12) hello.bootEpochUs = reader.fixed64('boot_epoch');
    else if (reader.field === 13)
      add(reader, 'producers', producers, PRODUCERS_MAX, name => producer(reader.message(name)));
    else if (reader.field === 14) hello.ip = address(reader);
    else if (reader.field === 15) reader.uint32s('ports', ports, PORTS_MAX);
    else if (reader.field === 19)
      add(reader, 'config_errors', configErrors, CONFIG_ERRORS_MAX, name => reader.text(name, CONFIG_ERROR_BYTES_MAX));
    else if (reader.field === 20) hello.edge = reader.uint32('edge') !== 0;
    else if (reader.field === 21)
      add(reader, 'counters', counters, COUNTERS_MAX, name => counter(reader.message(name)));
    else if (reader.field === 22) hello.rollbackMode = reader.uint32('rollback_mode');
    else if (reader.field === 23) hello.rollbackCallback = reader.uint32('rollback_callback') !== 0;
    else reader.skip();
  }
  check(reader, hello);
  return hello;
}

const EMPTY: Hello = {
  proxyId: '',
  cluster: '',
  network: '',
  cuid: '',
  scope: 0,
  cuidAliases: [],
  service: '',
  slot: '',
  workload: '',
  node: '',
  version: '',
  bootEpochUs: 0,
  producers: [],
  ip: '',
  ports: [],
  reportIntervalMs: 0,
  reportIdleMs: 0,
  reportInFlightMs: 0,
  configErrors: [],
  edge: false,
  rollbackMode: 0,
  rollbackCallback: false,
  counters: [],
};

type TextName = 'proxyId' | 'cluster' | 'network' | 'service' | 'slot' | 'workload' | 'node' | 'version';

const TEXTS: Readonly<Record<number, { name: TextName; wireName: string }>> = {
  1: { name: 'proxyId', wireName: 'proxy_id' },
  2: { name: 'cluster', wireName: 'cluster' },
  3: { name: 'network', wireName: 'network' },
  7: { name: 'service', wireName: 'service' },
  8: { name: 'slot', wireName: 'slot' },
  9: { name: 'workload', wireName: 'workload' },
  10: { name: 'node', wireName: 'node' },
  11: { name: 'version', wireName: 'version' },
};

type IntervalName = 'reportIntervalMs' | 'reportIdleMs' | 'reportInFlightMs';

const INTERVALS: Readonly<Record<number, { name: IntervalName; wireName: string }>> = {
  16: { name: 'reportIntervalMs', wireName: 'report_interval_ms' },
  17: { name: 'reportIdleMs', wireName: 'report_idle_ms' },
  18: { name: 'reportInFlightMs', wireName: 'report_in_flight_ms' },
};

function check(reader: Reader, hello: Hello): void {
  if (hello.proxyId === '') throw reader.error('proxy_id', 'is empty, must name the proxy');
  if (hello.cuid === '') throw reader.error('cuid', 'is empty, must be a UUID in lower case');
  if (hello.service === '') throw reader.error('service', 'is empty, must name the service');
  const port = hello.ports.find(value => value < 1 || value > 65_535);
  if (port !== undefined) throw reader.error('ports', `contains ${port}, must be 1 to 65535`);
}

/** A repeated field: one more value, unless there are `max` already. */
function add<T>(reader: Reader, name: string, into: T[], max: number, read: (name: string) => T): void {
  if (into.length >= max) throw reader.error(name, `has more than ${max} entries`);
  into.push(read(`${name}[${into.length}]`));
}

function uuid(reader: Reader, name: string): string {
  const text = reader.text(name, UUID_LENGTH);
  if (text !== '' && !UUID.test(text))
    throw reader.error(name, `is ${JSON.stringify(text)}, must be a UUID in lower case`);
  return text;
}

function address(reader: Reader): string {
  const text = reader.text('ip', IP_BYTES_MAX);
  if (text !== '' && isIP(text) === 0)
    throw reader.error('ip', `is ${JSON.stringify(text)}, must be IPv4 or IPv6 text`);
  return text;
}

function intervalMs(reader: Reader, name: string): number {
  const value = reader.uint32(name);
  if (value !== 0 && (value < INTERVAL_MS_MIN || value > INTERVAL_MS_MAX)) {
    throw reader.error(name, `is ${value}, must be ${INTERVAL_MS_MIN} to ${INTERVAL_MS_MAX} ms`);
  }
  return value;
}

function producer(reader: Reader): ProducerState {
  const state: Mutable<ProducerState> = { id: 0n, nextSeq: 1, droppedEvents: 0, batchedEvents: 0 };
  let ackedSeq: number | undefined;
  let ackedEvents = 0;
  while (reader.next()) {
    if (reader.field === 1) state.id = reader.id64('id');
    else if (reader.field === 2) state.nextSeq = Math.max(1, reader.uint64('next_seq'));
    else if (reader.field === 3) state.droppedEvents = reader.uint64('dropped_events');
    else if (reader.field === 4) state.batchedEvents = reader.uint64('batched_events');
    else if (reader.field === 5) ackedSeq = reader.uint64('acked_seq');
    else if (reader.field === 6) ackedEvents = reader.uint64('acked_events');
    else reader.skip();
  }
  return ackedSeq === undefined ? state : { ...state, acked: { seq: ackedSeq, events: ackedEvents } };
}

function counter(reader: Reader): Counter {
  const state: Mutable<Counter> = { name: '', value: 0 };
  while (reader.next()) {
    if (reader.field === 1) state.name = reader.text('name', NAME_BYTES_MAX);
    else if (reader.field === 2) state.value = reader.uint64('value');
    else reader.skip();
  }
  return state;
}
