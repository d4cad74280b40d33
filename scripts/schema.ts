// Makes docs/schema.md: every message and field of the protos with its comment, and what is exported.
//
//     node build/js/scripts/schema.js > docs/schema.md

import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import protobuf from 'protobufjs';
import { EVENT_TYPES } from '../collector/src/export/cloud-events.js';
import { PROTOS } from '../collector/src/paths.js';
import { EXPORT_FIELDS } from './export-fields.js';

const FOLDER = join(PROTOS, 'meshpulse', 'v1');

/** The last words of a name that are a unit. */
const UNITS: readonly (readonly [RegExp, string])[] = [
  [/_unix_us$|_epoch$/, 'us since 1970'],
  [/_us(_|$)/, 'us'],
  [/_ms$/, 'ms'],
  [/_ppm$/, 'millionths'],
  [/_ratio$/, '0 to 1'],
  [/_bytes$/, 'bytes'],
];

/** The whole page. */
export function schemaPage(): string {
  const files = readdirSync(FOLDER)
    .filter(name => name.endsWith('.proto'))
    .sort();
  return [HEAD, EXPORTS, ...files.map(fileSection)].join('\n\n').trimEnd() + '\n';
}

const HEAD = `# Data

What proxies report, what the API answers, and what is exported. Made from \`protos/\` and the exporters by \`make schema\`; a test
compares. In JSON (HTTP API, \`-o json\`, webhooks) names are in lowerCamelCase, 64-bit numbers are text, times are RFC 3339, enums are
names: proto3 JSON. Contracts only ever gain fields.`;

const EXPORTS = `## Exports

Events and calls, one a line in files and one a log record in OTLP (scope \`meshpulse\`, its version that of the collector). What is not
known is left out.

| JSON line | OTLP | type | unit | |
|---|---|---|---|---|
${EXPORT_FIELDS.map(({ line, otlp, type, unit, help }) => `| ${line === '' ? '' : `\`${line}\``} | ${otlp} | ${type} | ${unit} | ${help} |`).join('\n')}

Signals, as CloudEvents 1.0: \`specversion\` is \`1.0\`, \`source\` \`/meshpulse/rollback/VERDICT\`, \`subject\` the transaction key, \`time\` when it
happened, \`datacontenttype\` \`application/json\`. \`id\` follows from what is told: told twice, it is the same.

| type | id | data |
|---|---|---|
${Object.entries(EVENT_TYPES)
  .map(([type, { id, help }]) => `| \`${type}\` | \`${id}\` | ${help} |`)
  .join('\n')}

\`Verdict\`, \`PlanStep\` and \`Plan\` are those [below](#rollbackproto).`;

function fileSection(name: string): string {
  const { root } = protobuf.parse(readFileSync(join(FOLDER, name), 'utf8'), new protobuf.Root(), {
    keepCase: true,
    alternateCommentMode: true,
  });
  const space = root.lookup('meshpulse.v1') as protobuf.Namespace;
  return [`## ${basename(name)}`, ...space.nestedArray.map(section)].join('\n\n');
}

function section(item: protobuf.ReflectionObject): string {
  if (item instanceof protobuf.Service) return serviceSection(item);
  if (item instanceof protobuf.Enum) return enumSection(item);
  if (item instanceof protobuf.Type) return messageSection(item);
  throw new RangeError(`${item.fullName} is of a kind that has no place in the page`);
}

function serviceSection(service: protobuf.Service): string {
  const rows = service.methodsArray.map(method => {
    const request = `${method.requestStream === true ? 'stream ' : ''}${link(method.requestType)}`;
    const answer = `${method.responseStream === true ? 'stream ' : ''}${link(method.responseType)}`;
    return `| \`${method.name}\` | ${request} | ${answer} | ${text(method.comment)} |`;
  });
  return titled('service', service, ['| call | takes | answers | |', '|---|---|---|---|', ...rows]);
}

function enumSection(item: protobuf.Enum): string {
  const rows = Object.entries(item.values).map(
    ([name, value]) => `| \`${name}\` | ${value} | ${text(item.comments[name] ?? null)} |`,
  );
  return titled('enum', item, ['| name | number | |', '|---|---|---|', ...rows]);
}

function messageSection(type: protobuf.Type): string {
  if (type.fieldsArray.length === 0) return titled('message', type, ['No fields.']);
  const rows = type.fieldsArray.map(field => {
    const optional = (field.options as Record<string, unknown> | undefined)?.['proto3_optional'] === true;
    const kind = `${field.repeated ? 'repeated ' : optional ? 'optional ' : ''}${typeName(field)}`;
    const unit = UNITS.find(([pattern]) => pattern.test(field.name))?.[1] ?? '';
    return `| \`${field.name}\` | ${field.id} | ${kind} | ${unit} | ${text(field.comment)} |`;
  });
  return titled('message', type, ['| field | number | type | unit | |', '|---|---|---|---|---|', ...rows]);
}

function titled(word: string, item: protobuf.ReflectionObject, table: readonly string[]): string {
  const comment = text(item.comment);
  return [`### ${word} ${item.name}`, ...(comment === '' ? [] : [comment]), table.join('\n')].join('\n\n');
}

const typeName = (field: protobuf.Field): string =>
  field instanceof protobuf.MapField ? `map of ${field.keyType} to ${link(field.type)}` : link(field.type);

/** Messages and enums have a heading; scalars and well-known types have not. */
const link = (type: string): string => (/^[A-Z]/.test(type) ? `\`${type}\`` : type.replace('google.protobuf.', ''));

/** One line; what a table would take for its own is escaped. */
const text = (comment: string | null): string =>
  (comment ?? '')
    .replace(/\s*\n\s*/g, ' ')
    .replaceAll('|', '\\|')
    .replaceAll('<', '&lt;')
    .trim();

if (process.argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(schemaPage());
