// What a process has used of the machine, from /proc.
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

/** Envoy names its first worker thread so. */
const WORKER = 'wrk:worker_0';

/** User and system time so far, us. */
export interface Usage {
  process: number;
  worker: number;
}

/** Keeps all threads of a process on one core. */
export function pin(pid: number, core: number): void {
  execFileSync('taskset', ['--all-tasks', '--cpu-list', '--pid', String(core), String(pid)], { stdio: 'ignore' });
}

/**
 * Reads by thread: `schedstat` counts user and system time in ns, where `stat` counts the same in ticks of
 * 10 ms, too coarse for a slice of a second.
 */
export function usage(pid: number): Usage {
  const result: Usage = { process: 0, worker: 0 };
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    const us = Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'latin1').split(' ')[0]) / 1000;
    result.process += us;
    if (readFileSync(`/proc/${pid}/task/${tid}/comm`, 'latin1').trim() === WORKER) result.worker = us;
  }
  return result;
}
