// The proxies that can be told something, and what they are about to be told: directives of one turn of
// the event loop go out as one message.

import type { Life } from '../registry/life.js';
import { PER_MESSAGE_MAX, type Directive } from './directives.js';
import { MODE } from './modes.js';

/** Proxies told of one verdict, at most. */
export const TARGETS_MAX = 256;

/** Directives that wait for a proxy without a stream; the oldest go first. */
const PENDING_MAX = PER_MESSAGE_MAX;

interface Waiting {
  readonly directive: Directive;
  /** When its TTL is over, by the collector's clock. */
  readonly untilUs: number;
}

/** They only take back: however late, they do no harm. */
const LIFTING = new Set(['DIRECTIVE_KIND_END', 'DIRECTIVE_KIND_CLEAR', 'DIRECTIVE_KIND_UP']);

interface Proxy {
  /** As in meshpulse.v1.RollbackMode. */
  readonly mode: number;
  readonly callback: boolean;
}

/** Says something on the stream of a life; false when it has none. */
export type Tell = (life: Life, directives: readonly Directive[]) => boolean;

export class Proxies {
  private readonly proxies = new Map<Life, Proxy>();
  private readonly byService = new Map<string, Set<Life>>();
  private readonly queued = new Map<Life, Directive[]>();
  private readonly pending = new Map<Life, Waiting[]>();
  private lastVersion = 0;
  /** Set once the streams are there. */
  tell: Tell = () => false;
  sent = 0;
  /** Directives that found no room. */
  dropped = 0;

  /** @param nowUs the collector's clock: versions go on growing over a restart */
  constructor(private readonly nowUs: () => number) {}

  /** A proxy said who it is, and how far it goes itself. Older filters do not say: they are told nothing. */
  hello(life: Life, mode: number, callback: boolean): void {
    const waiting = this.pending.get(life);
    this.left(life);
    if (mode === 0) return;
    // Whoever reports by single calls says hello with each of them.
    if (waiting !== undefined) this.pending.set(life, waiting);
    this.proxies.set(life, { mode, callback });
    const lives = this.byService.get(life.service);
    if (lives === undefined) this.byService.set(life.service, new Set([life]));
    else lives.add(life);
  }

  left(life: Life): void {
    this.proxies.delete(life);
    this.pending.delete(life);
    for (const [service, lives] of this.serviceOf(life)) {
      lives.delete(life);
      if (lives.size === 0) this.byService.delete(service);
    }
  }

  has(life: Life): boolean {
    return this.proxies.has(life);
  }

  /** The filter itself is at least in `observe`. */
  isOn(life: Life): boolean {
    return (this.proxies.get(life)?.mode ?? 0) >= MODE.observe;
  }

  takesCallbacks(life: Life): boolean {
    return this.proxies.get(life)?.callback === true;
  }

  of(service: string): Iterable<Life> {
    return this.byService.get(service) ?? [];
  }

  all(): Iterable<Life> {
    return this.proxies.keys();
  }

  get size(): number {
    return this.proxies.size;
  }

  get highestVersion(): number {
    return this.lastVersion;
  }

  /** Another replica has given this one: a proxy that comes from there takes nothing older. */
  raise(version: number): void {
    this.lastVersion = Math.max(this.lastVersion, version);
  }

  /** Decimal; above all that were given before. */
  version(): string {
    this.lastVersion = Math.max(this.lastVersion + 1, this.nowUs());
    return String(this.lastVersion);
  }

  send(life: Life, directive: Directive): void {
    if (this.queued.size === 0) queueMicrotask(() => this.flush());
    const queue = this.queued.get(life);
    if (queue === undefined) this.queued.set(life, [directive]);
    else queue.push(directive);
  }

  /** What waits for a proxy that reports message by message. */
  take(life: Life): readonly Directive[] {
    const waiting = this.pending.get(life) ?? [];
    this.pending.delete(life);
    const nowUs = this.nowUs();
    return waiting.flatMap(({ directive, untilUs }) => {
      if (LIFTING.has(directive.kind)) return [directive];
      const ttlMs = Math.floor((untilUs - nowUs) / 1000);
      return ttlMs > 0 ? [{ ...directive, ttlMs }] : [];
    });
  }

  private flush(): void {
    for (const [life, directives] of this.queued) {
      for (let at = 0; at < directives.length; at += PER_MESSAGE_MAX) {
        const part = directives.slice(at, at + PER_MESSAGE_MAX);
        this.sent += part.length;
        if (this.tell(life, part)) this.pending.delete(life);
        else this.keep(life, part);
      }
    }
    this.queued.clear();
  }

  private keep(life: Life, directives: readonly Directive[]): void {
    if (!this.proxies.has(life)) return;
    const nowUs = this.nowUs();
    const waiting = directives.map(directive => ({ directive, untilUs: nowUs + directive.ttlMs * 1000 }));
    const all = [...(this.pending.get(life) ?? []), ...waiting];
    this.dropped += Math.max(0, all.length - PENDING_MAX);
    this.pending.set(life, all.slice(-PENDING_MAX));
  }

  /** A life can change its service's name with a new hello. */
  private *serviceOf(life: Life): Generator<[string, Set<Life>]> {
    const own = this.byService.get(life.service);
    if (own?.has(life) === true) yield [life.service, own];
    else for (const entry of this.byService) if (entry[1].has(life)) yield entry;
  }
}
