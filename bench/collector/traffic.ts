// What the sidecars of a shop report: transactions through five services, each row in the batch of the
// sidecar that saw it. A transaction has nine rows: five events, and four calls at their callers.

import { newColumns, Report, type Columns } from './columns.js';

/** Services in a row; each calls the next one. */
export const HOPS = 5;

/** Rows of a batch, as the filter makes them, and transactions of one block. */
export const ROWS = 200;
const BLOCK = 200;

/** Operations of a service. */
const OPERATIONS = 3;

const CALL = 1;
const ENTRY = 2;
const OK = 1 << 16;
const FAILED = 2 << 16;
const FROM_TRACE = 2 << 20;
const ONE_ATTEMPT = 1 << 24;

/** From one hop's begin to the next, and of the innermost work, us. */
const HOP_US = 500;
const WORK_US = 8000;

export interface Sidecar {
  readonly hello: Readonly<Record<string, unknown>>;
}

export const serviceOf = (hop: number): string => `step${hop}.shop`;
const cuidOf = (fleet: number, hop: number): string =>
  `00000000-0000-4000-8${String(fleet).padStart(3, '0')}-${String(hop + 1).padStart(12, '0')}`;

/** One sidecar a service, which speak with each other only. */
export class Fleet {
  readonly hellos: readonly Readonly<Record<string, unknown>>[];
  private readonly columns: readonly Columns[];
  private readonly reports: readonly Report[];
  private readonly sequences = new Uint32Array(HOPS);
  private serial = 0;

  /** @param failing share of transactions whose last call fails, 0 to 1 */
  constructor(
    private readonly number: number,
    private readonly failing: number,
  ) {
    const hops = [...Array(HOPS).keys()];
    this.hellos = hops.map(hop => this.hello(hop));
    this.columns = hops.map(() => newColumns(ROWS));
    this.reports = hops.map(hop => new Report(ROWS, this.producer(hop), this.strings(hop)));
  }

  /** The reports on the next transactions, in the order in which they come: by hop, and the bytes. */
  *block(): Generator<readonly [hop: number, message: Buffer]> {
    const nowUs = Date.now() * 1000;
    const first = this.serial;
    this.serial += BLOCK;
    for (let from = first; from < this.serial; from += ROWS / 2) {
      for (let hop = 0; hop < HOPS - 1; hop++) {
        for (let i = 0; i < ROWS / 2; i++) {
          this.call(hop, 2 * i, from + i);
          this.event(hop, 2 * i + 1, from + i);
        }
        yield [hop, this.message(hop, nowUs)];
      }
    }
    const last = HOPS - 1;
    for (let i = 0; i < BLOCK; i++) this.event(last, i, first + i);
    yield [last, this.message(last, nowUs)];
  }

  private message(hop: number, nowUs: number): Buffer {
    const seq = ++this.sequences[hop]!;
    return this.reports[hop]!.with(seq, nowUs - 2 * (WORK_US + HOPS * HOP_US), nowUs, this.columns[hop]!);
  }

  private event(hop: number, row: number, serial: number): void {
    const { columns } = this;
    const { operation, peerService, peerCuid, flags } = columns[hop]!;
    this.common(hop, row, serial, 2 * hop, hop);
    operation[row] = 1 + (serial % OPERATIONS);
    peerService[row] = 0;
    peerCuid[row] = hop === 0 ? 0 : TEXT.CALLER;
    flags[row] = (hop === 0 ? ENTRY : 0) | FROM_TRACE | this.outcome(serial);
  }

  private call(hop: number, row: number, serial: number): void {
    const { operation, peerService, peerCuid, flags } = this.columns[hop]!;
    this.common(hop, row, serial, 2 * hop + 1, hop + 1);
    operation[row] = 1 + OPERATIONS + (serial % OPERATIONS);
    peerService[row] = TEXT.CALLEE_HOST;
    peerCuid[row] = TEXT.CALLEE;
    flags[row] = CALL | FROM_TRACE | ONE_ATTEMPT | this.outcome(serial);
  }

  private outcome(serial: number): number {
    return this.fails(serial) ? FAILED : OK;
  }

  private fails(serial: number): boolean {
    return this.failing > 0 && serial % Math.round(1 / this.failing) === 0;
  }

  /** `depth`: of the row in its transaction, from outside; `request`: the hop that the request goes to. */
  private common(hop: number, row: number, serial: number, depth: number, request: number): void {
    const to = this.columns[hop]!;
    const wide = WORK_US + (2 * HOPS - depth) * (HOP_US / 2);
    to.durationUs[row] = wide;
    // Begins `depth` half hops after the transaction and ends as many before its end.
    to.endOffsetUs[row] = WORK_US + HOPS * HOP_US * 2 - depth * (HOP_US / 4) + (serial % 997);
    id(to.keyHi, row, serial, this.number, 1);
    id(to.keyLo, row, serial, this.number, 2);
    id(to.requestHi, row, serial, this.number, 3);
    id(to.requestLo, row, serial, this.number, 4);
    id(to.eventId, row, serial, this.number, 5 + request);
    id(to.spanIn, row, serial, this.number, 20 + depth);
    id(to.spanOut, row, serial, this.number, 21 + depth);
    to.status[row] = this.fails(serial) ? 503 : 200;
    to.waitUs[row] = serial % 8 === 0 ? 35 : 0;
  }

  private strings(hop: number): string[] {
    const operations = (of: number): string[] =>
      ['GET /cart', 'POST /order', 'PUT /item/*'].map(text => `${text}/${of}`);
    return [
      '',
      ...operations(hop),
      ...operations(hop + 1),
      hop === 0 ? '' : cuidOf(this.number, hop - 1),
      `${serviceOf(hop + 1)}.svc.cluster.local:8080`,
      cuidOf(this.number, hop + 1),
    ];
  }

  private producer(hop: number): bigint {
    return BigInt(this.number * HOPS + hop + 1);
  }

  private hello(hop: number): Readonly<Record<string, unknown>> {
    const ip = `10.0.${this.number}.${hop + 1}`;
    return {
      proxyId: `sidecar~${ip}~step${hop}-${this.number}.shop~shop.svc.cluster.local`,
      cluster: 'c1',
      network: 'n1',
      cuid: cuidOf(this.number, hop),
      scope: 'CUID_SCOPE_PROXY',
      service: serviceOf(hop),
      slot: `step${hop}-${this.number}`,
      workload: `step${hop}`,
      node: `node-${this.number}`,
      version: '0.1.0',
      bootEpoch: String(Date.now() * 1000),
      producers: [{ id: String(this.producer(hop)), nextSeq: '1' }],
      ip,
      ports: [8080],
      reportIntervalMs: 1000,
      reportIdleMs: 60_000,
    };
  }
}

/** Positions in `strings` behind '' and the operations of both sides. */
const TEXT = { CALLER: 2 * OPERATIONS + 1, CALLEE_HOST: 2 * OPERATIONS + 2, CALLEE: 2 * OPERATIONS + 3 } as const;

/** A 64-bit id that looks random and is the same for the same numbers. */
function id(column: Uint32Array, row: number, serial: number, fleet: number, salt: number): void {
  const seed = mix(Math.imul(serial, 0x9e3779b1) ^ Math.imul(salt, 0x85ebca6b) ^ fleet);
  column[2 * row] = seed;
  column[2 * row + 1] = mix(seed ^ serial);
}

function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}
