// Verdicts that filters hold: whom they were told to, and until when.

import type { Clock } from '../clock.js';
import type { Life } from '../registry/life.js';
import { clear, doomFor, endOf, servicesOf } from './directives.js';
import { inScope } from './modes.js';
import { TARGETS_MAX, type Proxies } from './proxies.js';
import type { VerdictRecord } from './verdicts.js';
import type { View } from './view.js';

/** Directives whose acknowledgement is waited for, for the latency; and verdicts whose proxies are still counted. */
const TIMED_MAX = 10_000;

interface Active {
  readonly record: VerdictRecord;
  readonly lives: ReadonlySet<Life>;
  readonly untilMs: number;
}

export class Told {
  private readonly active = new Map<string, Active>();
  /** How many proxies each replica has told, by verdict. */
  private readonly counts = new Map<string, Map<string, number>>();
  /** When the failed call of a directive ended, by version. */
  private readonly timed = new Map<string, number>();

  constructor(
    private readonly clock: Clock,
    private readonly proxies: Proxies,
  ) {}

  get size(): number {
    return this.active.size;
  }

  /**
   * Tells the proxies concerned, those that took part first, and notes how many there were.
   *
   * @param view undefined = this replica knows nothing of the transaction
   * @param ttlMs what is left of the record's
   */
  tell(record: VerdictRecord, view: View | undefined, ttlMs: number): number {
    const { proxies } = this;
    const took = new Set((view?.steps ?? []).flatMap(step => [step.callerCuid, step.cuid]));
    const lives = new Set<Life>();
    for (const service of servicesOf(record)) {
      const all = [...proxies.of(service)].filter(life => proxies.isOn(life));
      for (const life of all.sort((a, b) => Number(took.has(b.cuid)) - Number(took.has(a.cuid)))) {
        const version = proxies.version();
        const directive = doomFor(record, service, version, ttlMs);
        if (directive === undefined || lives.size >= TARGETS_MAX) break;
        lives.add(life);
        proxies.send(life, directive);
        this.time(version, view, record);
      }
    }
    const untilMs = this.clock.monotonicMs() + ttlMs;
    this.active.set(record.id, { record, lives, untilMs });
    return lives.size;
  }

  /** A replica has told so many proxies; its word may come when the verdict has ended already. */
  count(record: VerdictRecord, replica: string, proxies: number): void {
    const byReplica = this.counts.get(record.id) ?? new Map<string, number>();
    this.counts.set(record.id, byReplica.set(replica, proxies));
    if (this.counts.size > TIMED_MAX) this.counts.delete(this.counts.keys().next().value!);
    const sum = [...byReplica.values()].reduce((total, one) => total + one, 0);
    record.proxies = Math.max(record.proxies, sum);
  }

  /** In force, as far as this replica has told. */
  *records(): Generator<VerdictRecord> {
    for (const { record } of this.active.values()) yield record;
  }

  /** Ends it. `known`: filters know by themselves, by its TTL. False: it was not in force. */
  end(record: VerdictRecord, known: boolean): boolean {
    const active = this.active.get(record.id);
    if (active === undefined) return false;
    this.active.delete(record.id);
    if (!known) for (const life of active.lives) this.proxies.send(life, endOf(record, this.proxies.version()));
    return true;
  }

  /** Those whose TTL is over. */
  expired(): VerdictRecord[] {
    const nowMs = this.clock.monotonicMs();
    return [...this.active.values()].filter(({ untilMs }) => nowMs >= untilMs).map(({ record }) => record);
  }

  /** Those that have to do with a scope: by kind, failed step, or what they refuse. */
  within(scope: string): VerdictRecord[] {
    const records = [...this.active.values()].map(({ record }) => record);
    return records.filter(({ kind, service, forward }) => {
      const places = [{ kind, service, caller: '' }, ...forward.map(edge => ({ ...edge, kind }))];
      return places.some(place => inScope(scope, place));
    });
  }

  /** Without a word: its filters know its TTL. */
  forget({ id }: VerdictRecord): void {
    this.active.delete(id);
  }

  /** Every filter forgets all it holds; returns how many were told. */
  clearAll(): number {
    const lives = [...this.proxies.all()];
    for (const life of lives) this.clear(life);
    return lives.length;
  }

  clear(life: Life): void {
    this.proxies.send(life, clear(this.proxies.version()));
  }

  /** From the end of the failed call until this directive was in force, s; undefined = not known any more. */
  latency(version: string, inForceUs: number): number | undefined {
    const failedUs = this.timed.get(version);
    return failedUs === undefined ? undefined : Math.max(0, inForceUs - failedUs) / 1e6;
  }

  private time(version: string, view: View | undefined, { eventId, decidedUs }: VerdictRecord): void {
    const failedUs = view?.steps.find(step => step.eventId === eventId && step.call)?.endUs ?? decidedUs;
    this.timed.set(version, failedUs);
    if (this.timed.size > TIMED_MAX) this.timed.delete(this.timed.keys().next().value!);
  }
}
