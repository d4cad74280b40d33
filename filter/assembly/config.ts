// pluginConfig (JSON) -> Config. It never fails: a bad value falls back to that key's default, an
// unknown key is ignored, unreadable JSON means pass-through. Each fault is one sentence, told to
// the log, to a counter and to the collector.
import { same, Text } from './bytes';
import { JSON_ARRAY, JSON_BOOL, JSON_NULL, JSON_NUMBER, JSON_OBJECT, JSON_OTHER, JSON_STRING, JsonSink, numberOf, readJson } from './core/json';

export const ROLE_FULL: i32 = 0;
export const ROLE_ORDER: i32 = 1;
/** Unreadable configuration: touch nothing (but keep the edge clean). */
export const ROLE_NONE: i32 = 2;

export const EVENTS_ALL: i32 = 0;
export const EVENTS_FAILURES: i32 = 1;
export const EVENTS_SAMPLE: i32 = 2;

export const ROLLBACK_OFF: i32 = 0;
export const ROLLBACK_OBSERVE: i32 = 1;
export const ROLLBACK_ENFORCE: i32 = 2;

/** Largest pluginConfig that is read, bytes. */
const CONFIG_BYTES_MAX: u32 = 65536;
const ERRORS_MAX: i32 = 16;
/** Entries in mesh.clusters and trace.headers. */
const LIST_MAX: i32 = 64;
const NAME_MAX: u32 = 256;

/** A pattern over names: exact, or with `*` as its first or last character. */
export class Pattern {
  constructor(readonly text: Text, readonly head: bool, readonly tail: bool) {}
  static of(text: string): Pattern {
    const tail = text.length > 0 && text.endsWith('*');
    const head = text.length > 1 && text.startsWith('*');
    return new Pattern(new Text(text.substring(head ? 1 : 0, tail ? text.length - 1 : text.length)), head, tail);
  }
  matches(ptr: usize, size: u32): bool {
    const n = this.text.size;
    if (size < n) return false;
    if (this.tail && this.head) {
      for (let i: u32 = 0; i + n <= size; i++) if (same(ptr + i, this.text.ptr, n)) return true;
      return false;
    }
    if (this.tail) return same(ptr, this.text.ptr, n);
    if (this.head) return same(ptr + (size - n), this.text.ptr, n);
    return size == n && same(ptr, this.text.ptr, n);
  }
}

const TRACE_HEADERS = ['traceparent', 'tracestate', 'b3', 'x-b3-*', 'uber-trace-id', 'sw8', 'x-cloud-trace-context', 'x-datadog-*'];

/** Every key that holds a value; the dots may also be nesting. */
const KEYS = [
  'mesh.clusters',
  'trace.headers',
  'edge',
  'collector.cluster',
  'collector.authority',
  'role',
  'service',
  'direction',
  'trust',
  'status.request',
  'status.response',
  'status.orca',
  'status.adminCluster',
  'report.intervalMs',
  'report.idleMs',
  'report.inFlightMs',
  'report.events',
  'report.ratio',
  'report.plainIds',
  'transaction.header',
  'rollback.mode',
  'rollback.httpStatus',
  'rollback.grpcStatus',
  'rollback.callback.cluster',
  'rollback.callback.path',
  'rollback.callback.secretFile',
];

export class Config extends JsonSink {
  role: i32 = ROLE_FULL;
  collectorCluster: string = '';
  collectorAuthority: string = '';
  service: string = '';
  /** 0 from the listener, 1 inbound, 2 outbound. */
  direction: i32 = 0;
  edge: bool = false;
  /** `edge` was given but cannot be read: true on router proxies. */
  edgeUnreadable: bool = false;
  trustAll: bool = false;
  meshClusters: Pattern[] = [];
  traceHeaders: Pattern[] = [];
  /** trace.headers is an empty list: nothing is moved. */
  private traceEmpty: bool = false;
  statusRequest: bool = true;
  statusResponse: bool = true;
  statusOrca: bool = false;
  intervalMs: u32 = 1000;
  idleMs: u32 = 60000;
  inFlightMs: u32 = 5000;
  events: i32 = EVENTS_ALL;
  ratio: f64 = 1;
  plainIds: bool = false;
  transactionHeader: string = '';
  rollbackMode: i32 = ROLLBACK_OBSERVE;
  rollbackHttpStatus: u32 = 424;
  rollbackGrpcStatus: u32 = 9;
  callbackCluster: string = '';
  callbackPath: string = '';
  callbackSecretFile: string = '';
  errors: string[] = [];
  errorsTotal: u32 = 0;

  static parse(ptr: usize, size: u32): Config {
    const config = new Config();
    if (size > 0) {
      if (size > CONFIG_BYTES_MAX || !readJson(ptr, size, config)) {
        return Config.unreadable(
          size > CONFIG_BYTES_MAX
            ? 'pluginConfig: ' + size.toString() + ' bytes, at most ' + CONFIG_BYTES_MAX.toString() + ' are read'
            : 'pluginConfig: not a JSON object',
        );
      }
    }
    config.finish();
    return config;
  }

  /** Pass-through; a gateway still cleans its edge. */
  static unreadable(why: string): Config {
    const config = new Config();
    config.role = ROLE_NONE;
    config.edgeUnreadable = true;
    config.fault(why + '; passing traffic through');
    config.finish();
    return config;
  }

  private finish(): void {
    if (this.traceHeaders.length == 0 && !this.traceEmpty) for (let i = 0; i < TRACE_HEADERS.length; i++) this.traceHeaders.push(Pattern.of(TRACE_HEADERS[i]));
    if (this.collectorAuthority.length == 0 && this.collectorCluster.length > 0) this.collectorAuthority = authorityOf(this.collectorCluster);
  }

  private fault(sentence: string): void {
    this.errorsTotal++;
    if (this.errors.length < ERRORS_MAX) this.errors.push(sentence);
  }

  leaf(path: usize, pathSize: u32, kind: i32, ptr: usize, size: u32, inArray: bool): void {
    const key = printable(path, pathSize);
    if (kind == JSON_OBJECT) {
      if (KEYS.includes(key)) this.leaf(path, pathSize, JSON_OTHER, 0, 0, false);
      return;
    }
    if (key == 'mesh.clusters') return this.list(key, this.meshClusters, kind, ptr, size, inArray);
    if (key == 'trace.headers') {
      const faults = this.errorsTotal;
      this.list(key, this.traceHeaders, kind, ptr, size, inArray);
      // A list of wrong entries alone is a wrong value, not an empty list.
      this.traceEmpty = kind == JSON_ARRAY || (this.traceEmpty && this.errorsTotal == faults);
      return;
    }
    if (inArray || kind == JSON_ARRAY) {
      if (kind == JSON_ARRAY) {
        if (key == 'edge') this.edgeUnreadable = true;
        this.fault(key + ': a list is not expected here; using the default');
      }
      return;
    }
    if (kind == JSON_NULL) return; // as if absent
    if (key == 'collector.cluster') this.collectorCluster = this.name(key, this.collectorCluster, kind, ptr, size);
    else if (key == 'collector.authority') this.collectorAuthority = this.name(key, this.collectorAuthority, kind, ptr, size);
    else if (key == 'role') this.role = this.word(key, ['full', 'order'], 0, kind, ptr, size);
    else if (key == 'service') this.service = this.name(key, this.service, kind, ptr, size);
    else if (key == 'direction') this.direction = this.word(key, ['', 'inbound', 'outbound'], 0, kind, ptr, size);
    else if (key == 'edge') {
      if (kind == JSON_BOOL) this.edge = size == 4;
      else {
        this.edgeUnreadable = true;
        this.fault('edge: ' + shown(kind, ptr, size) + ' is not true or false; taken as true on router proxies, else false');
      }
    } else if (key == 'trust') this.trustAll = this.word(key, ['mtls', 'all'], 0, kind, ptr, size) == 1;
    else if (key == 'status.request') this.statusRequest = this.flag(key, true, kind, ptr, size);
    else if (key == 'status.response') this.statusResponse = this.flag(key, true, kind, ptr, size);
    else if (key == 'status.orca') this.statusOrca = this.flag(key, false, kind, ptr, size);
    else if (key == 'status.adminCluster') this.name(key, '', kind, ptr, size); // checked, not used yet
    else if (key == 'report.intervalMs') this.intervalMs = this.number(key, 100, 60000, 1000, kind, ptr, size) as u32;
    else if (key == 'report.idleMs') this.idleMs = this.number(key, 100, 60000, 60000, kind, ptr, size) as u32;
    else if (key == 'report.inFlightMs') this.inFlightMs = this.number(key, 100, 60000, 5000, kind, ptr, size) as u32;
    else if (key == 'report.events') this.events = this.word(key, ['all', 'failures', 'sample'], EVENTS_ALL, kind, ptr, size);
    else if (key == 'report.ratio') this.ratio = this.share(key, 1, kind, ptr, size);
    else if (key == 'report.plainIds') this.plainIds = this.flag(key, false, kind, ptr, size);
    else if (key == 'transaction.header') this.transactionHeader = this.headerName(key, kind, ptr, size);
    else if (key == 'rollback.mode') this.rollbackMode = this.word(key, ['off', 'observe', 'enforce'], ROLLBACK_OBSERVE, kind, ptr, size);
    else if (key == 'rollback.httpStatus') this.rollbackHttpStatus = this.number(key, 400, 599, 424, kind, ptr, size) as u32;
    else if (key == 'rollback.grpcStatus') this.rollbackGrpcStatus = this.number(key, 1, 16, 9, kind, ptr, size) as u32;
    else if (key == 'rollback.callback.cluster') this.callbackCluster = this.name(key, '', kind, ptr, size);
    else if (key == 'rollback.callback.path') this.callbackPath = this.name(key, '', kind, ptr, size);
    else if (key == 'rollback.callback.secretFile') this.callbackSecretFile = this.name(key, '', kind, ptr, size);
    else this.fault(key + ': unknown key; ignored');
  }

  private list(key: string, into: Pattern[], kind: i32, ptr: usize, size: u32, inArray: bool): void {
    if (kind == JSON_ARRAY) return;
    if (kind != JSON_STRING || !inArray || size == 0 || size > NAME_MAX) {
      this.fault(key + ': ' + shown(kind, ptr, size) + ' is not a list of names of 1..256 bytes; entry ignored');
      return;
    }
    if (into.length >= LIST_MAX) {
      this.fault(key + ': more than ' + LIST_MAX.toString() + ' entries; the rest is ignored');
      return;
    }
    const text = ascii(ptr, size);
    if (text.length == 0 || text == '*' && key == 'trace.headers') {
      this.fault(key + ': ' + shown(kind, ptr, size) + ' is not a printable ASCII name; entry ignored');
      return;
    }
    into.push(Pattern.of(key == 'trace.headers' ? text.toLowerCase() : text));
  }

  private name(key: string, fallback: string, kind: i32, ptr: usize, size: u32): string {
    const text = kind == JSON_STRING && size <= NAME_MAX ? ascii(ptr, size) : '';
    if (text.length == 0 && !(kind == JSON_STRING && size == 0)) {
      this.fault(key + ': ' + shown(kind, ptr, size) + ' is not a printable ASCII text of 1..256 bytes; using the default');
      return fallback;
    }
    return text;
  }

  private headerName(key: string, kind: i32, ptr: usize, size: u32): string {
    const text = this.name(key, '', kind, ptr, size).toLowerCase();
    for (let i = 0; i < text.length; i++) {
      const c = text.charCodeAt(i);
      const fine = (c >= 97 && c <= 122) || (c >= 48 && c <= 57) || c == 45 || c == 95 || c == 46;
      if (!fine) {
        this.fault(key + ': ' + shown(kind, ptr, size) + ' is not a header name; using the default');
        return '';
      }
    }
    return text;
  }

  private word(key: string, words: string[], fallback: i32, kind: i32, ptr: usize, size: u32): i32 {
    if (kind == JSON_STRING && size > 0 && size <= NAME_MAX) {
      const text = ascii(ptr, size);
      for (let i = 0; i < words.length; i++) if (words[i] == text && text.length > 0) return i;
    }
    let choice = '';
    for (let i = 0; i < words.length; i++) if (words[i].length > 0) choice += (choice.length > 0 ? ', ' : '') + words[i];
    this.fault(key + ': ' + shown(kind, ptr, size) + ' is not one of ' + choice + '; using the default');
    return fallback;
  }

  private flag(key: string, fallback: bool, kind: i32, ptr: usize, size: u32): bool {
    if (kind == JSON_BOOL) return size == 4;
    this.fault(key + ': ' + shown(kind, ptr, size) + ' is not true or false; using ' + (fallback ? 'true' : 'false'));
    return fallback;
  }

  private number(key: string, min: f64, max: f64, fallback: f64, kind: i32, ptr: usize, size: u32): f64 {
    if (kind == JSON_NUMBER) {
      const v = numberOf(ptr, size);
      if (v >= min && v <= max && Math.floor(v) == v) return v;
    }
    this.fault(key + ': ' + shown(kind, ptr, size) + ' is not a whole number in ' + (min as i64).toString() + '..' + (max as i64).toString() + '; using ' + (fallback as i64).toString());
    return fallback;
  }

  private share(key: string, fallback: f64, kind: i32, ptr: usize, size: u32): f64 {
    if (kind == JSON_NUMBER) {
      const v = numberOf(ptr, size);
      if (v >= 0 && v <= 1) return v;
    }
    this.fault(key + ': ' + shown(kind, ptr, size) + ' is not a number in 0..1; using ' + (fallback as i64).toString());
    return fallback;
  }
}

/** The host inside `outbound|50051||collector.mesh.svc.cluster.local`; else the cluster's name itself. */
function authorityOf(cluster: string): string {
  const bar = cluster.lastIndexOf('|');
  if (bar >= 0) return cluster.substring(bar + 1);
  return cluster;
}

/** Printable ASCII without blanks at its ends, or '' when the bytes are anything else. */
function ascii(ptr: usize, size: u32): string {
  for (let i: u32 = 0; i < size; i++) {
    const c = load<u8>(ptr + i);
    if (c < 0x21 || c > 0x7e) return '';
  }
  return size == 0 ? '' : String.UTF8.decodeUnsafe(ptr, size);
}

/** For messages: other bytes become '?', long texts are cut at 64. */
function printable(ptr: usize, size: u32): string {
  let text = '';
  for (let i: u32 = 0; i < size && i < 64; i++) {
    const c = load<u8>(ptr + i);
    text += c < 0x20 || c > 0x7e ? '?' : String.fromCharCode(c);
  }
  return size > 64 ? text + '...' : text;
}

function shown(kind: i32, ptr: usize, size: u32): string {
  if (kind == JSON_STRING) return '"' + printable(ptr, size) + '"';
  if (kind == JSON_NUMBER || kind == JSON_BOOL) return printable(ptr, size);
  return 'the value';
}
