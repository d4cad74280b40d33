// `meshpulse collector`: read the settings, start, serve until told to stop, drain.

import { readFileSync } from 'node:fs';
import { setLogger } from '@grpc/grpc-js';
import { announceStart, startCollector } from './collector.js';
import { readConfig, type Config } from './config.js';
import { ConfigError } from './errors.js';
import { openLog } from './log.js';
import { settingsTable } from './settings.js';

export { startCollector, type CollectorOptions, type RunningCollector } from './collector.js';
export { readConfig } from './config.js';

/** Exit codes of the command line: all went well; to be started again; wrong use. */
const HELP = `meshpulse collector [--NAME VALUE]... [--config FILE.yaml]

Each setting may also be MESHPULSE_NAME in the environment (upper case, _ for -) or \`name: VALUE\` in that file; the command line
comes first, the file last. docs/collector.md says more.

${settingsTable()}
`;

const EXIT_OK = 0;
const EXIT_BEHIND = 1;
const EXIT_USAGE = 2;

/**
 * Runs a collector until SIGTERM or SIGINT.
 *
 * @param args arguments after `collector`
 * @returns the exit code; a second signal ends the process at once with 1
 */
export async function runCollector(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(HELP);
    return EXIT_OK;
  }
  try {
    return await serve(readConfig(args, env, path => readFileSync(path, 'utf8')));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`meshpulse collector: ${error.message}\n`);
    return EXIT_USAGE;
  }
}

async function serve(config: Config): Promise<number> {
  const log = openLog(config.logLevel);
  // What the gRPC library has to say is about connections that come and go, nothing to act on.
  const told = (text: string): void => log.debug({ from: 'grpc' }, text);
  setLogger({ error: told, info: told, debug: told });
  const running = await startCollector({ config, log });
  announceStart(config, running, log);
  const signal = await Promise.race([stopSignal(), running.behind]);
  if (signal instanceof Error) {
    log.error({ err: signal }, 'this replica has to start over; stopping');
    await running.stop();
    return EXIT_BEHIND;
  }
  log.info({ signal, drainMs: config.drainMs }, 'stopping: no longer ready, asking streams to go elsewhere');
  process.once(signal, () => process.exit(1));
  await running.stop();
  log.info('stopped');
  return EXIT_OK;
}

function stopSignal(): Promise<NodeJS.Signals> {
  return new Promise(resolve => {
    const stop = (signal: NodeJS.Signals): void => {
      process.off('SIGTERM', stop);
      process.off('SIGINT', stop);
      resolve(signal);
    };
    process.on('SIGTERM', stop);
    process.on('SIGINT', stop);
  });
}
