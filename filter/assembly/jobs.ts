// What applications say of their jobs: the latest word of each, told once per change.
import { copy, hash } from './bytes';
import { nowMs } from './clock';
import * as batches from './batches';
import * as wire from './core/wire';
import { reporter } from './roots';
import * as shares from './shares';

const PROGRESS_MAX: u32 = 64;
// Jobs: a table of the latest word per job name, told with each interval in which it changed.
const JOB_BYTES: u32 = 176;
const JOBS: usize = memory.data(11264, 16); // PROGRESS_MAX x: hash u64, atMs u64, event u64, done, of, queue u64, has u32, jobSize u32, stateSize u32, dirty u32, job 64, state 32
let jobCount: u32 = 0;
/** The session that was told what is not marked as changed. Words have no acks, so a new session is told again what may have been lost. */
let toldSession: u64 = 0;
/** A word older than that has arrived: it waits at most an interval, and a connection is silent at most half a minute, ms. */
const ARRIVED_MS: u64 = 90000;

export function progress(has: u32, event: u64, job: usize, jobSize: u32, done: u64, total: u64, queue: u64, state: usize, stateSize: u32): void {
  const h = hash(job, jobSize, 11);
  let slot: u32 = PROGRESS_MAX;
  let oldest: u32 = 0;
  for (let i: u32 = 0; i < jobCount; i++) {
    const at = JOBS + i * JOB_BYTES;
    if (load<u64>(at) == h) {
      slot = i;
      break;
    }
    if (load<u64>(at, 8) < load<u64>(JOBS + oldest * JOB_BYTES, 8)) oldest = i;
  }
  if (slot == PROGRESS_MAX) slot = jobCount < PROGRESS_MAX ? jobCount++ : oldest;
  const at = JOBS + slot * JOB_BYTES;
  store<u64>(at, h);
  store<u64>(at, nowMs(), 8);
  store<u64>(at, event, 16);
  store<u64>(at, done, 24);
  store<u64>(at, total, 32);
  store<u64>(at, queue, 40);
  store<u32>(at, has, 48);
  store<u32>(at, jobSize, 52);
  store<u32>(at, stateSize, 56);
  store<u32>(at, 1, 60);
  copy(at + 64, job, jobSize);
  copy(at + 128, state, stateSize);
  shares.hold(shares.H_JOBS, nowMs());
}

/** Passes on what has changed; to a new session, also what was said lately. */
export function tellProgress(): void {
  if (shares.session == 0) return;
  const fresh = shares.session != toldSession;
  let any = false;
  wire.start();
  for (let i: u32 = 0; i < jobCount; i++) {
    const at = JOBS + i * JOB_BYTES;
    const late = fresh && nowMs() - load<u64>(at, 8) < ARRIVED_MS;
    if (!late && load<u32>(at, 60) == 0) continue;
    any = true;
    put(at);
  }
  if (any && !batches.tell()) return;
  toldSession = shares.session;
  shares.own.holds &= ~shares.H_JOBS;
  for (let i: u32 = 0; i < jobCount; i++) store<u32>(JOBS + i * JOB_BYTES, 0, 60);
}

function put(at: usize): void {
  const has = load<u32>(at, 48);
  const mark = wire.open(5);
  if (plainIds() || load<u32>(at, 52) == 0) wire.putBytes(1, at + 64, load<u32>(at, 52));
  else wire.putHashed(1, at + 64, load<u32>(at, 52));
  if (has & 4) wire.always(2, load<u64>(at, 24));
  if (has & 8) wire.always(3, load<u64>(at, 32));
  if (has & 16) wire.always(4, load<u64>(at, 40));
  wire.putBytes(5, at + 128, load<u32>(at, 56));
  wire.putHex(6, load<u64>(at, 16));
  wire.putVarint(7, nowMs() - load<u64>(at, 8));
  wire.close(mark);
}

function plainIds(): bool {
  const root = reporter();
  return root !== null && root.config.plainIds;
}
