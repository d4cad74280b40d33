// A collector in a process of its own.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Plain } from './ingest-support.js';
import { until } from './rpc-support.js';

const MAIN = fileURLToPath(new URL('../../collector/src/main.js', import.meta.url));

export interface Child {
  readonly process: ChildProcess;
  readonly grpc: string;
  readonly http: string;
  readonly exited: Promise<[number | null, NodeJS.Signals | null]>;
  readonly lines: Plain[];
}

/** Starts one on free ports; who starts it ends it. `env`: beside what we have; `node`: options of Node. */
export async function spawnCollector(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  node: readonly string[] = [],
): Promise<Child> {
  const code = `import { runCollector } from ${JSON.stringify(MAIN)}; process.exit(await runCollector(process.argv.slice(1)));`;
  const all = ['--grpc', '127.0.0.1:0', '--http', '127.0.0.1:0', ...args];
  const child = spawn(process.execPath, [...node, '--input-type=module', '-e', code, '--', ...all], {
    stdio: ['ignore', 'inherit', 'pipe'],
    env: { ...process.env, ...env },
  });
  const lines: Plain[] = [];
  createInterface({ input: child.stderr }).on('line', line =>
    lines.push(line.startsWith('{') ? (JSON.parse(line) as Plain) : { msg: line }),
  );
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  const started = await until('collector started', () => lines.find(line => line['msg'] === 'collector started')).catch(
    (error: unknown) => {
      child.kill('SIGKILL');
      throw error;
    },
  );
  return { process: child, grpc: started['grpc'] as string, http: started['http'] as string, exited, lines };
}

/** CPU time of a process so far, s, and its memory now, MiB. */
export function usageOf(pid: number): { cpuSeconds: number; rssMib: number } {
  // Behind the name in parentheses: user and system time are fields 14 and 15, in ticks of 10 ms.
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const rssKib = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  return { cpuSeconds: (Number(fields[11]) + Number(fields[12])) / 100, rssMib: rssKib / 1024 };
}

export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
