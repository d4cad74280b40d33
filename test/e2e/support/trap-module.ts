// The filter with a trigger: a request with `x-test-trap` traps the VM that serves it. Built from the same
// sources with the same options as the shipped module.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ROOT } from '../../../demo/src/mesh/envoy.js';

const SOURCES = join(ROOT, 'filter/assembly');
const ENTRY = 'filter/assembly/test-trap.ts';
const OUT = join(ROOT, 'build/meshpulse.trap.wasm');

type Options = Record<string, boolean | number | string | string[]>;

/** Path of the module; compiles it if a source is newer. */
export function trapModule(): string {
  if (!existsSync(OUT) || statSync(OUT).mtimeMs < newestSource()) compile();
  return OUT;
}

function newestSource(): number {
  const files = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' });
  return Math.max(...files.map(file => statSync(join(SOURCES, file)).mtimeMs));
}

function compile(): void {
  const config = JSON.parse(readFileSync(join(ROOT, 'asconfig.json'), 'utf8')) as {
    options: Options;
    targets: { release: Options };
  };
  // The configuration file names the shipped entry; its options go onto the command line instead.
  const options = { ...config.targets.release, ...config.options };
  const flags = Object.entries(options).flatMap(([name, value]) => flag(name, value));
  const asc = join(ROOT, 'node_modules/assemblyscript/bin/asc.js');
  mkdirSync(dirname(OUT), { recursive: true });
  const args = [asc, ENTRY, '--config', 'none', '--outFile', OUT, ...flags];
  execFileSync(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'] });
}

function flag(name: string, value: Options[string] | undefined): string[] {
  if (name === 'outFile' || name === 'textFile' || value === undefined || value === false) return [];
  if (value === true) return [`--${name}`];
  return [`--${name}`, Array.isArray(value) ? value.join(',') : String(value)];
}
