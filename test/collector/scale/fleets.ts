// Starts fleets, and waits for what they are to come to.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { FleetFigures, FleetPlan } from './fleet.js';
import type { Order } from './fleet-process.js';

const PROCESS = fileURLToPath(new URL('./fleet-process.js', import.meta.url));

export interface RunningFleet {
  figures(): Promise<FleetFigures>;
  /** From now on heartbeats only. */
  noMore(): Promise<FleetFigures>;
  /** Asks until `reached`; returns the figures and after how many ms. */
  until(
    what: string,
    reached: (figures: FleetFigures) => boolean,
    timeoutMs: number,
  ): Promise<{ figures: FleetFigures; tookMs: number }>;
  end(): Promise<void>;
}

const ASK_EVERY_MS = 250;

export function startFleet(plan: FleetPlan): RunningFleet {
  const child = fork(PROCESS, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const gone = once(child, 'exit').then(([code]) => {
    throw new Error(`the process of the fleet ended with ${String(code)}`);
  });
  gone.catch(() => undefined);
  const ask = async (order: Order): Promise<FleetFigures> => {
    const answer = once(child, 'message');
    child.send(order);
    return ((await Promise.race([answer, gone])) as [FleetFigures])[0];
  };
  let turn: Promise<unknown> = ask({ plan });
  // One question at a time: answers carry no name.
  const inTurn = (order: Order): Promise<FleetFigures> => {
    const answer = turn.then(() => ask(order));
    turn = answer;
    return answer;
  };
  return {
    figures: () => inTurn('figures'),
    noMore: () => inTurn('no more'),
    async until(what, reached, timeoutMs) {
      const beganMs = performance.now();
      for (;;) {
        const figures = await inTurn('figures');
        const tookMs = performance.now() - beganMs;
        if (reached(figures)) return { figures, tookMs };
        if (tookMs > timeoutMs) throw new Error(`not within ${timeoutMs} ms: ${what}; ${JSON.stringify(figures)}`);
        await new Promise(resolve => setTimeout(resolve, ASK_EVERY_MS));
      }
    },
    async end() {
      child.kill('SIGKILL');
      await gone.catch(() => undefined);
    },
  };
}
