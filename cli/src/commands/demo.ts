// `meshpulse demo`: the sample shop on real Envoys.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { couldNotAsk, EXIT } from '../errors.js';
import type { Io } from '../io.js';
import type { Done } from '../main.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export function addDemo(program: Command, io: Io, done: Done): void {
  program
    .command('demo')
    .description('start a shop on real Envoys and show what can be known of it (about 50 s)')
    .option('--keep', 'stay up afterwards')
    .addHelpText('after', '\nSTORE=redis REPLICAS=2 in the environment: two collectors on a Redis of their own.')
    .action(async (options: { keep?: boolean }) => {
      const main = fileURLToPath(new URL('../../../demo/src/main.js', import.meta.url));
      if (!existsSync(main)) throw couldNotAsk('the demo is not built; run `make demo` in the checkout');
      done(await play(main, options.keep === true, io));
    });
}

/** Runs the demo as a child that gets our signals, and answers with its exit code. */
function play(main: string, keep: boolean, io: Io): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [main, ...(keep ? ['--keep'] : [])], { stdio: 'inherit' });
    // From a terminal the child has the signal already; it may come twice.
    const pass = (signal: NodeJS.Signals): void => void child.kill(signal);
    for (const signal of SIGNALS) process.on(signal, pass);
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      for (const one of SIGNALS) process.off(one, pass);
      if (signal !== null) io.note(`meshpulse: the demo was ended by ${signal}\n`);
      resolve(code ?? (signal === null ? EXIT.PROBLEM : 128 + constants.signals[signal]));
    });
  });
}
