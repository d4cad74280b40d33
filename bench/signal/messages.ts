// What the sidecars of a small shop report: bytes of ReportRequests, made before anything is timed.
import { service } from '../../collector/src/rpc/protos.js';

type Plain = Record<string, unknown>;

const encode = (report: Plain): Buffer => service('Ingest')['Report']!.requestSerialize(report);

/** ROW_FLAG_ bits, Outcome and KeySource of EventColumns.flags. */
const CALL = 1;
const ENTRY = 2;
export const OK = 1;
export const FAILED = 2;
const OUTCOME_SHIFT = 16;
const FROM_TRACE = 2 << 20;
const ONE_ATTEMPT = 1 << 24;

export const SERVICES = ['gateway', 'stock', 'payment', 'shipping'] as const;
export type Name = (typeof SERVICES)[number];
export const serviceOf = (name: Name): string => `${name}.shop`;
const cuidOf = (name: Name): string => uuid(SERVICES.indexOf(name) + 1);
const uuid = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;

/** The steps of a checkout: who is called how, ms after it began, and for how long. */
const STEPS = {
  reserve: { callee: 'stock', operation: 'POST /reserve', at: 5, ms: 10 },
  charge: { callee: 'payment', operation: 'POST /charge', at: 20, ms: 10 },
  ship: { callee: 'shipping', operation: 'POST /ship', at: 40, ms: 30 },
} as const;
const CHECKOUT = { operation: 'POST /checkout', ms: 100 };

/** The policy: a charge that fails dooms the checkout. */
export const POLICY = 'mode: enforce\nsteps:\n  - {service: payment.shop, operation: POST /charge}\n';

export interface Row {
  readonly flags: number;
  readonly operation: string;
  readonly at: number;
  readonly ms: number;
  readonly key: string;
  readonly event: string;
  readonly callee?: Name;
}

export const newKey = (number: number): string => `b${number.toString(16).padStart(31, '0')}`;
const eventOf = (key: string, step: number): string => `${step}${key.slice(-15)}`;

export function call(key: string, step: keyof typeof STEPS, outcome = OK): Row {
  const { callee, operation, at, ms } = STEPS[step];
  const event = eventOf(key, Object.keys(STEPS).indexOf(step) + 2);
  return { flags: flags(CALL, outcome), operation, at, ms, key, event, callee };
}

export const entry = (key: string, outcome: number): Row => {
  return { flags: flags(ENTRY, outcome), ...CHECKOUT, at: 0, key, event: eventOf(key, 1) };
};

/** A whole checkout, as the gateway's sidecar reports it. */
export const healthy = (key: string): Row[] => [
  call(key, 'reserve'),
  call(key, 'charge'),
  call(key, 'ship'),
  entry(key, OK),
];

const flags = (bits: number, outcome: number): number => bits | (outcome << OUTCOME_SHIFT) | FROM_TRACE | ONE_ATTEMPT;

export function helloOf(name: Name): Buffer {
  return encode({ hello: hello(SERVICES.indexOf(name) + 1, serviceOf(name)) });
}

/** One of the many sidecars that are the load. */
export function loadHello(number: number): Buffer {
  return encode({ hello: hello(number, `busy-${number}.load`) });
}

function hello(number: number, service: string): Plain {
  return {
    proxyId: `sidecar~10.0.0.${number}~${service}~cluster.local`,
    cluster: 'bench',
    cuid: uuid(number),
    scope: 'CUID_SCOPE_PROXY',
    service,
    workload: service,
    bootEpoch: '1700000000000000',
    producers: [{ id: String(number), nextSeq: '1' }],
    reportIntervalMs: 1000,
    reportIdleMs: 60_000,
    rollbackMode: 'ROLLBACK_MODE_ENFORCE',
  };
}

/** A checkout that runs, told 20 ms after it began. */
export function began(key: string, nowMs: number): Buffer {
  const [keyHi, keyLo] = halves(key);
  const item = {
    eventId: decimal(eventOf(key, 1)),
    keyHi,
    keyLo,
    operation: CHECKOUT.operation,
    flags: ENTRY | FROM_TRACE,
  };
  return encode({ sentUnixUs: String(nowMs * 1000), began: [{ ...item, ageMs: 20 }] });
}

/** Numbers the batches of one sidecar. */
export class Batches {
  private seq = 0;
  private events = 0;

  /** @param number of the sidecar, as in its hello */
  constructor(private readonly number: number) {}

  static of(name: Name): Batches {
    return new Batches(SERVICES.indexOf(name) + 1);
  }

  /** @param nowMs wall clock: the rows have ended by then */
  next(rows: readonly Row[], nowMs: number): Buffer {
    this.seq += 1;
    const batch = {
      producer: String(this.number),
      seq: String(this.seq),
      firstEvent: String(this.events),
      events: columns(rows, nowMs * 1000 - SPAN_US),
    };
    this.events += rows.length;
    return encode({ sentUnixUs: String(nowMs * 1000), batches: [batch] });
  }
}

/** Ends of rows lie within this time before now, us. */
const SPAN_US = 200_000;

function columns(rows: readonly Row[], baseUs: number): Plain {
  const strings = [''];
  const index = (text: string): number => (strings.includes(text) ? strings.indexOf(text) : strings.push(text) - 1);
  const keys = rows.map(row => halves(row.key));
  return {
    rows: rows.length,
    baseUnixUs: String(baseUs),
    endOffsetUs: rows.map(row => (row.at + row.ms) * 1000),
    durationUs: rows.map(row => row.ms * 1000),
    keyHi: keys.map(([high]) => high),
    keyLo: keys.map(([, low]) => low),
    eventId: rows.map(row => decimal(row.event)),
    operation: rows.map(row => index(row.operation)),
    peerService: rows.map(({ callee }) => index(callee === undefined ? '' : `${serviceOf(callee)}.svc.cluster.local`)),
    peerCuid: rows.map(({ callee }) => index(callee === undefined ? '' : cuidOf(callee))),
    status: rows.map(row => (((row.flags >> OUTCOME_SHIFT) & 15) === OK ? 200 : 503)),
    flags: rows.map(row => row.flags),
    strings,
  };
}

const decimal = (hex: string): string => String(BigInt(`0x${hex}`));
const halves = (hex: string): [string, string] => [decimal(hex.slice(0, 16)), decimal(hex.slice(16))];
