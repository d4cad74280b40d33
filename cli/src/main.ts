// The command line: finds the command, runs it, and turns how it went into an exit code.

import { Command, CommanderError } from 'commander';
import { VERSION } from '../../collector/src/paths.js';
import { addCheck } from './commands/check.js';
import { addCollector } from './commands/collector.js';
import { addCompletion } from './commands/completion.js';
import { addDemo } from './commands/demo.js';
import { addFlow } from './commands/flow.js';
import { addObserve } from './commands/observe.js';
import { addRollback } from './commands/rollback.js';
import { addStatus } from './commands/status.js';
import { addVersion } from './commands/version.js';
import { addWho } from './commands/who.js';
import { addWhy } from './commands/why.js';
import { CliError, EXIT } from './errors.js';
import { processIo, type Io } from './io.js';

/** Says how the command ended. */
export type Done = (exitCode: number) => void;

/**
 * Runs one command line.
 *
 * @param args without node and script
 * @returns the exit code: 0 well, 1 a problem found, 2 wrong use, 3 could not ask
 */
export async function run(args: readonly string[], io: Io = processIo()): Promise<number> {
  let exitCode: number = EXIT.OK;
  const program = programOf(io, code => (exitCode = code));
  try {
    await program.parseAsync(args, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.OK : EXIT.USAGE;
    if (!(error instanceof CliError)) throw error;
    io.note(`meshpulse: ${error.message}\n`);
    return error.exitCode;
  }
}

function programOf(io: Io, done: Done): Command {
  const program = new Command('meshpulse')
    .description(
      'Know, for every request in the mesh, which container handled it, how its queue was, and where the time went.',
    )
    .version(VERSION, '-V, --version', 'show the version')
    .enablePositionalOptions()
    .configureOutput({ writeOut: io.out, writeErr: io.note })
    .exitOverride()
    .addHelpText('after', '\nExit codes: 0 well, 1 a problem found, 2 wrong use, 3 could not ask the collector.');
  addDemo(program, io, done);
  addCollector(program, done);
  addStatus(program, io, done);
  addObserve(program, io, done);
  addWho(program, io, done);
  addWhy(program, io, done);
  addFlow(program, io, done);
  addRollback(program, io, done);
  addCheck(program, io, done);
  addCompletion(program, io);
  addVersion(program, io);
  return program;
}
