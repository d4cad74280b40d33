// What a failure costs: work that is still done for a request that cannot succeed any more. Counted at the
// applications, by one clock, and without a look at what any proxy says.
import type { AppRequest, AppResponse } from '../mesh/app.js';

/** What gives back and what tells to give back: never in vain. */
const COMPENSATIONS = new Set(['/release', '/rollback/undo']);

/** All counts are per failed request of a phase. */
export interface WasteReport {
  failed: number;
  /** Requests that arrived at a service after the failure. */
  inVain: Map<string, number>;
  /** Attempts behind the first at the service that fails. */
  retries: number;
  /** Time from the failure until the last work for that request ended, ms, ascending. */
  lastWorkMs: number[];
}

interface Failure {
  atMs: number;
  lastEndMs: number;
  phase: Phase;
}

interface Phase {
  failed: number;
  inVain: Map<string, number>;
  retries: number;
  failures: Failure[];
}

const newPhase = (): Phase => ({ failed: 0, inVain: new Map(), retries: 0, failures: [] });

/** Failed requests whose late work is waited for; the oldest go first. */
const FAILURES_MAX = 10_000;

export class Waste {
  private phase = newPhase();
  private readonly failures = new Map<string, Failure>();
  private readonly attempts = new Map<string, number>();

  /** From now on failures belong to another phase. Late work belongs to that of its failure. */
  begin(): () => WasteReport {
    const phase = newPhase();
    this.phase = phase;
    return () => ({
      failed: phase.failed,
      inVain: phase.inVain,
      retries: phase.retries,
      lastWorkMs: phase.failures.map(({ atMs, lastEndMs }) => lastEndMs - atMs).sort((a, b) => a - b),
    });
  }

  /** The caller has got the failed answer: what it goes on with is in vain. */
  fails(request: AppRequest): void {
    const id = idOf(request);
    const atMs = performance.now();
    const failure = { atMs, lastEndMs: atMs, phase: this.phase };
    this.failures.set(id, failure);
    this.phase.failures.push(failure);
    this.phase.failed++;
    this.phase.retries += Math.max(0, (this.attempts.get(id) ?? 0) - 1);
    this.attempts.delete(id);
    if (this.failures.size > FAILURES_MAX) this.failures.delete(this.failures.keys().next().value ?? '');
  }

  /** One attempt at the service that may fail. */
  attempt(request: AppRequest): void {
    const id = idOf(request);
    this.attempts.set(id, (this.attempts.get(id) ?? 0) + 1);
  }

  succeeds(request: AppRequest): void {
    this.attempts.delete(idOf(request));
  }

  /** Runs a handler and takes note when it works in vain. */
  async watch(
    service: string,
    request: AppRequest,
    handle: () => Promise<AppResponse> | AppResponse,
  ): Promise<AppResponse> {
    const id = idOf(request);
    const compensates = COMPENSATIONS.has(request.path);
    const before = this.failures.get(id);
    if (before && !compensates) before.phase.inVain.set(service, (before.phase.inVain.get(service) ?? 0) + 1);
    const answer = await handle();
    const failure = this.failures.get(id);
    if (failure && !compensates) failure.lastEndMs = performance.now();
    return answer;
  }
}

function idOf(request: AppRequest): string {
  return String(request.headers['x-request-id']);
}
