// Where each producer is, for a store that decides in memory whether a batch is new.

import {
  advance,
  announce,
  finish,
  NO_LOSS,
  UNKNOWN,
  type Loss,
  type Position,
  type Step,
} from '../ingest/producers.js';
import type { ProducerState } from '../ingest/report.js';
import { hexOfId } from '../ingest/wire.js';
import type { StoredBatch } from './store.js';

/** What a hello said of the producers, as the log keeps it. */
export interface AnnounceRecord {
  readonly cuid: string;
  readonly proxyId: string;
  readonly producers: readonly {
    id: string;
    nextSeq: number;
    dropped: number;
    batched: number;
    acked?: { seq: number; events: number };
  }[];
}

/** Producers that will not come back. */
export interface FinishRecord {
  readonly cuid: string;
  readonly proxyId: string;
  readonly producers: readonly string[];
}

export function announceRecord(cuid: string, proxyId: string, producers: readonly ProducerState[]): AnnounceRecord {
  return {
    cuid,
    proxyId,
    producers: producers.map(({ id, nextSeq, droppedEvents, batchedEvents, acked }) => ({
      id: hexOfId(id),
      nextSeq,
      dropped: droppedEvents,
      batched: batchedEvents,
      ...(acked === undefined ? {} : { acked }),
    })),
  };
}

export class Positions {
  /** Least recently heard first. */
  private readonly positions = new Map<string, Position>();
  evicted = 0;

  /** `max`: producers remembered, at most; those unheard for longest go first. */
  constructor(private readonly max: number) {}

  get size(): number {
    return this.positions.size;
  }

  entries(): Iterable<[string, Position]> {
    return this.positions;
  }

  restore(key: string, position: Position): void {
    this.positions.set(key, position);
  }

  batch({ proxyId, batch }: StoredBatch): Step {
    const { seq, firstEvent, droppedEvents } = batch;
    const head = { seq, firstEvent, droppedEvents, rows: batch.events?.rows ?? 0 };
    return this.move(proxyId, hexOfId(batch.producer), before => advance(before, head));
  }

  announce({ proxyId, producers }: AnnounceRecord): Loss {
    return total(
      producers.map(({ id, nextSeq, dropped, batched, acked }) => {
        const state = { id: BigInt(`0x${id}`), nextSeq, droppedEvents: dropped, batchedEvents: batched };
        const told = acked === undefined ? state : { ...state, acked };
        return this.move(proxyId, id, before => announce(before, told)).loss;
      }),
    );
  }

  finish({ proxyId, producers }: FinishRecord): Loss {
    return total(producers.map(id => this.move(proxyId, id, finish).loss));
  }

  private move(proxyId: string, producer: string, change: (before: Position) => Step): Step {
    const key = `${proxyId} ${producer}`;
    const step = change(this.positions.get(key) ?? UNKNOWN);
    this.positions.delete(key);
    this.positions.set(key, step.position);
    if (this.positions.size > this.max) {
      this.positions.delete(this.positions.keys().next().value!);
      this.evicted += 1;
    }
    return step;
  }
}

function total(losses: readonly Loss[]): Loss {
  return losses.reduce((a, b) => ({ reports: a.reports + b.reports, events: a.events + b.events }), NO_LOSS);
}
