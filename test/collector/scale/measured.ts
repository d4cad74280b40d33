// A collector in a process of its own that can be asked how it fares.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Plain } from '../ingest-support.js';
import type { Child } from '../process-support.js';
import type { Figures } from './stall-meter.js';

const urlOf = (path: string): string => JSON.stringify(fileURLToPath(new URL(path, import.meta.url)));

const CODE = `
import { runCollector } from ${urlOf('../../../collector/src/main.js')};
import { answerFigures } from ${urlOf('./stall-meter.js')};
answerFigures();
process.exit(await runCollector(process.argv.slice(1)));`;

export interface Measured extends Child {
  /** Since they were asked for last. */
  figures(): Promise<Figures>;
  /** Ends it without warning, if it has not ended. */
  kill(): Promise<void>;
}

/** Starts one on free ports, unless `args` say which; who starts it ends it. */
export async function spawnMeasured(args: readonly string[] = [], nodeArgs: readonly string[] = []): Promise<Measured> {
  const ports = ['--grpc', '--http'].filter(flag => !args.includes(flag)).flatMap(flag => [flag, '127.0.0.1:0']);
  const child = spawn(
    process.execPath,
    [...nodeArgs, '--enable-source-maps', '--input-type=module', '-e', CODE, '--', ...ports, ...args],
    { stdio: ['ignore', 'inherit', 'pipe', 'ipc'] },
  ) as ChildProcess & { readonly stderr: NodeJS.ReadableStream };
  const lines: Plain[] = [];
  createInterface({ input: child.stderr }).on('line', line => {
    lines.push(line.startsWith('{') ? (JSON.parse(line) as Plain) : { msg: line });
    if (lines.length > LINES_KEPT) lines.splice(0, LINES_KEPT / 2);
  });
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  const started = await startOf(lines, exited);
  return {
    process: child,
    grpc: started['grpc'] as string,
    http: started['http'] as string,
    exited,
    lines,
    async figures() {
      const answer = once(child, 'message');
      child.send('figures');
      return ((await answer) as [Figures])[0];
    },
    async kill() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
      await exited;
    },
  };
}

/** What was kept of thirty thousand lives takes a while to read on a busy machine. */
const START_MS_MAX = 120_000;

async function startOf(lines: readonly Plain[], exited: Promise<unknown>): Promise<Plain> {
  let over = false;
  void exited.then(() => (over = true));
  for (const endMs = performance.now() + START_MS_MAX; !over && performance.now() < endMs;) {
    const started = lines.find(line => line['msg'] === 'collector started');
    if (started !== undefined) return started;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  throw new Error(`the collector did not start: ${JSON.stringify(lines.slice(-5))}`);
}

/** Lines of the log remembered; thirty thousand lives say much. */
const LINES_KEPT = 1000;
