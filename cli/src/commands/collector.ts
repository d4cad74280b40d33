// `meshpulse collector`: runs a collector; its options are its settings.

import type { Command } from 'commander';
import type { Done } from '../main.js';

export function addCollector(program: Command, done: Done): void {
  program
    .command('collector')
    .description('run a collector until it is told to stop; `collector --help` lists its settings')
    .usage('[--NAME VALUE]... [--config FILE.yaml]')
    .argument('[settings...]')
    .allowUnknownOption()
    .passThroughOptions()
    .helpOption(false)
    .action(async (settings: string[]) => {
      // Only here: other commands need none of what a collector is made of.
      const { runCollector } = await import('../../../collector/src/main.js');
      done(await runCollector(settings));
    });
}
