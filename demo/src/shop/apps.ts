// The shop's applications. They know their neighbours by name and hand on trace headers; of meshpulse they
// know nothing, but for three habits any application can have: telling its queue in an ORCA header (payment),
// telling a job's progress to its own sidecar (invoices), and undoing what a signal names (stock).
import { setTimeout as sleep } from 'node:timers/promises';
import { callThrough, type AppRequest, type AppResponse, type Handler } from '../mesh/app.js';
import type { Address } from '../mesh/address.js';
import type { Warehouse } from './warehouse.js';
import type { Waste } from './waste.js';

export const BANK = 'bank.example.com';
/** How long the nightly export takes: longer than a request may stay unseen. */
export const EXPORT_MS = 9000;
const ITEMS_PER_ORDER = 3;
/** Charges that one payment instance works on at once; more wait in its queue. */
const PAYMENT_WORKERS = 1;
const CHARGE_MS = 100;
/** Each step of preparing a parcel. */
const PREPARE_MS = 60;
/** A broken payment service fails fast. */
const FAILURE_MS = 10;

const ok = (body = '{}'): AppResponse => ({ status: 200, body });
const notFound: AppResponse = { status: 404 };

/** Switches that the demo turns while the shop runs. */
export interface Faults {
  paymentBroken: boolean;
}

export function shopApp(waste: Waste): Handler {
  return async request => {
    if (request.method === 'GET' && request.path === '/catalog') return forward(request, 'stock', 'GET', '/items');
    if (request.method === 'POST' && request.path === '/reports/daily') {
      return forward(request, 'stock', 'POST', '/exports');
    }
    if (request.method === 'POST' && request.path.startsWith('/checkout/')) return checkout(request, waste);
    return notFound;
  };
}

async function forward(request: AppRequest, host: string, method: string, path: string): Promise<AppResponse> {
  const { status, body } = await request.call(host, method, path);
  return { status, body };
}

/** Look at each item, reserve; charge while the parcel is prepared; then mail and shipping at the same time. */
async function checkout(request: AppRequest, waste: Waste): Promise<AppResponse> {
  const body = JSON.stringify({ order: request.path.slice('/checkout/'.length) });
  for (let item = 0; item < ITEMS_PER_ORDER; item++) await request.call('stock', 'GET', `/items/${1000 + item}`);
  await request.call('stock', 'POST', '/reserve', { body });
  const [paid] = await Promise.all([charge(request, waste), prepare(request)]);
  if (!paid) {
    await request.call('stock', 'POST', '/release', { body });
    return { status: 503, body: '{"error":"payment failed"}' };
  }
  await Promise.all([request.call('mail', 'POST', '/send'), request.call('stock', 'POST', '/ship', { body })]);
  return ok('{"state":"confirmed"}');
}

async function charge(request: AppRequest, waste: Waste): Promise<boolean> {
  const { status } = await request.call('payment', 'POST', '/charge');
  if (status === 200) waste.succeeds(request);
  else waste.fails(request);
  return status === 200;
}

/** One step after the other. Like most applications this one does not look whether it still makes sense. */
async function prepare(request: AppRequest): Promise<void> {
  for (const [service, path] of PREPARATIONS) {
    const { status } = await request.call(service, 'POST', path);
    if (status !== 200) return;
  }
}

const PREPARATIONS = [
  ['stock', '/pick'],
  ['stock', '/pack'],
  ['mail', '/label'],
  ['stock', '/stage'],
] as const;

/** One instance of payment, with workers and a queue of its own. */
export function paymentApp(faults: Faults, waste: Waste): Handler {
  let working = 0;
  const waiting: (() => void)[] = [];

  const work = async (request: AppRequest): Promise<number> => {
    if (working >= PAYMENT_WORKERS) await new Promise<void>(go => waiting.push(go));
    else working++;
    try {
      await sleep(faults.paymentBroken ? FAILURE_MS : CHARGE_MS);
      if (faults.paymentBroken) return 503;
      return (await request.call(BANK, 'POST', '/authorise')).status;
    } finally {
      // Hand the place on, or give it back.
      const next = waiting.shift();
      if (next) next();
      else working--;
    }
  };

  return async request => {
    if (request.path !== '/charge') return notFound;
    waste.attempt(request);
    const status = await work(request);
    return { status, headers: { 'endpoint-load-metrics': `TEXT named_metrics.queue=${waiting.length}` } };
  };
}

/** Where its sidecar tells it what to undo. */
export const UNDO_PATH = '/rollback/undo';

export function stockApp(warehouse: Warehouse): Handler {
  return async request => {
    if (request.path === UNDO_PATH) {
      warehouse.undo((JSON.parse(request.body) as { data: { event: string } }).data.event);
      return { status: 204 };
    }
    await sleep(stockMs(request.path));
    if (['/reserve', '/release', '/ship'].includes(request.path)) keep(warehouse, request);
    return ok();
  };
}

function stockMs(path: string): number {
  if (path === '/exports') return EXPORT_MS;
  return ['/pick', '/pack', '/stage'].includes(path) ? PREPARE_MS : 2;
}

function keep(warehouse: Warehouse, request: AppRequest): void {
  const { order } = JSON.parse(request.body) as { order: string };
  if (request.path === '/reserve') warehouse.reserve(order, eventOf(request));
  else if (request.path === '/release') warehouse.release(order);
  else warehouse.ship(order);
}

/** The call's id: the same on every attempt, so a repeated one is known. */
function eventOf(request: AppRequest): string {
  return /event="([0-9a-f]{16})"/.exec(String(request.headers['x-mp-progress']))?.[1] ?? '';
}

export function mailApp(): Handler {
  return async request => {
    await sleep(request.path === '/label' ? PREPARE_MS : 8);
    return ok();
  };
}

/** The bank stands outside the mesh. */
export function bankApp(): Handler {
  return async () => {
    await sleep(5);
    return ok();
  };
}

export const PROGRESS_PATH = '/.well-known/meshpulse/progress';

/** A consumer that nobody calls: it takes invoices from a queue and says how far it is. */
export class InvoiceConsumer {
  static readonly JOB = 'invoices';
  static readonly OF = 200;
  private readonly timer: NodeJS.Timeout;
  done = 0;
  /** Reports that its sidecar did not take. */
  refused = 0;

  constructor(private readonly sidecar: Address) {
    this.timer = setInterval(() => void this.step(), 250);
  }

  private async step(): Promise<void> {
    this.done = Math.min(this.done + 1, InvoiceConsumer.OF);
    const left = InvoiceConsumer.OF - this.done;
    const progress = `job="${InvoiceConsumer.JOB}", done=${this.done}, of=${InvoiceConsumer.OF}, queue=${left}, state=sending`;
    try {
      const headers = { 'x-mp-progress': progress };
      const reply = await callThrough(this.sidecar, undefined, 'localhost', 'POST', PROGRESS_PATH, { headers });
      if (reply.status !== 204) this.refused++;
    } catch {
      this.refused++;
    }
  }

  stop(): void {
    clearInterval(this.timer);
  }
}
