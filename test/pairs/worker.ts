/** A run in a thread of its own: both of a pair at the same time, each with its own wasm instances. */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { run, type Run, type RunOptions } from './run.js';

/** Most objects live as long as one request: a larger nursery saves their copies. */
const NURSERY_MB = 64;

export function runInThread(options: RunOptions): Promise<Run> {
  return new Promise((resolve, reject) => {
    const resourceLimits = { maxYoungGenerationSizeMb: NURSERY_MB };
    const worker = new Worker(new URL(import.meta.url), { workerData: options, resourceLimits });
    worker.once('message', resolve);
    worker.once('error', reject);
    worker.once('exit', code => reject(new Error(`the run ended with ${String(code)} and without a result`)));
  });
}

if (!isMainThread && workerData !== null) parentPort?.postMessage(await run(workerData as RunOptions));
