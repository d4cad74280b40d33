// From records back to state, for every store that keeps records: what decides (positions, claims) is
// moved on, and what others own goes to their `Recovery`.

import { decodeBatch } from '../ingest/decode-report.js';
import type { Position } from '../ingest/producers.js';
import type { RollbackEntry } from '../rollback/store-entries.js';
import type { Claims } from './claims.js';
import { encodeJson, parseBatch, parseJson, readFrames, RECORD, type Frame } from './frames.js';
import type { AnnounceRecord, FinishRecord, Positions } from './positions.js';
import type { Recovery, SnapshotSource, StoredBatch, StoredCount, StoredLife } from './store.js';

/** What a store itself knows: whether a batch is new, and whose entry stands. */
export interface Deciders {
  readonly positions: Positions;
  readonly claims: Claims;
}

/** One record of a snapshot. The flow is left out: it comes after the batches that are counted already. */
export function restoreFrame(frame: Frame, { positions, claims }: Deciders, recovery: Recovery): void {
  if (frame.type === RECORD.LIFE) recovery.life(parseJson<StoredLife>(frame));
  else if (frame.type === RECORD.COUNT) recovery.count(parseJson<StoredCount>(frame));
  else if (frame.type === RECORD.TOTALS) recovery.totals(parseJson<unknown>(frame));
  else if (frame.type === RECORD.ROLLBACK) {
    const entry = parseJson<RollbackEntry>(frame);
    claims.take(entry);
    recovery.rollback(entry, true);
  } else if (frame.type === RECORD.SINCE) recovery.countingSince(parseJson<number>(frame));
  else if (frame.type === RECORD.POSITION) positions.restore(...parseJson<[string, Position]>(frame));
}

/** The flow of a snapshot; null = it knew none. */
export function flowOf(frames: readonly Frame[]): unknown {
  const flow = frames.find(frame => frame.type === RECORD.FLOW);
  return flow === undefined ? null : parseJson<unknown>(flow);
}

/** One record of the log. `counted`: the snapshot amounts to it already; only batches are of use still. */
export function replayFrame(frame: Frame, deciders: Deciders, recovery: Recovery, counted: boolean): void {
  const { positions, claims } = deciders;
  if (frame.type === RECORD.BATCH) replayBatch(frame, deciders, recovery, counted);
  else if (counted) return;
  else if (frame.type === RECORD.LIFE) recovery.life(parseJson<StoredLife>(frame));
  else if (frame.type === RECORD.ROLLBACK) {
    const entry = parseJson<RollbackEntry>(frame);
    if (claims.take(entry)) recovery.rollback(entry, false);
  } else if (frame.type === RECORD.ANNOUNCE) {
    const record = parseJson<AnnounceRecord>(frame);
    recovery.loss(record.cuid, positions.announce(record));
  } else if (frame.type === RECORD.FINISH) {
    const record = parseJson<FinishRecord>(frame);
    recovery.loss(record.cuid, positions.finish(record));
  }
}

/** Records that stand together. One that cannot be used must not take those behind it along. */
export function replayBlob(
  blob: Buffer,
  deciders: Deciders,
  recovery: Recovery,
  counted: boolean,
  unreadable: (bytes: Buffer, error?: unknown) => void,
): void {
  const read = readFrames(blob, frame => {
    try {
      replayFrame(frame, deciders, recovery, counted);
    } catch (error) {
      unreadable(frame.payload, error);
    }
  });
  if (read < blob.length) unreadable(blob.subarray(read));
}

function replayBatch(frame: Frame, { positions }: Deciders, recovery: Recovery, counted: boolean): void {
  const { header, batch } = parseBatch(frame);
  const stored: StoredBatch = { ...header, batch: decodeBatch(batch, 'batch') };
  if (!counted) {
    const step = positions.batch(stored);
    recovery.loss(header.cuid, step.loss);
    if (!step.fresh) return;
  }
  recovery.batch(stored, counted);
}

/** A snapshot: what everything so far amounts to. Its last record says that it is whole. */
export function capture(source: SnapshotSource, { positions }: Deciders): Buffer[] {
  const frames: Buffer[] = [];
  for (const life of source.lives()) frames.push(encodeJson(RECORD.LIFE, life));
  for (const count of source.counts()) frames.push(encodeJson(RECORD.COUNT, count));
  frames.push(encodeJson(RECORD.SINCE, source.countingSinceUs()));
  frames.push(encodeJson(RECORD.TOTALS, source.totals()));
  frames.push(encodeJson(RECORD.FLOW, source.flow() ?? null));
  for (const entry of source.rollback()) frames.push(encodeJson(RECORD.ROLLBACK, entry));
  for (const entry of positions.entries()) frames.push(encodeJson(RECORD.POSITION, entry));
  frames.push(encodeJson(RECORD.END, null));
  return frames;
}
