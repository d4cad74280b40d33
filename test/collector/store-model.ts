// Random sequences of operations, given to several stores: all must answer as the model does.
//
// The model knows nothing of holes and positions: of each producer the numbers that came, and for claims
// who was first. Losses are compared between the stores.

import assert from 'node:assert/strict';
import type { RollbackEntry } from '../../collector/src/rollback/store-entries.js';
import type { Store } from '../../collector/src/store/store.js';
import { stored } from './store-contract.js';

/** Operations of one sequence. */
const OPS_MAX = 12;

/** Numbers jump by less than the holes that a store remembers, so that what is late is never forgotten. */
const SEQ_MAX = 14;

type Op =
  | { readonly kind: 'batches'; readonly seqs: readonly number[]; readonly producer: string }
  | { readonly kind: 'announce'; readonly nextSeq: number; readonly dropped: number; readonly producer: string }
  | { readonly kind: 'finish'; readonly producer: string }
  | { readonly kind: 'rollback'; readonly id: string; readonly claims: readonly string[] };

/** Whole numbers from 0 on, below `below`; the same for the same seed. */
export function draws(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return below => {
    // xorshift32
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

function sequence(draw: (below: number) => number): Op[] {
  return Array.from({ length: 1 + draw(OPS_MAX) }, (): Op => {
    const producer = String(1 + draw(2));
    const dice = draw(10);
    if (dice < 6) {
      return { kind: 'batches', producer, seqs: Array.from({ length: 1 + draw(4) }, () => 1 + draw(SEQ_MAX)) };
    }
    if (dice === 6) return { kind: 'announce', producer, nextSeq: 1 + draw(SEQ_MAX), dropped: draw(5) };
    if (dice === 7) return { kind: 'finish', producer };
    return { kind: 'rollback', id: String(draw(3)), claims: Array.from({ length: draw(3) }, () => String(draw(4))) };
  });
}

/** Runs one sequence under a name of its own, so that many may run at once, and returns all answers. */
async function run(store: Store, ops: readonly Op[], name: string): Promise<unknown[]> {
  const answers: unknown[] = [];
  for (const op of ops) {
    if (op.kind === 'batches') {
      const batches = op.seqs.map(seq => ({
        ...stored(seq, [{}], { producer: op.producer, firstEvent: String(seq - 1) }),
        proxyId: name,
      }));
      const told: boolean[] = [];
      const results = await store.putBatches(batches, (_, { fresh }) => told.push(fresh));
      assert.deepEqual(
        told,
        results.map(({ fresh }) => fresh),
      );
      answers.push(results.map(({ fresh, seq, loss }) => [fresh, seq, loss.reports, loss.events]));
    } else if (op.kind === 'announce') {
      const { nextSeq, dropped: droppedEvents } = op;
      const state = { id: BigInt(op.producer), nextSeq, droppedEvents, batchedEvents: nextSeq - 1 };
      answers.push(await store.announce('c', name, [state]));
    } else if (op.kind === 'finish') {
      answers.push(await store.finish('c', name, [op.producer.padStart(16, '0')]));
    } else {
      const entry: RollbackEntry = {
        type: 'kill',
        id: `${name} ${op.id}`,
        value: null,
        claims: op.claims.map(claim => `${name} ${claim}`),
      };
      answers.push((await store.putRollback([entry])).stands);
    }
  }
  return answers;
}

/** What must be so in any store: a number is new at most once, and claims go to the first. */
function check(ops: readonly Op[], answers: readonly unknown[]): void {
  const came = new Set<string>();
  const holders = new Map<string, string>();
  ops.forEach((op, i) => {
    if (op.kind === 'batches') {
      const results = answers[i] as [boolean, number, number, number][];
      op.seqs.forEach((seq, j) => {
        const key = `${op.producer} ${seq}`;
        if (results[j]![0]) assert.ok(!came.has(key), `${key} twice`);
        came.add(key);
      });
    } else if (op.kind === 'rollback') {
      const free = op.claims.every(claim => (holders.get(claim) ?? op.id) === op.id);
      assert.deepEqual(answers[i], [free]);
      if (free) for (const claim of op.claims) holders.set(claim, op.id);
    }
  });
}

/** Sequences that run at once. */
const AT_ONCE = 50;

/** Gives the same random sequences to all stores and compares all that they answer. */
export async function compareStores(stores: readonly Store[], sequences: number, seed: number): Promise<void> {
  for (let from = 0; from < sequences; from += AT_ONCE) {
    const names = Array.from({ length: Math.min(AT_ONCE, sequences - from) }, (_, i) => from + i);
    await Promise.all(
      names.map(async n => {
        const ops = sequence(draws(seed + n * 7919));
        const [first, ...others] = await Promise.all(stores.map(store => run(store, ops, `s${seed}-${n}`)));
        check(ops, first!);
        for (const other of others)
          assert.deepEqual(other, first, `sequence ${n} of seed ${seed}: ${JSON.stringify(ops)}`);
      }),
    );
  }
}
