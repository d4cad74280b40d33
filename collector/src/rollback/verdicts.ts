// The verdicts that are remembered: found by any id of their transaction, the oldest forgotten first.

import type { Mode } from './modes.js';
import { RETENTION, type Retention } from './retention.js';
import type { StepRecord } from './signals.js';

export type Reason = 'named' | 'learned' | 'triggered';

/** Sums of rows; `work` in us, from learned durations. */
export interface Saved {
  refused: number;
  wouldRefuse: number;
  withheld: number;
  retriesSuppressed: number;
  workUs: number;
  wouldWorkUs: number;
}

export const nothingSaved = (): Saved => ({
  refused: 0,
  wouldRefuse: 0,
  withheld: 0,
  retriesSuppressed: 0,
  workUs: 0,
  wouldWorkUs: 0,
});

export interface ForwardRecord {
  readonly caller: string;
  readonly service: string;
  readonly operation: string;
  readonly destination: string;
  readonly onlyForward: boolean;
  readonly workUs: number;
}

/** JSON-ready: as the store keeps it. */
export interface VerdictRecord {
  readonly id: string;
  /** 32 hex digits. */
  readonly key: string;
  readonly keys: readonly string[];
  readonly requests: readonly string[];
  readonly kind: string;
  readonly reason: Reason;
  readonly service: string;
  readonly operation: string;
  readonly eventId: string;
  readonly mode: Mode;
  readonly heldOut: boolean;
  readonly decidedUs: number;
  readonly evidence: readonly string[];
  readonly forward: readonly ForwardRecord[];
  readonly budgetPpm: number;
  readonly budgetMin: number;
  readonly ttlMs: number;
  readonly operatorReason: string;
  endedUs?: number;
  endReason: string;
  /** How the entry ended; undefined = not known. */
  succeeded?: boolean;
  proxies: number;
  saved: Saved;
  steps: StepRecord[];
  omitted: number;
}

/** Told and not held out: what the transaction did from then on is our doing. */
export const isEnforced = ({ mode, heldOut }: VerdictRecord): boolean => mode === 'enforce' && !heldOut;

/** Bits of the second word of an x-request-id where Envoy packs why it traces. */
export const requestKey = (hex: string): string => `r${hex.slice(0, 12)}0${hex.slice(13)}`;

export class Verdicts {
  /** Oldest first. */
  private readonly byId = new Map<string, VerdictRecord>();
  private readonly byTransaction = new Map<string, VerdictRecord>();
  /** Last words of the names in byTransaction, and how many have each. */
  private readonly words = new Map<number, number>();
  forgotten = 0;

  /** @param onForget told of each that is given up */
  constructor(
    private readonly onForget: (record: VerdictRecord) => void = () => undefined,
    private readonly retention: Pick<Retention, 'signalsUs' | 'verdictsMax'> = RETENTION,
  ) {}

  get size(): number {
    return this.byId.size;
  }

  /** Newest first. */
  *all(): Generator<VerdictRecord> {
    yield* [...this.byId.values()].reverse();
  }

  get(id: string): VerdictRecord | undefined {
    return this.byId.get(id);
  }

  /** @param key, request 32 hex digits */
  of(key: string, request = ''): VerdictRecord | undefined {
    return this.byTransaction.get(key) ?? this.byTransaction.get(requestKey(request));
  }

  /** Whether `of` can find something for an id that ends with this word; a false yes does no harm. */
  mayHave(lastWord: number): boolean {
    return this.words.has(lastWord);
  }

  put(record: VerdictRecord): void {
    this.byId.set(record.id, record);
    for (const name of namesOf(record)) {
      if (!this.byTransaction.has(name)) this.countWord(name, 1);
      this.byTransaction.set(name, record);
    }
    if (this.byId.size > this.retention.verdictsMax) this.drop(this.byId.values().next().value!);
  }

  expire(nowUs: number): void {
    for (const record of this.byId.values()) {
      if (record.decidedUs >= nowUs - this.retention.signalsUs) return;
      this.drop(record);
    }
  }

  private drop(record: VerdictRecord): void {
    this.byId.delete(record.id);
    this.forgotten += 1;
    this.onForget(record);
    for (const name of namesOf(record)) {
      if (this.byTransaction.get(name) !== record) continue;
      this.byTransaction.delete(name);
      this.countWord(name, -1);
    }
  }

  private countWord(name: string, change: 1 | -1): void {
    const word = Number.parseInt(name.slice(-8), 16);
    const count = (this.words.get(word) ?? 0) + change;
    if (count === 0) this.words.delete(word);
    else this.words.set(word, count);
  }
}

/** Names that only one verdict can have. */
export const namesOf = ({ key, keys, requests }: VerdictRecord): Set<string> =>
  new Set([key, ...keys, ...requests.map(requestKey)]);
