// Inside a measured process: how long its one thread was kept from everyone else by one piece of work.
//
// A timer that comes late says so in wall time, which on a busy machine is mostly other processes' doing.
// So lateness is counted in CPU time of the thread itself, which the kernel keeps.

import { readFileSync } from 'node:fs';

export interface Figures {
  /** The longest this thread worked between two turns of the timer: CPU, and wall time. */
  readonly stallCpuMs: number;
  readonly stallMs: number;
  readonly rssMib: number;
  readonly heapMib: number;
  /** What every object has: must never change. */
  readonly prototype: string;
  /** Of the whole process since it started. */
  readonly cpuSeconds: number;
}

const EVERY_MS = 5;
const SCHEDSTAT = `/proc/self/task/${process.pid}/schedstat`;

/** CPU time of the main thread so far, ms. */
const threadCpuMs = (): number => Number(readFileSync(SCHEDSTAT, 'utf8').split(' ')[0]) / 1e6;

/** Answers each message of the parent with the figures since the one before. */
export function answerFigures(): void {
  let stallCpuMs = 0;
  let stallMs = 0;
  let cpuMs = threadCpuMs();
  let atMs = performance.now();
  setInterval(() => {
    const nowCpuMs = threadCpuMs();
    const nowMs = performance.now();
    stallCpuMs = Math.max(stallCpuMs, nowCpuMs - cpuMs);
    stallMs = Math.max(stallMs, nowMs - atMs - EVERY_MS);
    [cpuMs, atMs] = [nowCpuMs, nowMs];
  }, EVERY_MS).unref();
  process.on('message', () => {
    const { rss, heapUsed } = process.memoryUsage();
    const { user, system } = process.cpuUsage();
    const figures: Figures = {
      stallCpuMs,
      stallMs,
      rssMib: rss / 2 ** 20,
      heapMib: heapUsed / 2 ** 20,
      prototype: Object.getOwnPropertyNames(Object.prototype).sort().join(' '),
      cpuSeconds: (user + system) / 1e6,
    };
    process.send!(figures);
    [stallCpuMs, stallMs] = [0, 0];
  });
  process.channel?.unref();
}
