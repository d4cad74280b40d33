// The demo's story, in order. Every part ends in a promise that was seen or not.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { breakPayment, compare, type Comparison, type Narrator } from './broken-payment.js';
import { compareEdges, differences, edgesOf, toCounts, traceContextFirst } from './checks.js';
import type { CollectorView, WhoHad } from './collector-view.js';
import { format } from './mesh/address.js';
import { until } from './mesh/child.js';
import type { Collector } from './mesh/collector.js';
import { ROOT } from './mesh/envoy.js';
import { Load, quantile, total, type Result, type Shot } from './mesh/load.js';
import type { PolicyFile } from './policy-file.js';
import { screen, table } from './screen.js';
import { BANK, EXPORT_MS, InvoiceConsumer } from './shop/apps.js';
import { CONSUMER, NAMESPACE, SERVICES, type Shop } from './shop/shop.js';
import { Ticker } from './ticker.js';

const run = promisify(execFile);

const CHECKOUTS_PER_SECOND = 12;
/** Every n-th request looks at the catalogue. */
const CATALOG_EVERY = 3;
/** Long enough for the numbers to show it. */
const RECOVERY_MS = 4000;
/** A request older than this is listed while it runs, at the latest this much later. */
const OLDER_THAN_S = 5;
const LISTED_WITHIN_MS = 7000;
const PROGRESS_WITHIN_MS = 2000;
/** Reports leave every second; twice that is late. */
const COUNTED_WITHIN_MS = 6000;
const LIFE_WITHIN_MS = 6000;
/** The sums; below them comes who changed what. */
const LEDGER_LINES = 8;
const COMMAND_TIMEOUT_MS = 10_000;
const DEFAULT_GRPC = '127.0.0.1:50051';

const name = (service: string) => `${service}.${NAMESPACE}`;
const CHECKOUT = 'POST /checkout/*';
const KIND = `${name('gateway')} ${CHECKOUT}`;

/** The shop's true graph of one checkout, from its source. */
const TRUE_EDGES = [
  `${KIND} -> ${name('shop')} ${CHECKOUT}`,
  ...['GET /items/*', ...['reserve', 'pick', 'pack', 'stage', 'ship', 'release'].map(path => `POST /${path}`)].map(op =>
    called(name('stock'), op),
  ),
  called(name('payment'), 'POST /charge'),
  ...['POST /label', 'POST /send'].map(op => called(name('mail'), op)),
  `${name('payment')} POST /charge -> ${BANK} POST /authorise`,
];

function called(service: string, operation: string): string {
  return `${name('shop')} ${CHECKOUT} -> ${service} ${operation}`;
}

export class Scenario implements Narrator {
  private readonly promises: { text: string; seen: boolean; detail: string }[] = [];
  private readonly ticker: Ticker;
  private failedId = '';
  private load: Load | undefined;
  private report: Load | undefined;
  private reportStarted = 0;
  private comparison: Comparison | undefined;

  constructor(
    private readonly shop: Shop,
    private readonly collector: Collector,
    private readonly view: CollectorView,
    private readonly policy: PolicyFile,
  ) {
    this.ticker = new Ticker(view, SERVICES.map(name));
  }

  /** Tells the story. Resolves with the number of promises that were not seen. */
  async play(): Promise<number> {
    await this.traffic();
    await this.longRequest();
    await this.brokenPayment();
    await this.progress();
    await this.reusedAddress();
    await this.counts();
    this.headerOrder();
    await this.flow();
    return this.summary();
  }

  /** Traffic without end, for people who look around. */
  startTraffic(): void {
    this.load = this.startLoad();
  }

  /** In the middle of the story, too. */
  stop(): void {
    this.ticker.stop();
    this.load?.abandon();
    this.report?.abandon();
  }

  private async traffic(): Promise<void> {
    screen.title('Traffic: checkouts and catalogue views, and one export that takes long');
    this.startTraffic();
    this.reportStarted = Date.now();
    this.report = Load.start({
      targets: [this.shop.mesh.proxy('gateway', 1).inbound],
      host: 'shop.example.com',
      rate: 1,
      count: 1,
      next: () => ({ operation: 'POST /reports/daily', method: 'POST', path: '/reports/daily' }),
    });
    this.ticker.start();
    await sleep(4000);
  }

  private startLoad(): Load {
    return Load.start({
      targets: this.shop.mesh.instances('gateway').map(proxy => proxy.inbound),
      host: 'shop.example.com',
      rate: CHECKOUTS_PER_SECOND * (CATALOG_EVERY / (CATALOG_EVERY - 1)),
      next: n => this.shot(n),
      onResult: result => this.remember(result),
    });
  }

  private shot(n: number): Shot {
    if (n % CATALOG_EVERY === 0) return { operation: 'GET /catalog', method: 'GET', path: '/catalog' };
    return { operation: CHECKOUT, method: 'POST', path: `/checkout/${100_000 + n}` };
  }

  private remember(result: Result): void {
    const id = result.headers['x-request-id'];
    if (result.status === 503 && typeof id === 'string') this.failedId = id;
  }

  private async longRequest(): Promise<void> {
    const kind = `${name('gateway')} POST /reports/daily`;
    const listed = await this.attempt(LISTED_WITHIN_MS, async () => {
      const running = await this.view.runningFor(OLDER_THAN_S);
      return running.some(t => t.kind === kind) ? Date.now() - this.reportStarted : undefined;
    });
    screen.title('The export still runs');
    const shown = await this.command(['observe', '--older-than', `${OLDER_THAN_S}s`]);
    this.promise(
      `a request of ${EXPORT_MS / 1000} s is listed while it runs`,
      shown && listed !== undefined && listed < LISTED_WITHIN_MS,
      listed === undefined ? 'never' : `${(listed / 1000).toFixed(1)} s after its start`,
    );
  }

  private async brokenPayment(): Promise<void> {
    const step = { service: name('payment'), operation: 'POST /charge' };
    this.comparison = await breakPayment(this.shop, this.view, this.policy, step, this);
    const id = this.failedId;
    this.shop.faults.paymentBroken = false;
    screen.title('Payment works again');
    await sleep(RECOVERY_MS);
    const failures = await this.failures('payment');
    const state = await this.attempt(COUNTED_WITHIN_MS, async () => {
      const transaction = await this.view.transaction(id);
      return transaction.state === 'TRANSACTION_STATE_FAILED' ? transaction.state : undefined;
    });
    const shown = (await this.command(['why', id])) && (await this.command(['rollback', 'ledger'], LEDGER_LINES));
    const detail = `${failures} failed requests at payment`;
    this.promise('failures are counted and one is explained', shown && failures > 0 && state !== undefined, detail);
  }

  private async failures(service: string): Promise<number> {
    const counts = toCounts((await this.view.services()).get(name(service))?.operations ?? []);
    let sum = 0;
    for (const statuses of counts.values()) for (const [status, count] of statuses) if (status >= 500) sum += count;
    return sum;
  }

  private async progress(): Promise<void> {
    screen.title('A consumer that nobody calls tells its progress');
    const { consumer } = this.shop;
    const atLeast = consumer?.done ?? 0;
    const asked = Date.now();
    const seen = await this.attempt(2 * PROGRESS_WITHIN_MS, async () => {
      const [instance] = await this.view.instances(name(CONSUMER));
      const job = instance?.progress.find(p => p.job === InvoiceConsumer.JOB);
      return job && Number(job.done) >= atLeast ? Date.now() - asked : undefined;
    });
    const shown = await this.command(['status', name(CONSUMER)]);
    this.promise(
      'progress, queue and state of a job without traffic',
      shown && seen !== undefined && seen <= PROGRESS_WITHIN_MS && consumer?.refused === 0,
      seen === undefined ? 'never' : `${atLeast} of ${InvoiceConsumer.OF} done, known within ${seen} ms`,
    );
  }

  private async reusedAddress(): Promise<void> {
    const proxy = this.shop.mesh.proxy('stock');
    screen.title(`Another container gets the address ${proxy.ip}`);
    const before = Date.now();
    const first = await this.view.whoHad(proxy.ip, before);
    const formerPod = proxy.pod;
    await this.shop.replace(proxy);
    screen.step(`${formerPod} is gone, ${proxy.pod} runs`);
    const second = await this.attempt(LIFE_WITHIN_MS, async () => {
      const now = await this.view.whoHad(proxy.ip);
      return single(now) !== undefined && single(now) !== single(first) ? now : undefined;
    });
    const shownThen = await this.command(['who', proxy.ip, '--at', new Date(before).toISOString()]);
    const shownNow = await this.command(['who', proxy.ip]);
    const [was, is] = [single(first), second && single(second)];
    const detail = was && is ? `${was.slice(0, 8)}, then ${is.slice(0, 8)}` : first.note;
    this.promise('two lives on one address are told apart', shownThen && shownNow && !!was && !!is, detail);
  }

  private async counts(): Promise<void> {
    screen.title('The traffic ends; who counted what?');
    const [load, report] = await Promise.all([this.load?.stop(), this.report?.stop()]);
    if (!load || !report) throw new Error('no traffic was sent');
    this.ticker.stop();
    const sent = new Map([...load.counts, ...report.counts]);
    let differ: string[] = [];
    await this.attempt(COUNTED_WITHIN_MS, async () => {
      differ = differences(sent, toCounts((await this.view.services()).get(name('gateway'))?.operations ?? []));
      return differ.length === 0 ? true : undefined;
    });
    const rows = [...sent].flatMap(([operation, statuses]) =>
      [...statuses].map(([status, count]) => [operation, status, count]),
    );
    screen.note(table(['SENT TO THE GATEWAY', 'STATUS', 'REQUESTS'], rows));
    if (differ.length > 0) screen.note(differ.join('\n'));
    const unanswered = total(load, status => status === 0) + total(report, status => status === 0);
    const p50 = quantile(load.latencies, 0.5).toFixed(0);
    this.promise('the collector counted exactly what was sent', differ.length === 0, `${total(load) + 1} requests`);
    this.promise('no request stayed without an answer', unanswered === 0, `median ${p50} ms`);
    await this.rolledBack(load.counts.get(CHECKOUT)?.get(503) ?? 0);
    const lost = ['meshpulse_reports_lost_total', 'meshpulse_events_lost_total'];
    const losses = await Promise.all(lost.map(metric => this.view.metric(metric)));
    this.promise(
      'nothing was lost',
      losses.every(value => value === 0),
      `${losses[0] ?? 'unknown'} reports, ${losses[1] ?? 'unknown'} events`,
    );
  }

  private headerOrder(): void {
    screen.title('A request as the mail application sees it; its proxies trace with OpenTelemetry');
    const headers = this.shop.seen.get('mail') ?? [];
    screen.note(headers.map(([key, value]) => `${key}: ${value.slice(0, 80)}`).join('\n'));
    const behind = SERVICES.slice(1).filter(service => {
      const names = (this.shop.seen.get(service) ?? []).map(([key]) => key);
      return !traceContextFirst(names);
    });
    const detail = behind.length > 0 ? `not at ${behind.join(', ')}` : 'at every application';
    this.promise('trace context stands directly behind host', behind.length === 0, detail);
  }

  private async flow(): Promise<void> {
    screen.title('What a checkout is, learned from its traffic');
    const shown = await this.command(['flow', KIND]);
    const flow = await this.view.flow(KIND);
    const { missing, surplus } = compareEdges(TRUE_EDGES, flow ? edgesOf(flow) : []);
    for (const edge of missing) screen.note(`missing: ${edge}`);
    for (const edge of surplus) screen.note(`surplus: ${edge}`);
    const right = missing.length === 0 && surplus.length === 0;
    this.promise('the learned flow is the true graph', shown && right, `${TRUE_EDGES.length} calls`);
  }

  private async rolledBack(failed: number): Promise<void> {
    const { open, released } = this.shop.warehouse;
    this.promise(
      'every reservation of a failed checkout was given back',
      open === 0 && released === failed,
      `${released} of ${failed}, ${open} left`,
    );
    const wrong = await this.view.metric('meshpulse_rollback_wrong_verdicts_total');
    this.promise('no verdict was wrong', (wrong ?? 0) === 0, `${wrong ?? 0} wrong`);
  }

  private summary(): number {
    screen.title('Summary');
    if (this.comparison) compare(this.comparison, ['stock', 'mail', 'payment'], this);
    screen.blank();
    for (const { text, seen, detail } of this.promises) screen.verdict(seen, text, detail);
    return this.promises.filter(promise => !promise.seen).length;
  }

  promise(text: string, seen: boolean, detail: string): void {
    this.promises.push({ text, seen, detail });
  }

  /** The value as soon as `probe` has one; undefined if it has none in time. */
  async attempt<T>(ms: number, probe: () => Promise<T | undefined>): Promise<T | undefined> {
    try {
      return await until('answer', ms, probe, 100);
    } catch {
      return undefined;
    }
  }

  /** Runs the real command line and shows it, at most so many lines. False if it fails. */
  private async command(args: string[], linesMax = Infinity): Promise<boolean> {
    const at = format(this.collector.grpc);
    const shown = ['meshpulse', ...args.map(quoted), ...(at === DEFAULT_GRPC ? [] : ['--collector', at])].join(' ');
    try {
      const argv = [join(ROOT, 'bin/meshpulse'), ...args, '--collector', at];
      const { stdout } = await run(process.execPath, argv, { timeout: COMMAND_TIMEOUT_MS });
      screen.command(shown, firstLines(stdout, linesMax));
      return true;
    } catch (error) {
      screen.command(shown, error instanceof Error ? error.message : String(error));
      return false;
    }
  }
}

/** The one life that had the address; undefined if there was none, or not only one. */
function single(answer: WhoHad): string | undefined {
  const lives = new Set(answer.intervals.map(interval => interval.cuid));
  return lives.size === 1 && !answer.ambiguous && !answer.unknown ? [...lives][0] : undefined;
}

function firstLines(text: string, max: number): string {
  const lines = text.trimEnd().split('\n');
  return lines.length <= max ? text : [...lines.slice(0, max), `… ${lines.length - max} more lines`].join('\n');
}

function quoted(arg: string): string {
  return /^[\w.:/-]+$/.test(arg) ? arg : `'${arg}'`;
}
