/** The modules that the suites run: the shipped filter, and small guests compiled on demand. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const BUILD_FILES_UP = 4;

/** The checkout: this file runs from `build/js/test/filter`. */
export const ROOT = path.resolve(fileURLToPath(import.meta.url), ...Array<string>(BUILD_FILES_UP).fill('..'), '..');
/** The release module. `MESHPULSE_WASM` names another one. */
export const FILTER_WASM = process.env['MESHPULSE_WASM'] ?? path.join(ROOT, 'build', 'meshpulse.wasm');

let filterBytes: Buffer | undefined;

/** The same buffer each time, so that it is compiled once. @throws Error that says how to build it */
export function filterModule(): Buffer {
  if (filterBytes !== undefined) return filterBytes;
  if (!existsSync(FILTER_WASM)) throw new Error(`${FILTER_WASM} is missing: run \`make build\` first`);
  filterBytes = readFileSync(FILTER_WASM);
  return filterBytes;
}

/** Compiles `test/filter/assembly/<name>.ts` unless the build is newer than every source beside it. */
export function guestModule(name: string): Buffer {
  const folder = path.join('test', 'filter', 'assembly');
  const source = path.join(folder, `${name}.ts`);
  const target = path.join('build', 'test', `${name}.wasm`);
  const built = path.join(ROOT, target);
  const sources = readdirSync(path.join(ROOT, folder)).map(file => statSync(path.join(ROOT, folder, file)).mtimeMs);
  if (!existsSync(built) || statSync(built).mtimeMs < Math.max(...sources)) {
    mkdirSync(path.dirname(built), { recursive: true });
    const asc = path.join(ROOT, 'node_modules', 'assemblyscript', 'bin', 'asc.js');
    const args = [asc, source, '--config', path.join(folder, 'asconfig.json'), '--outFile', target];
    execFileSync(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
  }
  return readFileSync(built);
}
