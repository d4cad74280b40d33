// Where the project's own files are, whichever folder the compiled code runs from.

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

function findRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'protos', 'meshpulse'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('the protos folder is missing beside the program; install it completely');
    folder = parent;
  }
  return folder;
}

const root = findRoot();

export const PROTOS = join(root, 'protos');

/** Scripts that run in Redis. */
export const LUA = join(root, 'collector', 'src', 'store', 'redis', 'lua');

/** Made by `make build`. */
export const FILTER_WASM = join(root, 'build', 'meshpulse.wasm');

export const VERSION = (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version;
