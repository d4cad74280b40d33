// `meshpulse version`

import { Option, type Command } from 'commander';
import { VERSION } from '../../../collector/src/paths.js';
import type { Io } from '../io.js';
import { json } from '../read-command.js';

export function addVersion(program: Command, io: Io): void {
  program
    .command('version')
    .description('show the version')
    .addOption(new Option('-o, --output <form>', 'form of the answer').choices(['table', 'json']).default('table'))
    .action(({ output }: { output: string }) => {
      const { node } = process.versions;
      io.out(output === 'json' ? json({ version: VERSION, node }) : `meshpulse ${VERSION} (node ${node})\n`);
    });
}
