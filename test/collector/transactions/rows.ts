/** Batches from rows as a test likes to write them. */
import type { EventColumns } from '../../../collector/src/ingest/columns.js';
import { ROW_FLAG } from '../../../collector/src/ingest/columns.js';
import type { InFlight } from '../../../collector/src/ingest/report.js';
import type { InstanceRef, RowBatch } from '../../../collector/src/ingest/transactions-port.js';

export const T0 = 1_700_000_000_000_000;

export interface TestRow {
  /** us after T0, by the clock of the proxy. */
  readonly start: number;
  readonly duration: number;
  /** 32 hex digits; padded. */
  readonly key?: string;
  readonly keySource?: number;
  readonly request?: string;
  /** 16 hex digits; padded. */
  readonly event?: string;
  readonly spanIn?: string;
  readonly spanOut?: string;
  readonly operation?: string;
  readonly peerService?: string;
  readonly peerCuid?: string;
  readonly status?: number;
  readonly grpc?: number;
  readonly responseFlags?: number;
  /** ROW_FLAG bits. */
  readonly flags?: number;
  readonly outcome?: number;
  readonly attempts?: number;
  readonly wait?: number;
  readonly keyText?: string;
  readonly details?: string;
}

export function instance(name: string, more: Partial<InstanceRef> = {}): InstanceRef {
  return {
    cuid: `cuid-${name}`,
    service: name.replace(/#.*$/, ''),
    cluster: 'east',
    node: `node-of-${name}`,
    proxyId: `proxy-${name}`,
    clockOffsetUs: 0,
    ...more,
  };
}

export function batch(from: InstanceRef, rows: readonly TestRow[]): RowBatch {
  return { instance: from, columns: columns(rows), producer: 1n };
}

const outcomeOf = (status: number): number => (status >= 500 || status === 0 ? 2 : status >= 400 ? 3 : 1);

export function columns(rows: readonly TestRow[]): EventColumns {
  const strings: string[] = [''];
  const text = (value = ''): number => {
    const known = strings.indexOf(value);
    return known >= 0 ? known : strings.push(value) - 1;
  };
  const base = T0 + Math.min(...rows.map(row => row.start + row.duration));
  const c32 = (of: (row: TestRow) => number): Uint32Array => Uint32Array.from(rows, of);
  const c64 = (of: (row: TestRow) => string): Uint32Array =>
    Uint32Array.from(
      rows.flatMap(row => {
        const value = BigInt(`0x${of(row) || '0'}`);
        return [Number(value & 0xffffffffn), Number(value >> 32n)];
      }),
    );
  const half = (id: string | undefined, at: 0 | 16): string => (id ?? '').padStart(32, '0').slice(at, at + 16);
  const request = (row: TestRow): string | undefined => row.request?.replaceAll('-', '');
  return {
    rows: rows.length,
    baseUnixUs: base,
    strings,
    endOffsetUs: c32(row => T0 + row.start + row.duration - base),
    durationUs: c32(row => row.duration),
    keyHi: c64(row => half(row.key, 0)),
    keyLo: c64(row => half(row.key, 16)),
    requestHi: c64(row => half(request(row), 0)),
    requestLo: c64(row => half(request(row), 16)),
    eventId: c64(row => row.event ?? ''),
    spanIn: c64(row => row.spanIn ?? ''),
    spanOut: c64(row => row.spanOut ?? ''),
    operation: c32(row => text(row.operation ?? 'GET /')),
    peerService: c32(row => text(row.peerService)),
    peerCuid: c32(row => text(row.peerCuid)),
    status: c32(row => (row.status ?? 200) | ((row.grpc === undefined ? 0 : row.grpc + 1) << 16)),
    responseFlags: c32(row => row.responseFlags ?? 0),
    flags: c32(row => {
      const source = row.keySource ?? (row.key === undefined ? 0 : 2);
      return (
        (row.flags ?? 0) |
        ((row.outcome ?? outcomeOf(row.status ?? 200)) << 16) |
        (source << 20) |
        ((row.attempts ?? 0) << 24)
      );
    }),
    waitUs: c32(row => row.wait ?? 0),
    requestBytes: c32(() => 0),
    responseBytes: c32(() => 0),
    weight: c32(() => 1),
    keyText: c32(row => text(row.keyText)),
    details: c32(row => text(row.details)),
  };
}

export function running(event: string, more: Partial<InFlight> = {}): InFlight {
  return {
    eventId: event.padStart(16, '0'),
    keyHi: '0'.repeat(16),
    keyLo: '0'.repeat(16),
    requestHi: '0'.repeat(16),
    requestLo: '0'.repeat(16),
    operation: 'GET /',
    flags: 0,
    ageMs: 6000,
    peerService: '',
    peerCuid: '',
    ...more,
  };
}

export const { CALL, ENTRY, SHADOW, PROBE, STREAM, EXTERNAL } = ROW_FLAG;
