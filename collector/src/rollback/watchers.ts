// Who waits for signals, and how they get them: by stream, and by callback through the own sidecar.

import type { Life } from '../registry/life.js';
import type { Directive } from './directives.js';
import type { Peers } from './peers.js';
import type { Proxies } from './proxies.js';
import { addressedTo, SAME_LIFE_US, type StepRecord } from './signals.js';
import type { VerdictRecord } from './verdicts.js';

/** Watchers at once, at most. */
export const WATCHERS_MAX = 10_000;

/** A callback that was not answered within this time is of no use, ms. */
const CALLBACK_TTL_MS = 30_000;

export interface Delivery {
  readonly record: VerdictRecord;
  readonly step: StepRecord;
  /** Grows with every delivery; where a watcher resumes. */
  readonly sequence: number;
}

export interface Watcher {
  readonly service: string;
  /** '' = watches for all lives of the service. */
  readonly cuid: string;
  deliver(delivery: Delivery): void;
}

export class Watchers {
  private readonly byService = new Map<string, Set<Watcher>>();
  private readonly sequences = new Map<string, number>();
  private sequence = 0;
  private count = 0;

  constructor(
    private readonly proxies: Proxies,
    private readonly findLife: (cuid: string) => Life | undefined,
    private readonly body: (delivery: Delivery) => Buffer,
    private readonly peers: () => Peers,
  ) {}

  get size(): number {
    return this.count;
  }

  add(watcher: Watcher): () => void {
    const all = this.byService.get(watcher.service) ?? new Set();
    this.byService.set(watcher.service, all.add(watcher));
    this.count += 1;
    return () => {
      if (!all.delete(watcher)) return;
      this.count -= 1;
      if (all.size === 0 && this.byService.get(watcher.service) === all) this.byService.delete(watcher.service);
    };
  }

  /** Tells everyone who may be told of a step, here and at other replicas. */
  deliver(record: VerdictRecord, step: StepRecord, nowUs: number): void {
    const delivery = { record, step, sequence: Math.max(this.sequence + 1, nowUs) };
    const target = this.target(step, nowUs);
    this.deliverHere(delivery, target?.cuid ?? '', nowUs);
    this.peers().deliver(delivery, target?.cuid ?? '');
  }

  /** Tells the watchers of this replica, and the sidecar of `target` if it is connected here. */
  deliverHere(delivery: Delivery, target: string, nowUs: number): void {
    const { step, sequence } = delivery;
    this.sequence = Math.max(this.sequence, sequence);
    this.sequences.set(step.signalId, sequence);
    for (const watcher of this.byService.get(step.service) ?? []) {
      if (addressedTo(step, watcher.cuid, nowUs)) watcher.deliver(delivery);
    }
    const life = target === '' ? undefined : this.findLife(target);
    if (life !== undefined && this.proxies.takesCallbacks(life)) this.callBack(delivery, life);
  }

  /** The last delivery of a step that is open; 0 = it was told before this process began. */
  sequenceOf({ signalId }: StepRecord): number {
    return this.sequences.get(signalId) ?? 0;
  }

  forget({ signalId }: StepRecord): void {
    this.sequences.delete(signalId);
  }

  private callBack(delivery: Delivery, target: Life): void {
    const directive: Directive = {
      version: this.proxies.version(),
      ttlMs: CALLBACK_TTL_MS,
      kind: 'DIRECTIVE_KIND_SIGNAL',
      id: delivery.step.signalId,
      body: this.body(delivery),
    };
    this.proxies.send(target, directive);
  }

  /** The life that did it while it lives; after a while any of its service. */
  private target(step: StepRecord, nowUs: number): Life | undefined {
    const own = this.findLife(step.cuid);
    if (own !== undefined && this.proxies.takesCallbacks(own)) return own;
    return (own === undefined ? undefined : this.peers().callbackElsewhere(own.cuid)) ?? this.other(step, nowUs);
  }

  private other(step: StepRecord, nowUs: number): Life | undefined {
    if (step.cuid !== '' && nowUs < (step.signalledUs ?? nowUs) + SAME_LIFE_US) return undefined;
    for (const life of this.proxies.of(step.service)) if (this.proxies.takesCallbacks(life)) return life;
    return this.peers().callbackOfService(step.service);
  }
}
