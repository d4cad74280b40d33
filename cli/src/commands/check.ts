// `meshpulse check FILE`: what a proxy or the mesh would stumble over, without asking either.

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { parseAllDocuments } from 'yaml';
import { FILTER_WASM } from '../../../collector/src/paths.js';
import { filterFaults } from '../check/filter-config.js';
import { findingsIn, type Finding } from '../check/findings.js';
import { EXIT, problem, wrongUse } from '../errors.js';
import type { Io } from '../io.js';
import type { Done } from '../main.js';
import { json, withOutput } from '../read-command.js';

/** Files of one run, and bytes of one of them. */
const FILES_MAX = 10_000;
const BYTES_MAX = 16 * 1024 * 1024;
/** Nodes that the aliases of one document may stand for: a few lines can mean gigabytes. */
const ALIASES_MAX = 10_000;

const SETTINGS = /\.(?:ya?ml|json)$/;
const SKIPPED = new Set(['node_modules', '.git']);

interface Checked {
  readonly file: string;
  readonly configs: number;
  readonly findings: readonly Finding[];
}

export function addCheck(program: Command, io: Io, done: Done): void {
  const command = program
    .command('check')
    .description(
      'settings of the filter in files of YAML or JSON, and what disturbs early rollback; exit code 1 when something is wrong',
    )
    .argument(
      '<path...>',
      'files, or folders to look through: WasmPlugin, EnvoyFilter, Envoy, or a pluginConfig alone',
    );
  withOutput(command).action((paths: string[], { output }: { output: string }) => {
    const module = filterModule();
    const checked = paths.flatMap(path => filesOf(path)).map(file => check(file, module));
    io.out(output === 'json' ? json(checked) : shown(checked, io));
    if (output === 'table') io.note(summary(checked));
    done(count(checked, 'error') > 0 ? EXIT.PROBLEM : EXIT.OK);
  });
}

function filterModule(): WebAssembly.Module {
  try {
    return new WebAssembly.Module(readFileSync(FILTER_WASM));
  } catch (error) {
    throw problem(`${FILTER_WASM}: ${(error as Error).message}; \`make build\` makes the filter, which is asked`);
  }
}

function filesOf(path: string): string[] {
  const files: string[] = [];
  const add = (at: string, named: boolean): void => {
    const stats = statSync(at, { throwIfNoEntry: false });
    if (stats === undefined) throw wrongUse(`<path> is "${at}", which is not there`);
    if (stats.isFile() && (named || SETTINGS.test(at))) files.push(at);
    if (files.length > FILES_MAX) throw wrongUse(`<path> is "${path}", with more than ${FILES_MAX} files of settings`);
    if (!stats.isDirectory()) return;
    for (const { name } of readdirSync(at, { withFileTypes: true }).filter(entry => !entry.isSymbolicLink())) {
      if (!SKIPPED.has(name)) add(join(at, name), false);
    }
  };
  add(path, true);
  return files.sort();
}

function check(file: string, module: WebAssembly.Module): Checked {
  const fault = (text: string): Checked => ({ file, configs: 0, findings: [{ level: 'error', where: '', text }] });
  const { size } = statSync(file);
  if (size > BYTES_MAX) return fault(`${size} bytes, at most ${BYTES_MAX} are read`);
  const documents = [...parseAllDocuments(readFileSync(file, 'utf8'), { logLevel: 'silent' })];
  const broken = documents.flatMap(document => document.errors)[0];
  if (broken !== undefined) return fault(broken.message.split('\n')[0]!);
  let plain: unknown[];
  try {
    plain = documents.map(document => document.toJS({ maxAliasCount: ALIASES_MAX }) as unknown);
  } catch (error) {
    return fault((error as Error).message); // aliases without a target, or too many of them
  }
  const found = plain.map(value => findingsIn(value, file.endsWith('.json'), text => filterFaults(module, text)));
  return {
    file,
    configs: found.reduce((sum, { configs }) => sum + configs, 0),
    findings: found.flatMap(({ findings }) => findings),
  };
}

function shown(checked: readonly Checked[], { colors }: Io): string {
  const word = { error: colors.red('error  '), warning: colors.yellow('warning') };
  const lines = checked
    .filter(({ findings }) => findings.length > 0)
    .flatMap(({ file, findings }) => [
      file,
      ...findings.map(({ level, where, text }) => `  ${word[level]}  ${where === '' ? '' : `${where}: `}${text}`),
    ]);
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`;
}

function summary(checked: readonly Checked[]): string {
  const configs = checked.reduce((sum, one) => sum + one.configs, 0);
  const parts = [
    plural(checked.length, 'file'),
    plural(configs, 'configuration', ' of the filter'),
    plural(count(checked, 'error'), 'error'),
    plural(count(checked, 'warning'), 'warning'),
  ];
  return `${parts.join(', ')}\n`;
}

const plural = (n: number, what: string, more = ''): string => `${n} ${what}${n === 1 ? '' : 's'}${more}`;

const count = (checked: readonly Checked[], level: Finding['level']): number =>
  checked.flatMap(({ findings }) => findings).filter(finding => finding.level === level).length;
