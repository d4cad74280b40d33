/** Who starts transactions: clients with one request each, and others that use one trace id for several. */
import type { Work } from './work.js';

type Start = (work: Work) => Promise<unknown>;

const once =
  (operation: string): Start =>
  work => {
    // Some clients do not wait for the answer.
    const leaves = work.draws.chance('leaves', 0.01) ? work.draws.between('leaves after', 5, 60) : undefined;
    return work.enter('client', 'gateway', operation, leaves);
  };

/** A job that sends its positions under one trace id, some of them at the same time. */
const batch: Start = async work => {
  const positions = 2 + Math.floor(work.draws.between('positions', 0, 4));
  const waits: Promise<number>[] = [];
  for (let n = 0; n < positions; n++) {
    const position = work.enter(`position ${String(n)}`, 'gateway', 'POST /import');
    waits.push(position);
    if (work.draws.chance(`waits ${String(n)}`, 0.5)) await position;
    else await work.sleep(work.draws.between(`pause ${String(n)}`, 1, 40));
  }
  await Promise.all(waits);
};

/** A script that asks again under the id of its first request, as no client of this kind usually does. */
const again: Start = async work => {
  const first = work.enter('first', 'gateway', 'POST /checkout');
  await work.sleep(work.draws.between('pause', 1, 150));
  await Promise.all([first, work.enter('second', 'gateway', 'POST /checkout')]);
};

/** Share of all transactions, and how one begins. */
export const SCENARIOS: Readonly<Record<string, { readonly share: number; readonly start: Start }>> = {
  checkout: { share: 0.358, start: once('POST /checkout') },
  subscribe: { share: 0.12, start: once('POST /subscribe') },
  booking: { share: 0.24, start: once('POST /booking') },
  page: { share: 0.08, start: once('GET /page') },
  quote: { share: 0.08, start: once('POST /quote') },
  batch: { share: 0.06, start: batch },
  message: { share: 0.06, start: once('POST /order') },
  again: { share: 0.002, start: again },
};

/** @param share  0 to 1 */
export function scenarioOf(share: number): string {
  let sum = 0;
  let last = '';
  for (const [name, scenario] of Object.entries(SCENARIOS)) {
    last = name;
    sum += scenario.share;
    if (share < sum) break;
  }
  return last;
}
