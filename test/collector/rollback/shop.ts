/** A shop of sidecars that report to a real collector, and take its directives. */
import { start, type ReportClient, type TestCollector } from '../rpc-support.js';
import type { Plain } from '../ingest-support.js';

const CALL = 1;
const ENTRY = 2;
export const FLAG = {
  WOULD_REFUSE: 2048,
  WITHHELD: 4096,
  NO_RETRIES: 8192,
  RETRY_REFUSED: 16384,
  LOCAL_REPLY: 256,
} as const;
const OUTCOME = { ok: 1, failed: 2, declined: 3, cancelled: 4, refused: 5 } as const;

export const SERVICES = ['gateway', 'stock', 'payment', 'shipping'] as const;
export type Name = (typeof SERVICES)[number];

export const serviceOf = (name: Name): string => `${name}.shop`;
export const cuidOf = (name: Name, instance = 1): string =>
  `00000000-0000-4000-8000-${String(SERVICES.indexOf(name) * 100 + instance).padStart(12, '0')}`;
export const hostOf = (name: Name): string => `${name}.shop.svc.cluster.local`;

/** The steps of a checkout: who is called how, ms after it began, and for how long. */
export const STEPS = {
  reserve: { callee: 'stock', operation: 'POST /reserve', at: 5, ms: 10 },
  charge: { callee: 'payment', operation: 'POST /charge', at: 20, ms: 10 },
  release: { callee: 'stock', operation: 'POST /release', at: 40, ms: 10 },
  ship: { callee: 'shipping', operation: 'POST /ship', at: 40, ms: 30 },
} as const satisfies Record<string, { callee: Name; operation: string; at: number; ms: number }>;

export interface Row {
  readonly flags: number;
  readonly outcome: keyof typeof OUTCOME;
  readonly operation: string;
  readonly at: number;
  readonly ms: number;
  readonly key: string;
  readonly event: string;
  readonly peerService?: string;
  readonly peerCuid?: string;
  readonly status?: number;
  readonly responseFlags?: number;
}

export class Sidecar {
  private seq = 0;
  private events = 0;
  readonly directives: Plain[] = [];
  /** How far its clock is ahead of the collector's, us. */
  skewUs = 0;
  private client: ReportClient | undefined;

  constructor(
    private readonly collector: TestCollector,
    readonly name: Name,
    readonly mode: string,
    private readonly instance = 1,
  ) {}

  get cuid(): string {
    return cuidOf(this.name, this.instance);
  }

  async open(): Promise<this> {
    this.client = this.collector.report();
    this.client.call.on('data', (reply: Plain) => this.directives.push(...((reply['directives'] ?? []) as Plain[])));
    await this.send({ hello: this.hello() });
    return this;
  }

  /** Ends the stream: from now on it could report by single calls. */
  close(): void {
    this.client!.call.end();
  }

  hello(): Plain {
    const number = SERVICES.indexOf(this.name) * 100 + this.instance;
    return {
      proxyId: `sidecar~10.0.0.${number}~${this.name}-${this.instance}.shop~cluster.local`,
      cluster: 'east',
      cuid: this.cuid,
      scope: 'CUID_SCOPE_PROXY',
      service: serviceOf(this.name),
      workload: this.name,
      bootEpoch: '1700000000000000',
      producers: [{ id: String(number + 1), nextSeq: '1' }],
      reportIntervalMs: 1000,
      reportIdleMs: 60000,
      rollbackMode: this.mode,
      rollbackCallback: true,
    };
  }

  /** Sends a message and waits until it is answered, with all that was said before. */
  async send(report: Plain): Promise<void> {
    this.client!.send({ sentUnixUs: String(this.collector.clock.nowUs() + this.skewUs), ...report });
    // What is said unasked comes between.
    while ((((await this.client!.next())['directives'] ?? []) as Plain[]).length > 0);
  }

  rows(...rows: readonly Row[]): Promise<void> {
    return this.send({ batches: [this.batch(rows)] });
  }

  /** Without waiting for an answer. */
  post(...rows: readonly Row[]): void {
    this.client!.send({ sentUnixUs: String(this.collector.clock.nowUs()), batches: [this.batch(rows)] });
  }

  private batch(rows: readonly Row[]): Plain {
    const strings = [''];
    const index = (text = ''): number => (strings.includes(text) ? strings.indexOf(text) : strings.push(text) - 1);
    const base = this.collector.clock.nowUs() + this.skewUs - 1e6;
    const events = {
      rows: rows.length,
      baseUnixUs: String(base),
      endOffsetUs: rows.map(row => 500_000 + Math.round((row.at + row.ms) * 1000)),
      durationUs: rows.map(row => row.ms * 1000),
      keyHi: rows.map(row => String(BigInt(`0x${row.key.slice(0, 16)}`))),
      keyLo: rows.map(row => String(BigInt(`0x${row.key.slice(16)}`))),
      eventId: rows.map(row => String(BigInt(`0x${row.event}`))),
      operation: rows.map(row => index(row.operation)),
      peerService: rows.map(row => index(row.peerService)),
      peerCuid: rows.map(row => index(row.peerCuid)),
      status: rows.map(row => row.status ?? (row.outcome === 'ok' ? 200 : row.outcome === 'refused' ? 424 : 503)),
      responseFlags: rows.map(row => row.responseFlags ?? 0),
      flags: rows.map(row => row.flags | (OUTCOME[row.outcome] << 16) | (2 << 20) | (1 << 24)),
      strings,
    };
    this.seq += 1;
    const batch = {
      producer: String(SERVICES.indexOf(this.name) * 100 + this.instance + 1),
      seq: String(this.seq),
      firstEvent: String(this.events),
      events,
    };
    this.events += rows.length;
    return batch;
  }

  began(key: string, event: string): Promise<void> {
    const [hi, lo] = [key.slice(0, 16), key.slice(16)].map(half => String(BigInt(`0x${half}`)));
    const item = {
      eventId: String(BigInt(`0x${event}`)),
      keyHi: hi,
      keyLo: lo,
      operation: 'POST /checkout',
      flags: ENTRY | (2 << 20),
      ageMs: 20,
    };
    return this.send({ began: [item] });
  }

  kinds(): string[] {
    return this.directives.map(one => String(one['kind']).replace('DIRECTIVE_KIND_', ''));
  }

  take(kind: string): Plain[] {
    return this.directives.filter(one => one['kind'] === `DIRECTIVE_KIND_${kind}`);
  }
}

export class Shop {
  private number = 0;

  private constructor(
    readonly collector: TestCollector,
    readonly sidecars: Readonly<Record<Name, Sidecar>>,
  ) {}

  /** @param sent headers of what its own clients send, sidecars among them */
  static async start(
    args: readonly string[] = [],
    mode = 'ROLLBACK_MODE_ENFORCE',
    sent: Readonly<Record<string, string>> = {},
  ): Promise<Shop> {
    const collector = await start(args, undefined, sent);
    const made = SERVICES.map(async name => [name, await new Sidecar(collector, name, mode).open()] as const);
    return new Shop(collector, Object.fromEntries(await Promise.all(made)) as Record<Name, Sidecar>);
  }

  /** Of sidecars that are open already. */
  static of(collector: TestCollector, sidecars: Readonly<Record<Name, Sidecar>>): Shop {
    return new Shop(collector, sidecars);
  }

  newKey(): string {
    this.number += 1;
    return `a${this.number.toString(16).padStart(31, '0')}`;
  }

  /** The id of one request of a transaction. */
  eventOf(key: string, step: string): string {
    const at = ['entry', ...Object.keys(STEPS), 'other'].indexOf(step) + 1;
    return `${at}${key.slice(-15)}`;
  }

  entry(key: string, outcome: Row['outcome']): Row {
    return {
      flags: ENTRY,
      outcome,
      operation: 'POST /checkout',
      at: 0,
      ms: 100,
      key,
      event: this.eventOf(key, 'entry'),
    };
  }

  call(key: string, step: keyof typeof STEPS, more: Partial<Row> = {}): Row {
    const { callee, operation, at, ms } = STEPS[step];
    const peer = { peerService: hostOf(callee), peerCuid: cuidOf(callee) };
    return { flags: CALL, outcome: 'ok', operation, at, ms, key, event: this.eventOf(key, step), ...peer, ...more };
  }

  event(key: string, step: keyof typeof STEPS, more: Partial<Row> = {}): Row {
    const { operation, at, ms } = STEPS[step];
    return {
      flags: 0,
      outcome: 'ok',
      operation,
      at: at + 1,
      ms: ms - 2,
      key,
      event: this.eventOf(key, step),
      peerCuid: cuidOf('gateway'),
      ...more,
    };
  }

  /** Whole transactions, learned from: `good` of them, then `bad` ones, in which payment fails. */
  async teach(good: number, bad = 0): Promise<void> {
    const rows: Row[] = [];
    for (let n = 0; n < good + bad; n++) {
      const key = this.newKey();
      const fails = n >= good;
      rows.push(this.call(key, 'reserve'), this.call(key, 'charge', fails ? { outcome: 'failed' } : {}));
      rows.push(this.call(key, fails ? 'release' : 'ship'), this.entry(key, fails ? 'failed' : 'ok'));
    }
    await this.sidecars.gateway.rows(...rows);
    this.pass(5);
  }

  /** Time passes for the collector. */
  pass(seconds: number): void {
    for (let ms = 0; ms < seconds * 1000; ms += 250) {
      this.collector.clock.advanceMs(250);
      this.collector.running.tick();
    }
  }

  /** A checkout that runs, whose payment has just failed. */
  async fail(key = this.newKey()): Promise<string> {
    const { gateway } = this.sidecars;
    await gateway.began(key, this.eventOf(key, 'entry'));
    await gateway.rows(this.call(key, 'reserve'), this.call(key, 'charge', { outcome: 'failed' }));
    return key;
  }

  stop(): Promise<void> {
    return this.collector.stop();
  }
}
